#include "running.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/gate.h"
#include "node.h"
#include "registry.h"

enum {
    LOOK_MS = 500,      /* the node is looked at this often */
    PATIENCE_MS = 1000, /* work that takes longer is told */
    SIGNALS = 2,
};

static const int numbers[SIGNALS] = { SIGINT, SIGTERM };

/* All calls of the process share one descriptor and one handler. */
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static int calls;                        /* mu */
static struct sigaction before[SIGNALS]; /* mu; the application's */
static bool caught[SIGNALS];             /* mu */
static atomic_int signal_fd = -1;        /* an eventfd; stays open: a handler may still be on its way */
static atomic_int owner;                 /* process id: children of a fork inherit the handler */

static void on_signal(int number)
{
    int saved = errno;
    if (getpid() == atomic_load(&owner)) {
        uint64_t one = 1;
        ssize_t n = write(atomic_load(&signal_fd), &one, sizeof one);
        (void)n; /* fails only when it is readable already */
    } else {
        for (int k = 0; k < SIGNALS; k++) {
            if (numbers[k] == number) {
                (void)sigaction(number, &before[k], NULL);
            }
        }
        (void)raise(number); /* comes when this handler returns */
    }
    errno = saved;
}

/* The gate around it: no child of a fork finds it held. */
static void lock(void)
{
    mm_gate_enter();
    (void)pthread_mutex_lock(&mu);
}

static void unlock(void)
{
    (void)pthread_mutex_unlock(&mu);
    mm_gate_leave();
}

/* mu held on entry. Also in a child of a fork, which needs a descriptor of its own. */
static int own_descriptor(struct mm_err *err)
{
    if (atomic_load(&owner) == getpid()) {
        return SQLITE_OK;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return mm_err_set(err, SQLITE_CANTOPEN, "cannot make an eventfd (%s): close files, or raise the limit",
                          strerror(errno));
    }
    atomic_store(&signal_fd, fd);
    atomic_store(&owner, getpid());
    calls = 0;
    return SQLITE_OK;
}

/* mu held on entry. */
static void install(void)
{
    uint64_t old;
    ssize_t n = read(atomic_load(&signal_fd), &old, sizeof old);
    (void)n; /* of an earlier call */
    struct sigaction ours;
    memset(&ours, 0, sizeof ours);
    ours.sa_handler = on_signal;
    ours.sa_flags = SA_RESTART;
    (void)sigemptyset(&ours.sa_mask);
    for (int k = 0; k < SIGNALS; k++) {
        struct sigaction now;
        if (sigaction(numbers[k], NULL, &now) != 0 || now.sa_handler == SIG_IGN) {
            caught[k] = false;
            continue;
        }
        if (now.sa_handler != on_signal) { /* else inherited over a fork, and so is what was before it */
            before[k] = now;
        }
        caught[k] = sigaction(numbers[k], &ours, NULL) == 0;
    }
}

static int catch_signals(struct mm_err *err)
{
    lock();
    if (own_descriptor(err) == SQLITE_OK && calls++ == 0) {
        install();
    }
    unlock();
    return err->rc;
}

static void release_signals(void)
{
    lock();
    bool last = --calls == 0;
    for (int k = 0; last && k < SIGNALS; k++) {
        struct sigaction now;
        if (caught[k] && sigaction(numbers[k], NULL, &now) == 0 && now.sa_handler == on_signal) {
            (void)sigaction(numbers[k], &before[k], NULL);
        }
    }
    unlock();
}

/* One line on the terminal, written over again; NULL clears it. */
static void show(const struct mm_node_progress *p)
{
    char line[160];
    int n = snprintf(line, sizeof line, "\r\033[K");
    if (p != NULL && p->total > 0) {
        n = snprintf(line, sizeof line, "\rmarmot: %s, %lld of %lld (%d %%)\033[K", p->what, (long long)p->done,
                     (long long)p->total, (int)(100.0 * (double)p->done / (double)p->total));
    } else if (p != NULL) {
        n = p->done > 0 ? snprintf(line, sizeof line, "\rmarmot: %s, %lld\033[K", p->what, (long long)p->done)
                        : snprintf(line, sizeof line, "\rmarmot: %s\033[K", p->what);
    }
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
}

/* What was on the terminal, and since when there is something to show. */
struct shown {
    bool on;
    int64_t since_ms; /* 0 = there is nothing */
};

/* True while the node lives and is awake. */
static bool look(sqlite3 *db, struct shown *s)
{
    struct mm_err none;
    struct mm_node_progress p;
    mm_err_init(&none);
    struct mm_node *n = mm_registry_acquire(db, &none);
    if (n == NULL) {
        return false;
    }
    enum mm_node_state state = mm_node_state_now(n);
    bool any = isatty(STDERR_FILENO) && mm_node_progress(n, &p);
    mm_registry_release(n);
    int64_t now = mm_clock_mono_ms();
    s->since_ms = !any ? 0 : s->since_ms == 0 ? now : s->since_ms;
    bool slow = any && now - s->since_ms >= PATIENCE_MS;
    if (slow || s->on) {
        show(slow ? &p : NULL);
        s->on = slow;
    }
    return state != MM_NODE_SLEEPING;
}

static void wait_for_end(sqlite3 *db, int timeout_ms)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : mm_clock_mono_ms() + timeout_ms;
    struct shown shown = { 0 };
    while (look(db, &shown)) {
        int64_t left = until - mm_clock_mono_ms();
        struct pollfd p = { .fd = atomic_load(&signal_fd), .events = POLLIN };
        if (left <= 0 || poll(&p, 1, left < LOOK_MS ? (int)left : LOOK_MS) > 0) {
            break;
        }
    }
    if (shown.on) {
        show(NULL);
    }
}

int mm_running_run(sqlite3 *db, int timeout_ms, struct mm_err *err)
{
    if (sqlite3_get_autocommit(db) == 0) {
        return mm_err_set(err, SQLITE_ERROR,
                          "this connection is inside a transaction, which would stay open all the time: COMMIT first");
    }
    if (sqlite3_txn_state(db, "main") != SQLITE_TXN_NONE) {
        return mm_err_set(err, SQLITE_ERROR,
                          "a statement of this connection is still reading, which would keep the write-ahead log from "
                          "being reused: finish it, and call this function in a SELECT of its own");
    }
    struct mm_node *n = mm_registry_acquire(db, err);
    if (n == NULL) {
        return err->rc;
    }
    mm_registry_release(n);
    if (catch_signals(err) == SQLITE_OK) {
        wait_for_end(db, timeout_ms);
        release_signals();
    }
    return err->rc;
}
