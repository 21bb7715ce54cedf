#include "base/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/sqlite.h"

struct mm_worker {
    pthread_t thread;
    mm_worker_body *body;
    void *arg;
    int fd;
    atomic_bool stop;
    atomic_bool awake; /* a wake is already in the eventfd */
    pthread_mutex_t mu;
    pthread_cond_t ended_cond;
    bool ended; /* mu */
};

static void *run(void *p)
{
    struct mm_worker *w = p;
    w->body(w, w->arg);
    (void)pthread_mutex_lock(&w->mu);
    w->ended = true;
    (void)pthread_cond_signal(&w->ended_cond);
    (void)pthread_mutex_unlock(&w->mu);
    return NULL;
}

static void destroy(struct mm_worker *w)
{
    if (w->fd >= 0) {
        (void)close(w->fd);
    }
    (void)pthread_cond_destroy(&w->ended_cond);
    (void)pthread_mutex_destroy(&w->mu);
    free(w);
}

struct mm_worker *mm_worker_open(const char *name, mm_worker_body *body, void *arg, struct mm_err *err)
{
    struct mm_worker *w = calloc(1, sizeof *w);
    if (w == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->ended_cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&w->mu, NULL);
    w->body = body;
    w->arg = arg;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "cannot make an eventfd: %s", strerror(errno));
        destroy(w);
        return NULL;
    }
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, run, w);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        mm_err_set(err, SQLITE_NOMEM, "cannot start a thread: %s", strerror(rc));
        destroy(w);
        return NULL;
    }
    (void)pthread_setname_np(w->thread, name);
    return w;
}

void mm_worker_wake(struct mm_worker *w)
{
    if (!atomic_exchange(&w->awake, true)) {
        uint64_t one = 1;
        ssize_t n = write(w->fd, &one, sizeof one);
        (void)n; /* only fails when the counter is full: then it is readable */
    }
}

int mm_worker_fd(const struct mm_worker *w)
{
    return w->fd;
}

bool mm_worker_awake(const struct mm_worker *w)
{
    return atomic_load(&w->awake);
}

void mm_worker_drain(struct mm_worker *w)
{
    /* The flag last: a wake in between is not written to the eventfd, but its
    ** cause is there before it, and the caller looks at all causes after this. */
    uint64_t n;
    ssize_t got = read(w->fd, &n, sizeof n);
    (void)got;
    atomic_store(&w->awake, false);
}

void mm_worker_stop(struct mm_worker *w)
{
    atomic_store(&w->stop, true);
    mm_worker_wake(w);
}

bool mm_worker_stopping(const struct mm_worker *w)
{
    return atomic_load(&w->stop);
}

bool mm_worker_close(struct mm_worker *w, int timeout_ms)
{
    if (w == NULL) {
        return true;
    }
    mm_worker_stop(w);
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&w->mu);
    int rc = 0;
    while (!w->ended && rc == 0) {
        rc = pthread_cond_timedwait(&w->ended_cond, &w->mu, &until);
    }
    bool ended = w->ended;
    (void)pthread_mutex_unlock(&w->mu);
    if (!ended) {
        (void)pthread_detach(w->thread);
        return false;
    }
    (void)pthread_join(w->thread, NULL);
    destroy(w);
    return true;
}
