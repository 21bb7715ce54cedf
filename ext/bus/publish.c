/* Asynchronous publishing: an inbox of our own for the acknowledgements, whose
** last token is the owner's. The library's own bookkeeping keeps a node for
** each message until its deadline, and never misses a lost ack. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "bus/inner.h"

static int remember(struct mm_unacked *u, uint64_t token, struct mm_err *err)
{
    if (u->tokens == NULL) {
        u->tokens = malloc(MM_BUS_UNACKED_MAX * sizeof *u->tokens);
        u->done = malloc(MM_BUS_UNACKED_MAX * sizeof *u->done);
        if (u->tokens == NULL || u->done == NULL) {
            free(u->tokens);
            free(u->done);
            u->tokens = NULL;
            u->done = NULL;
            return mm_err_nomem(err);
        }
    }
    if (u->count == MM_BUS_UNACKED_MAX) {
        return mm_err_set(err, SQLITE_BUSY, "%d published messages have no acknowledgement yet: take these first",
                          MM_BUS_UNACKED_MAX);
    }
    size_t at = (u->head + u->count++) % MM_BUS_UNACKED_MAX;
    u->tokens[at] = token;
    u->done[at] = false;
    return SQLITE_OK;
}

static void forget(struct mm_unacked *u, uint64_t token)
{
    for (size_t i = 0; i < u->count; i++) {
        size_t at = (u->head + i) % MM_BUS_UNACKED_MAX;
        if (u->tokens[at] == token && !u->done[at]) {
            u->done[at] = true;
            break;
        }
    }
    while (u->count > 0 && u->done[u->head]) {
        u->head = (u->head + 1) % MM_BUS_UNACKED_MAX;
        u->count--;
    }
}

static natsStatus build(struct mm_bus *b, const struct mm_publish *p, natsMsg **out)
{
    const struct mm_nats_api *n = b->api;
    char reply[160];
    char number[24];
    (void)snprintf(reply, sizeof reply, "%s.a.%llx", (const char *)b->inbox, (unsigned long long)p->token);
    natsMsg *m = NULL;
    natsStatus s = n->natsMsg_Create(&m, p->subject, reply, p->data, (int)p->len);
    if (s == NATS_OK && p->msg_id != NULL) {
        s = n->natsMsgHeader_Set(m, "Nats-Msg-Id", p->msg_id);
    }
    if (s == NATS_OK && p->encoding != NULL) {
        s = n->natsMsgHeader_Set(m, "Content-Encoding", p->encoding);
    }
    if (s == NATS_OK && p->expect_last >= 0) {
        (void)snprintf(number, sizeof number, "%lld", (long long)p->expect_last);
        s = n->natsMsgHeader_Set(m, "Nats-Expected-Last-Sequence", number);
    }
    if (s != NATS_OK) {
        n->natsMsg_Destroy(m);
        m = NULL;
    }
    *out = m;
    return s;
}

int mm_bus_publish(struct mm_bus *b, const struct mm_publish *p, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (b->conn == NULL) {
        return mm_bus_lost(b, err);
    }
    if (p->len > b->max_payload || p->len > INT_MAX) {
        return mm_err_set(err, SQLITE_TOOBIG, "a message of %zu bytes is above the server's max_payload of %zu", p->len,
                          b->max_payload);
    }
    natsMsg *m = NULL;
    natsStatus s = build(b, p, &m);
    if (s == NATS_OK && remember(&b->unacked, p->token, err) != SQLITE_OK) {
        b->api->natsMsg_Destroy(m);
        return err->rc;
    }
    if (s == NATS_OK) {
        s = b->api->natsConnection_PublishMsg(b->conn, m);
        b->api->natsMsg_Destroy(m);
        if (s != NATS_OK) {
            forget(&b->unacked, p->token);
        }
    }
    switch (s) {
    case NATS_OK:
        return SQLITE_OK;
    case NATS_NO_MEMORY:
        return mm_err_nomem(err);
    case NATS_MAX_PAYLOAD:
        return mm_err_set(err, SQLITE_TOOBIG,
                          "a message of %zu bytes and its headers are above the server's max_payload of %zu", p->len,
                          b->max_payload);
    default:
        return mm_err_set(err, SQLITE_IOERR, "publishing on %s failed: %s", p->subject, b->api->natsStatus_GetText(s));
    }
}

/* "503, nobody listens": the library keeps to itself which message it was. */
static int refuse_oldest(struct mm_bus *b, struct mm_ack *ack)
{
    struct mm_unacked *u = &b->unacked;
    if (u->count == 0) {
        return 0;
    }
    *ack = (struct mm_ack){ .token = u->tokens[u->head], .kind = MM_ACK_REFUSED, .code = 503 };
    (void)snprintf(ack->text, sizeof ack->text, "no stream takes this subject, or it has no leader");
    forget(u, ack->token);
    return 1;
}

int mm_bus_next_ack(struct mm_bus *b, struct mm_ack *ack)
{
    while (b->acks != NULL) {
        natsMsg *m = NULL;
        natsStatus s = b->api->natsSubscription_NextMsg(&m, b->acks, 0);
        if (s == NATS_NO_RESPONDERS) {
            if (refuse_oldest(b, ack) != 0) {
                return 1;
            }
            continue;
        }
        if (s != NATS_OK) {
            return 0;
        }
        const char *tail = strrchr(b->api->natsMsg_GetSubject(m), '.');
        char *end = NULL;
        ack->token = tail != NULL ? strtoull(tail + 1, &end, 16) : 0;
        bool ours = end != NULL && end != tail + 1 && *end == '\0';
        if (ours) {
            mm_bus_read_ack(b, m, ack);
            forget(&b->unacked, ack->token);
        }
        b->api->natsMsg_Destroy(m);
        if (ours) {
            return 1;
        }
    }
    return 0;
}
