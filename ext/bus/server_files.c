#include "bus/server_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/sqlite.h"

#define CONFIG_MAX (64 * 1024)
#define TAIL_BYTES 4096 /* of a log, where its last words are looked for */

int mm_server_split(const char *address, char *host, int *port, struct mm_err *err)
{
    const char *colon = address != NULL ? strrchr(address, ':') : NULL;
    size_t n = colon != NULL ? (size_t)(colon - address) : 0;
    const char *from = address;
    if (n > 2 && address[0] == '[' && address[n - 1] == ']') {
        from++;
        n -= 2;
    }
    char *end = NULL;
    long p = colon != NULL ? strtol(colon + 1, &end, 10) : 0;
    if (colon == NULL || n >= 128 || end == colon + 1 || *end != '\0' || p < 1 || p > 65535 ||
        strpbrk(address, "\"\\\n ") != NULL) {
        return mm_err_set(err, SQLITE_MISUSE, "nats.bind_address '%s' is not host:port, as in 127.0.0.1:4222",
                          address != NULL ? address : "");
    }
    memcpy(host, from, n);
    host[n] = '\0';
    if (n == 0) {
        (void)strcpy(host, "0.0.0.0");
    }
    *port = (int)p;
    return SQLITE_OK;
}

int mm_server_default_store(int port, const char *kind, char *out, size_t size, struct mm_err *err)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char room[4096];
    struct passwd entry;
    struct passwd *found = NULL;
    if (home == NULL || home[0] != '/') {
        home = NULL;
        if (getpwuid_r(getuid(), &entry, room, sizeof room, &found) == 0 && found != NULL) {
            home = found->pw_dir;
        }
    }
    int n;
    if (state != NULL && state[0] == '/') {
        n = snprintf(out, size, "%s/marmot/nats-%d%s", state, port, kind);
    } else if (home != NULL) {
        n = snprintf(out, size, "%s/.local/state/marmot/nats-%d%s", home, port, kind);
    } else {
        return mm_err_set(err, SQLITE_CANTOPEN, "no place for the embedded NATS server: set XDG_STATE_HOME or HOME");
    }
    if (n < 0 || (size_t)n >= size) {
        return mm_err_set(err, SQLITE_CANTOPEN, "the path of the embedded NATS server's store is too long");
    }
    return SQLITE_OK;
}

int mm_server_make_dir(const char *path, struct mm_err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n >= sizeof part || strpbrk(path, "\"\\\n") != NULL) {
        return mm_err_set(err, SQLITE_CANTOPEN, "the embedded NATS server's store %s: no usable path", path);
    }
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0') {
            continue;
        }
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            return mm_err_set(err, SQLITE_CANTOPEN, "the embedded NATS server's store %s cannot be made: %s", part,
                              strerror(errno));
        }
        part[i] = path[i];
    }
    return SQLITE_OK;
}

int mm_server_find_binary(const char *binary, char *out, size_t size, struct mm_err *err)
{
    const char *named = binary != NULL && binary[0] != '\0' ? binary : getenv("MARMOT_NATS_SERVER");
    if (named != NULL && named[0] != '\0') {
        (void)snprintf(out, size, "%s", named);
        if (strlen(named) >= size || access(out, X_OK) != 0) {
            return mm_err_set(err, SQLITE_CANTOPEN,
                              "%s cannot be run: set nats.server_binary or MARMOT_NATS_SERVER to a nats-server", named);
        }
        return SQLITE_OK;
    }
    const char *path = getenv("PATH");
    char places[8192];
    (void)snprintf(places, sizeof places, "%s:/usr/sbin:/usr/local/bin:/usr/local/sbin:/usr/bin",
                   path != NULL ? path : "");
    char *save = NULL;
    for (char *p = strtok_r(places, ":", &save); p != NULL; p = strtok_r(NULL, ":", &save)) {
        int n = snprintf(out, size, "%s/nats-server", p);
        if (p[0] == '/' && n > 0 && (size_t)n < size && access(out, X_OK) == 0) {
            return SQLITE_OK;
        }
    }
    return mm_err_set(err, SQLITE_CANTOPEN,
                      "no nats-server was found: install the package nats-server, or set nats.urls to a running one");
}

