/* What marmot_init accepts, and how it says no. marmot-test: parallel */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "config_keys.h"
#include "test/lib/message.h"

static void accepts(const char *name, const char *text, const char *warning)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(text, &err);
    check(c != NULL && strstr(c->warnings, warning) != NULL, name, "%s %s", err.msg, c != NULL ? c->warnings : "");
    mm_config_free(c);
}

static void refuses(const char *name, const char *text, const char *part)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(text, &err);
    check(c == NULL && err.rc != 0 && strstr(err.msg, part) != NULL, name, "rc %d: %s", err.rc, err.msg);
    mm_config_free(c);
}

/* {"a":{"b":<value>}} for the path a.b. */
static void nest(char out[512], const char *path, const char *value)
{
    int depth = 0;
    size_t at = (size_t)snprintf(out, 512, "{\"");
    for (; *path != '\0'; path++) {
        if (*path == '.') {
            at += (size_t)snprintf(out + at, 512 - at, "\":{\"");
            depth++;
        } else {
            out[at++] = *path;
        }
    }
    at += (size_t)snprintf(out + at, 512 - at, "\":%s}", value);
    while (depth-- > 0) {
        at += (size_t)snprintf(out + at, 512 - at, "}");
    }
}

/* A value that differs from the default and passes all checks by itself. */
static void good_value(const struct mm_config_key *k, char out[128])
{
    if (k->type == MM_KEY_INT) {
        (void)snprintf(out, 128, "%lld", (long long)(k->number < 0 ? 1 : k->number + 1));
    } else if (k->type == MM_KEY_BOOL) {
        (void)snprintf(out, 128, k->number ? "false" : "true");
    } else if (k->type == MM_KEY_CHOICE || k->type == MM_KEY_WORD) {
        const char *last = strrchr(k->choices, ',') + 1;
        (void)snprintf(out, 128, "\"%s\"", last);
    } else if (k->type == MM_KEY_LIST) {
        (void)snprintf(out, 128, "[\"nats://one:4222\",\"nats://two:4222/\"]");
    } else if (strstr(k->path, "addr") != NULL || strstr(k->path, "bind") != NULL) {
        (void)snprintf(out, 128, "\"localhost:4333\"");
    } else {
        (void)snprintf(out, 128, "\"other\"");
    }
}

static bool needs_another(const char *path)
{
    return strcmp(path, "nats.cluster_addr") == 0 || strcmp(path, "nats.cluster_peers") == 0 ||
           strcmp(path, "nats.user_password") == 0 || strcmp(path, "nats.cert_file") == 0 ||
           strcmp(path, "nats.key_file") == 0 || strcmp(path, "snapshot.store") == 0;
}

static bool member_is(const struct mm_config *c, const struct mm_config_key *k, const char *json)
{
    json_t *v = json_loads(json, JSON_DECODE_ANY, NULL);
    char text[256] = "";
    bool same;
    if (json_is_array(v)) {
        same = strcmp(mm_config_get_text(c, k), "nats://one:4222,nats://two:4222/") == 0;
    } else if (json_is_string(v) && k->type == MM_KEY_CHOICE) {
        same = mm_config_get_int(c, k) == mm_config_choice(k->choices, json_string_value(v));
    } else if (json_is_string(v)) {
        same = strcmp(mm_config_get_text(c, k), json_string_value(v)) == 0;
    } else {
        (void)snprintf(text, sizeof text, "%lld", (long long)mm_config_get_int(c, k));
        same = json_is_boolean(v) ? mm_config_get_int(c, k) == json_is_true(v) : strcmp(text, json) == 0;
    }
    json_decref(v);
    return same;
}

