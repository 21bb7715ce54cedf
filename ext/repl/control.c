#include "repl/control.h"

#include <string.h>

#include "base/db.h"
#include "repl/join.h"
#include "store/policy.h"
#include "store/stray.h"
#include "store/verify.h"

enum {
    ANSWER_MAX = 8 << 20,
    VERIFY_HEAD = 2 + MM_VERIFY_ID,
    TABLE_TAIL = 8 + 16 + 8,
    ENDED_ROW = 2 + 8 + 8 + MM_TXID_SIZE
};

/* The text at `at` of a control row, NULL when it does not end inside. */
static const char *text_at(const uint8_t *data, size_t len, size_t at)
{
    return at < len && memchr(data + at, 0, len - at) != NULL ? (const char *)data + at : NULL;
}

static bool verify_row(const struct mm_repl *r, const uint8_t *data, size_t len)
{
    bool answer = len > 0 && data[0] == MM_CONTROL_VERIFIED;
    return len >= VERIFY_HEAD + (answer ? 8u : 0u) && data[1] >= 1 && data[1] <= r->nshard;
}

int mm_control_shard(struct mm_repl *r, const uint8_t *data, size_t len, struct mm_err *err)
{
    char name[4097];
    size_t n = len > 0 ? len - 1 : 0;
    if (len > 1 && data[0] == MM_CONTROL_WATCH && n < sizeof name) {
        memcpy(name, data + 1, n);
        name[n] = '\0';
        return mm_targets_shard(r->targets, name, err);
    }
    if (len > 1 && data[0] == MM_CONTROL_POLICY && text_at(data, len, 1) != NULL) {
        return mm_targets_shard(r->targets, text_at(data, len, 1), err);
    }
    if (len > 0 && (data[0] == MM_CONTROL_VERIFY || data[0] == MM_CONTROL_VERIFIED) && verify_row(r, data, len)) {
        return data[1];
    }
    if (len == ENDED_ROW && data[0] == MM_CONTROL_ENDED && data[1] >= 1 && data[1] <= r->nshard) {
        return data[1];
    }
    mm_err_set(err, SQLITE_CORRUPT, "a control row of the outbox is of no known kind");
    return 0;
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int k = 0; k < 8; k++) {
        v = v << 8 | p[k];
    }
    return v;
}

static void put_u64(struct mm_buf *b, uint64_t v)
{
    for (int k = 56; k >= 0; k -= 8) {
        mm_buf_byte(b, (uint8_t)(v >> k));
    }
}

static bool watch_message(struct mm_repl *r, const uint8_t *data, size_t len, struct mm_msg *m, struct mm_arena *a,
                          struct mm_err *err)
{
    char *name = mm_arena_alloc(a, len);
    struct mm_msg_table *table = mm_arena_alloc(a, sizeof *table);
    if (name == NULL || table == NULL) {
        mm_err_nomem(err);
        return false;
    }
    memcpy(name, data + 1, len - 1);
    struct mm_target *t = mm_targets_get(r->targets, name, err);
    if (t == NULL ||
        (t->state == MM_JOINING && t->joined_seq != MM_SEQ_BEFORE && mm_watchlist_seq(r->db, t->name, err) > 0)) {
        return false; /* its replay, or a copy, decides first */
    }
    m->kind = MM_MSG_WATCH;
    if (t->def != NULL && mm_watch_captures(t->state)) {
        mm_join_base(r, t, table, err);
        m->control.table = table;
        m->control.ntable = 1;
    }
    return err->rc == SQLITE_OK;
}

static bool policy_message(const uint8_t *data, size_t len, struct mm_msg *m, struct mm_arena *a, struct mm_err *err)
{
    const char *row = mm_arena_copy(a, data, len);
    if (row == NULL) {
        mm_err_nomem(err);
        return false;
    }
    const char *table = text_at((const uint8_t *)row, len, 1);
    const char *column = table != NULL ? text_at((const uint8_t *)row, len, 2 + strlen(table)) : NULL;
    size_t at = column != NULL ? 3 + strlen(table) + strlen(column) : len;
    if (at != len - 1) {
        mm_err_set(err, SQLITE_CORRUPT, "a policy row of the outbox is malformed");
        return false;
    }
    m->kind = MM_MSG_POLICY;
    m->control.policy_table = table;
    m->control.policy_column = column;
    m->control.policy = data[at];
    return true;
}

static bool answer_message(const uint8_t *data, size_t len, struct mm_msg *m, struct mm_arena *a, struct mm_err *err)
{
    const uint8_t *row = mm_arena_copy(a, data, len);
    struct mm_msg_table *table = mm_arena_array(a, len / (TABLE_TAIL + 2) + 1, sizeof *table);
    if (row == NULL || table == NULL) {
        mm_err_nomem(err);
        return false;
    }
    m->kind = MM_MSG_VERIFIED;
    memcpy(m->control.verify_id, row + 2, MM_VERIFY_ID);
    m->control.verify_seq = (int64_t)get_u64(row + VERIFY_HEAD);
    m->control.table = table;
    for (size_t at = VERIFY_HEAD + 8; at < len;) {
        const char *name = text_at(row, len, at);
        size_t n = name != NULL ? strlen(name) + 1 : len;
        if (n > len - at || len - at - n < TABLE_TAIL) {
            mm_err_set(err, SQLITE_CORRUPT, "a verify answer in the outbox is malformed");
            return false;
        }
        const uint8_t *p = row + at + n;
        struct mm_msg_table *t = &table[m->control.ntable++];
        t->name = name;
        t->schema_hash = get_u64(p);
        memcpy(t->content, p + 8, sizeof t->content);
        t->rows = (int64_t)get_u64(p + 24);
        at += n + TABLE_TAIL;
    }
    return true;
}

