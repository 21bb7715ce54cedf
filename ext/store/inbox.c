#include "store/inbox.h"

#include <endian.h>
#include <string.h>

#include "base/db.h"

enum {
    HEAD = 16,
    RECORD_HEAD = 44,
    AT_KIND = 4,
    AT_TXID = 8,
    AT_INCARNATION = 24,
    AT_TIME = 32,
    AT_NAMES_LEN = 40,
    END_MARK = 4, /* bytes of the length 0 behind the last record */
    AT_STAMP_NEXT = 8,
    AT_STAMP = 16,
    AT_TAG_AGAIN = 36,
    TAIL = END_MARK + MM_INBOX_SEAL,
};

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

size_t mm_inbox_size(const struct mm_inbox_record *r)
{
    return RECORD_HEAD + r->names_len + r->len;
}

int64_t mm_inbox_used(const struct mm_inbox_end *end)
{
    return end->at > HEAD ? end->at - HEAD : 0;
}

/* --- the blob, with sticky errors; size is that of the log --- */

struct log {
    sqlite3 *db;
    sqlite3_blob *blob;
    uint32_t size;
};

static void fail(struct log *l, int rc, const char *doing, struct mm_err *err)
{
    mm_err_set(err, rc, "%s the inbox: %s", doing, sqlite3_errmsg(l->db));
}

static void log_open(struct log *l, sqlite3 *db, bool write, struct mm_err *err)
{
    *l = (struct log){ .db = db };
    if (err->rc != SQLITE_OK) {
        return;
    }
    int rc = sqlite3_blob_open(db, "main", "__marmot__inbox", "log", 1, write, &l->blob);
    if (rc != SQLITE_OK) {
        fail(l, rc, "opening", err);
        return;
    }
    l->size = (uint32_t)sqlite3_blob_bytes(l->blob);
    if (l->size < HEAD + END_MARK) {
        mm_err_set(err, SQLITE_CORRUPT, "the inbox has %u bytes only: call marmot_cleanup('discard') and marmot_init",
                   l->size);
    }
}

static void log_close(struct log *l, struct mm_err *err)
{
    int rc = sqlite3_blob_close(l->blob);
    l->blob = NULL;
    if (rc != SQLITE_OK) {
        fail(l, rc, "closing", err);
    }
}

static void log_read(struct log *l, void *to, uint32_t n, uint32_t at, struct mm_err *err)
{
    int rc = err->rc == SQLITE_OK ? sqlite3_blob_read(l->blob, to, (int)n, (int)at) : SQLITE_OK;
    if (rc != SQLITE_OK) {
        fail(l, rc, "reading", err);
    }
}

static void log_write(struct log *l, const void *from, uint32_t n, uint32_t at, struct mm_err *err)
{
    int rc = err->rc == SQLITE_OK ? sqlite3_blob_write(l->blob, from, (int)n, (int)at) : SQLITE_OK;
    if (rc != SQLITE_OK) {
        fail(l, rc, "writing", err);
    }
}

/* A place of another log becomes the beginning of this one. */
static void settle(struct log *l, struct mm_inbox_end *pos, struct mm_err *err)
{
    uint8_t head[HEAD];
    log_read(l, head, HEAD, 0, err);
    if (err->rc != SQLITE_OK) {
        return;
    }
    int64_t base = (int64_t)get64(head);
    uint64_t tag = get64(head + 8);
    if (base <= 0) {
        mm_err_set(err, SQLITE_CORRUPT, "the inbox has no base: call marmot_cleanup('discard') and marmot_init");
    } else if (pos->at == 0 || pos->tag != tag || pos->base != base) {
        *pos = (struct mm_inbox_end){ .base = base, .tag = tag, .next = base, .at = HEAD };
    }
}

/* The length of the record there; 0 at the end of the log or on error. */
static uint32_t record_at(struct log *l, const struct mm_inbox_end *pos, struct mm_err *err)
{
    uint8_t length[4] = { 0 };
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    log_read(l, length, sizeof length, pos->at, err);
    uint32_t n = get32(length);
    if (n != 0 && (n < RECORD_HEAD || n > l->size - pos->at - END_MARK)) {
        mm_err_set(err, SQLITE_CORRUPT,
                   "the inbox is damaged at byte %u, where transaction %lld begins: call "
                   "marmot_cleanup('discard') and marmot_init",
                   pos->at, (long long)pos->next);
    }
    return err->rc == SQLITE_OK ? n : 0;
}

