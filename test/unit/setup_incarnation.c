/* Whose numbers a file goes on with: its own as long as it is the same file; new ones
** where it was copied, moved, or put in another's place, so that no two files give the
** same number to two transactions. marmot-test: parallel */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "setup.h"
#include "store/outbox.h"
#include "test/lib/sqlite_api.h"

static int failures;
static char dir[] = "/tmp/setup.XXXXXX";

static void check(const char *name, bool good, const char *why)
{
    printf(good ? "ok %s\n" : "not ok %s: %s\n", name, why);
    failures += !good;
}

struct who {
    int64_t node, incarnation;
};

/* As marmot_init does; `again`: with what is stored. */
static struct who set_up(const char *name, bool again, struct mm_err *err)
{
    char path[128];
    struct who w = { 0, 0 };
    sqlite3 *db = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    if (sqlite3_open(path, &db) != SQLITE_OK) {
        mm_err_set(err, SQLITE_CANTOPEN, "%s", path);
    }
    struct mm_config *c = again ? NULL : mm_config_parse("{\"capture\":\"trigger\"}", err);
    c = err->rc == SQLITE_OK ? mm_setup_database(db, path, c, err) : c;
    if (c != NULL) {
        w = (struct who){ c->node_id, mm_head_incarnation(db, err) };
    }
    mm_config_free(c);
    sqlite3_close(db); /* which empties the WAL */
    return w;
}

static bool shell(const char *fmt, const char *from, const char *to)
{
    char a[128];
    char b[128];
    char line[400];
    (void)snprintf(a, sizeof a, "%s/%s", dir, from);
    (void)snprintf(b, sizeof b, "%s/%s", dir, to);
    (void)snprintf(line, sizeof line, fmt, a, b);
    return system(line) == 0;
}

int main(void)
{
    struct mm_err err;
    mm_err_init(&err);
    test_sqlite_start();
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    struct who first = set_up("a", false, &err);
    struct who again = set_up("a", true, &err);
    check("a file goes on with its numbers",
          err.rc == SQLITE_OK && first.node > 0 && first.incarnation != 0 && again.node == first.node &&
              again.incarnation == first.incarnation,
          err.msg);
    bool copied = shell("cp %s %s", "a", "b");
    struct who copy = set_up("b", false, &err);
    check("a copy is the same node with other numbers",
          copied && err.rc == SQLITE_OK && copy.node == first.node && copy.incarnation != 0 &&
              copy.incarnation != first.incarnation,
          err.msg);
    again = set_up("b", true, &err);
    check("and goes on with those", again.incarnation == copy.incarnation, err.msg);
    again = set_up("a", true, &err);
    check("as the original does with its own", again.incarnation == first.incarnation, err.msg);
    bool over = shell("mv %s %s", "a", "b");
    struct who moved = set_up("b", false, &err);
    check("a file that takes another's place has others",
          over && err.rc == SQLITE_OK && moved.incarnation != 0 && moved.incarnation != first.incarnation &&
              moved.incarnation != copy.incarnation,
          err.msg);
    (void)shell("rm -f %s* %s*", "a", "b");
    (void)rmdir(dir);
    return failures > 0;
}
