#include "test/model/bus_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "test/model/faults.h"

static struct net *newest;

int64_t net_now_us = 1000000;
int64_t net_jitter_us = 1;

/* --- the clock --- */

int64_t mm_clock_mono_us(void)
{
    net_now_us += net_jitter_us;
    return net_now_us;
}

int64_t mm_clock_mono_ms(void)
{
    return mm_clock_mono_us() / 1000;
}

int64_t mm_clock_wall_ms(void)
{
    return INT64_C(1700000000000) + net_now_us / 1000;
}

void mm_clock_format(int64_t wall_ms, char out[25])
{
    snprintf(out, 25, "+%lld ms", (long long)(wall_ms - INT64_C(1700000000000)));
}

/* --- the test's side --- */

struct net *net_open(int shards)
{
    struct net *n = net_need(calloc(1, sizeof *n));
    n->shards = shards;
    newest = n;
    return n;
}

void net_close(struct net *n)
{
    while (n->buses != NULL) {
        struct mm_bus *b = n->buses;
        n->buses = b->next;
        while (b->first != NULL) {
            struct flying *f = b->first;
            b->first = f->next;
            net_free_flying(f);
        }
        while (b->acks != NULL) {
            struct waiting_ack *w = b->acks;
            b->acks = w->next;
            free(w);
        }
        free(b);
    }
    for (int s = 1; s <= n->shards; s++) {
        for (int64_t k = 0; k < n->end[s]; k++) {
            free(n->stream[s][k].m.data);
        }
        free(n->stream[s]);
    }
    for (size_t k = 0; k < n->nlost; k++) {
        free(n->lost[k]);
    }
    free(n->lost);
    free(n);
}

struct mm_bus *net_connect(struct net *n)
{
    fault_pause(true);
    struct mm_bus *b = net_need(calloc(1, sizeof *b));
    fault_pause(false);
    b->net = n;
    b->next = n->buses;
    n->buses = b;
    return b;
}

void net_cut(struct mm_bus *b)
{
    b->cut = true;
}

void net_allow(struct mm_bus *b, int count)
{
    b->allowed = count;
}

void net_only(struct mm_bus *b, int shard)
{
    b->only = shard;
}

static void answer(struct mm_bus *b, uint64_t token, enum mm_ack_kind kind, int64_t seq)
{
    if (b->cut) {
        return;
    }
    struct waiting_ack *w = net_need(calloc(1, sizeof *w));
    w->ack = (struct mm_ack){ .token = token, .kind = kind, .seq = seq };
    if (b->last_ack != NULL && b->acks != NULL) {
        b->last_ack->next = w;
    } else {
        b->acks = w;
    }
    b->last_ack = w;
}

static unsigned cut_buses(const struct net *n)
{
    unsigned count = 0;
    for (const struct mm_bus *b = n->buses; b != NULL; b = b->next) {
        count += b->cut && b->first != NULL;
    }
    return count;
}

bool net_strays(const struct net *n)
{
    return cut_buses(n) > 0;
}

static struct mm_bus *cut_bus(struct net *n, unsigned pick)
{
    unsigned count = cut_buses(n);
    for (struct mm_bus *b = n->buses; b != NULL && count > 0; b = b->next) {
        if (b->cut && b->first != NULL && pick-- % count == 0) {
            return b;
        }
    }
    return NULL;
}

static bool take(struct net *n, struct mm_bus *b, unsigned pick, enum net_fate fate)
{
    b = b != NULL ? b : cut_bus(n, pick);
    struct flying *f = b != NULL ? b->first : NULL;
    if (f == NULL) {
        return false;
    }
    b->first = f->next;
    if (fate == NET_REFUSED || fate == NET_FULL) {
        answer(b, f->token, fate == NET_FULL ? MM_ACK_FULL : MM_ACK_REFUSED, 0);
    } else if (fate != NET_LOST && net_known(n, f->shard, f->id)) {
        answer(b, f->token, MM_ACK_DUPLICATE, 0);
    } else if (fate != NET_LOST) {
        net_store(n, f->shard, f->m.data, f->m.len, f->m.zstd);
        memcpy(n->stream[f->shard][n->end[f->shard] - 1].id, f->id, sizeof f->id);
        if (fate == NET_STORED) {
            answer(b, f->token, MM_ACK_STORED, n->end[f->shard]);
        }
    }
    net_free_flying(f);
    return true;
}

bool net_take(struct net *n, struct mm_bus *b, unsigned pick, enum net_fate fate)
{
    fault_pause(true);
    bool taken = take(n, b, pick, fate);
    fault_pause(false);
    return taken;
}

/* --- the node's side --- */

static int shard_of(const char *name)
{
    const char *dash = strrchr(name, '-');
    int n = dash != NULL ? atoi(dash + 1) : 0;
    if (n < 1 || n > SHARDS) {
        fprintf(stderr, "bus_double: no shard in %s\n", name);
        exit(2);
    }
    return n;
}

