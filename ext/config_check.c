/* What depends on several keys at once: derived names and checks. */
#include <string.h>
#include <strings.h>

#include "base/sqlite.h"
#include "base/url.h"
#include "config_keys.h"

/* A default that begins with + takes the cluster's name for it, so that
** clusters share a server without meeting. */
static void derive_names(struct mm_config *c, struct mm_err *err)
{
    for (size_t i = 0; i < mm_config_nkeys && err->rc == SQLITE_OK; i++) {
        const struct mm_config_key *k = &mm_config_keys[i];
        const char *s = mm_config_key_is_text(k) ? mm_config_get_text(c, k) : "";
        if ((k->type == MM_KEY_NAME || k->type == MM_KEY_SUBJECT) && s[0] == '+') {
            struct mm_buf b;
            mm_buf_init(&b, 512);
            mm_buf_str(&b, c->cluster);
            mm_buf_str(&b, s + 1);
            if (mm_buf_check(&b, err, k->path) == SQLITE_OK) {
                mm_config_put_text(c, k, (const char *)b.data, b.len, err);
            }
            mm_buf_free(&b);
        }
    }
}

/* Begin and length without the blanks around. */
static const char *trim(const char *s, size_t *n)
{
    while (*n > 0 && (*s == ' ' || *s == '\t')) {
        s++;
        (*n)--;
    }
    while (*n > 0 && (s[*n - 1] == ' ' || s[*n - 1] == '\t')) {
        (*n)--;
    }
    return s;
}

static bool is_port(const char *s, size_t n)
{
    long v = 0;
    for (size_t k = 0; k < n; k++) {
        if (s[k] < '0' || s[k] > '9' || n > 5) {
            return false;
        }
        v = v * 10 + (s[k] - '0');
    }
    return n > 0 && v > 0 && v <= 65535;
}

/* host, host:port, [v6]:port; with `port` the port must be there. */
static bool is_host_port(const char *s, size_t n, bool port)
{
    size_t host = 0;
    if (n > 0 && s[0] == '[') {
        const char *close = memchr(s, ']', n);
        if (close == NULL || close == s + 1) {
            return false;
        }
        host = (size_t)(close - s) + 1;
    } else {
        while (host < n && s[host] != ':') {
            unsigned char ch = (unsigned char)s[host];
            if (ch <= ' ' || ch == 0x7F || strchr("/?#@[]\"\\", ch) != NULL) {
                return false;
            }
            host++;
        }
    }
    if (host == n) {
        return host > 0 && !port;
    }
    return host > 0 && s[host] == ':' && is_port(s + host + 1, n - host - 1);
}

/* One URL of a list; `schemes` are "a://,b://". Anything but printable ASCII
** is to be percent-encoded, in userinfo too (RFC 3986). */
static bool is_url(const char *s, size_t n, const char *schemes)
{
    for (size_t k = 0; k < n; k++) {
        if (s[k] <= ' ' || s[k] > '~') {
            return false;
        }
    }
    for (; *schemes != '\0'; schemes += schemes[0] == ',') {
        size_t len = strcspn(schemes, ",");
        if (n > len && strncasecmp(s, schemes, len) == 0) {
            const char *host = s + len;
            size_t rest = n - len;
            const char *slash = memchr(host, '/', rest);
            if (slash != NULL && schemes[0] != 'd' && slash != host + rest - 1) {
                return false; /* only dns:// takes more than a closing slash */
            }
            size_t hn = slash != NULL ? (size_t)(slash - host) : rest;
            const char *at = memrchr(host, '@', hn);
            if (at != NULL) {
                hn -= (size_t)(at + 1 - host);
                host = at + 1;
            }
            return is_host_port(host, hn, false);
        }
        schemes += len;
    }
    return false;
}

/* Checks a list and writes it again without blanks and empty elements. */
static void settle_list(struct mm_config *c, const char *path, const char *schemes, const char *example,
                        struct mm_err *err)
{
    const struct mm_config_key *k = mm_config_key_find(path);
    const char *s = mm_config_get_text(c, k);
    bool given = *s != '\0';
    int number = 0;
    struct mm_buf b;
    mm_buf_init(&b, 1 << 20);
    while (*s != '\0' && err->rc == SQLITE_OK) {
        size_t len = strcspn(s, ",");
        size_t n = len;
        const char *url = trim(s, &n);
        number++;
        if (n > 0 && !is_url(url, n, schemes)) {
            bool show = strchr(mm_config_get_text(c, k), '@') == NULL;
            mm_err_set(err, SQLITE_ERROR, "configuration key %s: URL %d%s%.*s%s is not like %s", path, number,
                       show ? " (" : "", show ? (int)(n < 100 ? n : 100) : 0, url, show ? ")" : "", example);
        } else if (n > 0) {
            mm_buf_str(&b, b.len > 0 ? "," : "");
            mm_buf_add(&b, url, n);
        }
        s += len + (s[len] == ',');
    }
    mm_buf_check(&b, err, path);
    if (given && b.len == 0) {
        mm_err_set(err, SQLITE_ERROR, "configuration key %s is a list without a URL: give one like %s, or leave it out",
                   path, example);
    }
    if (given && err->rc == SQLITE_OK) {
        mm_config_put_text(c, k, (const char *)b.data, b.len, err);
    }
    mm_buf_free(&b);
}

