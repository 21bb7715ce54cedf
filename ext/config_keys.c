#include "config_keys.h"

#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"

#define AT(m) offsetof(struct mm_config, m)
#define INT(p, m, lo, hi, u, d) \
    .path = p, .type = MM_KEY_INT, .member = AT(m), .min = lo, .max = hi, .unit = u, .number = d
#define BOOL(p, m, d) .path = p, .type = MM_KEY_BOOL, .member = AT(m), .number = d
#define TEXT(p, m, d) .path = p, .type = MM_KEY_TEXT, .member = AT(m), .text = d
#define NAME(p, m, d) .path = p, .type = MM_KEY_NAME, .member = AT(m), .text = d
#define SUBJECT(p, m, d) .path = p, .type = MM_KEY_SUBJECT, .member = AT(m), .text = d
#define LIST(p, m) .path = p, .type = MM_KEY_LIST, .member = AT(m), .text = "", .secret = MM_SECRET_URL
#define CHOICE(p, m, c) .path = p, .type = MM_KEY_CHOICE, .member = AT(m), .choices = c
#define WORD(p, m, c, d) .path = p, .type = MM_KEY_WORD, .member = AT(m), .choices = c, .text = d
#define HIDDEN(p, m) .path = p, .type = MM_KEY_TEXT, .member = AT(m), .text = "", .secret = MM_SECRET
#define URL(p, m) .path = p, .type = MM_KEY_TEXT, .member = AT(m), .text = "", .secret = MM_SECRET_URL
#define PROGRAM(p, m) .path = p, .type = MM_KEY_TEXT, .member = AT(m), .text = "", .file_only = true
#define UNUSED(p) .path = p, .type = MM_KEY_UNUSED

#define YEAR_MS (365LL * 86400 * 1000)
#define MIB (1024LL * 1024)

