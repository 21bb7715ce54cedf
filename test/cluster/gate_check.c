/* Preloaded into a host: writes a line to the file GATE_CHECK for each call of a thread of ours into a mutex
** of SQLite while it does not hold the fork gate (ext/base/gate.h), which is the one read-write lock that
** libmarmot takes; at the end of the process how many calls held it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { FRAMES = 40 };

static sqlite3_mutex_methods plain;
static int out = -1;
static atomic_long fine;
static _Thread_local int held;
static _Thread_local int busy;

static int by_marmot(const void *caller)
{
    Dl_info info;
    return dladdr(caller, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, "libmarmot") != NULL;
}

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    static int (*next)(pthread_rwlock_t *);
    next = next != NULL ? next : (int (*)(pthread_rwlock_t *))dlsym(RTLD_NEXT, "pthread_rwlock_rdlock");
    int rc = next(lock);
    held += by_marmot(__builtin_return_address(0));
    return rc;
}

int pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    static int (*next)(pthread_rwlock_t *);
    next = next != NULL ? next : (int (*)(pthread_rwlock_t *))dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
    held -= held > 0 && by_marmot(__builtin_return_address(0));
    return next(lock);
}

static void look(void)
{
    char name[16] = "";
    (void)prctl(PR_GET_NAME, name);
    if (strncmp(name, "marmot", 6) != 0 || busy) {
        return;
    }
    if (held > 0) {
        atomic_fetch_add(&fine, 1);
        return;
    }
    busy = 1;
    void *frame[FRAMES];
    char line[2048];
    size_t n = (size_t)snprintf(line, sizeof line, "outside %s:", name);
    int count = backtrace(frame, FRAMES);
    for (int k = 0; k < count; k++) {
        Dl_info info;
        if (by_marmot(frame[k]) && dladdr(frame[k], &info) != 0 && n < sizeof line - 64) {
            n += (size_t)snprintf(line + n, 32, " +0x%lx", (long)((char *)frame[k] - (char *)info.dli_fbase));
        }
    }
    line[n++] = '\n';
    (void)!write(out, line, n);
    busy = 0;
}

static void enter(sqlite3_mutex *m)
{
    look();
    plain.xMutexEnter(m);
}

static int try(sqlite3_mutex *m)
{
    look();
    return plain.xMutexTry(m);
}

static void tell(void)
{
    char line[64];
    int n = snprintf(line, sizeof line, "inside %ld\n", atomic_load(&fine));
    (void)!write(out, line, (size_t)n);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("GATE_CHECK");
    out = path != NULL ? open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600) : -1;
    /* They are filled in by the first initialisation, and can be read before or after one. */
    if (out < 0 || sqlite3_initialize() != SQLITE_OK || sqlite3_shutdown() != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_GETMUTEX, &plain) != SQLITE_OK) {
        return;
    }
    sqlite3_mutex_methods ours = plain;
    ours.xMutexEnter = enter;
    ours.xMutexTry = try;
    if (sqlite3_config(SQLITE_CONFIG_MUTEX, &ours) == SQLITE_OK) {
        (void)atexit(tell);
    }
}