static bool is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "localhost:", 10) == 0 ||
           strncmp(address, "[::1]:", 6) == 0;
}

static void need(struct mm_err *err, bool when, const char *key, const char *value, const char *why)
{
    if (when && value[0] == '\0') {
        mm_err_set(err, SQLITE_ERROR, "configuration key %s is missing: %s", key, why);
    }
}

/* Servers that know each other: what makes no sense, or is dangerous, is told. */
static void check_neighbours(struct mm_config *c, struct mm_err *err)
{
    bool member = c->nats.cluster_addr[0] != '\0';
    bool leaf = c->nats.leaf_servers[0] != '\0';
    const char *peers = c->nats.cluster_peers;
    if (err->rc != SQLITE_OK || (!member && !leaf && peers[0] == '\0')) {
        return;
    }
    if (c->nats.urls[0] != '\0' || c->nats.server_config[0] != '\0') {
        mm_config_warn(c, err, "nats.cluster_addr, nats.cluster_peers and nats.leaf_servers have no effect beside %s",
                       c->nats.urls[0] != '\0' ? "nats.urls" : "nats.server_config");
    } else if (member && peers[0] == '\0') {
        mm_err_set(err, SQLITE_ERROR,
                   "configuration key nats.cluster_peers is missing: nats.cluster_addr is given, and a member of a "
                   "cluster must know the others");
    } else if (!member && peers[0] != '\0') {
        mm_err_set(
            err, SQLITE_ERROR,
            "configuration key nats.cluster_addr is missing: nats.cluster_peers is given, and the others must be "
            "able to reach this member");
    } else if (member && leaf) {
        mm_err_set(err, SQLITE_ERROR,
                   "configuration keys nats.cluster_addr and nats.leaf_servers are both given: a server is a member of "
                   "a cluster, or a leaf of one");
    } else if (member && strstr(peers, "dns://") == NULL && strchr(peers, ',') == NULL) {
        mm_config_warn(c, err,
                       "nats.cluster_peers names one server: a cluster of two stops when either does; three is the "
                       "least that stands a failure");
    }
}

static void check_nats(struct mm_config *c, struct mm_err *err)
{
    settle_list(c, "nats.urls", "nats://,tls://", "nats://host:4222 or tls://host:4222", err);
    settle_list(c, "nats.cluster_peers", "nats://,tls://,dns://", "nats://host:4222/ or dns://host:4222/?min=3", err);
    settle_list(c, "nats.leaf_servers", "nats://,tls://,dns://", "nats://host:4222/ or dns://host:4222/", err);
    const char *bind = c->nats.bind_address;
    if (!is_host_port(bind, strlen(bind), true)) {
        mm_err_set(err, SQLITE_ERROR,
                   "configuration key nats.bind_address must be host:port, as 127.0.0.1:4222, not "
                   "\"%.100s\"",
                   bind);
    }
    const char *cluster = c->nats.cluster_addr;
    if (cluster[0] != '\0' && !is_host_port(cluster, strlen(cluster), true)) {
        mm_err_set(err, SQLITE_ERROR,
                   "configuration key nats.cluster_addr must be host:port, as 0.0.0.0:4248, not "
                   "\"%.100s\"",
                   cluster);
    }
    need(err, c->nats.user_password[0] != '\0', "nats.user_name", c->nats.user_name, "nats.user_password is given");
    need(err, c->nats.cert_file[0] != '\0', "nats.key_file", c->nats.key_file, "nats.cert_file is given");
    need(err, c->nats.key_file[0] != '\0', "nats.cert_file", c->nats.cert_file, "nats.key_file is given");
    bool authenticated = c->nats.token[0] != '\0' || c->nats.user_password[0] != '\0';
    if (c->nats.urls[0] == '\0' && cluster[0] != '\0' && !is_loopback(cluster) && !authenticated && !c->nats.insecure) {
        mm_err_set(
            err, SQLITE_ERROR,
            "configuration key nats.cluster_addr %.100s is beyond loopback, and any server could join: give "
            "nats.user_name and nats.user_password or nats.token, or nats.insecure true where the network is safe",
            cluster);
    }
    check_neighbours(c, err);
    if (c->nats.urls[0] == '\0' && !is_loopback(bind) && !authenticated && !c->nats.insecure) {
        mm_err_set(
            err, SQLITE_ERROR,
            "configuration key nats.bind_address %.100s is beyond loopback, and anyone could connect: give "
            "nats.user_name and nats.user_password or nats.token, or nats.insecure true where the network is safe",
            bind);
    }
}

