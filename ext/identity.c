#include "identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/sqlite.h"

static const int64_t epoch_2025_ms = INT64_C(1735689600000);

/* How one width of ids is put together. */
struct layout {
    int tick_ms_log2;
    int slot_bits;
    int counter_bits;
    _Atomic int64_t last; /* tick and counter of the newest id */
};

static struct layout layout_63 = { 0, 14, 8, 0 };
static struct layout layout_53 = { 3, 10, 5, 0 };

/* 0 = not drawn yet, else slot + 1. */
static atomic_uint process_slot;

static bool fill_random(void *p, size_t n, struct mm_err *err)
{
    for (;;) {
        ssize_t got = getrandom(p, n, 0);
        if (got == (ssize_t)n) {
            return true;
        }
        if (got < 0 && errno != EINTR) {
            mm_err_set(err, SQLITE_IOERR, "the system gives no random bytes: %s", strerror(errno));
            return false;
        }
    }
}

int64_t mm_identity_random(struct mm_err *err)
{
    uint64_t v = 0;
    while (v == 0) {
        if (!fill_random(&v, sizeof v, err)) {
            return 0;
        }
        v &= INT64_MAX;
    }
    return (int64_t)v;
}

char *mm_identity_file(const char *path, struct mm_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "cannot look at %.200s: %s", path, strerror(errno));
        return NULL;
    }
    size_t cap = strlen(path) + 48;
    char *text = malloc(cap);
    if (text == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    (void)snprintf(text, cap, "%" PRIuMAX ":%" PRIuMAX ":%s", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, path);
    return text;
}

const char *mm_identity_path(const char *identity)
{
    const char *p = strchr(identity, ':');
    p = p != NULL ? strchr(p + 1, ':') : NULL;
    return p != NULL ? p + 1 : identity;
}

static unsigned slot(struct mm_err *err)
{
    unsigned have = atomic_load(&process_slot);
    if (have == 0) {
        uint16_t drawn = 0;
        if (!fill_random(&drawn, sizeof drawn, err)) {
            return 0;
        }
        unsigned fresh = (drawn & 0x3fffU) + 1;
        have = atomic_compare_exchange_strong(&process_slot, &have, fresh) ? fresh : have;
    }
    return have - 1;
}

int64_t mm_identity_next(int bits, struct mm_err *err)
{
    struct layout *l = bits == 53 ? &layout_53 : &layout_63;
    int64_t ms = mm_clock_wall_ms() - epoch_2025_ms;
    if (ms < 0) {
        mm_err_set(err, SQLITE_ERROR, "the system clock is before 2025: set it, ids count from there");
        return 0;
    }
    int64_t mine = (int64_t)slot(err) & ((INT64_C(1) << l->slot_bits) - 1);
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    int64_t now = (ms >> l->tick_ms_log2) << l->counter_bits;
    int64_t last = atomic_load(&l->last);
    int64_t next;
    do {
        next = now > last ? now : last + 1;
    } while (!atomic_compare_exchange_weak(&l->last, &last, next));
    int64_t tick = next >> l->counter_bits;
    int64_t counter = next & ((INT64_C(1) << l->counter_bits) - 1);
    return (tick << (l->slot_bits + l->counter_bits)) | (mine << l->counter_bits) | counter;
}

void mm_identity_after_fork(void)
{
    atomic_store(&process_slot, 0);
}
