#include "repl/late.h"

#include <stdlib.h>
#include <string.h>

#include "store/change.h"
#include "store/outbox.h"

enum { ROWS_MOST = 10000, BYTES_MOST = 8 << 20 };
#define ROW_MAX ((size_t)2 << 30)

void mm_late_init(struct mm_late *l, sqlite3 *db)
{
    memset(l, 0, sizeof *l);
    l->db = db;
    l->rows_most = ROWS_MOST;
    mm_buf_init(&l->names, ROW_MAX);
    mm_buf_init(&l->data, ROW_MAX);
}

void mm_late_free(struct mm_late *l)
{
    mm_buf_free(&l->names);
    mm_buf_free(&l->data);
    free(l->group);
    l->group = NULL;
    l->rows = 0;
}

static void open_group(struct mm_late *l, const struct mm_table *def, struct mm_err *err)
{
    uint8_t *pk = calloc((size_t)def->ncol, 1);
    free(l->group);
    l->group = strdup(def->name);
    if (pk == NULL || l->group == NULL) {
        mm_err_nomem(err);
    } else {
        mm_buf_add(&l->names, def->name, strlen(def->name) + 1);
        for (int k = 0; k < def->ncol; k++) {
            pk[k] = def->keyless ? 0 : def->col[k].pk;
            mm_buf_add(&l->names, def->col[k].name, strlen(def->col[k].name) + 1);
        }
        mm_change_put_table(&l->data, def->name, (uint32_t)def->ncol, pk);
    }
    free(pk);
}

static void put_values(struct mm_late *l, const struct mm_table *def, const struct mm_value *row)
{
    for (int k = 0; k < def->ncol; k++) {
        mm_value_encode(&l->data, &row[k]);
    }
}

int mm_late_add(struct mm_late *l, const struct mm_table *def, const struct mm_value *before,
                const struct mm_value *after, struct mm_err *err)
{
    bool same = before != NULL && after != NULL;
    bool same_key = same && !def->keyless;
    for (int k = 0; before != NULL && after != NULL && k < def->ncol; k++) {
        bool equal = mm_value_same(&before[k], &after[k]);
        same = same && equal;
        same_key = same_key && (equal || def->col[k].pk == 0);
    }
    if (same || err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (l->group == NULL || strcmp(l->group, def->name) != 0) {
        open_group(l, def, err);
    }
    if (same_key) {
        mm_change_put_head(&l->data, MM_OP_UPDATE);
        put_values(l, def, before);
        put_values(l, def, after);
    } else { /* a key in other bytes ('bob', 'BOB') is gone and come */
        if (before != NULL) {
            mm_change_put_head(&l->data, MM_OP_DELETE);
            put_values(l, def, before);
        }
        if (after != NULL) {
            mm_change_put_head(&l->data, MM_OP_INSERT);
            put_values(l, def, after);
        }
    }
    l->rows++;
    mm_buf_check(&l->names, err, "changes that were not captured");
    return mm_buf_check(&l->data, err, "changes that were not captured");
}

bool mm_late_full(const struct mm_late *l)
{
    return l->rows >= l->rows_most || l->data.len >= BYTES_MOST;
}

int mm_late_put(struct mm_late *l, struct mm_err *err)
{
    if (l->rows > 0 && err->rc == SQLITE_OK) {
        mm_outbox_put_txn(l->db, l->names.data, l->names.len, l->data.data, l->data.len, NULL, err);
    }
    mm_buf_clear(&l->names);
    mm_buf_clear(&l->data);
    free(l->group);
    l->group = NULL;
    l->rows = 0;
    return err->rc;
}
