/* Who may connect: password, token, nkey, TLS; what errors say. marmot-test: parallel */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "test/lib/bus.h"
#include "test/lib/creds.h"
#include "test/lib/tls.h"

#define SEED "SUAGIV4VZYSS5EC7EAWGUCSWWVLL2K4NFCNO44VLH6YL36DRF3JD5LQOHM"
#define PUBLIC "UCYHDRZOVM76QNYXUEST3AKXEBQCIFOZACB23EQWWE5DF6ZX2RWQRRE5"

static struct mm_err err;

/* The result of one connect; a stream is made to prove that it works. */
static int try(const struct mm_bus_options *given)
{
    struct mm_bus_options o = *given;
    o.connect_timeout_ms = BUS_MS;
    o.extra_fd = -1;
    mm_err_init(&err);
    struct mm_bus *b = mm_bus_open(&o, &err);
    if (b != NULL && mm_bus_connect(b, &err) == SQLITE_OK && !bus_stream(b, "s", "s", -1, &err)) {
        mm_err_set(&err, SQLITE_ERROR, "the stream exists in another form");
    }
    mm_bus_close(b);
    return err.rc;
}

static void passwords(void)
{
    struct nats_server s;
    char urls[128];
    nats_start(&s, "authorization { user: app, password: \"se cret\" }");
    struct mm_bus_options o = { .urls = s.url, .user = "app", .password = "se cret" };
    nats_check("user and password", try(&o) == SQLITE_OK, "%s", err.msg);
    o.password = "wrong-one";
    nats_check("a wrong password", try(&o) == SQLITE_AUTH && strstr(err.msg, "wrong-one") == NULL, "rc %d %s", err.rc,
               err.msg);
    o.user = o.password = NULL;
    nats_check("none at all", try(&o) == SQLITE_AUTH, "rc %d %s", err.rc, err.msg);
    (void)snprintf(urls, sizeof urls, "nats://app:se%%20cret@127.0.0.1:%d", s.port);
    o.urls = urls;
    nats_check("both in the URL", try(&o) == SQLITE_OK, "%s", err.msg);
    struct mm_bus *b = bus_to(urls, &err);
    nats_check("which is not told", b != NULL && strcmp(mm_bus_url(b), s.url) == 0, "%s",
               b != NULL ? mm_bus_url(b) : err.msg);
    mm_bus_close(b);
    (void)snprintf(urls, sizeof urls, "nats://app:hidden@127.0.0.1:%d,nats://app:hidden@127.0.0.1:%d", s.port,
                   nats_free_port());
    nats_check("a wrong one in the URL is refused, and not told",
               try(&o) != SQLITE_OK && strstr(err.msg, "hidden") == NULL, "%s", err.msg);
    (void)snprintf(urls, sizeof urls, "nats://app:se%%20cret@127.0.0.1:%d,nats://127.0.0.1:%d", nats_free_port(),
                   s.port);
    nats_check("one server's password is not given to another", try(&o) == SQLITE_AUTH, "rc %d %s", err.rc, err.msg);
    nats_stop(&s);
    o.urls = s.url;
    nats_check("nobody there", try(&o) == SQLITE_CANTOPEN && strstr(err.msg, s.url) != NULL, "rc %d %s", err.rc,
               err.msg);
    o.urls = " , ";
    nats_check("no URL", try(&o) == SQLITE_MISUSE, "rc %d", err.rc);
}

static void tokens(void)
{
    struct nats_server s;
    nats_start(&s, "authorization { token: \"t-o-k\" }");
    struct mm_bus_options o = { .urls = s.url, .token = "t-o-k" };
    nats_check("token", try(&o) == SQLITE_OK, "%s", err.msg);
    o.token = "t-o";
    nats_check("a wrong token", try(&o) == SQLITE_AUTH, "rc %d %s", err.rc, err.msg);
    nats_stop(&s);
}

static const char *put_file(const struct nats_server *s, const char *name, const char *text)
{
    static char paths[8][160];
    static int next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, 160, "%s/%s", s->dir, name);
    FILE *f = fopen(path, "w");
    if (f != NULL) {
        (void)fputs(text, f);
        (void)fclose(f);
    }
    return path;
}

static void seeds(void)
{
    struct nats_server s;
    nats_start(&s, "authorization { users: [ { nkey: " PUBLIC " } ] }");
    struct mm_bus_options o = { .urls = s.url, .seed_file = put_file(&s, "seed", SEED "\n") };
    int good = 0;
    for (int i = 0; i < 200; i++) {
        good += try(&o) == SQLITE_OK;
    }
    nats_check("nkey, 200 times of 200", good == 200, "%d, %s", good, err.msg);
    char broken[] = SEED;
    broken[30] = broken[30] == 'A' ? 'B' : 'A';
    o.seed_file = put_file(&s, "broken", broken);
    nats_check("a seed with a wrong letter", try(&o) == SQLITE_CANTOPEN && strstr(err.msg, "seed_file") != NULL,
               "rc %d %s", err.rc, err.msg);
    nats_check("and no letter of it is told", strstr(err.msg, "AGIV") == NULL, "%s", err.msg);
    o.seed_file = put_file(&s, "public", PUBLIC);
    nats_check("the public key instead", try(&o) == SQLITE_CANTOPEN, "rc %d %s", err.rc, err.msg);
    o.seed_file = "/nonexistent/seed";
    nats_check("a seed file that is not there", try(&o) == SQLITE_CANTOPEN && strstr(err.msg, o.seed_file) != NULL,
               "%s", err.msg);
    o.seed_file = NULL;
    o.creds_file = "/nonexistent/creds";
    nats_check("a creds file that is not there", try(&o) == SQLITE_CANTOPEN && strstr(err.msg, o.creds_file) != NULL,
               "%s", err.msg);
    nats_stop(&s);
}

