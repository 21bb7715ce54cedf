/* Whole files as zstd frames of 8 MiB with their checksums, one after the other
** (`zstd -d` reads them as one), and back: memory stays at some 35 MiB.
**
** Threads: the caller's, and a second one that packs beside it. Files are read and written from their beginning by
** their offset. */
#ifndef MM_WIRE_FILE_H
#define MM_WIRE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct mm_wire_file {
    int64_t raw;        /* bytes before packing */
    int64_t packed;     /* bytes of the frames */
    uint8_t sha256[32]; /* of all of them */
    /* Called after each piece with the raw bytes done so far; false ends it
    ** with SQLITE_INTERRUPT. NULL: nobody watches. */
    bool (*go_on)(void *arg, int64_t done);
    void *arg;
};

/* Fills in raw, packed and sha256. SQLITE_FULL, SQLITE_IOERR, SQLITE_NOMEM. */
int mm_wire_file_pack(int from, int to, struct mm_wire_file *f, struct mm_err *err);

/* Checks against what `f` names while it unpacks: SQLITE_CORRUPT where a byte,
** the length or the checksum differs; never writes more than f->raw bytes. */
int mm_wire_file_unpack(int from, int to, struct mm_wire_file *f, struct mm_err *err);

#endif
