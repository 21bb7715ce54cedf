#include "repl/partition.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/stray.h"

enum { SLOTS = 1 << MM_ID_SLOT_BITS, NO_SLOT = -1, NONE_LEFT = -2 };

#define BLOCK (INT64_C(1) << MM_ID_BLOCK_BITS)
#define STRIDE (BLOCK << MM_ID_SLOT_BITS)
#define END (INT64_C(1) << MM_ID_BITS)

int64_t mm_partition_place(int slot, int64_t v)
{
    int64_t high = v > 0 ? v : 0;
    if (high >= END) {
        return -1;
    }
    int64_t begin = high / STRIDE * STRIDE + slot * BLOCK;
    if (high >= begin && high < begin + BLOCK / 2) {
        return high;
    }
    begin += begin < high ? STRIDE : 0;
    return begin + BLOCK <= END ? begin : -1;
}

int mm_partition_open(struct mm_repl *r, struct mm_err *err)
{
    char *stored = r->partition ? mm_meta_text(r->db, MM_META_SLOT, err) : NULL;
    char *file = mm_meta_text(r->db, MM_META_FILE, err);
    int slot = NO_SLOT;
    int at = 0;
    r->id_slot = NO_SLOT;
    if (stored != NULL && file != NULL && sscanf(stored, "%d %n", &slot, &at) == 1 && at > 0 &&
        strcmp(stored + at, file) == 0) {
        r->id_slot = slot; /* of a copy of this file it is not */
    }
    sqlite3_free(stored);
    sqlite3_free(file);
    return err->rc;
}

static bool numbered(sqlite3 *db, const struct mm_target *t, const char **column)
{
    int autoincrement = 0;
    *column = NULL;
    for (int k = 0; k < t->def->ncol && *column == NULL; k++) {
        *column = t->def->col[k].pk != 0 ? t->def->col[k].name : NULL;
    }
    return *column != NULL &&
           sqlite3_table_column_metadata(db, "main", t->def->name, *column, NULL, NULL, NULL, NULL, &autoincrement) ==
               SQLITE_OK &&
           autoincrement != 0;
}

struct look {
    struct mm_repl *r;
    bool write;
    int due;
};

static void move(struct mm_repl *r, const char *table, int64_t to, struct mm_err *err)
{
    mm_db_exec(r->db, err, "UPDATE main.sqlite_sequence SET seq = %lld WHERE name = %Q", (long long)to, table);
    if (err->rc == SQLITE_OK && sqlite3_changes(r->db) == 0) {
        mm_db_exec(r->db, err, "INSERT INTO main.sqlite_sequence(name, seq) VALUES (%Q, %lld)", table, (long long)to);
    }
}

static int one(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    struct mm_repl *r = l->r;
    const char *column = NULL;
    if (!mm_watch_captures(t->state) || t->def == NULL || !t->def->integer_key) {
        return err->rc;
    }
    if (!numbered(r->db, t, &column)) {
        if (r->id_warning[0] == '\0') {
            (void)snprintf(r->id_warning, sizeof r->id_warning,
                           "autoincrement is 'partition', which cannot hold for table %.80s: without AUTOINCREMENT "
                           "SQLite numbers from the highest row, whoever wrote it; declare it AUTOINCREMENT, or take "
                           "ids from marmot_id()",
                           t->def->name);
        }
        return err->rc;
    }
    int64_t v = mm_db_int(r->db, err, 0,
                          "SELECT max(ifnull((SELECT max(seq) FROM main.sqlite_sequence WHERE name = %Q), 0),"
                          " ifnull((SELECT max(\"%w\") FROM main.\"%w\"), 0))",
                          t->def->name, column, t->def->name);
    int64_t to = mm_partition_place(r->id_slot, v);
    if (to < 0) {
        (void)snprintf(r->id_warning, sizeof r->id_warning,
                       "the ids of table %.80s have reached 2^53: SQLite goes on from the highest row, and "
                       "autoincrement 'partition' holds no more",
                       t->def->name);
    } else if (to != v && err->rc == SQLITE_OK) {
        l->due++;
        if (l->write) {
            move(r, t->def->name, to, err);
        }
    }
    return err->rc;
}

