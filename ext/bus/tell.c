/* Plain messages that nobody keeps: what nodes tell each other about themselves. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/sqlite.h"
#include "bus/inner.h"

enum { WAITING_MESSAGES = 4096, WAITING_BYTES = 4 << 20 }; /* the library drops what is beyond */

int mm_bus_listen(struct mm_bus *b, const char *subject, struct mm_err *err)
{
    if (err->rc != SQLITE_OK || b->told != NULL) {
        return err->rc;
    }
    if (b->conn == NULL) {
        return mm_bus_lost(b, err);
    }
    natsStatus s = b->api->natsConnection_SubscribeSync(&b->told, b->conn, subject);
    if (s == NATS_OK) {
        s = b->api->natsSubscription_SetPendingLimits(b->told, WAITING_MESSAGES, WAITING_BYTES);
    }
    if (s != NATS_OK) {
        mm_tell_stop(b);
        mm_err_set(err, s == NATS_NO_MEMORY ? SQLITE_NOMEM : SQLITE_IOERR, "subscribing to %s failed: %s", subject,
                   b->api->natsStatus_GetText(s));
    }
    return err->rc;
}

void mm_tell_stop(struct mm_bus *b)
{
    b->api->natsMsg_Destroy(b->told_message);
    b->api->natsSubscription_Destroy(b->told);
    b->told_message = NULL;
    b->told = NULL;
}

int mm_bus_tell(struct mm_bus *b, const char *subject, const void *data, size_t len, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (b->conn == NULL) {
        return mm_bus_lost(b, err);
    }
    if (len > b->max_payload || len > INT_MAX) {
        return mm_err_set(err, SQLITE_TOOBIG, "a message of %zu bytes is above the server's max_payload of %zu", len,
                          b->max_payload);
    }
    natsStatus s = b->api->natsConnection_Publish(b->conn, subject, data, (int)len);
    if (s != NATS_OK) {
        mm_err_set(err, s == NATS_NO_MEMORY ? SQLITE_NOMEM : SQLITE_IOERR, "publishing on %s failed: %s", subject,
                   b->api->natsStatus_GetText(s));
    }
    return err->rc;
}

int mm_bus_heard(struct mm_bus *b, const uint8_t **data, size_t *len)
{
    b->api->natsMsg_Destroy(b->told_message);
    b->told_message = NULL;
    if (b->told == NULL || b->api->natsSubscription_NextMsg(&b->told_message, b->told, 0) != NATS_OK) {
        b->told_message = NULL;
        return 0;
    }
    *data = (const uint8_t *)b->api->natsMsg_GetData(b->told_message);
    *len = (size_t)b->api->natsMsg_GetDataLength(b->told_message);
    return 1;
}
