/* The key-value buckets of the network in memory. A key that was made stays until it is
** dropped: time takes none away. */
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "test/model/bus_int.h"
#include "test/model/faults.h"

struct entry {
    char bucket[64], key[64];
    char *value;
    size_t len;
};

static struct entry *entries;
static size_t count;

void net_forget_keys(void)
{
    for (size_t k = 0; k < count; k++) {
        free(entries[k].value);
    }
    free(entries);
    entries = NULL;
    count = 0;
}

static struct entry *find(const char *bucket, const char *key)
{
    for (size_t k = 0; k < count; k++) {
        if (strcmp(entries[k].bucket, bucket) == 0 && strcmp(entries[k].key, key) == 0) {
            return &entries[k];
        }
    }
    return NULL;
}

static char *copy(const void *data, size_t len)
{
    fault_pause(true);
    char *p = net_need(malloc(len + 1));
    fault_pause(false);
    memcpy(p, data, len);
    p[len] = '\0';
    return p;
}

int mm_bus_kv_open(struct mm_bus *b, const char *bucket, int replicas, int64_t max_age_ns, int timeout_ms,
                   struct mm_err *err)
{
    (void)b, (void)bucket, (void)replicas, (void)max_age_ns, (void)timeout_ms;
    return err->rc;
}

int mm_bus_kv_create(struct mm_bus *b, const char *bucket, const char *key, const void *data, size_t len,
                     int timeout_ms, struct mm_err *err)
{
    (void)b, (void)timeout_ms;
    if (err->rc != SQLITE_OK || fault_dead() || find(bucket, key) != NULL) {
        return 0;
    }
    fault_pause(true);
    entries = net_need(realloc(entries, (count + 1) * sizeof *entries));
    fault_pause(false);
    struct entry *e = &entries[count++];
    memset(e, 0, sizeof *e);
    strncpy(e->bucket, bucket, sizeof e->bucket - 1);
    strncpy(e->key, key, sizeof e->key - 1);
    e->value = copy(data, len);
    e->len = len;
    return 1;
}

int mm_bus_kv_get(struct mm_bus *b, const char *bucket, const char *key, char **value, size_t *len, int timeout_ms,
                  struct mm_err *err)
{
    (void)b, (void)timeout_ms;
    const struct entry *e = err->rc == SQLITE_OK ? find(bucket, key) : NULL;
    if (e != NULL) {
        *value = copy(e->value, e->len);
        *len = e->len;
    }
    return e != NULL;
}

int mm_bus_kv_drop(struct mm_bus *b, const char *bucket, const char *key, int timeout_ms, struct mm_err *err)
{
    (void)b, (void)timeout_ms;
    struct entry *e = err->rc == SQLITE_OK ? find(bucket, key) : NULL;
    if (e != NULL) {
        free(e->value);
        *e = entries[--count];
    }
    return err->rc;
}
