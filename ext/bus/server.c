#include "bus/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sqlite.h"
#include "bus/server_child.h"
#include "bus/server_files.h"
#include "bus/server_peers.h"

#define LOOK_MS 40         /* of one tend: below the 50 that the header promises */
#define PAUSE_FIRST_MS 250 /* after a child that died, doubled each time */
#define PAUSE_LAST_MS 10000
#define STEADY_MS 30000 /* a child that lived so long was no failed start */
#define STOP_MS 2000    /* from SIGTERM to SIGKILL */

struct mm_server {
    char host[128];    /* where it listens */
    char connect[128]; /* where it is reached */
    char url[192];
    int port;
    char *binary, *config_file, *user, *password, *token;
    char *cluster_name, *cluster_addr;
    struct mm_server_peers *routes, *leafs;
    char store[PATH_MAX];
    int lock_fd; /* -1: not ours */
    pid_t child; /* 0: none */
    int64_t started_ms;
    bool answered;
    int pause_ms;
    int64_t not_before_ms;
    char why[256]; /* of the last failed start, "" for none */
    struct mm_probe probe;
};

static char *copy(const char *s, struct mm_err *err)
{
    if (s == NULL || s[0] == '\0') {
        return NULL;
    }
    char *p = strdup(s);
    if (p == NULL) {
        mm_err_nomem(err);
    }
    return p;
}

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return strcmp(host, "localhost") == 0;
}

/* Where a listener at `host` is reached from this machine. */
static int reach(const char *host, int port, char connect[128], char *url, size_t size, struct mm_err *err)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        host = v4.s_addr == htonl(INADDR_ANY) ? "127.0.0.1" : host;
    } else if (inet_pton(AF_INET6, host, &v6) == 1) {
        host = IN6_IS_ADDR_UNSPECIFIED(&v6) ? "::1" : host;
    } else if (strcmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    } else {
        mm_err_set(err, SQLITE_MISUSE, "nats.bind_address must be an IP address or localhost, not %s", host);
    }
    (void)snprintf(connect, 128, "%s", host);
    bool bracket = strchr(host, ':') != NULL;
    (void)snprintf(url, size, "nats://%s%s%s:%d", bracket ? "[" : "", host, bracket ? "]" : "", port);
    return err->rc;
}

int mm_server_address(const char *bind_address, char *url, size_t size, struct mm_err *err)
{
    char host[128];
    char connect[128];
    int port = 0;
    if (mm_server_split(bind_address, host, &port, err) == SQLITE_OK) {
        reach(host, port, connect, url, size, err);
    }
    return err->rc;
}

struct mm_server *mm_server_open(const struct mm_server_options *o, struct mm_err *err)
{
    struct mm_server *s = calloc(1, sizeof *s);
    if (s == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    s->lock_fd = -1;
    s->probe.fd = -1;
    s->pause_ms = PAUSE_FIRST_MS;
    s->binary = copy(o->binary, err);
    s->config_file = copy(o->config_file, err);
    s->user = copy(o->user, err);
    s->password = copy(o->password, err);
    s->token = copy(o->token, err);
    s->cluster_name = copy(o->cluster_name != NULL ? o->cluster_name : "marmot", err);
    s->cluster_addr = copy(o->cluster_addr, err);
    s->routes = mm_server_peers_open(o->cluster_peers, err);
    s->leafs = mm_server_peers_open(o->leaf_servers, err);
    if (mm_server_split(o->bind_address, s->host, &s->port, err) == SQLITE_OK) {
        reach(s->host, s->port, s->connect, s->url, sizeof s->url, err);
    }
    /* A configuration of the user's own answers for its authentication itself. */
    bool guarded = s->user != NULL || s->token != NULL || s->config_file != NULL;
    if (err->rc == SQLITE_OK && !is_loopback(s->host) && !guarded && !o->insecure) {
        mm_err_set(
            err, SQLITE_PERM,
            "nats.bind_address %s is open to the network without authentication: set nats.user_name and password, "
            "or nats.token, or nats.insecure",
            s->host);
    }
    if (err->rc == SQLITE_OK && o->store_dir != NULL && o->store_dir[0] != '\0') {
        if ((size_t)snprintf(s->store, sizeof s->store, "%s", o->store_dir) >= sizeof s->store - 64) {
            mm_err_set(err, SQLITE_CANTOPEN, "the path of the embedded NATS server's store is too long");
        }
    } else if (err->rc == SQLITE_OK) {
        const char *kind = s->cluster_addr != NULL                                 ? "-cluster"
                           : o->leaf_servers != NULL && o->leaf_servers[0] != '\0' ? "-leaf"
                                                                                   : "";
        mm_server_default_store(s->port, kind, s->store, sizeof s->store - 64, err);
    }
    if (err->rc != SQLITE_OK) {
        mm_server_close(s);
        return NULL;
    }
    return s;
}

static int fail(struct mm_server *s, struct mm_err *err)
{
    return mm_err_set(err, SQLITE_CANTOPEN, "the embedded NATS server at %s: %s", s->url, s->why);
}

static void release_lock(struct mm_server *s)
{
    if (s->lock_fd >= 0) {
        (void)close(s->lock_fd);
        s->lock_fd = -1;
    }
}

/* 1 when it is ours, 0 when somebody else holds it, -1 with err. */
static int take_lock(struct mm_server *s, struct mm_err *err)
{
    char path[PATH_MAX];
    if (s->lock_fd >= 0) {
        return 1;
    }
    if (mm_server_make_dir(s->store, err) != SQLITE_OK) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%.*s/lock", (int)sizeof s->store - 64, s->store);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "%s cannot be opened: %s", path, strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)close(fd);
        return 0;
    }
    s->lock_fd = fd;
    return 1;
}