/* Units are those of Marmot's config.toml: intervals and sleep_timeout in
** milliseconds. */
const struct mm_config_key mm_config_keys[] = {
    { INT("node_id", node_id, 0, INT64_MAX, 1, 0) },
    { NAME("cluster", cluster, "marmot") },
    { BOOL("replicate", replicate, true) },
    { BOOL("publish", publish, true) },
    { INT("cleanup_interval", cleanup_interval_ms, 0, YEAR_MS, 1, 0) },
    { INT("sleep_timeout", sleep_timeout_ms, 0, YEAR_MS, 1, 0) },
    { CHOICE("join", join, "strict,adopt,merge") },
    { CHOICE("capture", capture, "auto,hook,trigger") },
    { CHOICE("conflict", conflict, "column,row") },
    { BOOL("schema_changes", schema_changes, true) },
    { WORD("autoincrement", autoincrement, "shared,partition", "shared") },
    { INT("outbox_keep", outbox_keep_ms, 0, 30 * 86400, 1000, 300) },
    { INT("outbox_keep_bytes", outbox_keep_bytes, 0, INT64_MAX, 1, 256 * MIB) },
    { INT("outbox_max_bytes", outbox_max_bytes, 4096, INT64_MAX, 1, 1024 * MIB) },
    { CHOICE("outbox_full", outbox_full, "warn,slow,refuse") },
    { INT("replication_log.shards", log.shards, 1, 64, 1, 1) },
    { INT("replication_log.max_entries", log.max_entries, 16, INT64_MAX, 1, 1000000) },
    { INT("replication_log.max_bytes", log.max_bytes, -1, INT64_MAX, 1, -1) },
    { INT("replication_log.replicas", log.replicas, 1, 5, 1, 1) },
    { INT("replication_log.part_size", log.part_size, 64, 32 * MIB, 1, 512 * 1024) },
    { BOOL("replication_log.compress", log.compress, true) },
    { BOOL("replication_log.update_existing", log.update_existing, false) },
    { LIST("nats.urls", nats.urls) },
    { SUBJECT("nats.subject_prefix", nats.subject_prefix, "+-change-log") },
    { NAME("nats.stream_prefix", nats.stream_prefix, "+-changes") },
    { TEXT("nats.bind_address", nats.bind_address, "127.0.0.1:4222") },
    { PROGRAM("nats.server_config", nats.server_config) },
    { PROGRAM("nats.server_binary", nats.server_binary) },
    { TEXT("nats.cluster_addr", nats.cluster_addr, "") },
    { LIST("nats.cluster_peers", nats.cluster_peers) },
    { LIST("nats.leaf_servers", nats.leaf_servers) },
    { TEXT("nats.seed_file", nats.seed_file, "") },
    { TEXT("nats.creds_file", nats.creds_file, "") },
    { TEXT("nats.user_name", nats.user_name, "") },
    { HIDDEN("nats.user_password", nats.user_password) },
    { HIDDEN("nats.token", nats.token) },
    { TEXT("nats.ca_file", nats.ca_file, "") },
    { TEXT("nats.cert_file", nats.cert_file, "") },
    { TEXT("nats.key_file", nats.key_file, "") },
    { INT("nats.connect_retries", nats.connect_retries, -1, 1000000, 1, 5) },
    { INT("nats.reconnect_wait_seconds", nats.reconnect_wait_seconds, 0, 3600, 1, 2) },
    { BOOL("nats.insecure", nats.insecure, false) },
    { BOOL("snapshot.enabled", snapshot.enabled, true) },
    { WORD("snapshot.store", snapshot.store, "nats,s3,webdav,sftp,file", "nats") },
    { INT("snapshot.interval", snapshot.interval_ms, 0, YEAR_MS, 1, 0) },
    { INT("snapshot.nats.replicas", snapshot.nats_replicas, 1, 5, 1, 1) },
    { NAME("snapshot.nats.bucket", snapshot.nats_bucket, "+-snapshots") },
    { TEXT("snapshot.s3.endpoint", snapshot.s3_endpoint, "") },
    { TEXT("snapshot.s3.path", snapshot.s3_path, "") },
    { BOOL("snapshot.s3.use_ssl", snapshot.s3_use_ssl, false) },
    { TEXT("snapshot.s3.access_key", snapshot.s3_access_key, "") },
    { HIDDEN("snapshot.s3.secret", snapshot.s3_secret) },
    { HIDDEN("snapshot.s3.session_token", snapshot.s3_session_token) },
    { TEXT("snapshot.s3.bucket", snapshot.s3_bucket, "") },
    { TEXT("snapshot.s3.region", snapshot.s3_region, "") },
    { URL("snapshot.webdav.url", snapshot.webdav_url) },
    { URL("snapshot.sftp.url", snapshot.sftp_url) },
    { TEXT("snapshot.file.path", snapshot.file_path, "") },
    { BOOL("prometheus.enable", prometheus.enable, false) },
    { TEXT("prometheus.bind", prometheus.bind, "127.0.0.1:3010") },
    { TEXT("prometheus.namespace", prometheus.namespace, "marmot") },
    { TEXT("prometheus.subsystem", prometheus.subsystem, "") },
    { BOOL("logging.verbose", logging.verbose, false) },
    { WORD("logging.format", logging.format, "console,json", "console") },
    { TEXT("logging.file", logging.file, "") },
    { UNUSED("db_path") },
    { UNUSED("seq_map_path") },
    { UNUSED("scan_max_changes") },
    { UNUSED("polling_interval") },
};
const size_t mm_config_nkeys = sizeof mm_config_keys / sizeof *mm_config_keys;

const struct mm_config_key *mm_config_key_find(const char *path)
{
    for (size_t k = 0; k < mm_config_nkeys; k++) {
        if (strcmp(mm_config_keys[k].path, path) == 0) {
            return &mm_config_keys[k];
        }
    }
    return NULL;
}

