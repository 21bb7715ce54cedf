/* The configuration of one node: a value object with defaults, parsing,
** validation and its stored form.
**
** Threads: none of its own. Ownership: a struct mm_config owns its strings;
** free with mm_config_free. No I/O beyond the secrets file (`<db>-marmot`,
** mode 0600) and the TOML file.
** Keys are those of SPEC 1; every one of them is a row of one const table in
** config_keys.c (path, type, member, range, default, secret). */
#ifndef MM_CONFIG_H
#define MM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum mm_capture_mode { MM_CAPTURE_AUTO, MM_CAPTURE_HOOK, MM_CAPTURE_TRIGGER };
enum mm_conflict_mode { MM_CONFLICT_COLUMN, MM_CONFLICT_ROW };
enum mm_join_mode { MM_JOIN_STRICT, MM_JOIN_ADOPT, MM_JOIN_MERGE };
enum mm_outbox_full { MM_FULL_WARN, MM_FULL_SLOW, MM_FULL_REFUSE };

struct mm_config {
    int64_t node_id; /* 0: made at the first start and remembered */
    char *cluster;
    bool replicate, publish;
    int64_t cleanup_interval_ms, sleep_timeout_ms;
    enum mm_join_mode join;
    enum mm_capture_mode capture;
    enum mm_conflict_mode conflict;
    bool schema_changes;
    char *autoincrement;
    int64_t outbox_keep_ms, outbox_keep_bytes, outbox_max_bytes;
    enum mm_outbox_full outbox_full;
    struct {
        int64_t shards, max_entries, max_bytes /* -1 = unlimited */, replicas, part_size;
        bool compress, update_existing;
    } log;
    struct {
        char *urls; /* comma-separated; "" = embedded server. May hold userinfo */
        char *subject_prefix, *stream_prefix, *bind_address, *server_config, *server_binary;
        char *cluster_addr, *cluster_peers, *leaf_servers;
        char *seed_file, *creds_file, *user_name, *user_password, *token;
        char *ca_file, *cert_file, *key_file;
        int64_t connect_retries, reconnect_wait_seconds;
        bool insecure;
    } nats;
    struct {
        bool enabled;
        char *store;
        int64_t interval_ms;
        int64_t nats_replicas;
        char *nats_bucket;
        char *s3_endpoint, *s3_path, *s3_access_key, *s3_secret, *s3_session_token, *s3_bucket, *s3_region;
        bool s3_use_ssl;
        char *webdav_url, *sftp_url, *file_path;
    } snapshot;
    struct {
        bool enable;
        char *bind, *namespace, *subsystem;
    } prometheus;
    struct {
        bool verbose;
        char *format, *file;
    } logging;
    char *warnings; /* JSON array of strings: keys without a meaning here, ... */
};

/* Reads what the user gave marmot_init: JSON object, NATS URLs, the path of a
** TOML file, or NULL for the defaults. nats.server_binary and
** nats.server_config are taken from the file alone, and neither stored nor
** compared: what a database or SQL says never runs a program. Unknown keys: an error with the nearest known name. Returns NULL
** with err set. Messages name the key or the place (line and column), cause
** and remedy; the caller puts the function's name before them. */
struct mm_config *mm_config_parse(const char *text, struct mm_err *err);
void mm_config_free(struct mm_config *c);

/* The accepted configuration as canonical JSON, secrets left out (their place
** is marked, so that a missing one can be named), and the secrets alone. */
int mm_config_public(const struct mm_config *c, struct mm_buf *out, struct mm_err *err);
bool mm_config_has_secrets(const struct mm_config *c);

/* Appends a list of URLs without userinfo and without login= and secret=
** parameters: what may stand in a status, a log, an error. */
void mm_config_redact(const char *urls, struct mm_buf *out);

/* Writes <db>-marmot (0600, by rename) when there are secrets, else removes
** it. One that belongs to another user is left alone: an error names it. */
int mm_config_save_secrets(const struct mm_config *c, const char *db_path, struct mm_err *err);
/* From stored public form plus the secrets file; a missing secret is an error
** that names the key. */
struct mm_config *mm_config_restore(const char *stored, const char *db_path, struct mm_err *err);

/* Same in everything that matters (canonical forms and secrets are equal). */
bool mm_config_equal(const struct mm_config *a, const struct mm_config *b);

/* What must be one value per cluster, as canonical JSON for its record. */
int mm_config_cluster_settings(const struct mm_config *c, struct mm_buf *out, struct mm_err *err);

#endif