static int start_child(struct mm_server *s, struct mm_err *err)
{
    char binary[PATH_MAX];
    char path[PATH_MAX];
    char port[16];
    char dir[PATH_MAX];
    if (mm_server_find_binary(s->binary, binary, sizeof binary, err) != SQLITE_OK) {
        return err->rc;
    }
    char waits_for[256] = "";
    struct mm_server_config c = { .store = s->store,
                                  .host = s->host,
                                  .port = s->port,
                                  .user = s->user,
                                  .password = s->password,
                                  .token = s->token,
                                  .cluster_name = s->cluster_name,
                                  .cluster_addr = s->cluster_addr,
                                  .routes = mm_server_peers_list(s->routes, waits_for, err) };
    c.leafs = c.routes != NULL ? mm_server_peers_list(s->leafs, waits_for, err) : NULL;
    if (c.leafs == NULL) {
        return mm_err_set(err, SQLITE_BUSY, "%s", waits_for);
    }
    if (s->config_file == NULL && mm_server_write_config(&c, err) != SQLITE_OK) {
        return err->rc;
    }
    (void)snprintf(path, sizeof path, "%.*s/nats.err", (int)sizeof s->store - 64, s->store);
    char kept[sizeof path];
    struct stat last;
    (void)snprintf(kept, sizeof kept, "%.*s/nats.err.last", (int)sizeof s->store - 64, s->store);
    if (stat(path, &last) == 0 && last.st_size > 0) {
        (void)rename(path, kept); /* what the one before died of */
    }
    int log_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log_fd < 0) {
        return mm_err_set(err, SQLITE_CANTOPEN, "%s cannot be written: %s", path, strerror(errno));
    }
    (void)snprintf(path, sizeof path, "%.*s/nats.conf", (int)sizeof s->store - 64, s->store);
    (void)snprintf(dir, sizeof dir, "%.*s/js", (int)sizeof s->store - 64, s->store);
    (void)snprintf(port, sizeof port, "%d", s->port);
    /* Beside a configuration of the user's own, address and store stay ours:
    ** the lock and the look-up rest on them. */
    char *const plain[] = { binary, "-c", path, NULL };
    char *const own[] = { binary, "-c", s->config_file, "-a", s->host, "-p", port, "-js", "-sd", dir, NULL };
    s->child = mm_child_start(s->config_file == NULL ? plain : own, s->lock_fd, log_fd);
    int why = errno;
    (void)close(log_fd);
    if (s->child < 0) {
        s->child = 0;
        return mm_err_set(err, SQLITE_CANTOPEN, "%s cannot be started: %s", binary, strerror(why));
    }
    mm_server_peers_forget(s->routes);
    mm_server_peers_forget(s->leafs);
    s->started_ms = mm_clock_mono_ms();
    s->answered = false;
    mm_log(MM_LOG_INFO, "embedded NATS server %d started at %s", (int)s->child, s->url);
    return SQLITE_OK;
}

static void put_off(struct mm_server *s, int64_t now)
{
    s->not_before_ms = now + s->pause_ms;
    s->pause_ms = s->pause_ms * 2 > PAUSE_LAST_MS ? PAUSE_LAST_MS : s->pause_ms * 2;
}

