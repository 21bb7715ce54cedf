#include "base/sigpipe.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <time.h>

static bool waits(void)
{
    sigset_t set;
    return sigpending(&set) == 0 && sigismember(&set, SIGPIPE) == 1;
}

static sigset_t alone(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    return set;
}

void mm_sigpipe_begin(struct mm_sigpipe *s)
{
    sigset_t set = alone();
    s->pending = waits();
    (void)pthread_sigmask(SIG_BLOCK, &set, &s->before);
}

void mm_sigpipe_end(struct mm_sigpipe *s)
{
    sigset_t set = alone();
    const struct timespec at_once = { 0, 0 };
    if (!s->pending && waits()) {
        while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR) {
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &s->before, NULL);
}