static void credentials(void)
{
    struct nats_server s;
    nats_start(&s, creds_server);
    struct mm_bus_options o = { .urls = s.url, .creds_file = put_file(&s, "user.creds", creds_user) };
    int good = 0;
    for (int i = 0; i < 200; i++) {
        good += try(&o) == SQLITE_OK;
    }
    nats_check("a creds file, 200 times of 200", good == 200, "%d, %s", good, err.msg);
    o.creds_file = put_file(&s, "empty.creds", "nothing\n");
    nats_check("a creds file without content", try(&o) != SQLITE_OK, "rc %d", err.rc);
    o.creds_file = NULL;
    nats_check("a server of an operator, without", try(&o) == SQLITE_AUTH, "rc %d %s", err.rc, err.msg);
    nats_stop(&s);
}

static void start_tls(struct nats_server *s, const char *cert, const char *key, const char *more)
{
    char config[1024];
    nats_start(s, "");
    nats_kill(s, SIGTERM);
    (void)snprintf(config, sizeof config,
                   "tls { cert_file: \"%s\", key_file: \"%s\", ca_file: \"%s\", timeout: 30 %s }",
                   put_file(s, "cert.pem", cert), put_file(s, "key.pem", key), put_file(s, "ca.pem", tls_ca), more);
    (void)snprintf(s->config, sizeof s->config, "%s", config);
    nats_again(s);
}

static void tls(void)
{
    struct nats_server s;
    char url[64];
    start_tls(&s, tls_server, tls_server_key, "");
    struct mm_bus_options o = { .urls = s.url, .ca_file = put_file(&s, "ca.pem", tls_ca) };
    nats_check("TLS with its CA", try(&o) == SQLITE_OK, "%s", err.msg);
    (void)snprintf(url, sizeof url, "tls://127.0.0.1:%d", s.port);
    o.urls = url;
    nats_check("tls:// as well", try(&o) == SQLITE_OK, "%s", err.msg);
    o.ca_file = put_file(&s, "ca2.pem", tls_other_ca);
    nats_check("a CA that did not sign it", try(&o) == SQLITE_CANTOPEN, "rc %d %s", err.rc, err.msg);
    o.ca_file = put_file(&s, "none.pem", "nothing");
    nats_check("a CA file that is none", try(&o) == SQLITE_CANTOPEN && strstr(err.msg, "ca_file") != NULL, "%s",
               err.msg);
    o.ca_file = put_file(&s, "ca.pem", tls_ca);
    struct mm_bus *b = NULL;
    mm_err_init(&err);
    o.connect_timeout_ms = BUS_MS;
    o.extra_fd = -1;
    b = mm_bus_open(&o, &err);
    bool good = b != NULL && mm_bus_connect(b, &err) == 0 && bus_stream(b, "t", "t", -1, &err) &&
                bus_fill(b, "t", 1, 2000, 40000, &err) && mm_bus_follow(b, "t", 1, 1, bus_slow(BUS_MS), &err) == 0;
    struct mm_delivery d;
    int got = 0;
    int lost = 0;
    while (good && got < 2000) {
        bool came = bus_next(b, &d, bus_slow(BUS_MS), &err);
        if (!came && mm_bus_connected(b)) {
            break;
        }
        if (!came || d.kind == MM_DELIVERY_LOST) { /* a server gives up on who reads too slowly, as below valgrind */
            lost++;
            mm_err_init(&err);
            good = lost < 100 && (mm_bus_connected(b) || mm_bus_connect(b, &err) == 0) &&
                   mm_bus_follow(b, "t", 1, got + 1, bus_slow(BUS_MS), &err) == 0;
            continue;
        }
        good = d.seq == got + 1 && d.len == 40000;
        got += good;
        mm_bus_release(&d);
    }
    nats_check("80 MB there and back", got == 2000, "%d %s", got, err.msg);
    nats_check("in one go", lost == 0 || bus_slow(1) > 1, "lost %d times", lost);
    printf("# lost %d times\n", lost);
    mm_bus_close(b);
    nats_stop(&s);

    start_tls(&s, tls_misnamed, tls_misnamed_key, "");
    o.urls = s.url;
    o.ca_file = put_file(&s, "ca.pem", tls_ca);
    nats_check("a certificate of another host", try(&o) == SQLITE_CANTOPEN, "rc %d %s", err.rc, err.msg);
    nats_stop(&s);

    start_tls(&s, tls_server, tls_server_key, ", verify: true");
    o.urls = s.url;
    o.ca_file = put_file(&s, "ca.pem", tls_ca);
    nats_check("a client certificate that is missing", try(&o) != SQLITE_OK, "rc %d", err.rc);
    o.cert_file = put_file(&s, "client.pem", tls_client);
    nats_check("a certificate without key", try(&o) == SQLITE_MISUSE && strstr(err.msg, "key_file") != NULL, "rc %d %s",
               err.rc, err.msg);
    o.key_file = put_file(&s, "client.key", tls_client_key);
    nats_check("a client certificate", try(&o) == SQLITE_OK, "%s", err.msg);
    nats_stop(&s);

    nats_start(&s, "");
    o = (struct mm_bus_options){ .urls = s.url, .ca_file = put_file(&s, "ca.pem", tls_ca) };
    nats_check("a CA file never talks in the clear", try(&o) != SQLITE_OK, "rc %d", err.rc);
    nats_stop(&s);
}

