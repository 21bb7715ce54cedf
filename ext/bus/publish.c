/* Asynchronous publishing: an inbox of our own for the acknowledgements, whose
** last token is the owner's. The library's own bookkeeping keeps a node for
** each message until its deadline, and never misses a lost ack. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "bus/inner.h"

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
    if (s == NATS_OK) {
        s = b->api->natsConnection_PublishMsg(b->conn, m);
        b->api->natsMsg_Destroy(m);
    }
    switch (s) {
    case NATS_OK:
        return SQLITE_OK;
    case NATS_NO_MEMORY:
        return mm_err_nomem(err);
    case NATS_MAX_PAYLOAD:
        return mm_err_set(err, SQLITE_TOOBIG, "a message of %zu bytes and its headers are above the server's max_payload of %zu",
                          p->len, b->max_payload);
    default:
        return mm_err_set(err, SQLITE_IOERR, "publishing on %s failed: %s", p->subject, b->api->natsStatus_GetText(s));
    }
}

int mm_bus_next_ack(struct mm_bus *b, struct mm_ack *ack)
{
    natsMsg *m = NULL;
    while (b->acks != NULL && b->api->natsSubscription_NextMsg(&m, b->acks, 0) == NATS_OK) {
        const char *tail = strrchr(b->api->natsMsg_GetSubject(m), '.');
        char *end = NULL;
        ack->token = tail != NULL ? strtoull(tail + 1, &end, 16) : 0;
        bool ours = end != NULL && end != tail + 1 && *end == '\0';
        if (ours) {
            mm_bus_read_ack(b, m, ack);
        }
        b->api->natsMsg_Destroy(m);
        if (ours) {
            return 1;
        }
    }
    return 0;
}
