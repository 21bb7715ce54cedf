/* The configuration as JSON: what users write, what is stored, what the
** cluster agrees on. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "config_keys.h"

enum { PATH_MAX_LEN = 256, TEXT_MAX_LEN = 1 << 20, FOLD_VERSION = 1 };

/* Stands where a secret is kept elsewhere. */
static const char marker[] = "secret";

struct reading {
    struct mm_config *c;
    bool *marked; /* NULL: the user's own text */
    bool file;    /* from a TOML file: programs may be named */
    bool *seen;
    struct mm_err *err;
};

static const char *found_type(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_NULL:
        return "null";
    default:
        return "a truth value";
    }
}

static int wrong_type(struct reading *r, const struct mm_config_key *k, const char *want, const json_t *v)
{
    return mm_err_set(r->err, SQLITE_ERROR, "configuration key %s must be %s, not %s", k->path, want, found_type(v));
}

static void read_int(struct reading *r, const struct mm_config_key *k, const json_t *v)
{
    if (!json_is_integer(v)) {
        wrong_type(r, k, "a whole number", v);
        return;
    }
    int64_t n = json_integer_value(v);
    if (n < k->min || n > k->max) {
        mm_err_set(r->err, SQLITE_ERROR, "configuration key %s must be from %lld to %lld, not %lld", k->path,
                   (long long)k->min, (long long)k->max, (long long)n);
        return;
    }
    mm_config_put_int(r->c, k, n);
}

