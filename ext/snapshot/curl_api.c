#include "snapshot/curl_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/sqlite.h"

/* A sanitizer's run-time must be found before the C library's functions, which
** RTLD_DEEPBIND turns round. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CURL_DEEPBIND 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define CURL_DEEPBIND 0
#endif
#endif
#ifndef CURL_DEEPBIND
#define CURL_DEEPBIND RTLD_DEEPBIND
#endif

static const char *const names[] = { "libcurl.so.4", "libcurl-gnutls.so.4" };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mm_curl_api api;
static bool ready; /* under lock */

static void *open_library(void)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *h = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | CURL_DEEPBIND);
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
        MM_CURL_SYMBOLS(X)
#undef X
    };
    void **const slots[] = {
#define X(name) (void **)(void *)&api.name,
        MM_CURL_SYMBOLS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *p = dlsym(handle, symbols[i]);
        if (p == NULL) {
            return mm_err_set(err, SQLITE_CANTOPEN, "libcurl lacks %s: install the package libcurl4 (7.85 or newer)",
                              symbols[i]);
        }
        memcpy(slots[i], &p, sizeof p);
    }
    return SQLITE_OK;
}

/* OpenSSL's handler at exit() would take it away under our threads: the flag of
** its first initialisation (OPENSSL_INIT_NO_ATEXIT) decides for the process. */
static void keep_openssl(void *handle)
{
    int (*init)(uint64_t options, const void *settings) = NULL;
    void *p = dlsym(handle, "OPENSSL_init_crypto");
    if (p != NULL) {
        memcpy(&init, &p, sizeof init);
        (void)init(0x00080000, NULL);
    }
}

/* Lock held on entry. */
static void open_api(struct mm_err *err)
{
    void *handle = open_library();
    if (handle == NULL) {
        mm_err_set(err, SQLITE_CANTOPEN, "libcurl is missing (libcurl.so.4): install the package libcurl4");
    } else if (look_up(handle, err) == SQLITE_OK) {
        keep_openssl(handle);
        CURLcode rc = api.curl_global_init(CURL_GLOBAL_ALL);
        ready = rc == CURLE_OK;
        if (!ready) {
            mm_err_set(err, SQLITE_CANTOPEN, "libcurl does not start: %s", api.curl_easy_strerror(rc));
        } else if (api.curl_version_info(CURLVERSION_NOW)->version_num < 0x075500) {
            ready = false;
            mm_err_set(err, SQLITE_CANTOPEN, "libcurl is version %s: 7.85 is the oldest that serves",
                       api.curl_version_info(CURLVERSION_NOW)->version);
        }
    }
}

const struct mm_curl_api *mm_curl_api(const char *protocol, struct mm_err *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_mutex_lock(&lock);
    if (!ready && err->rc == SQLITE_OK) {
        open_api(err);
    }
    bool usable = ready;
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (const char *const *p = usable ? api.curl_version_info(CURLVERSION_NOW)->protocols : NULL; usable; p++) {
        if (*p == NULL) {
            mm_err_set(err, SQLITE_CANTOPEN, "this libcurl cannot do %s: install the package libcurl4", protocol);
            return NULL;
        }
        if (strcmp(*p, protocol) == 0) {
            return &api;
        }
    }
    return NULL;
}
