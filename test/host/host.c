/* A host program in C: an application that links SQLite and loads the library.
**
**     host DATABASE EXTENSION
**
** Reads one SQL text a line and prints its rows, columns parted by |; an error
** is a line that begins with "Error: ". `.print WORDS` prints the words (the
** reader's mark that an answer is complete), `.other SQL` runs SQL on a second
** connection that loads nothing, `.quit` closes all and ends, `.exit` ends by
** exit() with all open. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static int print_row(void *arg, int n, char **values, char **names)
{
    (void)arg;
    (void)names;
    for (int k = 0; k < n; k++) {
        printf("%s%s", k > 0 ? "|" : "", values[k] != NULL ? values[k] : "");
    }
    puts("");
    return 0;
}

static int fail(sqlite3 *db, const char *what)
{
    printf("Error: %s: %s\n", what, db != NULL ? sqlite3_errmsg(db) : "out of memory");
    (void)sqlite3_close(db);
    return 1;
}

static sqlite3 *open_file(const char *path)
{
    sqlite3 *db = NULL;
    if (sqlite3_open(path, &db) != SQLITE_OK) {
        fail(db, "open");
        exit(1);
    }
    (void)sqlite3_busy_timeout(db, 5000);
    return db;
}

static void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(db, sql, print_row, NULL, &message) != SQLITE_OK) {
        printf("Error: %s\n", message != NULL ? message : sqlite3_errmsg(db));
        sqlite3_free(message);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: host DATABASE EXTENSION\n", stderr);
        return 2;
    }
    sqlite3 *db = open_file(argv[1]);
    sqlite3 *other = NULL;
    if (sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int *)0) != SQLITE_OK) {
        return fail(db, "enable");
    }
    char *message = NULL;
    if (sqlite3_load_extension(db, argv[2], NULL, &message) != SQLITE_OK) {
        printf("Error: load: %s\n", message != NULL ? message : "");
        sqlite3_free(message);
        (void)sqlite3_close(db);
        return 1;
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t len = 0;
    while ((len = getline(&line, &room, stdin)) > 0) {
        if (line[len - 1] == '\n') {
            line[len - 1] = '\0';
        }
        if (strncmp(line, ".print ", 7) == 0) {
            puts(line + 7);
        } else if (strcmp(line, ".quit") == 0) {
            break;
        } else if (strcmp(line, ".exit") == 0) {
            exit(0);
        } else if (strncmp(line, ".other ", 7) == 0) {
            other = other != NULL ? other : open_file(argv[1]);
            run(other, line + 7);
        } else {
            run(db, line);
        }
        (void)fflush(stdout);
    }
    free(line);
    int closed = sqlite3_close(other) == SQLITE_OK;
    return sqlite3_close(db) == SQLITE_OK && closed ? 0 : 1;
}