static bool is_word(const char *s, bool dots)
{
    size_t n = strlen(s);
    size_t ok = strspn(s, dots ? "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
                               : "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    return n > 0 && n <= 128 && ok == n && s[0] != '.' && s[n - 1] != '.' && strstr(s, "..") == NULL;
}

static void read_text(struct reading *r, const struct mm_config_key *k, const json_t *v)
{
    if (!json_is_string(v)) {
        wrong_type(r, k, k->type == MM_KEY_LIST ? "a text or an array of texts" : "a text", v);
        return;
    }
    const char *s = json_string_value(v);
    if (k->type == MM_KEY_WORD && mm_config_choice(k->choices, s) < 0) {
        mm_err_set(r->err, SQLITE_ERROR, "configuration key %s must be one of %s, not \"%.60s\"", k->path, k->choices,
                   s);
    } else if (s[0] == '\0' && k->text[0] == '+') {
        return; /* Marmot's way to say: the default */
    } else if ((k->type == MM_KEY_NAME || k->type == MM_KEY_SUBJECT) && !is_word(s, k->type == MM_KEY_SUBJECT)) {
        mm_err_set(r->err, SQLITE_ERROR,
                   "configuration key %s must be 1 to 128 letters, digits, '-' and '_'%s, not \"%.60s\"", k->path,
                   k->type == MM_KEY_SUBJECT ? " with single dots between" : "", s);
    } else {
        mm_config_put_text(r->c, k, s, json_string_length(v), r->err);
    }
}

static void read_list(struct reading *r, const struct mm_config_key *k, const json_t *v)
{
    struct mm_buf b;
    mm_buf_init(&b, TEXT_MAX_LEN);
    for (size_t i = 0; i < json_array_size(v) && r->err->rc == SQLITE_OK; i++) {
        const json_t *item = json_array_get(v, i);
        if (!json_is_string(item)) {
            mm_err_set(r->err, SQLITE_ERROR, "configuration key %s[%zu] must be a text, not %s", k->path, i,
                       found_type(item));
        } else if (strchr(json_string_value(item), ',') != NULL) {
            mm_err_set(r->err, SQLITE_ERROR, "configuration key %s[%zu] holds a comma: give one URL an element",
                       k->path, i);
        } else {
            mm_buf_str(&b, i > 0 ? "," : "");
            mm_buf_str(&b, json_string_value(item));
        }
    }
    if (mm_buf_check(&b, r->err, k->path) == SQLITE_OK) {
        mm_config_put_text(r->c, k, b.len > 0 ? (const char *)b.data : "", b.len, r->err);
    }
    mm_buf_free(&b);
}

static void read_choice(struct reading *r, const struct mm_config_key *k, const json_t *v)
{
    int choice = json_is_string(v) ? mm_config_choice(k->choices, json_string_value(v)) : -1;
    if (!json_is_string(v)) {
        wrong_type(r, k, "a text", v);
    } else if (choice < 0) {
        mm_err_set(r->err, SQLITE_ERROR, "configuration key %s must be one of %s, not \"%.60s\"", k->path, k->choices,
                   json_string_value(v));
    } else {
        mm_config_put_int(r->c, k, choice);
    }
}

static void read_key(struct reading *r, const struct mm_config_key *k, const json_t *v)
{
    size_t place = (size_t)(k - mm_config_keys);
    if (r->seen[place]) {
        mm_err_set(r->err, SQLITE_ERROR, "configuration key %s is given twice: leave one out", k->path);
        return;
    }
    r->seen[place] = true;
    if (k->file_only && !r->file && !(json_is_string(v) && json_string_length(v) == 0)) {
        mm_err_set(r->err, SQLITE_ERROR,
                   "configuration key %s is not taken from SQL, since it names what is run: write it into a TOML file, "
                   "or use the environment variable MARMOT_NATS_SERVER for another nats-server",
                   k->path);
    } else if (r->marked != NULL && k->secret != MM_PUBLIC && json_is_true(json_object_get(v, marker))) {
        r->marked[place] = true;
    } else if (k->type == MM_KEY_UNUSED) {
        mm_config_warn(r->c, r->err, "configuration key %s has no meaning here and is ignored", k->path);
    } else if (k->type == MM_KEY_INT) {
        read_int(r, k, v);
    } else if (k->type == MM_KEY_CHOICE) {
        read_choice(r, k, v);
    } else if (k->type == MM_KEY_LIST && json_is_array(v)) {
        read_list(r, k, v);
    } else if (k->type != MM_KEY_BOOL) {
        read_text(r, k, v);
    } else if (json_is_boolean(v)) {
        mm_config_put_int(r->c, k, json_is_true(v));
    } else {
        wrong_type(r, k, "true or false", v);
    }
}

static void read_section(struct reading *r, json_t *object, const char *prefix)
{
    const char *name;
    json_t *v;
    json_object_foreach(object, name, v)
    {
        char path[PATH_MAX_LEN];
        int n = snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", name);
        const struct mm_config_key *k = n < (int)sizeof path ? mm_config_key_find(path) : NULL;
        if (k != NULL) {
            read_key(r, k, v);
        } else if (n >= (int)sizeof path || !mm_config_key_section(path)) {
            mm_err_set(r->err, SQLITE_ERROR, "configuration key \"%.100s\" is unknown; the nearest known one is \"%s\"",
                       path, mm_config_key_nearest(path));
        } else if (!json_is_object(v)) {
            mm_err_set(r->err, SQLITE_ERROR, "configuration key %s must be an object with keys of its own, not %s",
                       path, found_type(v));
        } else {
            read_section(r, v, path);
        }
        if (r->err->rc != SQLITE_OK) {
            return;
        }
    }
}

int mm_config_read_tree(struct mm_config *c, struct json_t *root, bool *marked, bool file, struct mm_err *err)
{
    bool *seen = err->rc == SQLITE_OK ? calloc(mm_config_nkeys, sizeof *seen) : NULL;
    if (seen == NULL) {
        return mm_err_nomem(err);
    }
    struct reading r = { c, marked, file, seen, err };
    read_section(&r, root, "");
    free(seen);
    return err->rc;
}

int mm_config_read_json(struct mm_config *c, const char *text, bool *marked, struct mm_err *err)
{
    json_error_t at;
    if (strlen(text) > TEXT_MAX_LEN) {
        return mm_err_set(err, SQLITE_TOOBIG, "configuration of %zu bytes: the limit is %d", strlen(text),
                          TEXT_MAX_LEN);
    }
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &at);
    if (root == NULL && json_error_code(&at) == json_error_out_of_memory) {
        mm_err_nomem(err);
    } else if (root == NULL) {
        /* jansson's own words may quote a piece of a secret: only the place is told. */
        mm_err_set(err, SQLITE_ERROR, "configuration is not valid JSON: line %d, column %d: %s", at.line, at.column,
                   json_error_code(&at) == json_error_duplicate_key            ? "a key is given twice"
                   : json_error_code(&at) == json_error_invalid_utf8           ? "the text is not UTF-8"
                   : json_error_code(&at) == json_error_premature_end_of_input ? "it ends too early"
                   : json_error_code(&at) == json_error_end_of_input_expected  ? "there is more behind its end"
                   : json_error_code(&at) == json_error_numeric_overflow       ? "a number is too large"
                                                                               : "a syntax error");
    } else if (!json_is_object(root)) {
        mm_err_set(err, SQLITE_ERROR, "configuration must be a JSON object, not %s", found_type(root));
    } else {
        mm_config_read_tree(c, root, marked, false, err);
    }
    json_decref(root);
    return err->rc;
}

