/* The socket work: nats.c's event-loop hook over an epoll descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/log.h"
#include "base/sqlite.h"
#include "bus/inner.h"

enum { SLOT_SOCKET, SLOT_EXTRA };

/* A silence of our own making (the owner was busy elsewhere) is no silence of
** the server's: beyond this the clocks of silence are set forward. */
#define AWAY_MS 500

int mm_loop_open(struct mm_loop *l, int extra_fd, struct mm_err *err)
{
    l->fd = -1;
    l->events = 0;
    l->registered = false;
    int rc = pthread_mutex_init(&l->lock, NULL);
    if (rc != 0) {
        return mm_err_set(err, SQLITE_CANTOPEN, "no mutex for the NATS connection: %s", strerror(rc));
    }
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0) {
        return mm_err_set(err, SQLITE_CANTOPEN, "no epoll descriptor for the NATS connection: %s", strerror(errno));
    }
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = SLOT_EXTRA };
    if (extra_fd >= 0 && epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, extra_fd, &e) != 0) {
        return mm_err_set(err, SQLITE_CANTOPEN, "the wake-up descriptor cannot be polled: %s", strerror(errno));
    }
    return err->rc;
}

void mm_loop_close(struct mm_loop *l)
{
    if (l->epoll_fd >= 0) {
        (void)close(l->epoll_fd);
        l->epoll_fd = -1;
        (void)pthread_mutex_destroy(&l->lock);
    }
}

void mm_loop_mute(struct mm_loop *l, int extra_fd, bool mute)
{
    struct epoll_event e = { .events = mute ? 0 : EPOLLIN, .data.u32 = SLOT_EXTRA };
    if (extra_fd >= 0) {
        (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, extra_fd, &e);
    }
}

/* Lock held on entry. */
static natsStatus apply(struct mm_loop *l)
{
    struct epoll_event e = { .events = l->events, .data.u32 = SLOT_SOCKET };
    if (l->events == 0) {
        if (l->registered) {
            (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->fd, &e);
            l->registered = false;
        }
        return NATS_OK;
    }
    if (l->fd < 0) {
        return NATS_OK;
    }
    if (epoll_ctl(l->epoll_fd, l->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, l->fd, &e) != 0) {
        return NATS_IO_ERROR;
    }
    l->registered = true;
    return NATS_OK;
}

natsStatus mm_loop_attach(void **user, void *loop, natsConnection *conn, natsSock fd)
{
    (void)conn;
    struct mm_loop *l = loop;
    *user = l;
    /* The library leaves it open for programs that the host starts. */
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)pthread_mutex_lock(&l->lock);
    l->fd = fd;
    l->events = EPOLLIN;
    l->registered = false;
    natsStatus s = apply(l);
    (void)pthread_mutex_unlock(&l->lock);
    return s;
}

static natsStatus change(struct mm_loop *l, uint32_t bit, bool add)
{
    (void)pthread_mutex_lock(&l->lock);
    l->events = add ? l->events | bit : l->events & ~bit;
    natsStatus s = apply(l);
    (void)pthread_mutex_unlock(&l->lock);
    return s;
}

natsStatus mm_loop_read(void *user, bool add)
{
    return change(user, EPOLLIN, add);
}

natsStatus mm_loop_write(void *user, bool add)
{
    return change(user, EPOLLOUT, add);
}

natsStatus mm_loop_detach(void *user)
{
    struct mm_loop *l = user;
    (void)pthread_mutex_lock(&l->lock);
    l->events = 0;
    natsStatus s = apply(l);
    l->fd = -1;
    (void)pthread_mutex_unlock(&l->lock);
    return s;
}

void mm_bus_each_fd(const struct mm_bus *b, void (*f)(int fd))
{
    if (b->loop.fd >= 0) {
        f(b->loop.fd);
    }
    if (b->loop.epoll_fd >= 0) {
        f(b->loop.epoll_fd);
    }
}

static void take_down(struct mm_bus *b, const char *why)
{
    mm_log(MM_LOG_INFO, "connection to %s lost: %s", b->url, why);
    mm_bus_disconnect(b);
}

/* The server tells of a missing permission on the side and keeps the
** connection; a publish without permission would wait for its ack for ever. */
static int look_for_errors(struct mm_bus *b, struct mm_err *err)
{
    const char *text = NULL;
    natsStatus s = b->api->natsConnection_GetLastError(b->conn, &text);
    char why[256];
    (void)snprintf(why, sizeof why, "%s", text != NULL && text[0] != '\0' ? text : b->api->natsStatus_GetText(s));
    mm_bus_redact(why);
    if (b->api->natsConnection_IsClosed(b->conn)) {
        take_down(b, why);
    } else if (s == NATS_NOT_PERMITTED) {
        take_down(b, why);
        return mm_err_set(err, SQLITE_AUTH,
                          "the NATS server refuses: %s; the user needs publish and subscribe permission "
                          "for the change subjects, $JS.>, $KV.> and _INBOX.>",
                          why);
    }
    return err->rc;
}