static void each_key(const struct mm_config_key *k)
{
    char value[128];
    char text[512];
    char name[256];
    struct mm_err err;
    mm_err_init(&err);
    good_value(k, value);
    nest(text, k->path, value);
    if (k->file_only) {
        (void)snprintf(name, sizeof name, "%s is not taken from SQL", k->path);
        refuses(name, text, k->path);
        return;
    }
    if (k->type == MM_KEY_UNUSED) {
        (void)snprintf(name, sizeof name, "%s gets a warning", k->path);
        accepts(name, text, k->path);
        return;
    }
    (void)snprintf(name, sizeof name, "%s is read", k->path);
    if (needs_another(k->path)) {
        refuses(name, text, k->path[0] == 'n' ? "nats." : "snapshot.");
    } else {
        struct mm_config *c = mm_config_parse(text, &err);
        check(c != NULL && member_is(c, k, value), name, "%s: %s", text, err.msg);
        mm_config_free(c);
    }
    (void)snprintf(name, sizeof name, "%s of a wrong type", k->path);
    nest(text, k->path, k->type == MM_KEY_BOOL ? "1" : k->type == MM_KEY_INT ? "2.5" : "true");
    refuses(name, text, k->path);
    nest(text, k->path, k->type == MM_KEY_LIST ? "[\"nats://a\",7]" : "[]");
    refuses(name, text, k->path);
    nest(text, k->path, "null");
    refuses(name, text, "not null");
    if (k->type == MM_KEY_INT && k->min > INT64_MIN) {
        char number[64];
        (void)snprintf(number, sizeof number, "%lld", (long long)k->min - 1);
        nest(text, k->path, number);
        (void)snprintf(name, sizeof name, "%s below its range", k->path);
        refuses(name, text, "must be from");
    }
    if (k->type == MM_KEY_CHOICE || k->type == MM_KEY_WORD) {
        nest(text, k->path, "\"otherwise\"");
        (void)snprintf(name, sizeof name, "%s with an unknown word", k->path);
        refuses(name, text, k->choices);
    }
}

static void names(void)
{
    refuses("an unknown key names the nearest", "{\"nats\":{\"url\":\"nats://a\"}}",
            "nearest known one is \"nats.urls\"");
    refuses("a key in no section", "{\"urls\":[]}", "\"nats.urls\"");
    refuses("a misspelt section", "{\"snapshots\":{\"enabled\":true}}", "\"snapshot\"");
    refuses("a key below a key", "{\"cluster\":{\"name\":\"x\"}}", "cluster must be a text, not an object");
    refuses("a section that is no object", "{\"nats\":\"nats://a\"}", "nats must be an object");
    refuses("a deep section that is no object", "{\"snapshot\":{\"s3\":3}}", "snapshot.s3 must be an object");
    refuses("a key given twice", "{\"nats\":{\"token\":\"a\"},\"nats.token\":\"b\"}", "nats.token is given twice");
    refuses(
        "a long unknown key",
        "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}",
        "is unknown");
    accepts("dotted keys", "{\"nats.urls\":\"nats://a:1, tls://b\"}", "[]");
}

static void syntax(void)
{
    refuses("broken JSON names line and column", "{\n \"cluster\": marmot}", "line 2, column");
    refuses("a duplicate key in JSON", "{\"cluster\":\"a\",\"cluster\":\"b\"}", "twice");
    refuses("an end too early", "{\"cluster\":\"a\"", "too early");
    refuses("more behind the end", "{} {}", "behind its end");
    refuses("a number too large", "{\"node_id\":99999999999999999999}", "too large");
    refuses("a path of no file", "/nonexistent/config.toml",
            "configuration file /nonexistent/config.toml cannot be opened");
    refuses("no text", "  ", "empty");
    refuses("not UTF-8", "{\"cluster\":\"\xFF\"}", "UTF-8");
    struct mm_err err;
    mm_err_init(&err);
    char *deep = calloc(1, 20001);
    if (deep == NULL) {
        abort();
    }
    memset(deep, '[', 20000);
    memcpy(deep, "{\"a\":", 5);
    refuses("endless nesting", deep, "JSON");
    free(deep);
}

