#include "bus/bus.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/sigpipe.h"
#include "base/sqlite.h"
#include "bus/inner.h"

/* The client library's signing fails at random for about one connect in 300
** (a signature whose first byte is 0): a refusal is believed at the third. */
#define SIGNED_TRIES 3

struct mm_bus *mm_bus_open(const struct mm_bus_options *o, struct mm_err *err)
{
    const struct mm_nats_api *api = mm_nats_api(err);
    if (api == NULL) {
        return NULL;
    }
    struct mm_bus *b = calloc(1, sizeof *b);
    if (b == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    b->api = api;
    b->loop.epoll_fd = -1;
    b->loop.fd = -1;
    b->connect_timeout_ms = o->connect_timeout_ms > 0 ? o->connect_timeout_ms : 2000;
    b->ping_interval_ms = o->ping_interval_ms > 0 ? o->ping_interval_ms : 10000;
    b->extra_fd = o->extra_fd;
    mm_options_copy(b, o, err);
    if (mm_loop_open(&b->loop, b->extra_fd, err) != SQLITE_OK || err->rc != SQLITE_OK) {
        mm_bus_close(b);
        return NULL;
    }
    return b;
}

void mm_bus_close(struct mm_bus *b)
{
    if (b == NULL) {
        return;
    }
    mm_bus_disconnect(b);
    mm_loop_close(&b->loop);
    mm_options_free(&b->opt);
    free(b->unacked.tokens);
    free(b->unacked.done);
    b->api->nats_ReleaseThreadMemory();
    free(b);
}

static natsStatus subscribe(struct mm_bus *b, const char *suffix, natsSubscription **sub)
{
    char subject[160];
    (void)snprintf(subject, sizeof subject, "%s.%s.*", (const char *)b->inbox, suffix);
    natsStatus s = b->api->natsConnection_SubscribeSync(sub, b->conn, subject);
    return s == NATS_OK ? b->api->natsSubscription_SetPendingLimits(*sub, -1, -1) : s;
}

static int greet(struct mm_bus *b, struct mm_err *err)
{
    const struct mm_nats_api *n = b->api;
    natsStatus s = n->natsInbox_Create(&b->inbox);
    if (s == NATS_OK) {
        s = subscribe(b, "a", &b->acks);
    }
    if (s == NATS_OK) {
        s = subscribe(b, "r", &b->answers);
    }
    if (s == NATS_OK) {
        s = n->natsConnection_GetConnectedUrl(b->conn, b->url, sizeof b->url);
    }
    if (s != NATS_OK) {
        return mm_options_fail(b, s, "NATS server", err);
    }
    mm_bus_redact(b->url);
    int64_t max = n->natsConnection_GetMaxPayload(b->conn);
    b->max_payload = max > 0 ? (size_t)max : 0;
    b->heard_ms = b->looked_ms = mm_clock_mono_ms();
    b->pinged = false;
    return SQLITE_OK;
}

int mm_bus_connect(struct mm_bus *b, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    mm_bus_disconnect(b);
    struct mm_sigpipe pipe;
    sigset_t all;
    sigset_t before;
    mm_sigpipe_begin(&pipe);
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    natsOptions *o = mm_options_make(b, err);
    if (o != NULL) {
        bool is_signed = b->opt.seed_file != NULL || b->opt.creds_file != NULL;
        natsStatus s = NATS_ERR;
        for (int i = 0; i < (is_signed ? SIGNED_TRIES : 1) && s != NATS_OK; i++) {
            err->rc = SQLITE_OK;
            bool paused = mm_gate_pause();
            s = b->api->natsConnection_Connect(&b->conn, o);
            mm_gate_resume(paused);
            if (s != NATS_OK) {
                b->conn = NULL;
                if (mm_options_fail(b, s, "NATS server", err) != SQLITE_AUTH) {
                    break;
                }
            }
        }
        b->api->natsOptions_Destroy(o);
        if (s == NATS_OK) {
            mm_err_init(err);
            if (greet(b, err) != SQLITE_OK) {
                mm_bus_disconnect(b);
            }
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    mm_sigpipe_end(&pipe);
    return err->rc;
}

void mm_bus_disconnect(struct mm_bus *b)
{
    const struct mm_nats_api *n = b->api;
    struct mm_sigpipe pipe;
    mm_sigpipe_begin(&pipe);
    for (int i = 0; i < b->follow_count; i++) {
        mm_follow_stop(b, &b->follows[i]);
    }
    b->follow_count = 0;
    b->follow_turn = 0;
    mm_tell_stop(b);
    n->natsSubscription_Destroy(b->acks);
    n->natsSubscription_Destroy(b->answers);
    b->acks = b->answers = NULL;
    if (b->conn != NULL) {
        /* What waits to be written would hold Destroy up for half a second. */
        if (!n->natsConnection_IsClosed(b->conn)) {
            n->natsConnection_ProcessWriteEvent(b->conn);
        }
        n->natsConnection_Destroy(b->conn);
        b->conn = NULL;
    }
    if (b->inbox != NULL) {
        n->natsInbox_Destroy(b->inbox);
        b->inbox = NULL;
    }
    b->unacked.head = b->unacked.count = 0;
    b->url[0] = '\0';
    b->max_payload = 0;
    mm_sigpipe_end(&pipe);
}

bool mm_bus_connected(const struct mm_bus *b)
{
    return b->conn != NULL;
}

size_t mm_bus_max_payload(const struct mm_bus *b)
{
    return b->max_payload;
}

const char *mm_bus_url(const struct mm_bus *b)
{
    return b->url;
}

int mm_bus_lost(struct mm_bus *b, struct mm_err *err)
{
    (void)b;
    return mm_err_set(err, SQLITE_IOERR, "the connection to the NATS server is lost");
}
