#include "bus/server_peers.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/sqlite.h"
#include "base/worker.h"

enum { LIST_MAX = 64 * 1024, INTERVAL_MS = 1000, CLOSE_MS = 200 };

struct mm_server_peers {
    char *given;
    struct mm_worker *worker;
    pthread_mutex_t mu;
    char *found; /* mu, as what follows: complete, or NULL */
    char why[256];
    char *shown; /* what the caller has borrowed */
};

struct mm_server_peers *mm_server_peers_open(const char *list, struct mm_err *err)
{
    struct mm_server_peers *p = calloc(1, sizeof *p);
    char *copy = strdup(list != NULL ? list : "");
    if (p == NULL || copy == NULL) {
        free(p);
        free(copy);
        mm_err_nomem(err);
        return NULL;
    }
    p->given = copy;
    (void)pthread_mutex_init(&p->mu, NULL);
    return p;
}

void mm_server_peers_close(struct mm_server_peers *p)
{
    if (p == NULL || !mm_worker_close(p->worker, CLOSE_MS)) {
        return; /* stuck in a look-up: it keeps what it uses */
    }
    (void)pthread_mutex_destroy(&p->mu);
    free(p->given);
    free(p->found);
    free(p->shown);
    free(p);
}

static long parameter(const char *query, const char *query_end, const char *name, long none)
{
    size_t n = strlen(name);
    while (query < query_end) {
        const char *next = memchr(query, '&', (size_t)(query_end - query));
        size_t len = (size_t)((next != NULL ? next : query_end) - query);
        if (len > n && strncmp(query, name, n) == 0 && query[n] == '=') {
            long v = strtol(query + n + 1, NULL, 10);
            return v > 0 && v <= 3600000 ? v : none;
        }
        query += len + 1;
    }
    return none;
}

static void put(struct mm_buf *out, const char *url, size_t n)
{
    mm_buf_str(out, out->len > 0 ? "," : "");
    mm_buf_add(out, url, n);
}

/* Addresses of one dns:// entry, appended; how many. */
static long look_up(const char *host, const char *port, struct mm_buf *out)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    long n = 0;
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        return 0;
    }
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        char address[INET6_ADDRSTRLEN + 16];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) == 0) {
            char url[128];
            bool v6 = a->ai_family == AF_INET6;
            int len = snprintf(url, sizeof url, "nats://%s%s%s:%s", v6 ? "[" : "", address, v6 ? "]" : "", port);
            put(out, url, (size_t)len);
            n++;
        }
    }
    freeaddrinfo(list);
    return n;
}

/* One entry of the list; false when fewer addresses were found than wanted.
** *pause: when to ask again. */
static bool resolve(const char *url, size_t n, struct mm_buf *out, int *pause, char why[256])
{
    char text[512];
    const char *end = url + n;
    if (n < 6 || strncasecmp(url, "dns://", 6) != 0) {
        size_t tail = n > 0 && url[n - 1] == '/' ? 1 : 0;
        put(out, url, n - tail);
        return true;
    }
    const char *query = memchr(url, '?', n);
    const char *from = url + 6;
    size_t len = strcspn(from, "/?,");
    if (len >= sizeof text) {
        return true;
    }
    memcpy(text, from, len);
    text[len] = '\0';
    char *colon = strrchr(text, ':');
    const char *port = "4222";
    if (colon != NULL) {
        *colon = '\0';
        port = colon + 1;
    }
    long min = query != NULL ? parameter(query + 1, end, "min", 1) : 1;
    long interval = query != NULL ? parameter(query + 1, end, "interval_ms", INTERVAL_MS) : INTERVAL_MS;
    long found = look_up(text, port, out);
    if (found < min) {
        (void)snprintf(why, 256, "waits for DNS: %.150s has %ld of %ld addresses", text, found, min);
        *pause = (int)interval;
    }
    return found >= min;
}

static void body(struct mm_worker *w, void *arg)
{
    struct mm_server_peers *p = arg;
    while (!mm_worker_stopping(w)) {
        struct mm_buf out;
        char why[256] = "";
        int pause = INTERVAL_MS;
        bool complete = true;
        mm_buf_init(&out, LIST_MAX);
        for (const char *s = p->given; *s != '\0'; s += strspn(s, ",")) {
            size_t n = strcspn(s, ",");
            complete = resolve(s, n, &out, &pause, why) && complete;
            s += n;
        }
        char *list = mm_buf_take(&out);
        (void)pthread_mutex_lock(&p->mu);
        (void)snprintf(p->why, sizeof p->why, "%s", why);
        if (complete) {
            free(p->found);
            p->found = list;
            list = NULL;
        }
        (void)pthread_mutex_unlock(&p->mu);
        free(list);
        if (complete) {
            return;
        }
        struct pollfd wake = { .fd = mm_worker_fd(w), .events = POLLIN };
        (void)poll(&wake, 1, pause);
    }
}

const char *mm_server_peers_list(struct mm_server_peers *p, char why[256], struct mm_err *err)
{
    if (p->worker == NULL && strcasestr(p->given, "dns://") == NULL) {
        return p->given;
    }
    if (p->worker == NULL) {
        p->worker = mm_worker_open("marmot-dns", body, p, err);
    }
    (void)pthread_mutex_lock(&p->mu);
    (void)snprintf(why, 256, "%s", p->why[0] != '\0' ? p->why : "waits for DNS");
    if (p->found != NULL) {
        free(p->shown);
        p->shown = p->found;
        p->found = NULL;
    }
    (void)pthread_mutex_unlock(&p->mu);
    return p->shown;
}

void mm_server_peers_forget(struct mm_server_peers *p)
{
    if (p->worker != NULL && mm_worker_close(p->worker, CLOSE_MS)) {
        p->worker = NULL;
        free(p->shown);
        free(p->found);
        p->shown = p->found = NULL;
        p->why[0] = '\0';
    }
}
