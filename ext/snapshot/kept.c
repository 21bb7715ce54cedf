#include "snapshot/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "repl/open.h"
#include "store/inbox.h"

/* SQLite writes into it only if it is empty. Nobody reads it who may not read the file itself. */
static bool make_empty(const char *path, const char *name, struct mm_err *err)
{
    struct stat st;
    if (err->rc != SQLITE_OK) {
        return false;
    }
    int fd = stat(path, &st) == 0 ? open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || fchmod(fd, st.st_mode & 0777) != 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "the file %.100s cannot be made for a copy of the database: %s", name,
                   strerror(errno));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0;
}

char *mm_kept_make(const char *path, const char *vfs, struct mm_work *work, int64_t *upto, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    char *name = mm_buf_text("%s-before-join-%lld", path, (long long)mm_clock_wall_ms());
    if (name == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    bool made = false;
    mm_gate_enter();
    sqlite3 *db = mm_repl_connect(path, vfs, 0, err);
    if (db != NULL) {
        mm_work_step(work, "keeping a copy of the file", 0);
        struct mm_inbox_end end = { 0 };
        mm_work_watch(work, db);
        mm_inbox_find_end(db, &end, err);
        *upto = end.next - 1;
        made = make_empty(path, name, err);
        mm_db_exec(db, err, "VACUUM INTO %Q", name);
    }
    sqlite3_close(db);
    mm_gate_leave();
    if (err->rc != SQLITE_OK) {
        if (made) { /* half of it, when the disk is full for one; never another one of that name */
            (void)unlink(name);
        }
        free(name);
        return NULL;
    }
    return name;
}