static int write_file(const char *path, const void *data, size_t len, struct mm_err *err)
{
    char next[PATH_MAX];
    if ((size_t)snprintf(next, sizeof next, "%s.new", path) >= sizeof next) {
        return mm_err_set(err, SQLITE_CANTOPEN, "%s: the path is too long", path);
    }
    (void)unlink(next);
    int fd = open(next, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool good = fd >= 0 && write(fd, data, len) == (ssize_t)len;
    int why = errno;
    if (fd >= 0 && close(fd) != 0 && good) {
        good = false;
        why = errno;
    }
    if (good && rename(next, path) != 0) {
        good = false;
        why = errno;
    }
    if (!good) {
        return mm_err_set(err, SQLITE_CANTOPEN, "%s cannot be written: %s", path, strerror(why));
    }
    return SQLITE_OK;
}

/* The server's name must stay the same over restarts and be unique in a cluster. */
static int stable_name(const char *store, char *out, size_t size, struct mm_err *err)
{
    char path[PATH_MAX];
    char text[64] = "";
    if ((size_t)snprintf(path, sizeof path, "%s/server-name", store) >= sizeof path) {
        return mm_err_set(err, SQLITE_CANTOPEN, "%s: the path is too long", store);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text - 1);
        (void)close(fd);
        text[n > 0 ? n : 0] = '\0';
        text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-")] = '\0';
    }
    if (text[0] == '\0') {
        uint64_t v = 0;
        if (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v) {
            return mm_err_set(err, SQLITE_CANTOPEN, "no random number for the server's name: %s", strerror(errno));
        }
        (void)snprintf(text, sizeof text, "marmot-%016llx", (unsigned long long)v);
        write_file(path, text, strlen(text), err);
    }
    (void)snprintf(out, size, "%s", text);
    return err->rc;
}

/* Who servers say they are to each other: a token has no place there. */
static const char *peer_user(const struct mm_server_config *c)
{
    return c->user != NULL ? c->user : "marmot";
}

static const char *peer_password(const struct mm_server_config *c)
{
    return c->user != NULL ? (c->password != NULL ? c->password : "") : c->token;
}

static void put_authorization(struct mm_buf *b, const struct mm_server_config *c)
{
    if (c->user != NULL || c->token != NULL) {
        mm_buf_str(b, "  authorization { user: ");
        mm_buf_json(b, peer_user(c));
        mm_buf_str(b, ", password: ");
        mm_buf_json(b, peer_password(c));
        mm_buf_str(b, " }\n");
    }
}

static void put_encoded(struct mm_buf *b, const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char ch = (unsigned char)*s;
        bool plain = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (plain || strchr("-._~", ch) != NULL) {
            mm_buf_byte(b, ch);
        } else {
            mm_buf_printf(b, "%%%02X", ch);
        }
    }
}

/* One URL a line; those without a user of their own get ours. */
static void put_urls(struct mm_buf *b, const struct mm_server_config *c, const char *list)
{
    for (; *list != '\0'; list += *list == ',') {
        size_t n = strcspn(list, ",");
        const char *host = memmem(list, n, "://", 3);
        host = host != NULL ? host + 3 : list;
        size_t rest = n - (size_t)(host - list);
        mm_buf_str(b, "    \"");
        mm_buf_add(b, list, (size_t)(host - list));
        if ((c->user != NULL || c->token != NULL) && memchr(host, '@', rest) == NULL) {
            put_encoded(b, peer_user(c));
            mm_buf_byte(b, ':');
            put_encoded(b, peer_password(c));
            mm_buf_byte(b, '@');
        }
        mm_buf_add(b, host, rest);
        mm_buf_str(b, "\"\n");
        list += n;
    }
}

/* Member of a cluster, with a listener for leaf servers at the next port; or a leaf. */
static void put_neighbours(struct mm_buf *b, const struct mm_server_config *c, struct mm_err *err)
{
    char host[128];
    int port = 0;
    bool member = c->cluster_addr != NULL && c->cluster_addr[0] != '\0';
    bool leaf = c->leafs != NULL && c->leafs[0] != '\0';
    if (member && mm_server_split(c->cluster_addr, host, &port, err) == SQLITE_OK) {
        bool v6 = strchr(host, ':') != NULL;
        mm_buf_printf(b, "cluster {\n  name: \"%s\"\n  listen: \"%s%s%s:%d\"\n", c->cluster_name, v6 ? "[" : "", host,
                      v6 ? "]" : "", port);
        put_authorization(b, c);
        mm_buf_str(b, "  routes: [\n");
        put_urls(b, c, c->routes != NULL ? c->routes : "");
        mm_buf_str(b, "  ]\n}\n");
        mm_buf_printf(b, "leafnodes {\n  listen: \"%s%s%s:%d\"\n", v6 ? "[" : "", host, v6 ? "]" : "", port + 1);
        put_authorization(b, c);
        mm_buf_str(b, "}\n");
    } else if (leaf) {
        /* One remote of several URLs: with one each the server links to all members at once, takes that
        ** for a loop, and cuts each link for half a minute. */
        mm_buf_str(b, "leafnodes {\n  remotes: [ { urls: [\n");
        put_urls(b, c, c->leafs);
        mm_buf_str(b, "  ] } ]\n}\n");
    }
}

