/* Snapshots that are taken, and what makes one needed: a table that lacks its content, a
** server that has lost the end of its log. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "snapshot/take.h"
#include "store/meta.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

const char *const world_kept_path[] = { "/newest.snap", "/older.snap" };
const char world_fresh_path[] = "/fresh.snap";

struct mm_repl_options world_options(const struct world *w, const struct world_node *n)
{
    return (struct mm_repl_options){ .node = n->id,
                                     .nshard = w->shards,
                                     .stream_prefix = "log",
                                     .subject_prefix = "subject",
                                     .part_size = w->part_size,
                                     .compress = w->compress };
}

/* --- taking one --- */

void world_keep(struct world *w, const struct mm_manifest *m)
{
    struct mm_manifest *last = w->kept[1] != NULL ? w->kept[1] : malloc(sizeof *last);
    world_need(last != NULL, "memory");
    if (w->kept[0] != NULL) {
        memory_copy(world_kept_path[0], world_kept_path[1]);
    }
    memory_copy(world_fresh_path, world_kept_path[0]);
    w->kept[1] = w->kept[0];
    w->kept[0] = last;
    *last = *m;
}

static void check_fresh(struct world *w, const struct mm_manifest *m)
{
    struct mm_err err;
    mm_err_init(&err);
    fault_pause(true);
    sqlite3 *db = mm_repl_connect(world_fresh_path, NULL, 0, &err);
    for (int s = 0; s < w->shards && !w->failed; s++) {
        world_check_content(w, db, s, m->shard[s].seq, "a snapshot");
    }
    sqlite3_close(db);
    fault_pause(false);
}

void world_snapshot(struct world *w, struct world_node *n)
{
    struct mm_manifest m;
    struct mm_work work = { 0 };
    struct mm_take t = { n->path, NULL, world_fresh_path, world_options(w, n), &work, false };
    struct mm_err err;
    mm_err_init(&err);
    bool may = n->bring.stage == BRING_NOT && !n->bring.held && !n->past && n->r.joined;
    for (int k = 0; k < n->r.nshard && w->lost; k++) {
        may = may && n->r.shard[k].checked;
    }
    if (!may) {
        return;
    }
    memory_remove(world_fresh_path);
    world_node_flush(w, n);
    if (w->failed) {
        return;
    }
    if (mm_take_copy(&t, &m, &err) == SQLITE_OK) {
        check_fresh(w, &m);
        if (!w->failed && (w->kept[0] == NULL || mm_manifest_reaches(&m, w->kept[0]))) {
            world_keep(w, &m);
        }
    } else if (err.rc != SQLITE_BUSY && !(err.rc == SQLITE_ERROR && w->again) && !fault_came()) {
        world_fail(w, "a snapshot of node %lld: %d %s", (long long)n->id, err.rc, err.msg);
    }
    memory_remove(world_fresh_path);
}

void world_purge(struct world *w)
{
    for (int s = 0; s < w->shards && w->kept[1] != NULL; s++) {
        net_drop(w->net, s + 1, w->kept[1]->shard[s].seq - 1);
    }
}

void world_snapshots_close(struct world *w)
{
    for (int k = 0; k < 2; k++) {
        free(w->kept[k]);
        memory_remove(world_kept_path[k]);
    }
}

bool world_snapshot_usable(const struct world *w, const struct mm_manifest *m)
{
    bool good = true;
    for (int k = 0; k < w->shards; k++) {
        int64_t seq = m->shard[k].seq;
        uint8_t digest[32];
        good = good && seq <= net_end(w->net, k + 1);
        if (good && seq > 0) {
            const struct net_message *last = net_get(w->net, k + 1, seq);
            mm_wire_sha256(last->data, last->len, digest);
            good = memcmp(digest, m->shard[k].digest, sizeof m->shard[k].digest) == 0 &&
                   (m->shard[k].stamp == 0 || m->shard[k].stamp == last->time_ns);
        }
    }
    return good;
}

/* --- a table that waits for one --- */

void world_lack(struct world *w, struct world_node *n, uint64_t seed)
{
    int table = (int)(world_random(&seed) % WORLD_TABLES);
    const char *name = world_tables[table].name;
    struct mm_err err;
    mm_err_init(&err);
    if (w->kept[0] != NULL && world_again(w, n, table)) {
        mm_watch_set(n->r.db, name, world_random(&seed) % 2 == 0 ? MM_STALE : MM_JOINING, NULL, &err);
        mm_watch_set_joined_seq(n->r.db, name, MM_SEQ_BEFORE, &err);
        mm_targets_forget(n->r.targets);
        n->r.copy_due = true;
        if (err.rc != SQLITE_OK) {
            world_fail(w, "a table that lacks: %s", err.msg);
        }
    }
}

/* --- a server that comes back without the end of a stream --- */

/* A snapshot of before is needed, and all that is lost again where it was written. */
static int64_t lose_to(struct world *w, int shard, uint64_t *seed)
{
    struct mm_err err;
    mm_err_init(&err);
    const struct mm_manifest *m = w->kept[0];
    int64_t end = net_end(w->net, shard + 1);
    for (int k = 0; k < w->nnode; k++) { /* its watch message comes once more, and says the rows that it has then */
        if (w->node[k].past && !world_may_pass(w, &w->node[k])) {
            return end;
        }
    }
    for (int k = 0; k < w->nnode && !w->lost; k++) {
        if (mm_outbox_gone(w->node[k].r.db, &err) != 0) {
            return end;
        }
    }
    bool between = w->seeder != NULL && (w->epoch == 1 || (m != NULL && m->epoch < w->epoch));
    if (between || m == NULL || m->shard[shard].seq >= end || !world_snapshot_usable(w, m)) {
        return end;
    }
    int64_t lost = 1 + (int64_t)(world_random(seed) % (uint64_t)(end - m->shard[shard].seq));
    return end - lost;
}

void world_lose(struct world *w, uint64_t seed)
{
    int shard = (int)(world_random(&seed) % (unsigned)w->shards);
    int64_t end = lose_to(w, shard, &seed);
    if (end == net_end(w->net, shard + 1)) {
        return;
    }
    w->lost = true;
    net_lose(w->net, shard + 1, end);
    for (int k = 0; k < w->nnode; k++) {
        struct world_node *n = &w->node[k];
        n->has_backup = false;
        if (n->r.shard[shard].pos.seq > end && (n->astray[shard] == 0 || n->astray[shard] > end)) {
            n->astray[shard] = end + 1;
        }
        if (n->base[shard].seq > end) { /* what it was is no part of the log any more */
            naive_free(&n->base[shard]);
            world_begin_base(w, shard, &n->base[shard]);
        }
        world_bring_end(n); /* its connection is lost as well */
        world_node_cut(w, n);
        int64_t here = n->r.shard[shard].pos.seq;
        n->r.shard[shard].end_seq = n->r.shard[shard].sync_seq = here > end ? here : end;
    }
}
