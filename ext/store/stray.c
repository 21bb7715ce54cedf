#include "store/stray.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/db.h"
#include "store/meta.h"
#include "store/outbox.h"

enum {
    TRIES = 3,          /* to see database and counter at one moment */
    RESTARTS = 1 << 16, /* of one write-ahead log: its first salt counts them, and begins anywhere */
    TICK_MS = 20,       /* a file's time stamp does not tell apart what is closer together */
    NOTE_MAX = 256,
};

int64_t mm_stray_count(sqlite3 *db, struct mm_err *err)
{
    return mm_meta_int(db, MM_META_STRAYS, 0, err);
}

int64_t mm_stray_total(sqlite3 *db, struct mm_err *err)
{
    return mm_meta_int(db, MM_META_STRAYS_EVER, 0, err);
}

int mm_stray_mended(sqlite3 *db, int64_t n, struct mm_err *err)
{
    int64_t left = mm_stray_count(db, err) - n;
    if (left > 0) {
        return mm_meta_set_int(db, MM_META_STRAYS, left, err);
    }
    mm_meta_set_text(db, MM_META_STOPPED, NULL, err);
    return mm_meta_set_text(db, MM_META_STRAYS, NULL, err);
}

static void add(sqlite3 *db, int64_t n, struct mm_err *err)
{
    if (n > 0) {
        mm_meta_set_int(db, MM_META_STRAYS, n + mm_stray_count(db, err), err);
        mm_meta_set_int(db, MM_META_STRAYS_EVER, n + mm_stray_total(db, err), err);
    }
}

int mm_stray_stopped(sqlite3 *db, struct mm_err *err)
{
    add(db, 1, err);
    return mm_meta_set_int(db, MM_META_STOPPED, 1, err);
}

bool mm_stray_were_stopped(sqlite3 *db, struct mm_err *err)
{
    return mm_meta_int(db, MM_META_STOPPED, 0, err) != 0;
}

int mm_stray_commit(sqlite3 *db, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    if (mm_head_capturing(db, err) != MM_CAPTURING) {
        mm_inbox_stamp_next(db, &end, err);
    }
    return mm_db_exec(db, err, "COMMIT");
}

int mm_stray_end(sqlite3 *db, struct mm_err *err)
{
    mm_stray_commit(db, err);
    if (!sqlite3_get_autocommit(db)) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return err->rc;
}

/* What the database file looks like, and the stamp that this belongs to. */
static int describe(char *out, size_t n, const struct mm_stamp *s, const struct stat *st)
{
    return snprintf(out, n, "%u %u %u %u %u %lld %lld %lld\n", s->count, s->change, s->frames, s->salt[0], s->salt[1],
                    (long long)st->st_mtim.tv_sec, (long long)st->st_mtim.tv_nsec, (long long)st->st_size);
}

static char *note_name(sqlite3 *db)
{
    const char *path = sqlite3_db_filename(db, "main");
    return path != NULL ? sqlite3_mprintf("%s" MM_STRAY_SUFFIX, path) : NULL;
}

static bool as_left(sqlite3 *db, const struct mm_stamp *s)
{
    struct stat st;
    char is[NOTE_MAX];
    char was[NOTE_MAX] = { 0 };
    char *name = note_name(db);
    int fd = name != NULL ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    sqlite3_free(name);
    if (fd < 0) {
        return false;
    }
    ssize_t got = read(fd, was, sizeof was - 1);
    (void)close(fd);
    return stat(sqlite3_db_filename(db, "main"), &st) == 0 && describe(is, sizeof is, s, &st) == got &&
           strcmp(is, was) == 0;
}

/* Commits without a stamp, whoever had the database open since the last one that
** has one. Inside a write transaction that is not stamped yet. */
static int64_t unstamped(sqlite3 *db, const struct mm_stamp *s, const uint8_t *seal)
{
    struct mm_wal_head h;
    bool found = false;
    int64_t before = (int32_t)(s->change + 1 - s->count);
    if (!mm_wal_head(db, &h)) {
        return before + 1;
    }
    uint32_t restarts = h.salt[0] - s->salt[0];
    bool first = s->salt[0] == 0 && s->salt[1] == 0; /* of a log that it made: its salts are not known */
    if (first && h.frames > 0) {
        int n = mm_wal_commits(db, &h, 0, seal, MM_INBOX_SEAL, &found);
        return before + (n > 0 && found ? n - 1 : 1);
    }
    if (!first && restarts == 0 && h.salt[1] == s->salt[1]) { /* the log that it began in: itself, and what follows */
        int n = mm_wal_commits(db, &h, s->frames, NULL, 0, NULL);
        return before + (n > 0 ? n - 1 : 1);
    }
    if (!first && restarts > 0 && restarts < RESTARTS && (int32_t)(h.change - s->count) >= 0) {
        return (int32_t)(h.change - s->count); /* somebody has had the database open all the time */
    }
    if (h.frames == 0) {
        return before + !as_left(db, s);
    }
    /* It may have begun the log anew itself. */
    return before + !(restarts == 1 && mm_wal_commits(db, &h, 0, seal, MM_INBOX_SEAL, &found) == 1 && found);
}