/* A URL of a store; not shown, since it may hold a password. */
static void check_store_url(const char *key, const char *url, const char *schemes, const char *example,
                            struct mm_err *err)
{
    struct mm_url u;
    bool good = err->rc == SQLITE_OK && mm_url_parse(url, &u);
    bool fits = good && mm_config_choice(schemes, u.scheme) >= 0;
    if (good) {
        mm_url_free(&u);
    }
    if (!fits) {
        mm_err_set(err, SQLITE_ERROR, "configuration key %s is no URL like %s (other characters as %%xx)", key,
                   example);
    }
}

static void check_snapshot(const struct mm_config *c, struct mm_err *err)
{
    const char *store = c->snapshot.store;
    if (!c->snapshot.enabled) {
        return;
    }
    need(err, strcmp(store, "s3") == 0, "snapshot.s3.endpoint", c->snapshot.s3_endpoint, "snapshot.store is s3");
    need(err, strcmp(store, "s3") == 0, "snapshot.s3.bucket", c->snapshot.s3_bucket, "snapshot.store is s3");
    need(err, strcmp(store, "s3") == 0, "snapshot.s3.access_key", c->snapshot.s3_access_key, "snapshot.store is s3");
    need(err, strcmp(store, "s3") == 0, "snapshot.s3.secret", c->snapshot.s3_secret, "snapshot.store is s3");
    need(err, strcmp(store, "webdav") == 0, "snapshot.webdav.url", c->snapshot.webdav_url, "snapshot.store is webdav");
    need(err, strcmp(store, "sftp") == 0, "snapshot.sftp.url", c->snapshot.sftp_url, "snapshot.store is sftp");
    need(err, strcmp(store, "file") == 0, "snapshot.file.path", c->snapshot.file_path, "snapshot.store is file");
    if (strcmp(store, "webdav") == 0) {
        check_store_url("snapshot.webdav.url", c->snapshot.webdav_url, "http,https",
                        "https://host/path?dir=/snapshots&login=user&secret=password", err);
    } else if (strcmp(store, "sftp") == 0) {
        check_store_url("snapshot.sftp.url", c->snapshot.sftp_url, "sftp", "sftp://user:password@host/directory", err);
    } else if (strcmp(store, "file") == 0 && c->snapshot.file_path[0] != '/') {
        mm_err_set(err, SQLITE_ERROR, "configuration key snapshot.file.path must be an absolute directory");
    }
}

/* Part of the name of a metric: letters, digits, _ and :, none of the digits first. */
static void check_metric_name(const char *key, const char *s, struct mm_err *err)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:");
    if (s[n] != '\0' || n > 100 || (s[0] >= '0' && s[0] <= '9')) {
        mm_err_set(err, SQLITE_ERROR,
                   "configuration key %s must be letters, digits and _ (no digit first), as they begin the names of "
                   "metrics, not \"%.60s\"",
                   key, s);
    }
}

static void check_prometheus(struct mm_config *c, struct mm_err *err)
{
    const char *bind = c->prometheus.bind;
    const char *host = bind[0] == ':' ? "0.0.0.0" : "";
    struct mm_buf b;
    mm_buf_init(&b, 4096);
    mm_buf_str(&b, host);
    mm_buf_str(&b, bind);
    if (mm_buf_failed(&b) || !is_host_port((const char *)b.data, b.len, true)) {
        mm_err_set(err, SQLITE_ERROR,
                   "configuration key prometheus.bind must be host:port, as 127.0.0.1:3010, not \"%.100s\"", bind);
    }
    mm_buf_free(&b);
    check_metric_name("prometheus.namespace", c->prometheus.namespace, err);
    check_metric_name("prometheus.subsystem", c->prometheus.subsystem, err);
    if (err->rc == SQLITE_OK && c->prometheus.enable && !is_loopback(bind)) {
        mm_config_warn(c, err, "prometheus.bind %.60s can be read from other machines", bind);
    }
}

int mm_config_settle(struct mm_config *c, struct mm_err *err)
{
    derive_names(c, err);
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (c->log.max_bytes == 0) {
        c->log.max_bytes = -1; /* NATS takes both for "unlimited" and answers -1 */
    }
    check_nats(c, err);
    check_snapshot(c, err);
    check_prometheus(c, err);
    if (err->rc == SQLITE_OK && !c->replicate) {
        mm_config_warn(c, err,
                       "replicate is false: what other nodes write is not applied here, so this database does not have "
                       "the cluster's content, and gives none (it takes no snapshot, seeds nothing, answers no "
                       "marmot_verify)");
    }
    if (err->rc == SQLITE_OK && c->log.replicas % 2 == 0) {
        mm_config_warn(c, err, "replication_log.replicas %lld: an even number stands no more failures than one less",
                       (long long)c->log.replicas);
    }
    return err->rc;
}
