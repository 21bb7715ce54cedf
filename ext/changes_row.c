/* One message of the log as rows of text. */
#include <string.h>

#include "base/sqlite.h"
#include "changes.h"
#include "store/policy.h"

void mm_changes_cursor_init(struct mm_changes_cursor *c)
{
    memset(c, 0, sizeof *c);
    c->done = true;
    mm_buf_init(&c->key, MM_CHANGES_TEXT_MAX);
    mm_buf_init(&c->old, MM_CHANGES_TEXT_MAX);
    mm_buf_init(&c->new, MM_CHANGES_TEXT_MAX);
}

void mm_changes_cursor_free(struct mm_changes_cursor *c)
{
    mm_buf_free(&c->key);
    mm_buf_free(&c->old);
    mm_buf_free(&c->new);
}

void mm_changes_cursor_start(struct mm_changes_cursor *c, const struct mm_msg *msg, const struct mm_txn *txn,
                             const char *trouble_op, const char *trouble)
{
    c->msg = msg;
    c->txn = txn;
    c->trouble_op = trouble_op;
    c->trouble = trouble;
    c->tab = c->row = 0;
    c->said = c->done = false;
}

enum columns { KEY_COLUMNS, ALL_COLUMNS, ALL_BUT_KEY };

static const char *finish(struct mm_buf *b, struct mm_err *err)
{
    mm_buf_byte(b, 0);
    return mm_buf_check(b, err, "a row of marmot_changes") == SQLITE_OK ? (const char *)b->data : NULL;
}

/* An object of the columns that are there; NULL when there is none. */
static const char *object(struct mm_buf *b, const struct mm_tab *t, const struct mm_value *v, enum columns which,
                          struct mm_err *err)
{
    mm_buf_clear(b);
    for (uint32_t k = 0; v != NULL && k < t->ncol; k++) {
        bool wanted = which == ALL_COLUMNS || (t->pk[k] != 0) == (which == KEY_COLUMNS);
        if (wanted && v[k].type != MM_UNDEF) {
            mm_buf_byte(b, b->len == 0 ? '{' : ',');
            mm_buf_json(b, t->col[k]);
            mm_buf_byte(b, ':');
            mm_value_json(b, &v[k]);
        }
    }
    if (b->len == 0) {
        return NULL;
    }
    mm_buf_byte(b, '}');
    return finish(b, err);
}

static bool keyed(const struct mm_tab *t)
{
    for (uint32_t k = 0; k < t->ncol; k++) {
        if (t->pk[k] != 0) {
            return true;
        }
    }
    return false;
}

static void change(struct mm_changes_cursor *c, const struct mm_tab *t, const struct mm_row *r,
                   struct mm_changes_row *row, struct mm_err *err)
{
    static const char *const names[] = {
        [MM_OP_INSERT] = "insert", [MM_OP_UPDATE] = "update", [MM_OP_DELETE] = "delete", [MM_OP_REPLACE] = "replace"
    };
    enum columns which = r->op == MM_OP_UPDATE && keyed(t) ? ALL_BUT_KEY : ALL_COLUMNS;
    row->op = names[r->op];
    row->table = t->name;
    row->key = object(&c->key, t, r->before != NULL ? r->before : r->after, KEY_COLUMNS, err);
    row->old = object(&c->old, t, r->before, which, err);
    row->new = object(&c->new, t, r->after, which, err);
}

static bool next_change(struct mm_changes_cursor *c, struct mm_changes_row *row, struct mm_err *err)
{
    while (c->tab < c->txn->ntab && c->row >= c->txn->tab[c->tab].nrow) {
        c->tab++;
        c->row = 0;
    }
    if (c->tab >= c->txn->ntab) {
        c->done = true;
        row->op = "nothing";
        return !c->said;
    }
    const struct mm_tab *t = &c->txn->tab[c->tab];
    change(c, t, &t->row[c->row++], row, err);
    c->said = true;
    return true;
}

static const char *trouble_text(struct mm_buf *b, const char *why, struct mm_err *err)
{
    mm_buf_clear(b);
    mm_buf_str(b, "{\"why\":");
    mm_buf_json(b, why);
    mm_buf_byte(b, '}');
    return finish(b, err);
}