/* As if nobody else had ever written: this transaction's own stamp. */
static void start_over(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err)
{
    struct mm_wal_head h;
    if (!mm_wal_head(db, &h)) {
        mm_err_set(err, SQLITE_ERROR,
                   "the shared memory of this database cannot be read, so capture = 'hook' and publish = false cannot "
                   "tell of other writers: use another VFS, or capture = 'auto'");
        return;
    }
    struct mm_stamp s = { h.change + 1, h.change, h.frames, { h.salt[0], h.salt[1] } };
    mm_inbox_set_stamp(db, end, &s, err);
}

int mm_stray_begin(sqlite3 *db, bool keep, bool kept, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    struct mm_wal_head h;
    struct mm_stamp s;
    uint8_t seal[MM_INBOX_SEAL];
    bool there = mm_inbox_stamp(db, &end, &s, seal, err);
    if (there && keep && kept && mm_wal_head(db, &h) && h.change == s.change && h.frames == s.frames &&
        h.salt[0] == s.salt[0] && h.salt[1] == s.salt[1]) {
        return err->rc; /* this transaction has its stamp */
    }
    if (keep && kept && err->rc == SQLITE_OK) {
        add(db, there ? unstamped(db, &s, seal) : 1, err);
    }
    if (keep) {
        start_over(db, &end, err);
    } else if (there) {
        mm_inbox_set_stamp(db, &end, NULL, err);
    }
    return err->rc;
}

bool mm_stray_due(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err)
{
    struct mm_wal_head before;
    struct mm_wal_head after;
    struct mm_stamp s;
    for (int k = 0; k < TRIES && mm_wal_head(db, &before); k++) {
        bool there = mm_inbox_stamp(db, end, &s, NULL, err);
        if (mm_wal_head(db, &after) && mm_wal_head_same(&before, &after)) {
            return there && s.count != before.change && err->rc == SQLITE_OK;
        }
    }
    return false; /* others commit all the time: another look will find such a moment */
}

int mm_stray_record(sqlite3 *db, int64_t *n, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    struct mm_wal_head h;
    struct mm_stamp s;
    *n = 0;
    if (mm_inbox_stamp(db, &end, &s, NULL, err) && mm_wal_head(db, &h)) {
        /* Once this transaction is stamped its own commit is counted already. */
        int32_t more = (int32_t)(h.change - (s.change == h.change ? s.count - 1 : s.count));
        *n = more > 0 ? more : more < 0;
        add(db, *n, err);
        start_over(db, &end, err);
    }
    return err->rc;
}

static void leave_note(sqlite3 *db, const char *text, int len)
{
    char *name = note_name(db);
    int fd = name != NULL ? open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640) : -1;
    if (fd >= 0 && write(fd, text, (size_t)len) != len) {
        (void)unlink(name);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    sqlite3_free(name);
}

void mm_stray_leave(sqlite3 *db)
{
    struct mm_err err;
    struct mm_inbox_end end = { 0 };
    struct mm_stamp s;
    struct mm_wal_head before;
    struct mm_wal_head after;
    struct stat st;
    struct timespec now;
    char note[NOTE_MAX];
    int frames = -1;
    int done = -1;
    const char *path = sqlite3_db_filename(db, "main");
    mm_err_init(&err);
    if (!mm_wal_head(db, &before) || !mm_inbox_stamp(db, &end, &s, NULL, &err) || s.count != before.change ||
        sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, &frames, &done) != SQLITE_OK ||
        frames != done) {
        return;
    }
    /* What comes later must have another time stamp than what is here. */
    for (int k = 0; k < TRIES; k++) {
        const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };
        if (stat(path, &st) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0) {
            return;
        }
        if ((now.tv_sec - st.st_mtim.tv_sec) * 1000 + (now.tv_nsec - st.st_mtim.tv_nsec) / 1000000 > TICK_MS) {
            int len = describe(note, sizeof note, &s, &st);
            if (mm_wal_head(db, &after) && mm_wal_head_same(&before, &after)) {
                leave_note(db, note, len);
            }
            return;
        }
        (void)nanosleep(&tick, NULL);
    }
}
