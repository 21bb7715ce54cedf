/* Requests of our own and the JSON that answers them. The library's js_* calls
** wait for a thread that reads the socket; here that thread is the caller. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "bus/inner.h"

static natsStatus send_message(struct mm_bus *b, const char *subject, const char *reply, const char *const *headers,
                               const void *data, size_t len)
{
    const struct mm_nats_api *n = b->api;
    natsMsg *m = NULL;
    natsStatus s = n->natsMsg_Create(&m, subject, reply, data, (int)len);
    for (size_t i = 0; s == NATS_OK && headers != NULL && headers[i] != NULL; i += 2) {
        s = n->natsMsgHeader_Set(m, headers[i], headers[i + 1]);
    }
    if (s == NATS_OK) {
        s = n->natsConnection_PublishMsg(b->conn, m);
    }
    n->natsMsg_Destroy(m);
    return s;
}

/* The answer to request `number`, if it is there; answers to requests given up
** are dropped. The library turns the server's "503, nobody listens" into a
** status without a message. */
static natsMsg *take_answer(struct mm_bus *b, uint64_t number, struct mm_err *err)
{
    while (b->answers != NULL) {
        natsMsg *m = NULL;
        natsStatus s = b->api->natsSubscription_NextMsg(&m, b->answers, 0);
        if (s == NATS_NO_RESPONDERS) {
            mm_err_set(err, SQLITE_CANTOPEN,
                       "nobody answers for JetStream at %s: the server needs a jetstream block in its configuration, "
                       "a leader, and the JetStream domain asked for",
                       b->url);
            return NULL;
        }
        if (s != NATS_OK) {
            return NULL;
        }
        const char *tail = strrchr(b->api->natsMsg_GetSubject(m), '.');
        char *end = NULL;
        if (tail != NULL && strtoull(tail + 1, &end, 16) == number && *end == '\0') {
            return m;
        }
        b->api->natsMsg_Destroy(m);
    }
    return NULL;
}

static natsMsg *request(struct mm_bus *b, const char *subject, const char *const *headers, const void *data, size_t len,
                        int timeout_ms, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    if (b->conn == NULL) {
        mm_bus_lost(b, err);
        return NULL;
    }
    if (len > b->max_payload) {
        mm_err_set(err, SQLITE_TOOBIG, "a message of %zu bytes is above the server's max_payload of %zu", len,
                   b->max_payload);
        return NULL;
    }
    char reply[160];
    uint64_t number = ++b->request_number;
    (void)snprintf(reply, sizeof reply, "%s.r.%llx", (const char *)b->inbox, (unsigned long long)number);
    natsStatus s = send_message(b, subject, reply, headers, data, len);
    if (s != NATS_OK) {
        mm_err_set(err, s == NATS_NO_MEMORY ? SQLITE_NOMEM : SQLITE_IOERR, "a request to the NATS server failed: %s",
                   b->api->natsStatus_GetText(s));
        return NULL;
    }
    int64_t end = mm_clock_mono_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    for (;;) {
        natsMsg *m = take_answer(b, number, err);
        if (m != NULL || err->rc != SQLITE_OK) {
            return m;
        }
        if (b->conn == NULL) {
            mm_bus_lost(b, err);
            return NULL;
        }
        int64_t left = end - mm_clock_mono_ms();
        if (left <= 0) {
            mm_err_set(err, SQLITE_BUSY, "no answer from %s within %d ms", b->url, timeout_ms);
            return NULL;
        }
        bool extra = false;
        if (mm_bus_turn(b, (int)left, &extra, err) != SQLITE_OK) {
            return NULL;
        }
    }
}

natsMsg *mm_bus_request(struct mm_bus *b, const char *subject, const char *const *headers, const void *data, size_t len,
                        int timeout_ms, struct mm_err *err)
{
    /* A wake-up stays readable for the owner and would turn the wait into a spin. */
    mm_loop_mute(&b->loop, b->extra_fd, true);
    natsMsg *m = request(b, subject, headers, data, len, timeout_ms, err);
    mm_loop_mute(&b->loop, b->extra_fd, false);
    return m;
}

