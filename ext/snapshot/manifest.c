#include "snapshot/manifest.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/sqlite.h"

void mm_manifest_name(struct mm_manifest *m)
{
    uint32_t random = 0;
    int64_t sum = 0;
    for (int k = 0; k < m->nshard; k++) {
        sum += m->shard[k].seq;
    }
    (void)getrandom(&random, sizeof random, 0); /* not SQLite's, whose lock a fork might find held */
    (void)snprintf(m->id, sizeof m->id, "%.32s-%06lld-%015lld-%08lld-%08x", m->cluster_id, (long long)m->epoch,
                   (long long)sum, (long long)m->generation, random);
}

void mm_manifest_objects(const char *id, char meta[128], char data[128])
{
    (void)snprintf(meta, 128, "%s.json", id);
    (void)snprintf(data, 128, "%s.db.zst", id);
}

static void put_hex(struct mm_buf *b, const uint8_t *p, size_t n)
{
    mm_buf_byte(b, '"');
    for (size_t k = 0; k < n; k++) {
        mm_buf_printf(b, "%02x", p[k]);
    }
    mm_buf_byte(b, '"');
}

static void put_shards(const struct mm_manifest *m, bool whole, struct mm_buf *out)
{
    for (int k = 0; k < m->nshard; k++) {
        const struct mm_position *p = &m->shard[k];
        mm_buf_printf(out, "%s{\"n\":%d,\"position\":%lld", k > 0 ? "," : "", k + 1, (long long)p->seq);
        if (whole) {
            mm_buf_str(out, ",\"digest\":");
            put_hex(out, p->digest, sizeof p->digest);
            mm_buf_printf(out, ",\"stamp\":%lld,\"created\":", (long long)p->stamp);
            mm_buf_json(out, p->created);
        }
        mm_buf_byte(out, '}');
    }
}

int mm_manifest_write(const struct mm_manifest *m, struct mm_buf *out, struct mm_err *err)
{
    mm_buf_printf(
        out,
        "{\"format\":%d,\"id\":\"%s\",\"cluster\":\"%s\",\"epoch\":%lld,\"node\":%lld,\"generation\":%lld,\"at\":%lld,",
        m->format, m->id, m->cluster_id, (long long)m->epoch, (long long)m->node, (long long)m->generation,
        (long long)m->at_ms);
    mm_buf_str(out, "\"shards\":[");
    put_shards(m, true, out);
    mm_buf_printf(out,
                  "],\"schema\":\"%016" PRIx64 "\",\"tables\":%lld,\"size\":%lld,\"raw\":%lld,\"sha256\":", m->schema,
                  (long long)m->tables, (long long)m->size, (long long)m->raw);
    put_hex(out, m->sha256, sizeof m->sha256);
    mm_buf_byte(out, '}');
    return mm_buf_check(out, err, "a snapshot's manifest");
}

static bool get_int(const json_t *o, const char *key, int64_t *v)
{
    const json_t *j = json_object_get(o, key);
    *v = json_integer_value(j);
    return json_is_integer(j) && *v >= 0;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool get_hex(const json_t *o, const char *key, uint8_t *out, size_t n)
{
    const char *s = json_string_value(json_object_get(o, key));
    if (s == NULL || strlen(s) != 2 * n) {
        return false;
    }
    for (size_t k = 0; k < n; k++) {
        int high = digit(s[2 * k]);
        int low = digit(s[2 * k + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[k] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool get_text(const json_t *o, const char *key, char *out, size_t size)
{
    const char *s = json_string_value(json_object_get(o, key));
    if (s == NULL || strlen(s) >= size) {
        return false;
    }
    memcpy(out, s, strlen(s) + 1);
    return true;
}

static bool get_shards(const json_t *o, struct mm_manifest *m)
{
    const json_t *list = json_object_get(o, "shards");
    size_t n = json_array_size(list);
    if (n < 1 || n > MM_SNAPSHOT_SHARDS) {
        return false;
    }
    m->nshard = (int)n;
    for (size_t k = 0; k < n; k++) {
        const json_t *s = json_array_get(list, k);
        struct mm_position *p = &m->shard[k];
        p->shard = (int)k + 1;
        p->epoch = m->epoch;
        if (!get_int(s, "position", &p->seq) || !get_int(s, "stamp", &p->stamp) ||
            !get_hex(s, "digest", p->digest, sizeof p->digest) ||
            !get_text(s, "created", p->created, sizeof p->created)) {
            return false;
        }
    }
    return true;
}

static bool get_all(const json_t *o, struct mm_manifest *m)
{
    uint8_t schema[8];
    bool good = get_text(o, "id", m->id, sizeof m->id) && get_text(o, "cluster", m->cluster_id, sizeof m->cluster_id) &&
                get_int(o, "epoch", &m->epoch) && get_int(o, "node", &m->node) &&
                get_int(o, "generation", &m->generation) && get_int(o, "at", &m->at_ms) &&
                get_int(o, "tables", &m->tables) && get_int(o, "size", &m->size) && get_int(o, "raw", &m->raw) &&
                m->raw <= MM_SNAPSHOT_RAW_MAX && get_hex(o, "sha256", m->sha256, sizeof m->sha256) &&
                get_hex(o, "schema", schema, sizeof schema) && get_shards(o, m);
    for (size_t k = 0; good && k < sizeof schema; k++) {
        m->schema = m->schema << 8 | schema[k];
    }
    return good;
}

int mm_manifest_read(struct mm_manifest *m, const void *data, size_t len, struct mm_err *err)
{
    int64_t format = 0;
    json_t *o = len <= MM_MANIFEST_MAX ? json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    memset(m, 0, sizeof *m);
    if (!get_int(o, "format", &format) || format < 1 || format > INT32_MAX) {
        mm_err_set(err, SQLITE_CORRUPT, "a snapshot's manifest is malformed");
    } else if (format > MM_SNAPSHOT_FORMAT) {
        mm_err_set(err, SQLITE_MISMATCH,
                   "the snapshot is of format %lld, this libmarmot knows %d: use the newer libmarmot that wrote it",
                   (long long)format, (int)MM_SNAPSHOT_FORMAT);
    } else {
        m->format = (int)format;
        if (!get_all(o, m)) {
            mm_err_set(err, SQLITE_CORRUPT, "a snapshot's manifest is malformed");
        }
    }
    json_decref(o);
    return err->rc;
}

bool mm_manifest_reaches(const struct mm_manifest *a, const struct mm_manifest *b)
{
    bool reaches = a->nshard == b->nshard && a->epoch >= b->epoch;
    for (int k = 0; reaches && a->epoch == b->epoch && k < a->nshard; k++) {
        reaches = a->shard[k].seq >= b->shard[k].seq;
    }
    return reaches;
}

void mm_manifest_answer(const struct mm_manifest *m, int64_t took_ms, struct mm_buf *out)
{
    mm_buf_printf(out, "{\"id\":\"%s\",\"shards\":[", m->id);
    put_shards(m, false, out);
    mm_buf_printf(out, "],\"bytes\":%lld,\"seconds\":%lld.%03lld}", (long long)m->size, (long long)(took_ms / 1000),
                  (long long)(took_ms % 1000));
}