static void urls(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(" nats://a:4222 ,, tls://user:pw@[::1]:4223/ ", &err);
    check(c != NULL && strcmp(c->nats.urls, "nats://a:4222,tls://user:pw@[::1]:4223/") == 0, "a list of URLs", "%s",
          err.msg);
    mm_config_free(c);
    refuses("another scheme", "http://a:4222", "nats.urls: URL 1 (http://a:4222)");
    refuses("a port that is none", "nats://a:99999", "nats.urls: URL 1");
    refuses("a URL without host", "nats://", "nats.urls: URL 1");
    refuses("a URL with a path", "nats://a:4222/x", "nats.urls: URL 1");
    refuses("a URL that is not ASCII",
            "nats://us\xFF"
            "er:pw@a:4222",
            "nats.urls: URL 1 is not like");
    refuses("only commas", "{\"nats\":{\"urls\":\" , \"}}", "without a URL");
    refuses("a comma within an element", "{\"nats\":{\"urls\":[\"nats://a,nats://b\"]}}", "comma");
    refuses("a binding without port", "{\"nats\":{\"bind_address\":\"localhost\"}}", "nats.bind_address");
    refuses("a binding beyond loopback", "{\"nats\":{\"bind_address\":\"0.0.0.0:4222\"}}", "nats.insecure");
    accepts("the same, said to be safe", "{\"nats\":{\"bind_address\":\"0.0.0.0:4222\",\"insecure\":true}}", "[]");
    accepts("the same with a token", "{\"nats\":{\"bind_address\":\"0.0.0.0:4222\",\"token\":\"s\"}}", "[]");
    accepts(
        "dns peers",
        "{\"nats\":{\"cluster_addr\":\"127.0.0.1:4248\",\"cluster_peers\":\"dns://p:4248/?min=3&interval_ms=500\"}}",
        "[]");
    refuses("peers without an address of one's own", "{\"nats\":{\"cluster_peers\":\"nats://p:4248\"}}",
            "nats.cluster_addr is missing");
    refuses("an address without peers", "{\"nats\":{\"cluster_addr\":\"127.0.0.1:4248\"}}",
            "nats.cluster_peers is missing");
    refuses("a leaf that is a member",
            "{\"nats\":{\"cluster_addr\":\"127.0.0.1:4248\",\"cluster_peers\":\"nats://p:1\",\"leaf_servers\":\"nats://"
            "q:1\"}}",
            "or a leaf of one");
    refuses("a cluster open to the network",
            "{\"nats\":{\"cluster_addr\":\"0.0.0.0:4248\",\"cluster_peers\":\"nats://p:1\"}}", "any server could join");
    accepts("a cluster of two", "{\"nats\":{\"cluster_addr\":\"127.0.0.1:4248\",\"cluster_peers\":\"nats://p:1\"}}",
            "three is the least");
    accepts("a cluster beside URLs", "{\"nats\":{\"urls\":\"nats://a\",\"leaf_servers\":\"nats://q:1\"}}",
            "no effect beside nats.urls");
    refuses("a page for Prometheus without port", "{\"prometheus\":{\"bind\":\"localhost\"}}", "prometheus.bind");
    refuses("a namespace that is none", "{\"prometheus\":{\"namespace\":\"1-a\"}}", "prometheus.namespace");
    accepts("a page that others can read", "{\"prometheus\":{\"enable\":true,\"bind\":\":3010\"}}", "other machines");
    refuses("a store without its place", "{\"snapshot\":{\"store\":\"s3\"}}", "snapshot.s3.endpoint is missing");
    refuses("a store with a bad URL", "{\"snapshot\":{\"store\":\"webdav\",\"webdav\":{\"url\":\"ftp://h/\"}}}",
            "snapshot.webdav.url is no URL");
    refuses("an sftp URL of another kind", "{\"snapshot\":{\"store\":\"sftp\",\"sftp\":{\"url\":\"sftp:/h\"}}}",
            "snapshot.sftp.url is no URL");
    refuses("a relative directory", "{\"snapshot\":{\"store\":\"file\",\"file\":{\"path\":\"x\"}}}", "absolute");
    accepts("but not when no snapshots are taken", "{\"snapshot\":{\"store\":\"s3\",\"enabled\":false}}", "[]");
    accepts("an even number of replicas", "{\"replication_log\":{\"replicas\":2}}", "even number");
    mm_err_init(&err);
    c = mm_config_parse("nats://user:hunter2/x@host:4222", &err);
    check(c == NULL && strstr(err.msg, "hunter2") == NULL, "no message shows a password", "%s", err.msg);
    mm_config_free(c);
    mm_err_init(&err);
    c = mm_config_parse("{\"nats\":{\"user_password\":\"hunter2}}", &err);
    check(c == NULL && strstr(err.msg, "hunter2") == NULL, "not for broken JSON either", "%s", err.msg);
    mm_config_free(c);
}