uint64_t mm_bus_number(struct mm_bus *b)
{
    return ++b->request_number;
}

int mm_bus_ask(struct mm_bus *b, uint64_t number, const char *call, const char *body, struct mm_err *err)
{
    char subject[512];
    char reply[160];
    if (b->conn == NULL) {
        return mm_bus_lost(b, err);
    }
    (void)snprintf(subject, sizeof subject, "%s%s", b->prefix, call);
    (void)snprintf(reply, sizeof reply, "%s.r.%llx", (const char *)b->inbox, (unsigned long long)number);
    natsStatus s = send_message(b, subject, reply, NULL, body, strlen(body));
    return s == NATS_OK ? err->rc
                        : mm_err_set(err, s == NATS_NO_MEMORY ? SQLITE_NOMEM : SQLITE_IOERR,
                                     "a request to the NATS server failed: %s", b->api->natsStatus_GetText(s));
}

/* What a pull brings keeps the subject that it was stored under; status lines come to the number. */
static natsMsg *take_pulled(struct mm_bus *b, uint64_t number)
{
    char ours[160];
    natsMsg *m = NULL;
    (void)snprintf(ours, sizeof ours, "%s.r.%llx", (const char *)b->inbox, (unsigned long long)number);
    while (b->answers != NULL && b->api->natsSubscription_NextMsg(&m, b->answers, 0) == NATS_OK) {
        const char *subject = b->api->natsMsg_GetSubject(m);
        if (strncmp(subject, (const char *)b->inbox, strlen((const char *)b->inbox)) != 0 ||
            strcmp(subject, ours) == 0) {
            return m;
        }
        b->api->natsMsg_Destroy(m);
        m = NULL;
    }
    return NULL;
}

natsMsg *mm_bus_answer(struct mm_bus *b, uint64_t number, int timeout_ms, struct mm_err *err)
{
    bool extra = false;
    natsMsg *m = err->rc == SQLITE_OK ? take_pulled(b, number) : NULL;
    if (m == NULL && err->rc == SQLITE_OK && b->conn != NULL && mm_bus_turn(b, timeout_ms, &extra, err) == SQLITE_OK) {
        m = take_pulled(b, number);
    }
    if (m == NULL && b->conn == NULL) {
        mm_bus_lost(b, err);
    }
    return m;
}

int64_t mm_json_int(const json_t *o, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(o, key));
}

const char *mm_json_str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

int64_t mm_json_time_ns(const json_t *o, const char *key)
{
    struct tm tm = { 0 };
    const char *rest = strptime(mm_json_str(o, key), "%Y-%m-%dT%H:%M:%S", &tm);
    int64_t part = 0;
    int64_t unit = 1000000000;
    if (rest == NULL) {
        return 0;
    }
    for (rest += *rest == '.'; *rest >= '0' && *rest <= '9' && unit > 1; rest++) {
        unit /= 10;
        part += (*rest - '0') * unit;
    }
    return (int64_t)timegm(&tm) * 1000000000 + part;
}

