#include "bus/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "bus/server_files.h"

#define LISTENER UINT32_MAX

struct client {
    int fd; /* -1: free */
    int64_t since_ms;
    char request[MM_HTTP_REQUEST + 1];
    size_t got;
    struct mm_buf answer;
    size_t sent;
    bool answering;
};

struct mm_http {
    int epoll_fd, listen_fd;
    bool listening; /* the epoll looks at the listener: there is a free place */
    struct client client[MM_HTTP_CLIENTS];
};

static int listen_at(const char *host, int port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    host = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    bool is6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
    if (!is6 && inet_pton(AF_INET, host, &v4.sin_addr) != 1) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int fd = socket(is6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int rc = is6 ? bind(fd, (struct sockaddr *)&v6, sizeof v6) : bind(fd, (struct sockaddr *)&v4, sizeof v4);
    if (rc != 0 || listen(fd, 16) != 0) {
        int why = errno;
        (void)close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static int watch(struct mm_http *h, int op, int fd, uint32_t events, uint32_t who)
{
    struct epoll_event e = { .events = events, .data.u32 = who };
    return epoll_ctl(h->epoll_fd, op, fd, &e);
}

struct mm_http *mm_http_open(const char *bind_address, struct mm_err *err)
{
    char host[128];
    int port = 0;
    if (mm_server_split(bind_address, host, &port, err) != SQLITE_OK) {
        return NULL;
    }
    struct mm_http *h = calloc(1, sizeof *h);
    if (h == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    for (int k = 0; k < MM_HTTP_CLIENTS; k++) {
        h->client[k].fd = -1;
        mm_buf_init(&h->client[k].answer, MM_HTTP_PAGE_MAX);
    }
    h->listen_fd = listen_at(host, port);
    int why = errno;
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->listen_fd < 0 || h->epoll_fd < 0 || watch(h, EPOLL_CTL_ADD, h->listen_fd, EPOLLIN, LISTENER) != 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "cannot listen at prometheus.bind %.100s (%s): give another address or port",
                   bind_address, strerror(h->listen_fd < 0 ? why : errno));
        mm_http_close(h);
        return NULL;
    }
    h->listening = true;
    return h;
}

static void hang_up(struct mm_http *h, struct client *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    c->fd = -1;
    mm_buf_free(&c->answer);
    if (!h->listening && h->listen_fd >= 0) {
        h->listening = watch(h, EPOLL_CTL_MOD, h->listen_fd, EPOLLIN, LISTENER) == 0;
    }
}

void mm_http_close(struct mm_http *h)
{
    if (h == NULL) {
        return;
    }
    for (int k = 0; k < MM_HTTP_CLIENTS; k++) {
        hang_up(h, &h->client[k]);
    }
    if (h->listen_fd >= 0) {
        (void)close(h->listen_fd);
    }
    if (h->epoll_fd >= 0) {
        (void)close(h->epoll_fd);
    }
    free(h);
}

int mm_http_fd(const struct mm_http *h)
{
    return h->epoll_fd;
}

static void take_clients(struct mm_http *h)
{
    for (uint32_t k = 0; k < MM_HTTP_CLIENTS; k++) {
        struct client *c = &h->client[k];
        if (c->fd >= 0) {
            continue;
        }
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return;
        }
        c->fd = fd;
        c->since_ms = mm_clock_mono_ms();
        c->got = c->sent = 0;
        c->answering = false;
        if (watch(h, EPOLL_CTL_ADD, fd, EPOLLIN, k) != 0) {
            hang_up(h, c);
        }
    }
    /* No place left: the listener would keep the owner awake. */
    h->listening = watch(h, EPOLL_CTL_MOD, h->listen_fd, 0, LISTENER) != 0;
}

static void answer(struct client *c, mm_http_page *page, void *arg)
{
    bool head = strncmp(c->request, "HEAD ", 5) == 0;
    bool get = strncmp(c->request, "GET ", 4) == 0;
    const char *path = strchr(c->request, ' ');
    size_t n = path != NULL ? strcspn(path + 1, " ?\r\n") : 0;
    bool known = (head || get) && n == strlen("/metrics") && strncmp(path + 1, "/metrics", n) == 0;
    const char *status = known ? "200 OK" : head || get ? "404 Not Found" : "405 Method Not Allowed";
    struct mm_buf body;
    mm_buf_init(&body, MM_HTTP_PAGE_MAX - 512);
    if (known) {
        page(arg, &body);
    } else {
        mm_buf_str(&body, head || get ? "the page is /metrics\n" : "GET /metrics\n");
    }
    if (mm_buf_failed(&body)) {
        mm_buf_clear(&body);
        status = "500 Internal Server Error";
    }
    mm_buf_printf(&c->answer,
                  "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %zu\r\n"
                  "%sConnection: close\r\n\r\n",
                  status, body.len, head || get ? "" : "Allow: GET, HEAD\r\n");
    if (!head) {
        mm_buf_add(&c->answer, body.data, body.len);
    }
    mm_buf_free(&body);
    c->answering = true;
}

/* False when the client is to be hung up on. */
static bool send_more(struct mm_http *h, struct client *c, uint32_t who)
{
    while (c->sent < c->answer.len) {
        ssize_t n = send(c->fd, c->answer.data + c->sent, c->answer.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return watch(h, EPOLL_CTL_MOD, c->fd, EPOLLOUT, who) == 0;
        }
        if (n <= 0) {
            return false;
        }
        c->sent += (size_t)n;
    }
    (void)shutdown(c->fd, SHUT_WR);
    return false;
}

static bool read_more(struct mm_http *h, struct client *c, uint32_t who, mm_http_page *page, void *arg)
{
    ssize_t n = recv(c->fd, c->request + c->got, MM_HTTP_REQUEST - c->got, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) {
        return true;
    }
    if (n <= 0) {
        return false;
    }
    c->got += (size_t)n;
    c->request[c->got] = '\0';
    if (strstr(c->request, "\r\n\r\n") == NULL && strstr(c->request, "\n\n") == NULL) {
        return c->got < MM_HTTP_REQUEST;
    }
    answer(c, page, arg);
    return !mm_buf_failed(&c->answer) && send_more(h, c, who);
}

void mm_http_step(struct mm_http *h, mm_http_page *page, void *arg)
{
    struct epoll_event events[MM_HTTP_CLIENTS + 1];
    int n = epoll_wait(h->epoll_fd, events, MM_HTTP_CLIENTS + 1, 0);
    bool more = false;
    for (int k = 0; k < n; k++) {
        uint32_t who = events[k].data.u32;
        if (who == LISTENER) {
            more = true;
            continue;
        }
        struct client *c = &h->client[who];
        if (c->fd >= 0 && !(c->answering ? send_more(h, c, who) : read_more(h, c, who, page, arg))) {
            hang_up(h, c);
        }
    }
    int64_t now = mm_clock_mono_ms();
    int64_t most = h->listening ? MM_HTTP_MS : MM_HTTP_CROWD_MS;
    for (int k = 0; k < MM_HTTP_CLIENTS; k++) {
        if (h->client[k].fd >= 0 && now - h->client[k].since_ms > most) {
            hang_up(h, &h->client[k]);
        }
    }
    if (more) {
        take_clients(h);
    }
}

void mm_http_each_fd(const struct mm_http *h, void (*f)(int fd))
{
    f(h->epoll_fd);
    f(h->listen_fd);
    for (int k = 0; k < MM_HTTP_CLIENTS; k++) {
        if (h->client[k].fd >= 0) {
            f(h->client[k].fd);
        }
    }
}