bool mm_config_key_section(const char *path)
{
    size_t n = strlen(path);
    for (size_t k = 0; k < mm_config_nkeys; k++) {
        if (strncmp(mm_config_keys[k].path, path, n) == 0 && mm_config_keys[k].path[n] == '.') {
            return true;
        }
    }
    return false;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

enum { NAME_MAX_SEEN = 64 }; /* longer ones are compared by their beginning */

/* Letters to insert, drop or change to make one of the other. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_SEEN + 1];
    size_t nb = strnlen(b, NAME_MAX_SEEN);
    size_t na = strnlen(a, NAME_MAX_SEEN);
    for (size_t k = 0; k <= nb; k++) {
        row[k] = k;
    }
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= nb; k++) {
            size_t best = diagonal + (lower(a[i - 1]) != lower(b[k - 1]));
            best = row[k] + 1 < best ? row[k] + 1 : best;
            best = row[k - 1] + 1 < best ? row[k - 1] + 1 : best;
            diagonal = row[k];
            row[k] = best;
        }
    }
    return row[nb];
}

/* Sections are proposed like keys. */
static const char *const sections[] = {
    "replication_log", "nats",          "snapshot",      "snapshot.nats", "snapshot.s3",
    "snapshot.webdav", "snapshot.sftp", "snapshot.file", "prometheus",    "logging",
};

static size_t unlike(const char *path, const char *known)
{
    const char *last = strrchr(path, '.');
    const char *known_last = strrchr(known, '.');
    /* Right name in the wrong section: a small mistake, too. */
    size_t moved = 1 + distance(last != NULL ? last + 1 : path, known_last != NULL ? known_last + 1 : known);
    size_t d = distance(path, known);
    return moved < d ? moved : d;
}

const char *mm_config_key_nearest(const char *path)
{
    size_t nsections = sizeof sections / sizeof *sections;
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t k = 0; k < mm_config_nkeys + nsections; k++) {
        const char *known = k < mm_config_nkeys ? mm_config_keys[k].path : sections[k - mm_config_nkeys];
        size_t d = unlike(path, known);
        if (d < least) {
            least = d;
            best = known;
        }
    }
    return best;
}

int mm_config_choice(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (int k = 0;; k++) {
        size_t len = strcspn(choices, ",");
        if (len == n && memcmp(choices, word, n) == 0) {
            return k;
        }
        if (choices[len] == '\0') {
            return -1;
        }
        choices += len + 1;
    }
}

bool mm_config_key_is_text(const struct mm_config_key *k)
{
    return k->type == MM_KEY_TEXT || k->type == MM_KEY_NAME || k->type == MM_KEY_SUBJECT || k->type == MM_KEY_LIST ||
           k->type == MM_KEY_WORD;
}

int64_t mm_config_get_int(const struct mm_config *c, const struct mm_config_key *k)
{
    const char *at = (const char *)c + k->member;
    int64_t v = 0;
    if (k->type == MM_KEY_INT) {
        memcpy(&v, at, sizeof v);
        return v / k->unit;
    }
    if (k->type == MM_KEY_BOOL) {
        return *(const bool *)at;
    }
    unsigned choice;
    memcpy(&choice, at, sizeof choice);
    return (int64_t)choice;
}

void mm_config_put_int(struct mm_config *c, const struct mm_config_key *k, int64_t v)
{
    char *at = (char *)c + k->member;
    if (k->type == MM_KEY_INT) {
        v *= k->unit;
        memcpy(at, &v, sizeof v);
    } else if (k->type == MM_KEY_BOOL) {
        *(bool *)at = v != 0;
    } else {
        unsigned choice = (unsigned)v;
        memcpy(at, &choice, sizeof choice);
    }
}

const char *mm_config_get_text(const struct mm_config *c, const struct mm_config_key *k)
{
    char *s;
    memcpy(&s, (const char *)c + k->member, sizeof s);
    return s != NULL ? s : "";
}

int mm_config_put_text(struct mm_config *c, const struct mm_config_key *k, const char *s, size_t n, struct mm_err *err)
{
    char *fresh = strndup(s, n);
    char *was;
    if (fresh == NULL) {
        return mm_err_nomem(err);
    }
    memcpy(&was, (char *)c + k->member, sizeof was);
    memcpy((char *)c + k->member, &fresh, sizeof fresh);
    free(was);
    return SQLITE_OK;
}