static void permissions(void)
{
    struct nats_server s;
    nats_start(
        &s,
        "authorization { users: [ { user: u, password: p, permissions: { publish: { deny: \"forbidden.>\" } } } ] }");
    struct mm_bus_options o = {
        .urls = s.url, .user = "u", .password = "p", .connect_timeout_ms = BUS_MS, .extra_fd = -1
    };
    mm_err_init(&err);
    struct mm_bus *b = mm_bus_open(&o, &err);
    bool good = b != NULL && mm_bus_connect(b, &err) == 0 && bus_put(b, "forbidden.x", "x", 1, 1, &err) == 0;
    for (int i = 0; i < 100 && good && mm_bus_connected(b); i++) {
        (void)mm_bus_wait(b, 50, &err);
    }
    nats_check("a subject without permission is an error, not a wait",
               good && err.rc == SQLITE_AUTH && strstr(err.msg, "forbidden.x") != NULL, "rc %d %s", err.rc, err.msg);
    mm_bus_close(b);
    nats_stop(&s);
}

static void domains(void)
{
    struct nats_server s;
    nats_start(&s, "");
    nats_kill(&s, SIGTERM);
    (void)snprintf(s.config, sizeof s.config, "jetstream { store_dir: \"%s/js\", domain: hub }", s.dir);
    nats_again(&s);
    struct mm_bus_options o = { .urls = s.url, .domain = "hub" };
    nats_check("a JetStream domain", try(&o) == SQLITE_OK, "%s", err.msg);
    o.connect_timeout_ms = BUS_MS;
    o.extra_fd = -1;
    struct mm_bus *b = mm_bus_open(&o, &err);
    char *value = NULL;
    size_t len = 0;
    struct mm_delivery d = { 0 };
    bool good = b != NULL && mm_bus_connect(b, &err) == 0 && mm_bus_kv_open(b, "k", 1, 0, BUS_MS, &err) == 0 &&
                mm_bus_kv_create(b, "k", "a", "1", 1, BUS_MS, &err) == 1 &&
                mm_bus_kv_create(b, "k", "a", "2", 1, BUS_MS, &err) == 0 &&
                mm_bus_kv_get(b, "k", "a", &value, &len, BUS_MS, &err) == 1 && strcmp(value, "1") == 0;
    nats_check("keys in it", good, "%s", err.msg);
    free(value);
    good = good && bus_fill(b, "s", 1, 3, 10, &err) && mm_bus_follow(b, "s", 1, 2, BUS_MS, &err) == 0 &&
           bus_next(b, &d, BUS_MS, &err);
    nats_check("a stream in it is followed", good && d.seq == 2 && d.pending == 1 && d.time_ns > 1600000000000000000,
               "%s seq %lld", err.msg, (long long)d.seq);
    mm_bus_release(&d);
    mm_bus_close(b);
    o.domain = "elsewhere";
    nats_check("another domain is told at once", try(&o) == SQLITE_CANTOPEN && strstr(err.msg, "domain") != NULL,
               "rc %d %s", err.rc, err.msg);
    o.domain = "a.b";
    nats_check("a domain that is no name", try(&o) == SQLITE_MISUSE, "rc %d", err.rc);
    nats_stop(&s);
    nats_start(&s, "");
    nats_kill(&s, SIGTERM);
    (void)snprintf(s.config, sizeof s.config, "# no jetstream");
    nats_again(&s);
    o = (struct mm_bus_options){ .urls = s.url };
    nats_check("a server without JetStream is told at once",
               try(&o) == SQLITE_CANTOPEN && strstr(err.msg, "jetstream") != NULL, "rc %d %s", err.rc, err.msg);
    nats_stop(&s);
}

int main(void)
{
    passwords();
    tokens();
    seeds();
    credentials();
    tls();
    permissions();
    domains();
    return nats_report();
}
