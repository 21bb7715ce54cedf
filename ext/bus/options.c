/* Options: from the owner's words to the client library's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/sqlite.h"
#include "bus/inner.h"

static char *copy(const char *s, struct mm_err *err)
{
    if (s == NULL || s[0] == '\0') {
        return NULL;
    }
    char *p = strdup(s);
    if (p == NULL) {
        mm_err_nomem(err);
    }
    return p;
}

/* The client library puts these into its CONNECT message as they are, between
** quotes: a password with a quote or a backslash in it must come escaped. */
static char *copy_escaped(const char *s, struct mm_err *err)
{
    if (s == NULL || s[0] == '\0') {
        return NULL;
    }
    struct mm_buf b;
    mm_buf_init(&b, 64 * 1024);
    mm_buf_json(&b, s);
    mm_buf_check(&b, err, "a NATS user name, password or token");
    char *quoted = mm_buf_take(&b);
    mm_buf_free(&b);
    if (quoted != NULL) {
        size_t n = strlen(quoted);
        memmove(quoted, quoted + 1, n - 2);
        quoted[n - 2] = '\0';
    }
    return quoted;
}

static void split_urls(struct mm_bus_copy *c, const char *urls, struct mm_err *err)
{
    c->url_text = copy(urls, err);
    if (c->url_text == NULL) {
        mm_err_set(err, SQLITE_MISUSE, "no NATS URL given: set nats.urls, as in nats://127.0.0.1:4222");
        return;
    }
    size_t commas = 0;
    for (const char *p = urls; *p != '\0'; p++) {
        commas += *p == ',';
    }
    c->urls = calloc(commas + 1, sizeof *c->urls);
    if (c->urls == NULL) {
        mm_err_nomem(err);
        return;
    }
    char *save = NULL;
    for (char *p = strtok_r(c->url_text, ", \t\n", &save); p != NULL; p = strtok_r(NULL, ", \t\n", &save)) {
        c->urls[c->url_count++] = p;
    }
    if (c->url_count == 0) {
        mm_err_set(err, SQLITE_MISUSE, "no NATS URL given: set nats.urls, as in nats://127.0.0.1:4222");
    }
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void percent_decode(char *s)
{
    char *out = s;
    for (; *s != '\0'; s++) {
        if (s[0] == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0 && hex(s[1]) + hex(s[2]) > 0) {
            *out++ = (char)(hex(s[1]) * 16 + hex(s[2]));
            s += 2;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
}

/* Where "user:password@" begins in a URL; its length in *len, 0 for none. */
static char *userinfo(char *url, size_t *len)
{
    char *scheme = strstr(url, "://");
    char *from = scheme != NULL ? scheme + 3 : url;
    size_t authority = strcspn(from, "/");
    for (*len = authority; *len > 0 && from[*len - 1] != '@'; (*len)--) {
    }
    return from;
}

/* The client library does not decode %-escapes. What all URLs say alike is
** decoded here and becomes the identity; else it stays with its server. */
static void lift_userinfo(struct mm_bus_copy *c, struct mm_err *err)
{
    size_t len = 0;
    char *first = c->url_count > 0 ? userinfo(c->urls[0], &len) : NULL;
    char text[512];
    if (len == 0 || len > sizeof text) {
        return;
    }
    for (int i = 1; i < c->url_count; i++) {
        size_t n = 0;
        char *other = userinfo(c->urls[i], &n);
        if (n != len || memcmp(other, first, n) != 0) {
            return;
        }
    }
    memcpy(text, first, len - 1);
    text[len - 1] = '\0';
    char *password = strchr(text, ':');
    free(c->user);
    free(c->password);
    free(c->token);
    c->user = c->password = c->token = NULL;
    if (password != NULL) {
        *password++ = '\0';
        percent_decode(password);
        c->password = copy_escaped(password, err);
    }
    percent_decode(text);
    *(password != NULL ? &c->user : &c->token) = copy_escaped(text, err);
    for (int i = 0; i < c->url_count; i++) {
        char *p = userinfo(c->urls[i], &len);
        memmove(p, p + len, strlen(p + len) + 1);
    }
}

void mm_options_copy(struct mm_bus *b, const struct mm_bus_options *o, struct mm_err *err)
{
    struct mm_bus_copy *c = &b->opt;
    split_urls(c, o->urls, err);
    c->name = copy_escaped(o->name, err);
    c->user = copy_escaped(o->user, err);
    c->password = copy_escaped(o->password, err);
    c->token = copy_escaped(o->token, err);
    c->seed_file = copy(o->seed_file, err);
    c->creds_file = copy(o->creds_file, err);
    c->ca_file = copy(o->ca_file, err);
    c->cert_file = copy(o->cert_file, err);
    c->key_file = copy(o->key_file, err);
    c->domain = copy(o->domain, err);
    lift_userinfo(c, err);
    if (c->domain != NULL) {
        if (mm_bus_check_name("the JetStream domain", c->domain, err) == SQLITE_OK) {
            (void)snprintf(b->prefix, sizeof b->prefix, "$JS.%s.API.", c->domain);
        }
    } else {
        (void)snprintf(b->prefix, sizeof b->prefix, "$JS.API.");
    }
    if ((c->cert_file == NULL) != (c->key_file == NULL)) {
        mm_err_set(err, SQLITE_MISUSE, "nats.cert_file and nats.key_file go together: set both or none");
    }
}

void mm_options_free(struct mm_bus_copy *c)
{
    char *const all[] = { c->name,    c->user,      c->password, c->token,  c->seed_file, c->creds_file,
                          c->ca_file, c->cert_file, c->key_file, c->domain, c->url_text };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    free(c->urls);
}

void mm_bus_redact(char *text)
{
    for (char *p = strstr(text, "://"); p != NULL; p = strstr(p, "://")) {
        p += 3;
        size_t authority = strcspn(p, "/ ,\"'");
        for (size_t i = authority; i > 0; i--) {
            if (p[i - 1] == '@') {
                memmove(p, p + i, strlen(p + i) + 1);
                break;
            }
        }
    }
}

static natsStatus load_identity(struct mm_bus *b, natsOptions *o, struct mm_err *err)
{
    const struct mm_nats_api *n = b->api;
    const struct mm_bus_copy *c = &b->opt;
    natsStatus s = NATS_OK;
    if (c->user != NULL) {
        s = n->natsOptions_SetUserInfo(o, c->user, c->password != NULL ? c->password : "");
    } else if (c->token != NULL) {
        s = n->natsOptions_SetToken(o, c->token);
    }
    if (s == NATS_OK && c->creds_file != NULL) {
        if (access(c->creds_file, R_OK) != 0) {
            mm_err_set(err, SQLITE_CANTOPEN, "nats.creds_file %s cannot be read", c->creds_file);
            return NATS_ERR;
        }
        s = n->natsOptions_SetUserCredentialsFromFiles(o, c->creds_file, NULL);
    }
    if (s == NATS_OK && c->seed_file != NULL) {
        char key[57];
        if (mm_nkey_public(n, c->seed_file, key, err) != SQLITE_OK) {
            return NATS_ERR;
        }
        s = n->natsOptions_SetNKeyFromSeed(o, key, c->seed_file);
    }
    return s;
}

static natsStatus load_tls(struct mm_bus *b, natsOptions *o, struct mm_err *err)
{
    const struct mm_nats_api *n = b->api;
    const struct mm_bus_copy *c = &b->opt;
    bool tls = c->ca_file != NULL || c->cert_file != NULL;
    for (int i = 0; i < c->url_count; i++) {
        tls = tls || strncmp(c->urls[i], "tls://", 6) == 0;
    }
    if (!tls) {
        return NATS_OK;
    }
    /* A CA file alone would still talk in the clear to a server without TLS. */
    natsStatus s = n->natsOptions_SetSecure(o, true);
    if (s == NATS_OK && c->ca_file != NULL) {
        s = n->natsOptions_LoadCATrustedCertificates(o, c->ca_file);
        if (s != NATS_OK) {
            mm_err_set(err, SQLITE_CANTOPEN, "nats.ca_file %s cannot be used: it must hold PEM certificates",
                       c->ca_file);
        }
    }
    if (s == NATS_OK && c->cert_file != NULL) {
        s = n->natsOptions_LoadCertificatesChain(o, c->cert_file, c->key_file);
        if (s != NATS_OK) {
            mm_err_set(err, SQLITE_CANTOPEN, "nats.cert_file %s and nats.key_file %s cannot be used together",
                       c->cert_file, c->key_file);
        }
    }
    return s;
}

int mm_options_fail(struct mm_bus *b, natsStatus s, const char *what, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (s == NATS_NO_MEMORY) {
        return mm_err_nomem(err);
    }
    const char *detail = b->api->nats_GetLastError(NULL);
    char text[256];
    (void)snprintf(text, sizeof text, "%s",
                   detail != NULL && detail[0] != '\0' ? detail : b->api->natsStatus_GetText(s));
    mm_bus_redact(text);
    char where[256] = "";
    for (int i = 0; i < b->opt.url_count && i < 4; i++) {
        size_t used = strlen(where);
        (void)snprintf(where + used, sizeof where - used, "%s%s", i > 0 ? "," : "", b->opt.urls[i]);
    }
    mm_bus_redact(where);
    bool refused = s == NATS_CONNECTION_AUTH_FAILED || s == NATS_NOT_PERMITTED ||
                   strcasestr(text, "authorization") != NULL || strcasestr(text, "authentication") != NULL;
    if (refused) {
        return mm_err_set(err, SQLITE_AUTH,
                          "%s %s refused: %s; check nats.user_name, password, token, seed_file, creds_file", what,
                          where, text);
    }
    return mm_err_set(err, SQLITE_CANTOPEN, "%s %s: %s", what, where, text);
}

natsOptions *mm_options_make(struct mm_bus *b, struct mm_err *err)
{
    const struct mm_nats_api *n = b->api;
    natsOptions *o = NULL;
    /* The limit is for all servers of the list together. */
    int64_t each = b->connect_timeout_ms / b->opt.url_count;
    natsStatus s = n->natsOptions_Create(&o);
    if (s == NATS_OK) {
        s = n->natsOptions_SetServers(o, (const char **)b->opt.urls, b->opt.url_count);
    }
    if (s == NATS_OK && b->opt.name != NULL) {
        s = n->natsOptions_SetName(o, b->opt.name);
    }
    if (s == NATS_OK) {
        s = n->natsOptions_SetTimeout(o, each < 100 ? 100 : each);
    }
    if (s == NATS_OK) { /* its timer thread would close the socket under our feet; see mm_bus_turn */
        s = n->natsOptions_SetPingInterval(o, 0);
    }
    if (s == NATS_OK) {
        s = n->natsOptions_SetAllowReconnect(o, false);
    }
    if (s == NATS_OK) {
        s = n->natsOptions_SetSendAsap(o, true);
    }
    if (s == NATS_OK) {
        s = n->natsOptions_SetIOBufSize(o, MM_BUS_IO_BYTES);
    }
    if (s == NATS_OK) {
        s = n->natsOptions_SetEventLoop(o, &b->loop, mm_loop_attach, mm_loop_read, mm_loop_write, mm_loop_detach);
    }
    if (s == NATS_OK) {
        s = load_identity(b, o, err);
    }
    if (s == NATS_OK) {
        s = load_tls(b, o, err);
    }
    if (s != NATS_OK) {
        mm_options_fail(b, s, "NATS options for", err);
        n->natsOptions_Destroy(o);
        return NULL;
    }
    return o;
}