static void put_jetstream(struct mm_buf *b, const struct mm_server_config *c)
{
    bool member = c->cluster_addr != NULL && c->cluster_addr[0] != '\0';
    if (member) { /* leaf servers reach a JetStream by its domain alone */
        mm_buf_printf(b, "jetstream { store_dir: \"%s/js\", domain: \"%s\" }\n", c->store, c->cluster_name);
    } else if (c->leafs == NULL || c->leafs[0] == '\0') {
        mm_buf_printf(b, "jetstream { store_dir: \"%s/js\" }\n", c->store);
    }
}

int mm_server_write_config(const struct mm_server_config *c, struct mm_err *err)
{
    char name[64];
    char path[PATH_MAX];
    if (stable_name(c->store, name, sizeof name, err) != SQLITE_OK) {
        return err->rc;
    }
    bool v6 = strchr(c->host, ':') != NULL;
    struct mm_buf b;
    mm_buf_init(&b, CONFIG_MAX);
    mm_buf_printf(&b, "server_name: \"%s\"\nlisten: \"%s%s%s:%d\"\n", name, v6 ? "[" : "", c->host, v6 ? "]" : "",
                  c->port);
    mm_buf_printf(&b, "max_payload: 1MB\npid_file: \"%s/nats.pid\"\nlog_file: \"%s/nats.log\"\n", c->store, c->store);
    mm_buf_str(&b, "logfile_size_limit: 10MB\n");
    put_jetstream(&b, c);
    put_neighbours(&b, c, err);
    if (c->user != NULL || c->token != NULL) {
        mm_buf_str(&b, "authorization {\n");
        if (c->user != NULL) {
            mm_buf_str(&b, "  user: ");
            mm_buf_json(&b, c->user);
            mm_buf_str(&b, "\n  password: ");
            mm_buf_json(&b, c->password != NULL ? c->password : "");
        } else {
            mm_buf_str(&b, "  token: ");
            mm_buf_json(&b, c->token);
        }
        mm_buf_str(&b, "\n}\n");
    }
    (void)snprintf(path, sizeof path, "%s/nats.conf", c->store);
    if (mm_buf_check(&b, err, "the embedded NATS server's configuration") == SQLITE_OK) {
        write_file(path, b.data, b.len, err);
    }
    mm_buf_free(&b);
    return err->rc;
}

static size_t read_tail(const char *store, const char *file, char *out, size_t size)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", store, file) >= sizeof path) {
        return 0;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    struct stat st;
    off_t from = fstat(fd, &st) == 0 && st.st_size > (off_t)(size - 1) ? st.st_size - (off_t)(size - 1) : 0;
    ssize_t n = pread(fd, out, size - 1, from);
    (void)close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* "[42] 2025/01/01 12:00:00.000000 [FTL] why" to "why". */
static const char *without_stamp(const char *line)
{
    const char *level = strstr(line, "] ");
    const char *again = level != NULL ? strstr(level + 2, "] ") : NULL;
    return again != NULL && line[0] == '[' ? again + 2 : line;
}

void mm_server_last_words(const char *store, char *out, size_t size)
{
    char text[TAIL_BYTES];
    char *save = NULL;
    out[0] = '\0';
    if (read_tail(store, "nats.err", text, sizeof text) > 0) {
        for (char *p = strtok_r(text, "\n", &save); p != NULL; p = strtok_r(NULL, "\n", &save)) {
            (void)snprintf(out, size, "%s", without_stamp(p));
        }
    }
    if (out[0] == '\0' && read_tail(store, "nats.log", text, sizeof text) > 0) {
        for (char *p = strtok_r(text, "\n", &save); p != NULL; p = strtok_r(NULL, "\n", &save)) {
            if (strstr(p, "[FTL]") != NULL || strstr(p, "[ERR]") != NULL) {
                (void)snprintf(out, size, "%s", without_stamp(p));
            }
        }
    }
}
