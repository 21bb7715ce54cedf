/* libcurl, opened at run time by the first store that needs it: users without
** such a store need no libcurl, and a host that exports an OpenSSL or libcurl
** of its own (node does) cannot lend it to ours.
**
** Threads: any. Opened once a process and never closed. */
#ifndef MM_SNAPSHOT_CURL_API_H
#define MM_SNAPSHOT_CURL_API_H

#define CURL_DISABLE_TYPECHECK /* its macros would stand in the way of the members below */
#include <curl/curl.h>

#include "base/err.h"

/* clang-format off */
#define MM_CURL_SYMBOLS(X)   \
    X(curl_global_init)      \
    X(curl_version_info)     \
    X(curl_easy_init)        \
    X(curl_easy_cleanup)     \
    X(curl_easy_reset)       \
    X(curl_easy_setopt)      \
    X(curl_easy_getinfo)     \
    X(curl_easy_perform)     \
    X(curl_easy_strerror)    \
    X(curl_slist_append)     \
    X(curl_slist_free_all)   \
    X(curl_getdate)
/* clang-format on */

struct mm_curl_api {
#define X(name) __typeof__(name) *name;
    MM_CURL_SYMBOLS(X)
#undef X
};

/* NULL with err set: SQLITE_CANTOPEN names the package that is missing, or what it cannot do (`protocol`). */
const struct mm_curl_api *mm_curl_api(const char *protocol, struct mm_err *err);

#endif
