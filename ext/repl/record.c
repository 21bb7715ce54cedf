#include "repl/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MESSAGE_MAX ((size_t)8 << 20)
#define DESCRIPTION "libmarmot 1 cluster "

static void bucket_name(const struct mm_join_options *o, char *out, size_t n)
{
    (void)snprintf(out, n, "%s-meta", o->cluster);
}

/* The record's value: id, newline, settings. */
static bool parse(const char *value, struct mm_record *rec)
{
    const char *nl = strchr(value, '\n');
    if (nl == NULL || nl - value != 32 || strspn(value, "0123456789abcdef") != 32) {
        return false;
    }
    memcpy(rec->id, value, 32);
    rec->id[32] = '\0';
    rec->settings = strdup(nl + 1);
    return rec->settings != NULL;
}

int mm_record_read(struct mm_repl *r, const struct mm_join_options *o, struct mm_record *rec, struct mm_err *err)
{
    char bucket[256];
    char *value = NULL;
    size_t len = 0;
    bucket_name(o, bucket, sizeof bucket);
    memset(rec, 0, sizeof *rec);
    if (!mm_bus_kv_get(r->bus, bucket, "cluster", &value, &len, MM_REQUEST_MS, err)) {
        return 0;
    }
    if (!parse(value, rec)) {
        mm_err_set(err, SQLITE_CORRUPT,
                   "the record of cluster %s in bucket %s is not readable: set another cluster name", o->cluster,
                   bucket);
    }
    free(value);
    return err->rc == SQLITE_OK;
}

void mm_record_missing(const struct mm_join_options *o, struct mm_err *err)
{
    mm_err_set(err, SQLITE_BUSY,
               "cluster %s is not there yet, and a node with replicate false begins none: it joins as soon as another "
               "node has begun it",
               o->cluster);
}

int mm_record_make(struct mm_repl *r, const struct mm_join_options *o, const char *id, struct mm_err *err)
{
    char bucket[256];
    uint8_t fresh[16];
    struct mm_buf b;
    bucket_name(o, bucket, sizeof bucket);
    if (getrandom(fresh, sizeof fresh, 0) != (ssize_t)sizeof fresh) { /* not SQLite's: no gate is held here */
        return mm_err_set(err, SQLITE_IOERR, "no random number for the cluster's id: %s", strerror(errno));
    }
    mm_buf_init(&b, MESSAGE_MAX);
    for (size_t k = 0; k < sizeof fresh && id == NULL; k++) {
        mm_buf_printf(&b, "%02x", fresh[k]);
    }
    mm_buf_str(&b, id != NULL ? id : "");
    mm_buf_printf(&b, "\n%s", o->settings);
    mm_bus_kv_open(r->bus, bucket, o->replicas, 0, MM_REQUEST_MS, err);
    if (mm_buf_check(&b, err, "the cluster's record") == SQLITE_OK) {
        mm_bus_kv_create(r->bus, bucket, "cluster", b.data, b.len, MM_REQUEST_MS, err);
    }
    mm_buf_free(&b);
    return err->rc;
}

static bool ours(const struct mm_stream_info *info, const char *cluster_id)
{
    size_t n = sizeof DESCRIPTION - 1;
    return strncmp(info->description, DESCRIPTION, n) == 0 && strcmp(info->description + n, cluster_id) == 0;
}

/* The shard's stream exists and is this cluster's. */
enum mm_join_result mm_record_stream(struct mm_repl *r, const struct mm_join_options *o, struct mm_shard *s,
                                     bool create, struct mm_stream_info *info, struct mm_err *err)
{
    char description[96];
    (void)snprintf(description, sizeof description, "%s%s", DESCRIPTION, r->cluster_id);
    struct mm_stream_config c = {
        .name = s->stream,
        .subject = s->subject,
        .description = description,
        .max_msgs = o->max_entries > 0 ? o->max_entries : -1,
        .max_bytes = o->max_bytes > 0 ? o->max_bytes : -1,
        .max_msg_size = -1,
        .replicas = o->replicas,
        .discard_new = true,
        .duplicates_ns = 30LL * 1000000000,
    };
    int found = mm_bus_stream_info(r->bus, s->stream, info, MM_REQUEST_MS, err);
    if (err->rc == SQLITE_OK && !found && !create) {
        mm_err_set(err, SQLITE_NOTFOUND,
                   "the server has no stream %s, which this node took part in: it was deleted or this is another "
                   "server; bring back its store, or do as the remedy says",
                   s->stream);
        return MM_JOIN_DIVERGED;
    }
    if (err->rc == SQLITE_OK && !found && !mm_bus_stream_create(r->bus, &c, info, MM_REQUEST_MS, err) &&
        err->rc == SQLITE_OK) {
        found = mm_bus_stream_info(r->bus, s->stream, info, MM_REQUEST_MS, err);
        if (!found) {
            mm_err_set(err, SQLITE_CANTOPEN,
                       "stream %s cannot be created: its subject %s belongs to another stream (Marmot v0.8 or another "
                       "program): set cluster to another name in the configuration",
                       s->stream, s->subject);
            return MM_JOIN_CONFLICT;
        }
    }
    if (err->rc != SQLITE_OK) {
        return MM_JOIN_LATER;
    }
    if (!ours(info, r->cluster_id)) {
        mm_err_set(err, SQLITE_AUTH,
                   "stream %s belongs to Marmot v0.8 or another program: set cluster to another name in the "
                   "configuration",
                   s->stream);
        return create ? MM_JOIN_CONFLICT : MM_JOIN_DIVERGED;
    }
    s->end_seq = info->last_seq;
    return MM_JOIN_DONE;
}

/* Both are canonical: the same keys in the same order. Sets *from to where the
** first differing "key":value begins in both; returns their lengths. */
static void first_difference(const char *a, const char *b, size_t *from, int *len_a, int *len_b)
{
    size_t at = 0;
    while (a[at] != '\0' && a[at] == b[at]) {
        at++;
    }
    while (at > 0 && a[at - 1] != ',' && a[at - 1] != '{') {
        at--;
    }
    *from = at;
    *len_a = (int)strcspn(a + at, ",}");
    *len_b = (int)strcspn(b + at, ",}");
}

enum mm_join_result mm_record_check(struct mm_repl *r, const struct mm_join_options *o, const struct mm_record *rec,
                                    struct mm_err *err)
{
    if (strcmp(rec->settings, o->settings) != 0) {
        size_t from;
        int theirs;
        int ours_len;
        first_difference(rec->settings, o->settings, &from, &theirs, &ours_len);
        mm_err_set(
            err, SQLITE_MISMATCH,
            "settings that must be one per cluster differ: the cluster %s has %.*s, this node %.*s: configure this "
            "node like the others",
            o->cluster, theirs, rec->settings + from, ours_len, o->settings + from);
        return MM_JOIN_CONFLICT;
    }
    (void)snprintf(r->cluster_id, sizeof r->cluster_id, "%s", rec->id);
    return MM_JOIN_DONE;
}