static int all(struct mm_repl *r, bool write, struct mm_err *err)
{
    struct look l = { r, write, 0 };
    if (r->id_slot == NONE_LEFT) {
        (void)snprintf(r->id_warning, sizeof r->id_warning,
                       "autoincrement is 'partition', and %d database files of this cluster have a block of ids "
                       "already: ids that SQLite makes here may collide",
                       (int)SLOTS);
    }
    if (r->id_slot < 0) {
        return 0;
    }
    r->id_warning[0] = '\0';
    mm_targets_each(r->targets, one, &l, err);
    return l.due;
}

bool mm_partition_due(struct mm_repl *r, struct mm_err *err)
{
    return r->partition && all(r, false, err) > 0 && err->rc == SQLITE_OK;
}

int mm_partition_settle(struct mm_repl *r, struct mm_err *err)
{
    if (r->partition && err->rc == SQLITE_OK) {
        (void)all(r, true, err);
    }
    return err->rc;
}

/* And the numbers move at once: those of a copied file are its original's. */
static int store(struct mm_repl *r, int slot, const char *claim, struct mm_err *err)
{
    char *file = mm_meta_text(r->db, MM_META_FILE, err);
    char *text = sqlite3_mprintf("%d %s", slot, file != NULL ? file : "");
    if (text == NULL) {
        mm_err_nomem(err);
    }
    r->id_slot = slot;
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    mm_meta_set_text(r->db, MM_META_SLOT, text, err);
    mm_meta_set_text(r->db, MM_META_CLAIM, claim, err);
    mm_partition_settle(r, err);
    mm_stray_end(r->db, err);
    if (err->rc != SQLITE_OK) {
        r->id_slot = NO_SLOT;
    }
    sqlite3_free(file);
    sqlite3_free(text);
    return err->rc;
}

/* Also true for a slot that an attempt claimed which then could not write it down. */
static bool take(struct mm_repl *r, const char *bucket, int slot, const char *claim, struct mm_err *err)
{
    char key[32];
    char *value = NULL;
    size_t len = 0;
    (void)snprintf(key, sizeof key, "autoincrement.%d", slot);
    bool got = mm_bus_kv_get(r->bus, bucket, key, &value, &len, MM_REQUEST_MS, err) != 0;
    bool ours = got && strcmp(value, claim) == 0;
    free(value);
    return ours || (!got && err->rc == SQLITE_OK &&
                    mm_bus_kv_create(r->bus, bucket, key, claim, strlen(claim), MM_REQUEST_MS, err) != 0);
}

/* A server that lost its bucket, or the end of it, would give the slot to a newcomer. */
static bool keep(struct mm_repl *r, const char *bucket, struct mm_err *err)
{
    char *claim = mm_meta_text(r->db, MM_META_CLAIM, err);
    bool kept = claim != NULL && take(r, bucket, r->id_slot, claim, err);
    if (!kept && err->rc == SQLITE_OK) {
        mm_log(MM_LOG_WARN, "node %lld: slot %d of the ids that SQLite makes went to another node", (long long)r->node,
               r->id_slot);
        r->id_slot = NO_SLOT;
    }
    sqlite3_free(claim);
    return kept;
}

int mm_partition_claim(struct mm_repl *r, const char *cluster, struct mm_err *err)
{
    char bucket[256];
    char claim[64];
    int tried = 0;
    if (!r->partition || r->id_slot == NONE_LEFT || !r->joined || err->rc != SQLITE_OK) {
        return err->rc;
    }
    (void)snprintf(bucket, sizeof bucket, "%s-meta", cluster);
    if (r->id_slot >= 0 && (keep(r, bucket, err) || err->rc != SQLITE_OK)) {
        return err->rc;
    }
    uint64_t incarnation = (uint64_t)mm_head_incarnation(r->db, err);
    (void)snprintf(claim, sizeof claim, "%" PRId64 " %016" PRIx64, r->node, incarnation);
    /* With a log its claims are gone, and who is away then comes back with its slot: hardly the one begun with. */
    int first = r->epoch > 1 ? (int)(incarnation % SLOTS) : 0;
    while (tried < SLOTS && err->rc == SQLITE_OK && !take(r, bucket, (first + tried) % SLOTS, claim, err)) {
        tried++;
    }
    if (tried == SLOTS) {
        r->id_slot = NONE_LEFT;
    } else if (err->rc == SQLITE_OK && store(r, (first + tried) % SLOTS, claim, err) == SQLITE_OK) {
        mm_log(MM_LOG_INFO, "node %lld has slot %d of the ids that SQLite makes", (long long)r->node, r->id_slot);
    }
    return err->rc;
}
