/* What guards ask before they note a row: does the hook capture it? They ask
** through a function that every SQLite has; here it is ours. */
#include <stdlib.h>
#include <string.h>

#include "capture/hook_int.h"
#include "capture/trigger.h"
#include "store/log.h"

enum { DB_NAME_SINCE = 3039000 };

/* The same file under another name: its rows never reach the hook as rows of
** main, and while they are written main cannot be joined. */
static bool attached_twice(struct mm_hook *h)
{
    const char *file = sqlite3_db_filename(h->db, "main");
    if (file == NULL || sqlite3_libversion_number() < DB_NAME_SINCE) {
        return true; /* not to be found out cheaply: the guard notes the row */
    }
    for (int k = 2; sqlite3_db_name(h->db, k) != NULL; k++) {
        const char *other = sqlite3_db_filename(h->db, sqlite3_db_name(h->db, k));
        if (other != NULL && strcmp(other, file) == 0) {
            return true;
        }
    }
    return false;
}

/* An attached file of another node that is being written: its guards ask here, too. */
static bool other_node_written(struct mm_hook *h)
{
    for (int k = 2; sqlite3_libversion_number() >= DB_NAME_SINCE && sqlite3_db_name(h->db, k) != NULL; k++) {
        const char *name = sqlite3_db_name(h->db, k);
        if (sqlite3_txn_state(h->db, name) == SQLITE_TXN_WRITE &&
            sqlite3_table_column_metadata(h->db, name, "__marmot__head", NULL, NULL, NULL, NULL, NULL, NULL) ==
                SQLITE_OK) {
            return true;
        }
    }
    return false;
}

/* Whether the row that the guard of this number asks for is one of main. The hook tells of no other's. */
static bool of_main(struct mm_hook *h, long long number, struct mm_err *err)
{
    if (sqlite3_txn_state(h->db, "main") != SQLITE_TXN_WRITE) {
        return false;
    }
    if (!other_node_written(h)) {
        return true;
    }
    char *table = mm_trigger_table(h->db, number, err); /* two files seldom give the same numbers */
    bool found = table != NULL;
    sqlite3_free(table);
    return found;
}

/* True when it was none of ours: answered as plain SQLite does, or said to be here. */
static bool plain(sqlite3_context *ctx, sqlite3_value *v)
{
    const char *option = (const char *)sqlite3_value_text(v);
    if (option == NULL) {
        if (sqlite3_value_type(v) != SQLITE_NULL) {
            sqlite3_result_error_nomem(ctx);
        }
        return true;
    }
    bool here = strcmp(option, MM_LOG_HERE) == 0;
    if (here || strncmp(option, MM_TRIGGER_WORD, strlen(MM_TRIGGER_WORD)) != 0) {
        sqlite3_result_int(ctx, here || sqlite3_compileoption_used(option));
        return true;
    }
    return false;
}

/* A join that is denied leaves the row to the guard; any other failure is the
** statement's own. */
static void answer(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    struct mm_hook *h = sqlite3_user_data(ctx);
    if (plain(ctx, argv[0])) {
        return;
    }
    const char *option = (const char *)sqlite3_value_text(argv[0]);
    struct mm_err err;
    mm_err_init(&err);
    long long number = atoll(option + strlen(MM_TRIGGER_WORD));
    bool ours = h->on && of_main(h, number, &err);
    bool captured = ours && (h->entered || (!attached_twice(h) && mm_hook_try_join(h, &err)));
    if (!captured && (err.rc & 0xff) == SQLITE_AUTH) {
        mm_err_init(&err);
    }
    sqlite3_free(h->left_to_guard);
    h->left_to_guard = captured || !ours ? NULL : mm_trigger_table(h->db, number, &err);
    if (!captured && err.rc != SQLITE_OK && (err.rc & 0xff) != SQLITE_AUTH) {
        sqlite3_result_error(ctx, err.msg, -1);
        sqlite3_result_error_code(ctx, err.rc);
        return;
    }
    sqlite3_result_int(ctx, captured);
}

static void gone(void *arg)
{
    mm_hook_release(arg);
}

/* In UTF-16, so that it takes the place of the built-in one also while
** statements run, SELECT load_extension() for one. */
int mm_hook_guard(struct mm_hook *h)
{
    h->refs++;
    return sqlite3_create_function_v2(h->db, "sqlite_compileoption_used", 1, SQLITE_UTF16 | SQLITE_INNOCUOUS, h, answer,
                                      NULL, NULL, gone);
}

static void answer_unhooked(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    if (!plain(ctx, argv[0])) {
        sqlite3_result_int(ctx, 0);
    }
}

/* In the other UTF-16, so that it never stands in the hook's way. */
void mm_guard_here(sqlite3 *db)
{
    (void)sqlite3_create_function_v2(db, "sqlite_compileoption_used", 1, SQLITE_UTF16BE | SQLITE_INNOCUOUS, NULL,
                                     answer_unhooked, NULL, NULL, NULL);
}