bool mm_control_message(struct mm_repl *r, const uint8_t *data, size_t len, struct mm_msg *m, struct mm_arena *a,
                        struct mm_err *err)
{
    if (mm_control_shard(r, data, len, err) == 0) {
        return false;
    }
    m->control.cluster_id = r->cluster_id;
    m->control.settings = "";
    switch (data[0]) {
    case MM_CONTROL_WATCH:
        return watch_message(r, data, len, m, a, err);
    case MM_CONTROL_POLICY:
        return policy_message(data, len, m, a, err);
    case MM_CONTROL_VERIFY:
        m->kind = MM_MSG_VERIFY;
        memcpy(m->control.verify_id, data + 2, MM_VERIFY_ID);
        return true;
    case MM_CONTROL_ENDED:
        m->kind = MM_MSG_ENDED;
        m->control.ended_node = (int64_t)get_u64(data + 2);
        m->control.ended_incarnation = (int64_t)get_u64(data + 10);
        memcpy(m->control.ended_txid, data + 18, MM_TXID_SIZE);
        return true;
    default:
        return answer_message(data, len, m, a, err);
    }
}

static int fold_verified(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_err *err)
{
    static const uint8_t nothing[16];
    mm_verify_add(r->db, m->control.verify_id, s->n, m->node, "", m->control.verify_seq, nothing, 0, err);
    for (size_t k = 0; k < m->control.ntable && err->rc == SQLITE_OK; k++) {
        const struct mm_msg_table *t = &m->control.table[k];
        mm_verify_add(r->db, m->control.verify_id, s->n, m->node, t->name, m->control.verify_seq, t->content, t->rows,
                      err);
    }
    return err->rc;
}

const char *mm_control_unnumbered(struct mm_repl *r, const struct mm_shard *s, const struct mm_msg *m, int64_t seq)
{
    if (m->kind == MM_MSG_FOUNDED) {
        return s->n == 1 && seq == 1 ? NULL : "a founded message in another place than the first of shard 1";
    }
    if (strcmp(m->control.cluster_id, r->cluster_id) != 0) {
        return "an epoch of another cluster";
    }
    if (m->epoch > r->epoch) {
        r->met_epoch = m->epoch;
        r->met_node = m->node;
        return NULL;
    }
    return "the beginning of an epoch that is over, or was begun once more";
}

int mm_control_fold(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, int64_t seq, bool own,
                    struct mm_err *err)
{
    switch (m->kind) {
    case MM_MSG_WATCH:
        for (size_t k = 0; k < m->control.ntable && err->rc == SQLITE_OK; k++) {
            mm_join_table(r, &m->control.table[k], s->n, seq, own, err);
        }
        break;
    case MM_MSG_POLICY:
        /* What is pending was done by the old rule: all of it again. */
        mm_pending_undo(s->pending, 0, err);
        mm_policy_set(r->db, m->control.policy_table, m->control.policy_column, (enum mm_policy)m->control.policy, err);
        mm_targets_forget(r->targets);
        r->rekey_due = true;
        break;
    case MM_MSG_VERIFY:
        s->verify_seq = seq;
        memcpy(s->verify_id, m->control.verify_id, sizeof s->verify_id);
        break;
    case MM_MSG_VERIFIED:
        fold_verified(r, s, m, err);
        break;
    case MM_MSG_ENDED:
        mm_part_end(r->db, s->n, m->control.ended_node, m->control.ended_incarnation, m->control.ended_txid, err);
        break;
    default:
        break;
    }
    return err->rc;
}

struct sums {
    struct mm_repl *r;
    struct mm_shard *s;
};

static int sum_table(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct sums *a = arg;
    struct mm_buf *b = &a->s->answer;
    struct mm_msg_table sum;
    if (t->shard != a->s->n || t->state != MM_WATCHED || t->def == NULL) {
        return err->rc;
    }
    mm_join_base(a->r, t, &sum, err);
    mm_buf_add(b, t->name, strlen(t->name) + 1);
    put_u64(b, sum.schema_hash);
    mm_buf_add(b, sum.content, sizeof sum.content);
    put_u64(b, (uint64_t)sum.rows);
    return err->rc;
}

static int compute_answer(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct sums a = { r, s };
    mm_buf_free(&s->answer);
    mm_buf_init(&s->answer, ANSWER_MAX);
    mm_buf_byte(&s->answer, MM_CONTROL_VERIFIED);
    mm_buf_byte(&s->answer, (uint8_t)s->n);
    mm_buf_add(&s->answer, s->verify_id, MM_VERIFY_ID);
    put_u64(&s->answer, (uint64_t)s->verify_seq);
    mm_db_exec(r->db, err, "BEGIN"); /* one snapshot for all tables and for what is pending */
    mm_targets_each(r->targets, sum_table, &a, err);
    if (!sqlite3_get_autocommit(r->db)) {
        sqlite3_exec(r->db, "COMMIT", NULL, NULL, NULL);
    }
    if (!sqlite3_get_autocommit(r->db)) { /* out of memory: it has read only */
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    }
    mm_buf_check(&s->answer, err, "a verify answer");
    if (err->rc != SQLITE_OK) {
        mm_buf_free(&s->answer);
    }
    return err->rc;
}

int mm_control_answer(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    if (s->answer.len == 0) {
        compute_answer(r, s, err);
    }
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    if (err->rc == SQLITE_OK) {
        mm_outbox_put_control(r->db, s->answer.data, s->answer.len, err);
    }
    mm_stray_end(r->db, err);
    if (err->rc == SQLITE_OK) {
        s->verify_seq = 0;
        mm_buf_free(&s->answer);
    }
    return err->rc;
}