/* Something of our own that comes back to us tells a living server from a
** dead peer; done here and not by the library's timer thread, so that no
** other thread ever closes the socket. */
static void keep_alive(struct mm_bus *b, int64_t now)
{
    int64_t silent = now - b->heard_ms;
    if (silent >= 2 * (int64_t)b->ping_interval_ms) {
        take_down(b, "no answer within two ping intervals");
    } else if (silent >= b->ping_interval_ms && !b->pinged) {
        char subject[160];
        (void)snprintf(subject, sizeof subject, "%s.r.ping", (const char *)b->inbox);
        b->pinged = true;
        if (b->api->natsConnection_Publish(b->conn, subject, NULL, 0) != NATS_OK) {
            take_down(b, "the ping could not be sent");
        }
    }
}

static void forgive_absence(struct mm_bus *b, int64_t now)
{
    int64_t away = now - b->looked_ms;
    if (away < AWAY_MS) {
        return;
    }
    b->heard_ms += away;
    for (int i = 0; i < b->follow_count; i++) {
        b->follows[i].heard_ms += away;
    }
}

static int until_ping(const struct mm_bus *b, int64_t now, int timeout_ms)
{
    int64_t due = b->heard_ms + (b->pinged ? 2 : 1) * (int64_t)b->ping_interval_ms - now;
    due = due < 0 ? 0 : due;
    return timeout_ms < 0 || timeout_ms > due ? (int)due : timeout_ms;
}

int mm_bus_turn(struct mm_bus *b, int timeout_ms, bool *extra, struct mm_err *err)
{
    struct epoll_event events[4];
    if (b->conn != NULL) {
        int64_t now = mm_clock_mono_ms();
        forgive_absence(b, now);
        timeout_ms = until_ping(b, now, timeout_ms);
    }
    bool paused = timeout_ms != 0 && mm_gate_pause();
    int n = epoll_wait(b->loop.epoll_fd, events, 4, timeout_ms);
    mm_gate_resume(paused);
    if (n < 0 && errno != EINTR) {
        return mm_err_set(err, SQLITE_IOERR, "waiting for the NATS connection failed: %s", strerror(errno));
    }
    bool worked = false;
    b->busy = false;
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == SLOT_EXTRA) {
            *extra = true;
            continue;
        }
        if (b->conn == NULL) {
            continue;
        }
        worked = true;
        if ((events[i].events & EPOLLOUT) != 0) {
            b->api->natsConnection_ProcessWriteEvent(b->conn);
        }
        if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
            b->heard_ms = mm_clock_mono_ms();
            b->pinged = false;
            b->busy = true;
            b->api->natsConnection_ProcessReadEvent(b->conn);
        }
    }
    if (b->conn != NULL && worked) {
        look_for_errors(b, err);
    }
    if (b->conn != NULL) {
        b->looked_ms = mm_clock_mono_ms();
        keep_alive(b, b->looked_ms);
    }
    return err->rc;
}

static bool anything(struct mm_bus *b)
{
    uint64_t queued = 0;
    if (b->api->natsSubscription_QueuedMsgs(b->acks, &queued) == NATS_OK && queued > 0) {
        return true;
    }
    if (b->told != NULL && b->api->natsSubscription_QueuedMsgs(b->told, &queued) == NATS_OK && queued > 0) {
        return true;
    }
    for (int i = 0; i < b->follow_count; i++) {
        mm_follow_fill(b, &b->follows[i]);
        if (mm_follow_ready(&b->follows[i])) {
            return true;
        }
    }
    return false;
}

/* The server drops a connection that does not take what it writes within ten
** seconds: an owner that was away takes it all in now. */
static int catch_up(struct mm_bus *b, struct mm_err *err)
{
    if (b->conn == NULL || mm_clock_mono_ms() - b->looked_ms < AWAY_MS) {
        return err->rc;
    }
    b->busy = true;
    for (int i = 0; i < MM_BUS_CATCH_UP_READS && b->busy && b->conn != NULL; i++) {
        bool extra = false;
        if (mm_bus_turn(b, 0, &extra, err) != SQLITE_OK) {
            break;
        }
    }
    return err->rc;
}

int mm_bus_wait(struct mm_bus *b, int timeout_ms, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    int64_t end = timeout_ms < 0 ? INT64_MAX : mm_clock_mono_ms() + timeout_ms;
    bool was_connected = b->conn != NULL;
    if (catch_up(b, err) != SQLITE_OK || (was_connected && b->conn == NULL)) {
        return err->rc;
    }
    for (;;) {
        /* Missed heartbeats are noticed by looking now and then. */
        int64_t left = end - mm_clock_mono_ms();
        left = left < 0 ? 0 : left;
        left = left > MM_BUS_HEARTBEAT_MS ? MM_BUS_HEARTBEAT_MS : left;
        if (left > 0 && was_connected && anything(b)) {
            left = 0;
        }
        bool extra = false;
        if (mm_bus_turn(b, (int)left, &extra, err) != SQLITE_OK || extra) {
            return err->rc;
        }
        if (was_connected && (b->conn == NULL || anything(b))) {
            return err->rc;
        }
        if (mm_clock_mono_ms() >= end) {
            return err->rc;
        }
    }
}
