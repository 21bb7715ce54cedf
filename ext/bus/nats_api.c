#include "bus/nats_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"

/* A sanitizer's run-time must be found before the C library's functions, which
** RTLD_DEEPBIND turns round. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NATS_DEEPBIND 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define NATS_DEEPBIND 0
#endif
#endif
#ifndef NATS_DEEPBIND
#define NATS_DEEPBIND RTLD_DEEPBIND
#endif

static const char *const names[] = { "libnats.so.3.4", "libnats.so.3", "libnats.so" };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mm_nats_api api;
static atomic_bool ready;

static void *open_library(void)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *h = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | NATS_DEEPBIND);
        if (h != NULL) {
            return h;
        }
    }
    return NULL;
}

static int look_up(void *handle, struct mm_err *err)
{
    static const char *const symbols[] = {
#define X(name) #name,
        MM_NATS_SYMBOLS(X)
#undef X
    };
    void **const slots[] = {
#define X(name) (void **)(void *)&api.name,
        MM_NATS_SYMBOLS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *p = dlsym(handle, symbols[i]);
        if (p == NULL) {
            return mm_err_set(err, SQLITE_CANTOPEN,
                              "the NATS client library lacks %s: install libnats3.4 (3.4 or newer)", symbols[i]);
        }
        memcpy(slots[i], &p, sizeof p);
    }
    api.handle = handle;
    return SQLITE_OK;
}

/* OpenSSL's handler at exit() would take it away under our threads: the flag of
** its first initialisation (OPENSSL_INIT_NO_ATEXIT) decides for the process. */
static void keep_openssl(void)
{
    int (*init)(uint64_t options, const void *settings) = NULL;
    void *p = dlsym(api.handle, "OPENSSL_init_crypto");
    if (p != NULL) {
        memcpy(&init, &p, sizeof init);
        (void)init(0x00080000, NULL);
    }
}

/* nats_Open sets SIGPIPE to SIG_IGN and seeds rand() of the whole process:
** both belong to the host. */
static natsStatus open_quietly(void)
{
    static char throwaway[128];
    struct sigaction pipe_was;
    bool have_pipe = sigaction(SIGPIPE, NULL, &pipe_was) == 0;
    char *random_was = initstate(1, throwaway, sizeof throwaway);

    keep_openssl();
    natsStatus s = api.nats_Open(-1);

    if (random_was != NULL) {
        (void)setstate(random_was);
    }
    if (have_pipe) {
        (void)sigaction(SIGPIPE, &pipe_was, NULL);
    }
    return s;
}

const struct mm_nats_api *mm_nats_api(struct mm_err *err)
{
    if (atomic_load_explicit(&ready, memory_order_acquire)) {
        return &api;
    }
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_mutex_lock(&lock);
    if (!atomic_load(&ready)) {
        void *handle = open_library();
        if (handle == NULL) {
            mm_err_set(err, SQLITE_CANTOPEN,
                       "the NATS client library is missing (libnats.so.3.4): install the package libnats3.4");
        } else if (look_up(handle, err) == SQLITE_OK) {
            natsStatus s = open_quietly();
            if (s == NATS_OK) {
                atomic_store_explicit(&ready, true, memory_order_release);
            } else {
                mm_err_set(err, SQLITE_CANTOPEN, "the NATS client library does not start: %s",
                           api.natsStatus_GetText(s));
            }
        }
    }
    bool usable = atomic_load(&ready);
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return usable ? &api : NULL;
}

void *mm_nats_symbol(const struct mm_nats_api *n, const char *name)
{
    return dlsym(n->handle, name);
}
