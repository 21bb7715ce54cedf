/* Protocol-buffer fields, written straight into a buffer: no tree in between.
** And what the files of this folder share; nothing else includes this header.
**
** The bytes are those that protobuf-c packs (tests prove it): fields in the
** order of their numbers, defaults left out, the shortest varints. */
#ifndef MM_WIRE_PUT_H
#define MM_WIRE_PUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "store/change.h"

struct Marmot__V1__Transaction;

/* Wire types of the protobuf encoding. */
enum { MM_PUT_VARINT = 0, MM_PUT_FIXED64 = 1, MM_PUT_BYTES = 2 };

/* First byte of a value in Table.type, beyond SQLite's own five. */
enum { MM_TYPE_TEXT_HASH = 6, MM_TYPE_BLOB_HASH = 7, MM_HASH_SIZE = 32 };

/* Table.op: enum mm_op, and the UPDATE of a row without identity. */
enum { MM_OP_UPDATE_WHOLE = 5 };

enum { MM_PUT_VARINT_MAX = 10 };
size_t mm_put_varint_bytes(uint8_t out[MM_PUT_VARINT_MAX], uint64_t v); /* how many of them */
void mm_put_varint(struct mm_buf *b, uint64_t v);
void mm_put_tag(struct mm_buf *b, unsigned field, unsigned wire_type);

/* Nothing is written for 0 and for no bytes. */
void mm_put_uint(struct mm_buf *b, unsigned field, uint64_t v);
void mm_put_sint(struct mm_buf *b, unsigned field, int64_t v);
void mm_put_fixed(struct mm_buf *b, unsigned field, uint64_t v);
void mm_put_bytes(struct mm_buf *b, unsigned field, const void *p, size_t n);
/* One of a repeated field: also when empty. */
void mm_put_item(struct mm_buf *b, unsigned field, const void *p, size_t n);

/* Room for n bytes that the caller writes at b->data + the result; nothing for 0. */
size_t mm_put_room(struct mm_buf *b, unsigned field, size_t n);

void mm_put_raw64(struct mm_buf *b, uint64_t v); /* 8 bytes, little-endian */
uint64_t mm_put_zigzag(int64_t v);

/* A message inside the message: all that is added between the two is its
** content. Returns a mark for the end. */
size_t mm_put_begin(struct mm_buf *b, unsigned field);
void mm_put_end(struct mm_buf *b, size_t mark);

/* count elements from the arena, zeroed; NULL with err set: SQLITE_TOOBIG when
** the arena's maximum is met (the same on every node), SQLITE_NOMEM when this
** machine has no more. */
void *mm_pack_alloc(struct mm_arena *a, size_t count, size_t size, struct mm_err *err);

/* The content of a Transaction (txn_encode.c), and back (txn_decode.c). */
int mm_txn_put(struct mm_buf *out, const struct mm_txn *txn, bool all_columns, struct mm_err *err);
int mm_txn_read(struct mm_txn *txn, const struct Marmot__V1__Transaction *t, struct mm_arena *arena,
                struct mm_err *err);

/* Replaces the bytes from `at` on by one zstd frame when that pays. */
bool mm_pack_deflate(struct mm_buf *b, size_t at, struct mm_err *err);
bool mm_pack_is_frame(const void *data, size_t len);
/* Returns the content of the one frame (caller frees with free()), NULL with
** err set. Takes no more memory than the frame declares, `max` at most. */
void *mm_pack_inflate(const void *data, size_t len, size_t max, size_t *out_len, struct mm_err *err);

#endif
