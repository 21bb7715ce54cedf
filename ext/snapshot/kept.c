#include "snapshot/kept.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "repl/open.h"
#include "store/inbox.h"

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
    mm_gate_enter();
    sqlite3 *db = mm_repl_connect(path, vfs, 0, err);
    if (db != NULL) {
        mm_work_step(work, "keeping a copy of the file", 0);
        struct mm_inbox_end end = { 0 };
        mm_work_watch(work, db);
        mm_inbox_find_end(db, &end, err);
        *upto = end.next - 1;
        mm_db_exec(db, err, "VACUUM INTO %Q", name);
    }
    sqlite3_close(db);
    mm_gate_leave();
    if (err->rc != SQLITE_OK) {
        free(name);
        return NULL;
    }
    return name;
}