static void find_end(struct log *l, struct mm_inbox_end *end, struct mm_err *err)
{
    uint32_t n = 0;
    if (end->sure) {
        return;
    }
    settle(l, end, err);
    while ((n = record_at(l, end, err)) != 0) {
        end->at += n;
        end->next++;
    }
}

int mm_inbox_find_end(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err)
{
    struct log l;
    log_open(&l, db, false, err);
    find_end(&l, end, err);
    log_close(&l, err);
    return err->rc;
}

/* --- the stamp behind the end --- */

static bool get_stamp(struct log *l, const struct mm_inbox_end *end, struct mm_stamp *s, uint8_t *seal,
                      struct mm_err *err)
{
    uint8_t b[MM_INBOX_SEAL];
    if (err->rc != SQLITE_OK || end->at + TAIL > l->size) {
        return false;
    }
    if (end->sure && seal == NULL) {
        *s = end->stamp;
        return end->stamped;
    }
    log_read(l, b, sizeof b, end->at + END_MARK, err);
    if (err->rc != SQLITE_OK || get64(b) != end->tag || get64(b + AT_STAMP_NEXT) != (uint64_t)end->next ||
        get64(b + AT_TAG_AGAIN) != end->tag) {
        return false;
    }
    const uint8_t *p = b + AT_STAMP;
    *s = (struct mm_stamp){ get32(p), get32(p + 4), get32(p + 8), { get32(p + 12), get32(p + 16) } };
    if (seal != NULL) {
        memcpy(seal, b, sizeof b);
    }
    return true;
}

/* The end mark and, unless NULL, the stamp. Returns the bytes. */
static uint32_t encode_tail(uint8_t *out, const struct mm_inbox_end *end, const struct mm_stamp *s)
{
    put32(out, 0);
    if (s == NULL) {
        return END_MARK;
    }
    uint8_t *p = out + END_MARK;
    put64(p, end->tag);
    put64(p + AT_STAMP_NEXT, (uint64_t)end->next);
    put32(p + AT_STAMP, s->count);
    put32(p + AT_STAMP + 4, s->change);
    put32(p + AT_STAMP + 8, s->frames);
    put32(p + AT_STAMP + 12, s->salt[0]);
    put32(p + AT_STAMP + 16, s->salt[1]);
    put64(p + AT_TAG_AGAIN, end->tag);
    return TAIL;
}

static void keep_stamp(struct mm_inbox_end *end, const struct mm_stamp *s)
{
    end->stamped = s != NULL;
    if (s != NULL) {
        end->stamp = *s;
    }
}

int mm_inbox_stamp(sqlite3 *db, struct mm_inbox_end *end, struct mm_stamp *out, uint8_t *seal, struct mm_err *err)
{
    struct log l;
    log_open(&l, db, false, err);
    find_end(&l, end, err);
    bool found = get_stamp(&l, end, out, seal, err);
    log_close(&l, err);
    return found && err->rc == SQLITE_OK;
}

int mm_inbox_set_stamp(sqlite3 *db, struct mm_inbox_end *end, const struct mm_stamp *s, struct mm_err *err)
{
    uint8_t tail[TAIL] = { 0 };
    struct log l;
    log_open(&l, db, true, err);
    find_end(&l, end, err);
    if (err->rc == SQLITE_OK && end->at + TAIL <= l.size) {
        (void)encode_tail(tail, end, s);
        log_write(&l, tail, TAIL, end->at, err);
        keep_stamp(end, s);
    }
    log_close(&l, err);
    return err->rc;
}

int mm_inbox_stamp_next(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err)
{
    struct mm_stamp s;
    if (mm_inbox_stamp(db, end, &s, NULL, err)) {
        mm_stamp_next(db, &s);
        mm_inbox_set_stamp(db, end, &s, err);
    }
    return err->rc;
}

static void encode(uint8_t *out, uint32_t n, const struct mm_inbox_record *r)
{
    put32(out, n);
    put32(out + AT_KIND, (uint32_t)r->kind);
    memcpy(out + AT_TXID, r->txid, sizeof r->txid);
    put64(out + AT_INCARNATION, (uint64_t)r->incarnation);
    put64(out + AT_TIME, (uint64_t)r->at);
    put32(out + AT_NAMES_LEN, (uint32_t)r->names_len);
    if (r->names_len > 0) {
        memcpy(out + RECORD_HEAD, r->names, r->names_len);
    }
    if (r->len > 0) {
        memcpy(out + RECORD_HEAD + r->names_len, r->data, r->len);
    }
}