static json_t *parse(const struct mm_bus *b, natsMsg *m)
{
    const char *data = b->api->natsMsg_GetData(m);
    int len = b->api->natsMsg_GetDataLength(m);
    if (data == NULL || len <= 0 || len > MM_BUS_ANSWER_MAX) {
        return NULL;
    }
    json_t *root = json_loadb(data, (size_t)len, JSON_REJECT_DUPLICATES, NULL);
    if (root != NULL && !json_is_object(root)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* Fills code and text from the "error" member; false when there is none. */
static bool read_error(const json_t *root, int *code, char *text, size_t size)
{
    const json_t *e = json_object_get(root, "error");
    if (e == NULL) {
        return false;
    }
    int64_t c = mm_json_int(e, "err_code");
    if (c == 0) {
        c = mm_json_int(e, "code");
    }
    *code = c > 0 && c < 1000000 ? (int)c : 1;
    (void)snprintf(text, size, "%s", mm_json_str(e, "description"));
    return true;
}

int mm_bus_api(struct mm_bus *b, const char *call, json_t *body, struct mm_answer *a, int timeout_ms,
               struct mm_err *err)
{
    *a = (struct mm_answer){ 0 };
    char subject[512];
    char *text = NULL;
    if ((size_t)snprintf(subject, sizeof subject, "%s%s", b->prefix, call) >= sizeof subject) {
        mm_err_set(err, SQLITE_TOOBIG, "a JetStream subject is too long");
    }
    if (body != NULL) {
        text = json_dumps(body, JSON_COMPACT);
        json_decref(body);
        if (text == NULL) {
            mm_err_nomem(err);
        }
    }
    natsMsg *m = mm_bus_request(b, subject, NULL, text, text != NULL ? strlen(text) : 0, timeout_ms, err);
    free(text);
    if (m == NULL) {
        return err->rc;
    }
    a->root = parse(b, m);
    if (a->root == NULL) {
        mm_err_set(err, SQLITE_PROTOCOL, "%s answered %s with what is not a JSON object", b->url, call);
    } else {
        (void)read_error(a->root, &a->code, a->text, sizeof a->text);
    }
    b->api->natsMsg_Destroy(m);
    return err->rc;
}

void mm_answer_free(struct mm_answer *a)
{
    json_decref(a->root);
    a->root = NULL;
}

int mm_answer_fail(const struct mm_answer *a, const char *what, struct mm_err *err)
{
    return mm_err_set(err, SQLITE_ERROR, "%s: %s (JetStream error %d)", what,
                      a->text[0] != '\0' ? a->text : "the server gives no reason", a->code);
}

void mm_bus_read_ack(const struct mm_bus *b, natsMsg *m, struct mm_ack *ack)
{
    ack->seq = 0;
    ack->code = 0;
    ack->text[0] = '\0';
    ack->kind = MM_ACK_REFUSED;
    json_t *root = parse(b, m);
    /* An error comes with "seq":0 beside it: the error first. */
    if (root == NULL) {
        (void)snprintf(ack->text, sizeof ack->text, "the acknowledgement is not a JSON object");
    } else if (read_error(root, &ack->code, ack->text, sizeof ack->text)) {
        bool full = ack->code == 10077 || ack->code == 10023 || ack->code == 10047;
        ack->kind = full ? MM_ACK_FULL : ack->code == 10071 ? MM_ACK_EXPECTED : MM_ACK_REFUSED;
    } else if (mm_json_int(root, "seq") <= 0) {
        (void)snprintf(ack->text, sizeof ack->text, "the acknowledgement has no sequence");
    } else {
        ack->seq = mm_json_int(root, "seq");
        ack->kind = json_is_true(json_object_get(root, "duplicate")) ? MM_ACK_DUPLICATE : MM_ACK_STORED;
    }
    json_decref(root);
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int mm_base64_bytes(const char *text, uint8_t **data, size_t *len, struct mm_err *err)
{
    size_t n = strlen(text);
    bool fine = n % 4 == 0;
    for (int i = 0; i < 2 && n > 0 && text[n - 1] == '='; i++) {
        n--;
    }
    uint8_t *out = malloc(n / 4 * 3 + 4);
    if (out == NULL) {
        return mm_err_nomem(err);
    }
    size_t got = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < n && fine; i++) {
        int digit = base64_digit(text[i]);
        fine = digit >= 0;
        bits = bits << 6 | (uint32_t)(digit & 63);
        if (i % 4 != 0) {
            out[got++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
        }
    }
    if (!fine) {
        free(out);
        return mm_err_set(err, SQLITE_PROTOCOL, "the NATS server sent a message whose base64 is broken");
    }
    out[got] = '\0';
    *data = out;
    *len = got;
    return SQLITE_OK;
}

int mm_bus_check_name(const char *what, const char *name, struct mm_err *err)
{
    size_t n = name != NULL ? strlen(name) : 0;
    if (n == 0 || n > 64) {
        return mm_err_set(err, SQLITE_MISUSE, "%s must have 1 to 64 characters", what);
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c <= ' ' || c == 127 || strchr(".*>/\\", c) != NULL) {
            return mm_err_set(err, SQLITE_MISUSE, "%s '%s' must not contain blanks, dots, slashes, * or >", what, name);
        }
    }
    return err->rc;
}
