#include "repl/image.h"

#include <stdlib.h>
#include <string.h>

void mm_image_init(struct mm_image *im, size_t max)
{
    mm_buf_init(&im->names, max);
    mm_buf_init(&im->data, max);
    im->last = NULL;
}

void mm_image_free(struct mm_image *im)
{
    mm_buf_free(&im->names);
    mm_buf_free(&im->data);
    free(im->last);
    im->last = NULL;
}

static void open_group(struct mm_image *im, const struct mm_target *t)
{
    const struct mm_table *def = t->def;
    uint8_t *pk = calloc((size_t)def->ncol, 1);
    free(im->last);
    im->last = strdup(def->name);
    if (pk == NULL || im->last == NULL) {
        im->data.rc = SQLITE_NOMEM;
        free(pk);
        return;
    }
    mm_buf_add(&im->names, def->name, strlen(def->name) + 1);
    for (int k = 0; k < def->ncol; k++) {
        pk[k] = def->col[k].pk;
        mm_buf_add(&im->names, def->col[k].name, strlen(def->col[k].name) + 1);
    }
    mm_change_put_table(&im->data, def->name, (uint32_t)def->ncol, pk);
    free(pk);
}

void mm_image_add(struct mm_image *im, const struct mm_target *t, const struct mm_value *key,
                  const struct mm_value *row)
{
    static const struct mm_value undefined;
    if (im->last == NULL || strcmp(im->last, t->def->name) != 0) {
        open_group(im, t);
    }
    mm_change_put_head(&im->data, row != NULL ? MM_OP_INSERT : MM_OP_DELETE);
    for (int k = 0; k < t->def->ncol; k++) {
        const struct mm_value *v = row != NULL ? &row[k] : t->def->col[k].pk != 0 ? &key[k] : &undefined;
        mm_value_encode(&im->data, v);
    }
}

void mm_image_add_keyless(struct mm_image *im, const struct mm_target *t, const struct mm_value *row, bool back)
{
    if (im->last == NULL || strcmp(im->last, t->def->name) != 0) {
        open_group(im, t);
    }
    mm_change_put_head(&im->data, back ? MM_OP_INSERT : MM_OP_DELETE);
    for (int k = 0; k < t->def->ncol; k++) {
        mm_value_encode(&im->data, &row[k]);
    }
}

int mm_image_pack(struct mm_image *im, struct mm_buf *out, struct mm_err *err)
{
    mm_buf_check(&im->names, err, "before-images");
    mm_buf_check(&im->data, err, "before-images");
    mm_varint_put(out, im->names.len);
    mm_buf_add(out, im->names.data, im->names.len);
    mm_buf_add(out, im->data.data, im->data.len);
    return mm_buf_check(out, err, "before-images");
}

int mm_image_unpack(struct mm_txn *txn, const void *data, size_t len, struct mm_targets *targets, struct mm_err *err)
{
    const uint8_t *p = data;
    const uint8_t *end = p + len;
    uint64_t names = 0;
    if (!mm_varint_get(&p, end, &names) || names > (uint64_t)(end - p)) {
        return mm_err_set(err, SQLITE_CORRUPT, "stored before-images are malformed");
    }
    return mm_change_read_first(txn, p + names, (size_t)(end - p) - names, p, names, mm_targets_coll, targets, err);
}

void mm_image_of_captured(struct mm_txn *txn)
{
    for (size_t k = 0; k < txn->ntab; k++) {
        for (size_t j = 0; j < txn->tab[k].nrow; j++) {
            struct mm_row *row = &txn->tab[k].row[j];
            struct mm_value *stood = row->before;
            row->before = row->after;
            row->after = stood;
            row->op = stood != NULL ? MM_OP_INSERT : MM_OP_DELETE;
        }
    }
}