static void policy(struct mm_changes_cursor *c, struct mm_changes_row *row, struct mm_err *err)
{
    static const char *const rules[MM_POLICY_COUNT] = { "last", "delta", "max", "min" };
    int rule = c->msg->control.policy;
    row->op = "policy";
    row->table = c->msg->control.policy_table;
    mm_buf_str(&c->new, "{\"column\":");
    mm_buf_json(&c->new, c->msg->control.policy_column);
    mm_buf_printf(&c->new, ",\"rule\":\"%s\"}", rule >= 0 && rule < MM_POLICY_COUNT ? rules[rule] : "?");
    row->new = finish(&c->new, err);
}

/* Founded and watch messages, and answers to verify, name tables: one row each. */
static void table_state(struct mm_changes_cursor *c, const char *op, const struct mm_msg_table *t,
                        struct mm_changes_row *row, struct mm_err *err)
{
    row->op = op;
    row->table = t->name;
    mm_buf_printf(&c->new, "{\"rows\":%lld,\"checksum\":\"", (long long)t->rows);
    for (size_t k = 0; k < sizeof t->content; k++) {
        mm_buf_printf(&c->new, "%02x", t->content[k]);
    }
    mm_buf_str(&c->new, "\"");
    if (c->msg->kind == MM_MSG_VERIFIED) {
        mm_buf_printf(&c->new, ",\"place\":%lld", (long long)c->msg->control.verify_seq);
    }
    mm_buf_str(&c->new, "}");
    row->new = finish(&c->new, err);
}

static const char *control_name(enum mm_msg_kind kind)
{
    switch (kind) {
    case MM_MSG_FOUNDED:
        return "founded";
    case MM_MSG_SEEDED:
        return "seeded";
    case MM_MSG_WATCH:
        return "watch";
    case MM_MSG_VERIFY:
        return "verify";
    case MM_MSG_VERIFIED:
        return "verified";
    case MM_MSG_ENDED:
        return "parts_ended";
    default:
        return "control";
    }
}

static void ended(struct mm_changes_cursor *c, struct mm_changes_row *row, struct mm_err *err)
{
    row->op = control_name(MM_MSG_ENDED);
    mm_buf_printf(&c->new, "{\"node\":%lld,\"txid\":\"", (long long)c->msg->control.ended_node);
    for (size_t k = 0; k < sizeof c->msg->control.ended_txid; k++) {
        mm_buf_printf(&c->new, "%02x", c->msg->control.ended_txid[k]);
    }
    mm_buf_str(&c->new, "\"}");
    row->new = finish(&c->new, err);
}

static bool next_control(struct mm_changes_cursor *c, struct mm_changes_row *row, struct mm_err *err)
{
    const struct mm_msg *m = c->msg;
    bool tables = m->kind == MM_MSG_FOUNDED || m->kind == MM_MSG_WATCH || m->kind == MM_MSG_VERIFIED;
    bool head = m->kind != MM_MSG_WATCH || m->control.ntable == 0; /* a row of its own before those of tables */
    size_t at = c->row++;
    if (m->kind == MM_MSG_POLICY && at == 0) {
        policy(c, row, err);
        return true;
    }
    if (m->kind == MM_MSG_ENDED && at == 0) {
        ended(c, row, err);
        return true;
    }
    if (head && at == 0) {
        row->op = control_name(m->kind);
        row->new = m->kind == MM_MSG_FOUNDED || m->kind == MM_MSG_SEEDED ? m->control.settings : NULL;
        return true;
    }
    at -= head;
    if (tables && at < m->control.ntable) {
        table_state(c, control_name(m->kind), &m->control.table[at], row, err);
        return true;
    }
    c->done = true;
    return false;
}

bool mm_changes_cursor_next(struct mm_changes_cursor *c, struct mm_changes_row *row, struct mm_err *err)
{
    memset(row, 0, sizeof *row);
    if (c->done || err->rc != SQLITE_OK) {
        return false;
    }
    mm_buf_clear(&c->new);
    if (c->trouble != NULL) {
        row->op = c->trouble_op;
        row->new = trouble_text(&c->new, c->trouble, err);
        c->done = true;
        return err->rc == SQLITE_OK;
    }
    bool more = c->txn != NULL ? next_change(c, row, err) : next_control(c, row, err);
    return more && err->rc == SQLITE_OK;
}