int mm_inbox_append(sqlite3 *db, struct mm_inbox_end *end, struct mm_inbox_end *before, const struct mm_inbox_record *r,
                    struct mm_err *err)
{
    uint8_t record[MM_INBOX_RECORD_MAX + TAIL];
    size_t size = mm_inbox_size(r);
    struct mm_stamp s;
    struct log l;
    log_open(&l, db, true, err);
    find_end(&l, end, err);
    bool fits = err->rc == SQLITE_OK && size <= MM_INBOX_RECORD_MAX && size + TAIL <= l.size - end->at;
    if (fits) {
        uint32_t n = (uint32_t)size;
        bool stamped = get_stamp(&l, end, &s, NULL, err);
        *before = *end;
        before->sure = false;
        end->at += n;
        end->next++;
        if (stamped) {
            mm_stamp_next(db, &s);
        }
        encode(record, n, r);
        log_write(&l, record, n + encode_tail(record + n, end, stamped ? &s : NULL), before->at, err);
        keep_stamp(end, stamped ? &s : NULL);
    }
    log_close(&l, err);
    if (err->rc != SQLITE_OK) {
        *end = (struct mm_inbox_end){ 0 };
    }
    return fits && err->rc == SQLITE_OK;
}

int mm_inbox_void(sqlite3 *db, const struct mm_inbox_end *at, struct mm_err *err)
{
    uint8_t word[4] = { 0 };
    uint8_t tail[TAIL];
    struct mm_inbox_end now = *at;
    struct mm_stamp s;
    struct log l;
    log_open(&l, db, true, err);
    find_end(&l, &now, err);
    bool same = err->rc == SQLITE_OK && now.tag == at->tag && now.next > at->next;
    if (same && now.next == at->next + 1) {
        bool stamped = get_stamp(&l, &now, &s, NULL, err);
        log_write(&l, tail, encode_tail(tail, at, stamped ? &s : NULL), at->at, err);
    } else if (same) {
        put32(word, MM_INBOX_VOID);
        log_write(&l, word, sizeof word, at->at + AT_KIND, err);
    }
    log_close(&l, err);
    return same && err->rc == SQLITE_OK;
}

int mm_inbox_bytes(sqlite3 *db, const struct mm_inbox_end *end, struct mm_buf *out, struct mm_err *err)
{
    struct log l;
    log_open(&l, db, false, err);
    uint32_t n = end->at > HEAD ? end->at - HEAD : 0;
    uint8_t *to = n > 0 ? mm_buf_reserve(out, n) : NULL;
    if (to != NULL) {
        log_read(&l, to, n, HEAD, err);
        out->len += err->rc == SQLITE_OK ? n : 0;
    }
    log_close(&l, err);
    return mm_buf_check(out, err, "the inbox");
}

bool mm_inbox_ready(sqlite3 *db, struct mm_err *err)
{
    uint8_t base[8] = { 0 };
    struct log l;
    log_open(&l, db, false, err);
    log_read(&l, base, sizeof base, 0, err);
    log_close(&l, err);
    return err->rc == SQLITE_OK && get64(base) != 0;
}

int mm_inbox_reset(sqlite3 *db, int64_t base, struct mm_inbox_end *end, struct mm_err *err)
{
    uint8_t head[HEAD + TAIL] = { 0 };
    struct mm_stamp s;
    struct log l;
    put64(head, (uint64_t)base);
    sqlite3_randomness(8, head + 8);
    log_open(&l, db, true, err);
    bool stamped = end->at != 0 && get_stamp(&l, end, &s, NULL, err);
    *end = (struct mm_inbox_end){ .base = base, .tag = get64(head + 8), .next = base, .at = HEAD };
    if (stamped) {
        mm_stamp_next(db, &s);
    }
    log_write(&l, head, HEAD + encode_tail(head + HEAD, end, stamped ? &s : NULL), 0, err);
    keep_stamp(end, stamped ? &s : NULL);
    log_close(&l, err);
    return err->rc;
}