int mm_bus_publish(struct mm_bus *b, const struct mm_publish *p, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (fault_here(FAULT_PUBLISH)) {
        return mm_err_set(err, SQLITE_IOERR, "the connection was lost");
    }
    if (fault_here(FAULT_DEATH) || fault_dead()) {
        return SQLITE_OK;
    }
    if (b->swift) { /* a seeder's: the server answers at once */
        int s = shard_of(p->subject);
        bool good = p->expect_last < 0 || p->expect_last == b->net->end[s];
        fault_pause(true);
        if (good) {
            net_store(b->net, s, p->data, p->len, p->encoding != NULL);
        }
        answer(b, p->token, good ? MM_ACK_STORED : MM_ACK_EXPECTED, b->net->end[s]);
        fault_pause(false);
        return SQLITE_OK;
    }
    fault_pause(true);
    struct flying *f = net_need(calloc(1, sizeof *f));
    f->m = (struct net_message){ .data = net_need(malloc(p->len + 1)), .len = p->len, .zstd = p->encoding != NULL };
    memcpy(f->m.data, p->data, p->len);
    f->shard = shard_of(p->subject);
    f->token = p->token;
    snprintf(f->id, sizeof f->id, "%s", p->msg_id);
    if (b->first != NULL) {
        b->last->next = f;
    } else {
        b->first = f;
    }
    b->last = f;
    fault_pause(false);
    return SQLITE_OK;
}

int mm_bus_next_ack(struct mm_bus *b, struct mm_ack *ack)
{
    struct waiting_ack *w = b->acks;
    if (w == NULL) {
        return 0;
    }
    *ack = w->ack;
    b->acks = w->next;
    free(w);
    return 1;
}

int mm_bus_follow(struct mm_bus *b, const char *stream, int shard, int64_t start_seq, int timeout_ms,
                  struct mm_err *err)
{
    (void)timeout_ms;
    if (err->rc == SQLITE_OK) {
        b->follow[shard_of(stream)] = start_seq;
        b->turn = shard;
    }
    return err->rc;
}

static bool any(const struct mm_bus *b)
{
    bool found = false;
    for (int s = 1; s <= b->net->shards; s++) {
        found = found || (b->follow[s] > 0 && b->follow[s] <= b->net->end[s]);
    }
    return found;
}

int mm_bus_next(struct mm_bus *b, struct mm_delivery *d)
{
    for (int k = 0; k < b->net->shards && (b->allowed > 0 || b->swift); k++) {
        int s = (b->turn + k) % b->net->shards + 1;
        int64_t seq = b->follow[s];
        if (seq > 0 && seq <= b->net->dropped[s]) {
            seq = b->follow[s] = b->net->dropped[s] + 1;
        }
        if ((b->only == 0 || b->only == s) && seq > 0 && seq <= b->net->end[s]) {
            const struct net_message *m = net_get(b->net, s, seq);
            *d = (struct mm_delivery){ .kind = MM_DELIVERY_MESSAGE,
                                       .shard = s,
                                       .seq = seq,
                                       .time_ns = m->time_ns,
                                       .pending = b->net->end[s] - seq,
                                       .zstd = m->zstd,
                                       .data = m->data,
                                       .len = m->len };
            b->follow[s] = seq + 1;
            b->allowed--;
            b->turn += s % 3; /* the streams come mixed */
            return 1;
        }
    }
    return 0;
}

void mm_bus_release(struct mm_delivery *d)
{
    d->data = NULL; /* the streams own it */
}

bool mm_bus_connected(const struct mm_bus *b)
{
    return !b->cut;
}

int mm_bus_wait(struct mm_bus *b, int timeout_ms, struct mm_err *err)
{
    net_now_us += timeout_ms > 0 && !(b->swift && any(b)) ? (int64_t)timeout_ms * 1000 : 0;
    return err->rc;
}

/* --- a copy beside a node has a connection of its own --- */

struct mm_bus *mm_bus_open(const struct mm_bus_options *o, struct mm_err *err)
{
    (void)o;
    struct mm_bus *b = err->rc == SQLITE_OK ? net_connect(newest) : NULL;
    if (b != NULL) {
        b->swift = true;
    }
    return b;
}

void mm_bus_close(struct mm_bus *b)
{
    if (b != NULL) {
        net_cut(b); /* net_close frees it */
    }
}

int mm_bus_connect(struct mm_bus *b, struct mm_err *err)
{
    (void)b;
    return err->rc;
}

/* --- founding and joining ask for these; here the cluster is founded --- */

static int nothing(struct mm_err *err)
{
    mm_err_set(err, SQLITE_CANTOPEN, "this network has streams alone");
    return 0;
}

int mm_bus_stream_info(struct mm_bus *b, const char *stream, struct mm_stream_info *info, int timeout_ms,
                       struct mm_err *err)
{
    int s = shard_of(stream);
    (void)timeout_ms;
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    memset(info, 0, sizeof *info);
    snprintf(info->created, sizeof info->created, "%s", NET_CREATED);
    snprintf(info->description, sizeof info->description, "%s", NET_DESCRIPTION);
    info->first_seq = b->net->dropped[s] + 1;
    info->last_seq = b->net->end[s];
    info->messages = info->last_seq - info->first_seq + 1;
    return 1;
}

int mm_bus_stream_create(struct mm_bus *b, const struct mm_stream_config *c, struct mm_stream_info *info,
                         int timeout_ms, struct mm_err *err)
{
    (void)b, (void)c, (void)info, (void)timeout_ms;
    return nothing(err);
}

int mm_bus_stream_get(struct mm_bus *b, const char *stream, int64_t seq, struct mm_stored *m, int timeout_ms,
                      struct mm_err *err)
{
    (void)timeout_ms;
    int s = shard_of(stream);
    *m = (struct mm_stored){ 0 };
    if (err->rc != SQLITE_OK || seq <= b->net->dropped[s] || seq > b->net->end[s]) {
        return 0;
    }
    const struct net_message *from = net_get(b->net, s, seq);
    fault_pause(true);
    m->data = net_need(malloc(from->len + 1));
    fault_pause(false);
    memcpy(m->data, from->data, from->len);
    m->len = from->len;
    m->time_ns = from->time_ns;
    return 1;
}
