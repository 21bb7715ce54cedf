#include "snapshot/keep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sqlite.h"
#include "wire/wire.h"

enum { REQUEST_MS = 5000, PURGE_LOOKS = 8 };

/* The server lost its end since, and what came in its place are other messages: nobody can
** take this snapshot any more. True as well when it is out of the log's reach. */
static bool out_of_log(const struct mm_keep *k, const struct mm_manifest *m, struct mm_bus *bus, struct mm_err *err)
{
    bool out = false;
    for (int n = 0; n < k->nshard; n++) {
        if (k->position[n] < m->shard[n].seq) {
            return false; /* none can be stored in its place yet */
        }
    }
    for (int n = 0; n < k->nshard && !out && err->rc == SQLITE_OK; n++) {
        const struct mm_position *p = &m->shard[n];
        struct mm_stored last;
        uint8_t digest[32] = { 0 };
        bool there = mm_bus_stream_get(bus, k->stream[n], p->seq, &last, REQUEST_MS, err);
        if (!there && (p->seq == 0 || k->position[n] == p->seq)) {
            continue; /* another one would be of the same message */
        }
        if (there) {
            mm_wire_sha256(last.data, last.len, digest);
        }
        free(last.data);
        out = memcmp(digest, p->digest, sizeof p->digest) != 0 || (p->stamp != 0 && p->stamp != last.time_ns);
    }
    return out && err->rc == SQLITE_OK;
}

bool mm_keep_due(const struct mm_keep *k, const struct mm_manifest *newest, const struct mm_manifest *older,
                 struct mm_bus *bus, struct mm_err *err)
{
    if (newest == NULL || newest->nshard != k->nshard || newest->tables != k->tables ||
        (k->schema != 0 && k->schema != newest->schema) ||
        (k->interval_ms > 0 && mm_clock_wall_ms() - newest->at_ms >= k->interval_ms)) {
        return true;
    }
    if (out_of_log(k, newest, bus, err)) {
        mm_log(MM_LOG_INFO, "snapshot %s is of messages that the server no longer has: another one is due", newest->id);
        return true;
    }
    for (int n = 0; n < k->nshard && err->rc == SQLITE_OK; n++) {
        struct mm_stream_info info;
        int64_t moved = k->position[n] - newest->shard[n].seq;
        if ((k->max_entries > 0 && moved >= k->max_entries / 2) || (k->rest && moved > 0)) {
            return true;
        }
        bool helps = moved > 0 || older == NULL || newest->shard[n].seq > older->shard[n].seq;
        if (!helps || !mm_bus_stream_info(bus, k->stream[n], &info, REQUEST_MS, err) || info.messages == 0) {
            continue;
        }
        /* Nearly full, since the last but one is old or missing: one more makes room. */
        if ((k->max_entries > 0 && info.messages >= k->max_entries / 4 * 3) ||
            (k->max_bytes > 0 &&
             (info.bytes / info.messages * moved >= k->max_bytes / 2 || info.bytes >= k->max_bytes / 4 * 3))) {
            return true;
        }
    }
    return false;
}

static void key_of(const struct mm_manifest *newest, char out[112])
{
    (void)snprintf(out, 112, "after.%s", newest != NULL && newest->id[0] != '\0' ? newest->id : "nothing");
}

int mm_keep_give_up(const struct mm_keep *k, const struct mm_manifest *newest, struct mm_bus *bus, struct mm_err *err)
{
    char key[112];
    key_of(newest, key);
    return mm_bus_kv_drop(bus, k->bucket, key, REQUEST_MS, err);
}

bool mm_keep_lease(const struct mm_keep *k, const struct mm_manifest *newest, int64_t node, struct mm_bus *bus,
                   struct mm_err *err)
{
    char key[112];
    char value[32];
    key_of(newest, key);
    (void)snprintf(value, sizeof value, "%lld", (long long)node);
    mm_bus_kv_open(bus, k->bucket, k->replicas, MM_KEEP_LEASE_MS * 1000000LL, REQUEST_MS, err);
    if (err->rc != SQLITE_OK || mm_bus_kv_create(bus, k->bucket, key, value, strlen(value), REQUEST_MS, err) == 1) {
        return err->rc == SQLITE_OK;
    }
    char *holder = NULL; /* this node itself, when it was killed at it */
    size_t len = 0;
    bool mine = mm_bus_kv_get(bus, k->bucket, key, &holder, &len, REQUEST_MS, err) && strcmp(holder, value) == 0;
    free(holder);
    return mine;
}

/* How many of the newest messages stay whatever the snapshots hold. By their mean size, where
** bytes are what there is little of: what is left is seen at the next look. */
static int64_t stay(const struct mm_keep *k, const struct mm_stream_info *info)
{
    int64_t most = k->max_entries / 4;
    int64_t fit = k->max_bytes > 0 && info->bytes > 0 ? k->max_bytes / 4 / (info->bytes / info->messages + 1) : most;
    return fit < most ? fit : most;
}

static void purge_stream(const struct mm_keep *k, int n, const struct mm_position *older, struct mm_bus *bus,
                         struct mm_err *err)
{
    struct mm_stream_info info;
    for (int look = 0; look < PURGE_LOOKS; look++) {
        if (!mm_bus_stream_info(bus, k->stream[n], &info, REQUEST_MS, err) || info.messages == 0 ||
            strcmp(info.created, older->created) != 0) {
            return; /* another stream's numbers */
        }
        int64_t upto = info.last_seq - stay(k, &info);
        upto = upto < older->seq ? upto : older->seq;
        if (upto <= info.first_seq || (look > 0 && info.bytes < k->max_bytes / 4 * 3)) {
            return;
        }
        mm_log(MM_LOG_INFO, "stream %s: messages before %lld are removed, snapshots hold them", k->stream[n],
               (long long)upto);
        mm_bus_stream_purge(bus, k->stream[n], upto, REQUEST_MS, err);
        if (k->max_bytes <= 0) {
            return;
        }
    }
}

int mm_keep_purge(const struct mm_keep *k, const struct mm_manifest *older, struct mm_bus *bus, struct mm_err *err)
{
    for (int n = 0; n < k->nshard && n < older->nshard && k->max_entries > 0 && err->rc == SQLITE_OK; n++) {
        purge_stream(k, n, &older->shard[n], bus, err);
    }
    return err->rc;
}