static json_t *value_of(const struct mm_config *c, const struct mm_config_key *k)
{
    if (k->type == MM_KEY_BOOL) {
        return json_boolean(mm_config_get_int(c, k) != 0);
    }
    if (k->type == MM_KEY_INT) {
        return json_integer(mm_config_get_int(c, k));
    }
    if (k->type == MM_KEY_CHOICE) {
        const char *choice = k->choices;
        for (int64_t n = mm_config_get_int(c, k); n > 0; n--) {
            choice += strcspn(choice, ",") + 1;
        }
        return json_stringn(choice, strcspn(choice, ","));
    }
    return json_string(mm_config_get_text(c, k));
}

/* Puts a value (taken) at its dotted path below root. */
static int set_path(json_t *root, const char *path, json_t *v)
{
    char name[PATH_MAX_LEN];
    size_t n;
    while (path[n = strcspn(path, ".")] == '.') {
        (void)snprintf(name, sizeof name, "%.*s", (int)n, path);
        json_t *section = json_object_get(root, name);
        if (section == NULL) {
            section = json_object();
            if (json_object_set_new(root, name, section) != 0) {
                json_decref(v);
                return -1;
            }
        }
        root = section;
        path += n + 1;
    }
    return json_object_set_new(root, path, v);
}

static int dump(json_t *root, bool failed, struct mm_buf *out, struct mm_err *err)
{
    char *text = root != NULL && !failed ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (text == NULL) {
        mm_err_nomem(err);
    } else {
        mm_buf_str(out, text);
        mm_buf_check(out, err, "the configuration");
        explicit_bzero(text, strlen(text));
    }
    free(text);
    json_decref(root);
    return err->rc;
}

int mm_config_public(const struct mm_config *c, struct mm_buf *out, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    json_t *root = json_object();
    bool failed = false;
    for (size_t i = 0; i < mm_config_nkeys && !failed; i++) {
        const struct mm_config_key *k = &mm_config_keys[i];
        if (k->type != MM_KEY_UNUSED && !k->file_only) {
            json_t *v = mm_config_is_secret(c, k) ? json_pack("{sb}", marker, 1) : value_of(c, k);
            failed = set_path(root, k->path, v) != 0;
        }
    }
    return dump(root, failed, out, err);
}

int mm_config_secret_json(const struct mm_config *c, struct mm_buf *out, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    json_t *root = json_object();
    bool failed = false;
    for (size_t i = 0; i < mm_config_nkeys && !failed; i++) {
        const struct mm_config_key *k = &mm_config_keys[i];
        if (mm_config_is_secret(c, k)) {
            failed = json_object_set_new(root, k->path, value_of(c, k)) != 0;
        }
    }
    return dump(root, failed, out, err);
}

static bool is_place_of_store(const char *path, const char *store)
{
    static const char *const places[] = {
        "snapshot.nats.bucket", "snapshot.s3.endpoint", "snapshot.s3.path",   "snapshot.s3.bucket",
        "snapshot.webdav.url",  "snapshot.sftp.url",    "snapshot.file.path",
    };
    size_t n = strlen(store);
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        if (strcmp(path, places[k]) == 0) {
            return strncmp(path + strlen("snapshot."), store, n) == 0 && path[strlen("snapshot.") + n] == '.';
        }
    }
    return false;
}

int mm_config_cluster_settings(const struct mm_config *c, struct mm_buf *out, struct mm_err *err)
{
    static const char *const shared[] = {
        "replication_log.shards",
        "replication_log.compress",
        "replication_log.max_entries",
        "replication_log.part_size",
        "nats.subject_prefix",
        "nats.stream_prefix",
        "snapshot.enabled",
        "snapshot.store",
        "schema_changes",
        "autoincrement",
    };
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    json_t *root = json_object();
    bool failed = json_object_set_new(root, "fold", json_integer(FOLD_VERSION)) != 0;
    for (size_t k = 0; k < sizeof shared / sizeof *shared; k++) {
        failed = json_object_set_new(root, shared[k], value_of(c, mm_config_key_find(shared[k]))) != 0 || failed;
    }
    for (size_t i = 0; i < mm_config_nkeys; i++) {
        const struct mm_config_key *k = &mm_config_keys[i];
        if (!is_place_of_store(k->path, c->snapshot.store)) {
            continue;
        }
        struct mm_buf b; /* another node may use other credentials for the same place */
        mm_buf_init(&b, TEXT_MAX_LEN);
        mm_config_redact(mm_config_get_text(c, k), &b);
        char *place = mm_buf_take(&b);
        failed = place == NULL || json_object_set_new(root, k->path, json_string(place)) != 0 || failed;
        free(place);
    }
    return dump(root, failed, out, err);
}
