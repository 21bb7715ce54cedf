#include "capture/host_sqlite.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const sqlite3_api_routines *looked_in; /* lock held; NULL = not looked yet */
static struct mm_host host;                   /* lock held; constant once looked_in is set */
static const char *missing;                   /* lock held; NULL = all found */

/* A symbol counts only when it lies in the object mapped at `base`. */
static bool find(void *handle, const void *base, const char *name, void *slot)
{
    void *p = dlsym(handle, name);
    Dl_info at;
    if (p == NULL || dladdr(p, &at) == 0 || at.dli_fbase != base) {
        return false;
    }
    memcpy(slot, &p, sizeof p);
    return true;
}

static bool find_all(void *handle, const void *base, struct mm_host *h)
{
    return find(handle, base, "sqlite3_preupdate_hook", &h->preupdate_hook) &&
           find(handle, base, "sqlite3_preupdate_old", &h->preupdate_old) &&
           find(handle, base, "sqlite3_preupdate_new", &h->preupdate_new) &&
           find(handle, base, "sqlite3_preupdate_count", &h->preupdate_count) &&
           find(handle, base, "sqlite3_preupdate_depth", &h->preupdate_depth) &&
           find(handle, base, "sqlite3_preupdate_blobwrite", &h->preupdate_blobwrite);
}

static const char *look(struct mm_host *h)
{
    const char *(*routine)(void) = sqlite3_api->libversion;
    void *p;
    Dl_info at;
    memcpy(&p, &routine, sizeof p);
    if (dladdr(p, &at) == 0) {
        return "the object that holds SQLite cannot be found";
    }
    bool found = false;
    void *object = dlopen(at.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (object != NULL) {
        found = find_all(object, at.dli_fbase, h);
        dlclose(object);
    }
    /* The main program cannot be opened by its name. */
    if (!found) {
        found = find_all(RTLD_DEFAULT, at.dli_fbase, h);
    }
    return found ? NULL : "this SQLite does not offer the preupdate hook (not compiled in, or hidden by its host)";
}

const struct mm_host *mm_host_sqlite(const char **why)
{
    pthread_mutex_lock(&lock);
    if (looked_in != sqlite3_api) {
        memset(&host, 0, sizeof host);
        missing = look(&host);
        looked_in = sqlite3_api;
    }
    const char *reason = missing;
    pthread_mutex_unlock(&lock);
    if (why != NULL) {
        *why = reason;
    }
    return reason == NULL ? &host : NULL;
}
