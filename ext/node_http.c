/* The page for Prometheus: served between two turns of the replication thread. */
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/log.h"
#include "bus/http.h"
#include "metrics.h"
#include "node_int.h"

enum { AGAIN_MS = 10000, PAGE_MS = 1000 /* a page is at most so old */ };

static int add_fd(int epoll_fd, int fd)
{
    struct epoll_event e = { .events = EPOLLIN };
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

int mm_node_http_open(struct mm_node *n)
{
    n->wake_fd = -1;
    mm_buf_init(&n->page, MM_HTTP_PAGE_MAX);
    int fd = mm_notify_fd(n->notify);
    if (!n->config->prometheus.enable) {
        return fd;
    }
    n->wake_fd = epoll_create1(EPOLL_CLOEXEC);
    if (n->wake_fd < 0 || add_fd(n->wake_fd, fd) != 0) {
        mm_log(MM_LOG_WARN, "node %lld: no page for Prometheus: there is no descriptor for it",
               (long long)n->config->node_id);
        mm_node_http_close(n);
        return fd;
    }
    n->http_enabled = true;
    n->next_http_ms = 0;
    return n->wake_fd;
}

static void write_page(void *arg, struct mm_buf *out)
{
    struct mm_node *n = arg;
    struct mm_err err;
    mm_err_init(&err);
    int64_t now = mm_clock_mono_ms();
    if (n->page.len == 0 || now - n->page_ms > PAGE_MS) {
        mm_buf_clear(&n->page);
        mm_gate_enter();
        mm_metrics_text(n->r.db, n, n->config->prometheus.namespace, n->config->prometheus.subsystem, &n->page, &err);
        mm_gate_leave();
        n->page_ms = now;
    }
    mm_buf_add(out, n->page.data, n->page.len);
    if (err.rc != SQLITE_OK) {
        mm_log(MM_LOG_WARN, "the page for Prometheus is not whole: %s", err.msg);
    }
}

void mm_node_http_step(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!n->http_enabled) {
        return;
    }
    if (n->http == NULL && mm_clock_mono_ms() >= n->next_http_ms) {
        n->http = mm_http_open(n->config->prometheus.bind, &err);
        if (n->http == NULL || add_fd(n->wake_fd, mm_http_fd(n->http)) != 0) {
            if (n->next_http_ms == 0) {
                mm_log(MM_LOG_WARN, "node %lld: %s", (long long)n->config->node_id, err.msg);
            }
            n->next_http_ms = mm_clock_mono_ms() + AGAIN_MS;
            mm_http_close(n->http);
            n->http = NULL;
        }
    }
    if (n->http != NULL) {
        mm_http_step(n->http, write_page, n);
    }
}

void mm_node_http_close(struct mm_node *n)
{
    mm_http_close(n->http);
    n->http = NULL;
    n->http_enabled = false;
    if (n->wake_fd > 0) {
        (void)close(n->wake_fd);
    }
    n->wake_fd = -1;
    mm_buf_free(&n->page);
}

void mm_node_http_each_fd(const struct mm_node *n, void (*f)(int fd))
{
    if (n->http != NULL) {
        mm_http_each_fd(n->http, f);
    }
    if (n->wake_fd > 0) {
        f(n->wake_fd);
    }
}
