/* What capture costs the application: single-row autocommit INSERTs and one
** bulk transaction, into the same table, plain or as a node.
**
**   capture DATABASE SINGLES BULK                          plain SQLite
**   capture DATABASE SINGLES BULK v0.8                     with triggers like those of Marmot v0.8
**   capture DATABASE SINGLES BULK EXTENSION CONFIG         as a node
**   capture DATABASE SINGLES BULK EXTENSION CONFIG sync    and waits for its echoes
**
** Prints one line: us per autocommit INSERT, CPU us of the application's thread
** for it, us per row of the bulk transaction, CPU us for it, and with sync the
** rows per second from the first bulk row to the last echo. */
#include <string.h>

#include "bench.h"

static const char schema[] = "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT NOT NULL,"
                             " publication_year INTEGER)";

/* What Marmot v0.8 has on a table, in our own words: each row change is two
** rows in two logs and an entry in an index, and the trigger asks each time
** whether its own program wrote, by a count over the list of functions. */
static const char v08[] = "CREATE TABLE all_changes(id INTEGER PRIMARY KEY AUTOINCREMENT, entry INTEGER, origin TEXT);"
                          "CREATE TABLE Books_changes(id INTEGER PRIMARY KEY AUTOINCREMENT, of_id INTEGER,"
                          " of_title TEXT, of_author TEXT, of_publication_year INTEGER, what TEXT, at INTEGER,"
                          " state INTEGER);"
                          "CREATE INDEX Books_changes_by_state ON Books_changes(state);"
                          "CREATE TRIGGER Books_inserted AFTER INSERT ON Books"
                          " WHEN (SELECT count(*) FROM pragma_function_list WHERE name = 'marmot_version') < 1 BEGIN"
                          " INSERT INTO Books_changes(of_id, of_title, of_author, of_publication_year, what, at, state)"
                          " VALUES (NEW.id, NEW.title, NEW.author, NEW.publication_year, 'insert',"
                          " CAST(strftime('%s', 'now') || substr(strftime('%f', 'now'), 4) AS INT), 0);"
                          " INSERT INTO all_changes(entry, origin) VALUES (last_insert_rowid(), 'Books'); END";

static void insert(sqlite3 *db, sqlite3_stmt *st, int year)
{
    (void)sqlite3_bind_text(st, 1, "The Hitchhiker's Guide to the Galaxy", -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(st, 2, "Douglas Adams", -1, SQLITE_STATIC);
    (void)sqlite3_bind_int(st, 3, year);
    must(sqlite3_step(st) == SQLITE_DONE, "INSERT", sqlite3_errmsg(db));
    (void)sqlite3_reset(st);
}

int main(int argc, char **argv)
{
    must(argc >= 4 && argc <= 7, "usage", "capture DATABASE SINGLES BULK [v0.8 | EXTENSION CONFIG [sync]]");
    int singles = atoi(argv[2]);
    int bulk = atoi(argv[3]);
    must(singles > 0 && bulk > 0, "usage", "SINGLES and BULK are numbers above 0");
    int sync = argc == 7;
    sqlite3 *db = open_database(argv[1], schema);
    if (argc == 5) {
        must(strcmp(argv[4], "v0.8") == 0, "usage", "v0.8, or EXTENSION and CONFIG");
        run_sql(db, v08);
    } else if (argc > 5) {
        become_node(db, argv[4], argv[5]);
    }
    if (sync) {
        must(sync_node(db, "SELECT marmot_sync(30000)"), "marmot_sync", "the node is not live within 30 s");
    }
    sqlite3_stmt *st = prepare(db, "INSERT INTO Books(title, author, publication_year) VALUES (?1, ?2, ?3)");

    int64_t wall = clock_us(CLOCK_MONOTONIC);
    int64_t cpu = clock_us(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < singles; i++) {
        insert(db, st, i);
    }
    double single_us = (double)(clock_us(CLOCK_MONOTONIC) - wall) / singles;
    double single_cpu = (double)(clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu) / singles;
    if (sync) {
        must(sync_node(db, "SELECT marmot_sync(60000)"), "marmot_sync", "not echoed within 60 s");
    }

    wall = clock_us(CLOCK_MONOTONIC);
    cpu = clock_us(CLOCK_THREAD_CPUTIME_ID);
    run_sql(db, "BEGIN IMMEDIATE");
    for (int i = 0; i < bulk; i++) {
        insert(db, st, i);
    }
    run_sql(db, "COMMIT");
    double bulk_us = (double)(clock_us(CLOCK_MONOTONIC) - wall) / bulk;
    double bulk_cpu = (double)(clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu) / bulk;
    double echoed = 0;
    if (sync) {
        must(sync_node(db, "SELECT marmot_sync(120000)"), "marmot_sync", "not echoed within 120 s");
        echoed = bulk * 1e6 / (double)(clock_us(CLOCK_MONOTONIC) - wall);
    }
    (void)sqlite3_finalize(st);
    must(sqlite3_close(db) == SQLITE_OK, "close", sqlite3_errmsg(db));
    (void)printf("%.3f %.3f %.4f %.4f %.0f\n", single_us, single_cpu, bulk_us, bulk_cpu, echoed);
    return 0;
}
