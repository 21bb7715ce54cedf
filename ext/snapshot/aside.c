#include "snapshot/aside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/sqlite.h"

int mm_aside_open(const char *copy, int flags, struct mm_err *err)
{
    int fd = open(copy, flags | O_CLOEXEC, 0600);
    if (fd < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "the file %s cannot be opened for a snapshot: %s", copy, strerror(errno));
    }
    return fd;
}

int mm_aside_unnamed(const char *copy, struct mm_err *err)
{
    char *name = mm_buf_text("%s.zst", copy);
    int fd = name != NULL ? open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (fd < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "a file beside the database cannot be made for a snapshot: %s",
                   strerror(errno));
    } else {
        (void)unlink(name);
    }
    free(name);
    return fd;
}

void mm_aside_close(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

void mm_aside_remove(const char *copy)
{
    static const char *const suffix[] = { "", "-journal", "-wal", "-shm", "-recoded" };
    for (size_t k = 0; k < sizeof suffix / sizeof *suffix; k++) {
        char *name = mm_buf_text("%s%s", copy, suffix[k]);
        if (name != NULL) {
            (void)unlink(name);
        }
        free(name);
    }
}
