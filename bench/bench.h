/* What the measuring programs share: clocks, and SQL that ends the program
** when it fails. */
#ifndef BENCH_H
#define BENCH_H

#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline int64_t clock_us(clockid_t id)
{
    struct timespec t;
    (void)clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline void must(int good, const char *doing, const char *why)
{
    if (!good) {
        (void)fprintf(stderr, "%s: %s\n", doing, why);
        exit(1);
    }
}

static inline void run_sql(sqlite3 *db, const char *sql)
{
    must(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, sql, sqlite3_errmsg(db));
}

static inline sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = NULL;
    must(sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK, sql, sqlite3_errmsg(db));
    return st;
}

/* A WAL database with synchronous=normal and the schema, if it is new. */
static inline sqlite3 *open_database(const char *path, const char *schema)
{
    sqlite3 *db = NULL;
    must(sqlite3_open(path, &db) == SQLITE_OK, "open", path);
    must(sqlite3_busy_timeout(db, 5000) == SQLITE_OK, "busy_timeout", path);
    run_sql(db, "PRAGMA journal_mode = wal; PRAGMA synchronous = normal;");
    run_sql(db, schema);
    return db;
}

/* Loads the extension and makes the database a node that watches all tables. */
static inline void become_node(sqlite3 *db, const char *extension, const char *config)
{
    char *why = NULL;
    must(sqlite3_enable_load_extension(db, 1) == SQLITE_OK, "enable_load_extension", sqlite3_errmsg(db));
    must(sqlite3_load_extension(db, extension, NULL, &why) == SQLITE_OK, "load_extension", why ? why : extension);
    sqlite3_stmt *st = prepare(db, "SELECT marmot_init(?1)");
    must(sqlite3_bind_text(st, 1, config, -1, SQLITE_STATIC) == SQLITE_OK, "bind", sqlite3_errmsg(db));
    must(sqlite3_step(st) == SQLITE_ROW, "marmot_init", sqlite3_errmsg(db));
    (void)sqlite3_finalize(st);
    run_sql(db, "SELECT marmot_watch_all()");
}

static inline int sync_node(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = prepare(db, sql);
    must(sqlite3_step(st) == SQLITE_ROW, sql, sqlite3_errmsg(db));
    int done = sqlite3_column_int(st, 0);
    (void)sqlite3_finalize(st);
    return done;
}

#endif
