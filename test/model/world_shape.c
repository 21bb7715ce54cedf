/* Columns that the tables get while all goes on, at each node in its own time. What such a
** column holds in rows that were there before, or come from nodes without it, is its default. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "test/model/world_int.h"

/* Another connection may have changed the schema: what follows looks at it as it is. */
static void look(sqlite3 *db)
{
    (void)sqlite3_exec(db, "SELECT 1 FROM main.sqlite_schema LIMIT 1", NULL, NULL, NULL);
}

static bool has_column(sqlite3 *db, const struct naive_def *d, int column)
{
    return sqlite3_table_column_metadata(db, "main", d->name, d->col[column], NULL, NULL, NULL, NULL, NULL) ==
           SQLITE_OK;
}

static bool has_table(sqlite3 *db, const char *name)
{
    return sqlite3_table_column_metadata(db, "main", name, NULL, NULL, NULL, NULL, NULL, NULL) == SQLITE_OK;
}

static bool add_column(struct world *w, struct world_node *n, int table, int which)
{
    const struct naive_def *d = &world_tables[table];
    struct mm_err err;
    mm_err_init(&err);
    if (d->younger == 0 || !has_table(n->app, d->name) || has_column(n->app, d, d->younger + which)) {
        return false;
    }
    w->shapes = w->again = w->jumped = n->bring.altered = w->grown[table][which] = true;
    mm_db_exec(n->app, &err, "ALTER TABLE main.\"%w\" ADD COLUMN %s", d->name, world_younger[which]);
    if (err.rc != SQLITE_OK && !fault_came()) {
        world_fail(w, "node %lld: table %s gets a column: %s", (long long)n->id, d->name, err.msg);
    }
    return true;
}

void world_alter(struct world *w, struct world_node *n, uint64_t seed)
{
    int which = (int)(world_random(&seed) % 3 == 0);
    int table = (int)(world_random(&seed) % WORLD_TABLES);
    look(n->app);
    for (int k = 0; k < WORLD_TABLES && !w->failed && !n->open; k++) {
        if (add_column(w, n, (table + k) % WORLD_TABLES, which)) {
            w->altered++;
            return;
        }
    }
}

bool world_alter_all(struct world *w, struct world_node *n)
{
    bool any = false;
    if (w->shapes) {
        look(n->app);
    }
    for (int k = 0; k < 2 * WORLD_TABLES && w->shapes && !w->failed; k++) {
        any = (w->grown[k / 2][k % 2] && add_column(w, n, k / 2, k % 2)) || any;
    }
    return any;
}

/* A statement about a column that this file has got. */
bool world_younger_sql(sqlite3 *db, const struct naive_def *d, const char *value, unsigned pick, char *out, size_t size)
{
    int which = (int)(pick / 4 % 2);
    look(db);
    which = d->younger > 0 && !has_column(db, d, d->younger + which) ? 1 - which : which;
    if (d->younger == 0 || !has_column(db, d, d->younger + which)) {
        return false;
    }
    const char *column = d->col[d->younger + which];
    char names[80] = "";
    for (int k = 0; k < d->younger; k++) {
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", k > 0 ? ", " : "", d->col[k]);
    }
    switch (pick % 4) {
    case 0:
        snprintf(out, size, "UPDATE %s SET %s = %s", d->name, column, value);
        break;
    case 1:
        snprintf(out, size, "INSERT OR REPLACE INTO %s(%s, %s) SELECT %s, %s FROM %s ORDER BY 1 DESC LIMIT 1", d->name,
                 names, column, names, value, d->name);
        break;
    default:
        snprintf(out, size, "UPDATE %s SET %s = %s WHERE %s = (SELECT %s(%s) FROM %s)", d->name, column, value,
                 d->col[0], pick % 4 == 2 ? "min" : "max", d->col[0], d->name);
        break;
    }
    return true;
}
