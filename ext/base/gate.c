#include "base/gate.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
static atomic_bool installed;
static void (*child_cb)(void);
static _Thread_local bool held;
static _Thread_local bool execs;

static void before_fork(void)
{
    (void)pthread_rwlock_wrlock(&gate);
}

static void in_parent(void)
{
    (void)pthread_rwlock_unlock(&gate);
}

static void in_child(void)
{
    /* Made anew: its writer is known by a thread id that the child has not. */
    (void)pthread_rwlock_unlock(&gate);
    gate = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
    if (child_cb != NULL && !execs) {
        child_cb();
    }
}

int mm_gate_install(void (*cb)(void))
{
    bool expected = false;
    if (!atomic_compare_exchange_strong(&installed, &expected, true)) {
        return 0;
    }
    child_cb = cb;
    return pthread_atfork(before_fork, in_parent, in_child);
}

void mm_gate_exec(bool on)
{
    execs = on;
}

void mm_gate_enter(void)
{
    (void)pthread_rwlock_rdlock(&gate);
    held = true;
}

void mm_gate_leave(void)
{
    held = false;
    (void)pthread_rwlock_unlock(&gate);
}

bool mm_gate_pause(void)
{
    bool paused = held;
    if (paused) {
        mm_gate_leave();
    }
    return paused;
}

void mm_gate_resume(bool paused)
{
    if (paused) {
        mm_gate_enter();
    }
}