bool mm_inbox_parse(const uint8_t **p, const uint8_t *end, struct mm_inbox_record *r)
{
    size_t left = (size_t)(end - *p);
    uint32_t n = left >= RECORD_HEAD ? get32(*p) : 0;
    if (n < RECORD_HEAD || n > left || get32(*p + AT_NAMES_LEN) > n - RECORD_HEAD) {
        return false;
    }
    const uint8_t *b = *p;
    r->kind = (int)get32(b + AT_KIND);
    memcpy(r->txid, b + AT_TXID, sizeof r->txid);
    r->incarnation = (int64_t)get64(b + AT_INCARNATION);
    r->at = (int64_t)get64(b + AT_TIME);
    r->names = b + RECORD_HEAD;
    r->names_len = get32(b + AT_NAMES_LEN);
    r->data = r->names + r->names_len;
    r->len = n - RECORD_HEAD - r->names_len;
    *p += n;
    return true;
}

int mm_inbox_read(sqlite3 *db, struct mm_inbox_end *pos, int64_t from, struct mm_buf *bytes, struct mm_err *err)
{
    struct log l;
    bool found = false;
    log_open(&l, db, false, err);
    if (pos->next > from) {
        pos->at = 0;
    }
    settle(&l, pos, err);
    uint32_t n = 0;
    while (!found && (n = record_at(&l, pos, err)) != 0) {
        mm_buf_clear(bytes);
        uint8_t *to = pos->next >= from ? mm_buf_reserve(bytes, n) : NULL;
        if (to != NULL) {
            log_read(&l, to, n, pos->at, err);
            bytes->len = n;
            found = err->rc == SQLITE_OK && get32(to + AT_KIND) != MM_INBOX_VOID;
        }
        pos->at += n;
        pos->next++;
        mm_buf_check(bytes, err, "the inbox");
    }
    log_close(&l, err);
    if (err->rc != SQLITE_OK) {
        pos->at = 0;
    }
    return found && err->rc == SQLITE_OK;
}

int64_t mm_inbox_rewrite(uint8_t *bytes, size_t len, int64_t base, int64_t old, int64_t first, int64_t last,
                         int64_t moved)
{
    int64_t n = 0;
    struct mm_inbox_record r;
    const uint8_t *p = bytes;
    for (int64_t id = base; p < bytes + len && id <= last; id++) {
        uint8_t *at = bytes + (p - bytes);
        if (!mm_inbox_parse(&p, bytes + len, &r)) {
            break;
        }
        if (id < first || (old != 0 && r.incarnation != old)) {
            continue;
        }
        if (moved != 0) {
            put64(at + AT_INCARNATION, (uint64_t)moved);
        } else {
            put32(at + AT_KIND, MM_INBOX_VOID);
        }
        n++;
    }
    return n;
}

int mm_inbox_move(sqlite3 *db, int64_t old, int64_t first, int64_t last, int64_t moved, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    struct mm_buf b;
    mm_buf_init(&b, (size_t)1 << 24);
    mm_inbox_find_end(db, &end, err);
    mm_inbox_bytes(db, &end, &b, err);
    if (err->rc == SQLITE_OK && mm_inbox_rewrite(b.data, b.len, end.base, old, first, last, moved) > 0) {
        struct log l;
        log_open(&l, db, true, err);
        log_write(&l, b.data, (uint32_t)b.len, HEAD, err);
        log_close(&l, err);
    }
    mm_buf_free(&b);
    return err->rc;
}

int mm_inbox_copy(sqlite3 *db, const char *to, struct mm_err *err)
{
    uint8_t tag[8];
    struct log l = { .db = db };
    mm_db_exec(db, err, "DELETE FROM \"%w\".__marmot__inbox", to);
    if (mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__inbox SELECT * FROM main.__marmot__inbox", to) != SQLITE_OK) {
        return err->rc;
    }
    /* The stamp is of another database's commits: with a new tag there is none. */
    sqlite3_randomness(sizeof tag, tag);
    int rc = sqlite3_blob_open(db, to, "__marmot__inbox", "log", 1, 1, &l.blob);
    if (rc != SQLITE_OK) {
        fail(&l, rc, "opening the copy of", err);
    }
    log_write(&l, tag, sizeof tag, sizeof(uint64_t), err);
    log_close(&l, err);
    return err->rc;
}

int mm_inbox_clear(sqlite3 *db, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__inbox SET log = zeroblob(32768)");
}