static void defaults(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(NULL, &err);
    bool good = c != NULL && strcmp(c->nats.stream_prefix, "marmot-changes") == 0 &&
                strcmp(c->nats.subject_prefix, "marmot-change-log") == 0 && c->log.max_entries == 1000000 &&
                c->outbox_keep_ms == 300000 && c->nats.urls[0] == '\0' && strcmp(c->warnings, "[]") == 0;
    check(good, "the defaults", "%s", err.msg);
    mm_config_free(c);
    c = mm_config_parse("{\"cluster\":\"shop\",\"outbox_keep\":2}", &err);
    good = c != NULL && strcmp(c->nats.stream_prefix, "shop-changes") == 0 &&
           strcmp(c->nats.subject_prefix, "shop-change-log") == 0 &&
           strcmp(c->snapshot.nats_bucket, "shop-snapshots") == 0 && c->outbox_keep_ms == 2000;
    check(good, "names derived from the cluster's", "%s", err.msg);
    mm_config_free(c);
    accepts("an empty object", "{}", "[]");
}

/* The shape of a Marmot v0.8 file, all sections, as JSON. */
static void marmot(void)
{
    accepts(
        "a Marmot v0.8 configuration",
        "{\"db_path\":\"/tmp/m.db\",\"node_id\":1,\"seq_map_path\":\"/tmp/s\",\"replicate\":true,\"publish\":true,"
        "\"scan_max_changes\":512,\"cleanup_interval\":5000,\"sleep_timeout\":15000,\"polling_interval\":0,"
        "\"snapshot\":{\"enabled\":true,\"store\":\"nats\",\"interval\":0,\"nats\":{\"replicas\":1,\"bucket\":\"b\"},"
        "\"s3\":{\"endpoint\":\"127.0.0.1:9000\",\"path\":\"p/q\",\"use_ssl\":false,\"access_key\":\"a\","
        "\"secret\":\"s\",\"session_token\":\"\",\"bucket\":\"m\"},\"webdav\":{\"url\":\"https://h/?dir=/d&login=u\"},"
        "\"sftp\":{\"url\":\"sftp://u:p@h:22/d\"}},"
        "\"replication_log\":{\"replicas\":1,\"shards\":1,\"max_entries\":1024,\"compress\":true,"
        "\"update_existing\":false},"
        "\"nats\":{\"urls\":[],\"bind_address\":\"127.0.0.1:4222\",\"server_config\":\"\","
        "\"subject_prefix\":\"marmot-change-log\",\"stream_prefix\":\"marmot-changes\",\"seed_file\":\"\","
        "\"user_name\":\"\",\"user_password\":\"\",\"ca_file\":\"\",\"cert_file\":\"\",\"key_file\":\"\","
        "\"connect_retries\":5,\"reconnect_wait_seconds\":2},"
        "\"prometheus\":{\"enable\":false,\"bind\":\":3010\",\"namespace\":\"\",\"subsystem\":\"\"},"
        "\"logging\":{\"verbose\":true,\"format\":\"console\"}}",
        "scan_max_changes has no meaning here");
}

int main(void)
{
    marmot();
    for (size_t k = 0; k < mm_config_nkeys; k++) {
        each_key(&mm_config_keys[k]);
    }
    names();
    syntax();
    urls();
    defaults();
    return check_failures() != 0;
}