/* True while the child lives; else what it left is cleared away. */
static bool tend_child(struct mm_server *s, int64_t now)
{
    if (mm_child_alive(s->child)) {
        return true;
    }
    char words[200];
    mm_server_last_words(s->store, words, sizeof words);
    (void)snprintf(s->why, sizeof s->why, "it ended%s%s", words[0] != '\0' ? ": " : "", words);
    mm_log(MM_LOG_WARN, "embedded NATS server %d at %s: %s", (int)s->child, s->url, s->why);
    s->child = 0;
    s->answered = false;
    if (now - s->started_ms > STEADY_MS) {
        s->pause_ms = PAUSE_FIRST_MS;
        s->not_before_ms = now;
    } else {
        put_off(s, now);
    }
    mm_probe_stop(&s->probe);
    release_lock(s); /* another process may have more luck meanwhile */
    return false;
}

/* Nobody answers and the pause is over: starts the child if the store is free. */
static enum mm_server_state try_start(struct mm_server *s, int64_t now, struct mm_err *err)
{
    int got = take_lock(s, err);
    if (got == 0) {
        return MM_SERVER_FOREIGN;
    }
    if (got < 0 || start_child(s, err) != SQLITE_OK) {
        release_lock(s);
        (void)snprintf(s->why, sizeof s->why, "%.250s", err->msg);
        if (err->rc == SQLITE_BUSY) {
            s->not_before_ms = now + PAUSE_FIRST_MS;
        } else {
            put_off(s, now);
        }
        return MM_SERVER_FAILED;
    }
    return MM_SERVER_STARTING;
}

enum mm_server_state mm_server_tend(struct mm_server *s, struct mm_err *err)
{
    int64_t now = mm_clock_mono_ms();
    if (s->child != 0 && tend_child(s, now)) {
        if (!s->answered && mm_probe_look(&s->probe, s->connect, s->port, LOOK_MS) == MM_PROBE_NATS &&
            mm_child_alive(s->child)) {
            s->answered = true;
            s->pause_ms = PAUSE_FIRST_MS;
            s->why[0] = '\0';
        }
        return s->answered ? MM_SERVER_RUNNING : MM_SERVER_STARTING;
    }
    switch (mm_probe_look(&s->probe, s->connect, s->port, LOOK_MS)) {
    case MM_PROBE_NATS:
    case MM_PROBE_PENDING:
        s->why[0] = '\0';
        return MM_SERVER_FOREIGN;
    case MM_PROBE_OTHER:
        (void)snprintf(s->why, sizeof s->why,
                       "port %d is in use by something that is not NATS; set nats.bind_address to another port",
                       s->port);
        fail(s, err);
        return MM_SERVER_FAILED;
    case MM_PROBE_NOBODY:
        break;
    }
    if (now < s->not_before_ms) {
        fail(s, err);
        return MM_SERVER_FAILED;
    }
    return try_start(s, now, err);
}

const char *mm_server_url(const struct mm_server *s)
{
    return s->url;
}

int mm_server_pid(const struct mm_server *s)
{
    return (int)s->child;
}

static void stop_child(struct mm_server *s)
{
    int64_t end = mm_clock_mono_ms() + STOP_MS;
    struct timespec t = { .tv_nsec = 2000000 };
    if (mm_child_alive(s->child)) {
        (void)kill(s->child, SIGTERM);
    }
    while (mm_child_alive(s->child)) {
        if (mm_clock_mono_ms() >= end) {
            (void)kill(s->child, SIGKILL);
            end = INT64_MAX;
        }
        (void)nanosleep(&t, NULL);
    }
    s->child = 0;
}

void mm_server_close(struct mm_server *s)
{
    if (s == NULL) {
        return;
    }
    if (s->child != 0) {
        stop_child(s);
    }
    mm_probe_stop(&s->probe);
    release_lock(s);
    free(s->binary);
    free(s->config_file);
    free(s->user);
    free(s->password);
    free(s->token);
    free(s->cluster_name);
    free(s->cluster_addr);
    mm_server_peers_close(s->routes);
    mm_server_peers_close(s->leafs);
    free(s);
}

void mm_server_each_fd(const struct mm_server *s, void (*f)(int fd))
{
    if (s->lock_fd >= 0) {
        f(s->lock_fd);
    }
    if (s->probe.fd >= 0) {
        f(s->probe.fd);
    }
}
