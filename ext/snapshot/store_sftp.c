/* Snapshots on an SSH server, by SFTP. The URL is Marmot's:
** sftp://user:password@host:port/dir, and for a key, and for the server's:
**   key=<file>          private key (ed25519, ecdsa); the password opens it. Without password and key:
**                       ~/.ssh/id_ed25519 or id_ecdsa, else the agent's
**   known_hosts=<file>  instead of ~/.ssh/known_hosts
**   fingerprint=SHA256:<base64>   the one host key that is right
** An unknown host key is always refused. An upload goes to a name of its own
** and is renamed when all of it is there; servers of this protocol rename over
** nothing, so an older object of the name is removed just before. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "base/url.h"
#include "snapshot/curl_io.h"

#define URL_MAX 2048
#define PATH_SIZE 1024

struct sftp {
    struct mm_curl *curl; /* opened at the first call */
    char root[URL_MAX];   /* "sftp://host:port/dir", encoded, no slash behind it */
    char dir[PATH_SIZE];  /* "/dir", decoded; "" for / */
    char *user, *password;
    char key[PATH_SIZE], known_hosts[PATH_SIZE];
    char fingerprint[64]; /* base64 alone */
    bool stranger;        /* the last host key was not the one known */
};

static void sftp_close(void *self)
{
    struct sftp *f = self;
    mm_curl_close(f->curl);
    if (f->password != NULL) {
        explicit_bzero(f->password, strlen(f->password));
    }
    free(f->user);
    free(f->password);
    free(f);
}

static const char *home(void)
{
    const char *h = getenv("HOME");
    const struct passwd *p = h != NULL && h[0] == '/' ? NULL : getpwuid(geteuid());
    return h != NULL && h[0] == '/' ? h : p != NULL ? p->pw_dir : "/";
}

static void param(const struct mm_url *u, const char *name, char *out, size_t size, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, size);
    mm_url_param(u, name, &b);
    mm_buf_byte(&b, 0);
    if (mm_buf_check(&b, err, "a parameter of snapshot.sftp.url") == SQLITE_OK) {
        (void)snprintf(out, size, "%s", (const char *)b.data);
    }
    mm_buf_free(&b);
}

static void read_parameters(struct sftp *f, const struct mm_url *u, struct mm_err *err)
{
    char print[96] = "";
    param(u, "key", f->key, sizeof f->key, err);
    param(u, "known_hosts", f->known_hosts, sizeof f->known_hosts, err);
    param(u, "fingerprint", print, sizeof print, err);
    const char *from = strncmp(print, "SHA256:", 7) == 0 ? print + 7 : print;
    (void)snprintf(f->fingerprint, sizeof f->fingerprint, "%.63s", from);
    for (char *p = f->fingerprint; *p != '\0'; p++) {
        *p = *p == ' ' ? '+' : *p; /* a plus sign of a query is a blank */
    }
    f->fingerprint[strcspn(f->fingerprint, "=")] = '\0';
    if (print[0] != '\0' && strlen(f->fingerprint) != 43) {
        mm_err_set(err, SQLITE_MISUSE,
                   "fingerprint of snapshot.sftp.url must be SHA256: and 43 characters, as ssh-keygen -l shows it");
    }
    if (f->known_hosts[0] == '\0') {
        (void)snprintf(f->known_hosts, sizeof f->known_hosts, "%s/.ssh/known_hosts", home());
    }
    if (f->key[0] == '\0' && u->password[0] == '\0') {
        static const char *const usual[] = { "id_ed25519", "id_ecdsa" };
        for (size_t i = 0; i < 2 && f->key[0] == '\0'; i++) {
            (void)snprintf(f->key, sizeof f->key, "%s/.ssh/%s", home(), usual[i]);
            if (access(f->key, R_OK) != 0) {
                f->key[0] = '\0';
            }
        }
    }
}

static void *sftp_open(const struct mm_store_options *o, char place[MM_STORE_PLACE_MAX], struct mm_err *err)
{
    struct mm_url u;
    if (o->sftp_url == NULL || strlen(o->sftp_url) > PATH_SIZE / 2 || !mm_url_parse(o->sftp_url, &u)) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.sftp.url is no URL like sftp://user:password@host/directory");
        return NULL;
    }
    struct sftp *f = calloc(1, sizeof *f);
    if (f == NULL) {
        mm_err_nomem(err);
    } else if (strcmp(u.scheme, "sftp") != 0 || u.user[0] == '\0') {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.sftp.url must begin with sftp://, and name a user before an @");
    } else {
        read_parameters(f, &u, err);
        f->user = strdup(u.user);
        f->password = strdup(u.password);
        (void)snprintf(f->dir, sizeof f->dir, "%s", u.path);
        mm_url_decode(f->dir);
        for (size_t n = strlen(f->dir); n > 0 && f->dir[n - 1] == '/'; n--) {
            f->dir[n - 1] = '\0';
        }
        struct mm_buf b;
        mm_buf_init(&b, sizeof f->root);
        mm_buf_printf(&b, "sftp://%s", u.host);
        mm_url_encode(&b, f->dir, true);
        mm_buf_byte(&b, 0);
        if (f->user == NULL || f->password == NULL) {
            mm_err_nomem(err);
        } else if (strpbrk(f->dir, "\"\\\r\n") != NULL || strncmp(f->dir, "/~", 2) == 0) {
            mm_err_set(
                err, SQLITE_MISUSE,
                "the directory of snapshot.sftp.url must be absolute, without quotes, backslashes and line ends");
        } else if (mm_buf_check(&b, err, "snapshot.sftp.url") == SQLITE_OK) {
            memcpy(f->root, b.data, b.len);
            (void)snprintf(place, MM_STORE_PLACE_MAX, "sftp sftp://%.150s%.300s/", u.host, f->dir); /* cut when long */
        }
        mm_buf_free(&b);
    }
    mm_url_free(&u);
    if (err->rc != SQLITE_OK && f != NULL) {
        sftp_close(f);
        return NULL;
    }
    return f;
}

/* --- Requests. --- */

/* libcurl refuses unknown hosts by itself where a file of known ones is named; this tells which it was. */
static int judge_host(CURL *easy, const struct curl_khkey *known, const struct curl_khkey *found,
                      enum curl_khmatch match, void *arg)
{
    struct sftp *f = arg;
    (void)easy;
    (void)known;
    (void)found;
    f->stranger = match != CURLKHMATCH_OK;
    return f->stranger ? CURLKHSTAT_REJECT : CURLKHSTAT_FINE;
}

struct order {
    struct sftp *f;
    struct curl_slist *before, *after; /* commands of the protocol */
    bool nothing;                      /* commands alone */
};

static void prepare(void *arg, const struct mm_curl_api *api, CURL *easy)
{
    const struct order *o = arg;
    struct sftp *f = o->f;
    (void)api->curl_easy_setopt(easy, CURLOPT_USERNAME, f->user);
    if (f->key[0] != '\0') {
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_AUTH_TYPES, (long)CURLSSH_AUTH_PUBLICKEY);
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_PRIVATE_KEYFILE, f->key);
        (void)api->curl_easy_setopt(easy, CURLOPT_KEYPASSWD, f->password);
    } else if (f->password[0] != '\0') {
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_AUTH_TYPES,
                                    (long)(CURLSSH_AUTH_PASSWORD | CURLSSH_AUTH_KEYBOARD));
        (void)api->curl_easy_setopt(easy, CURLOPT_PASSWORD, f->password);
    } else {
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_AUTH_TYPES, (long)CURLSSH_AUTH_AGENT);
    }
    if (f->fingerprint[0] != '\0') {
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_HOST_PUBLIC_KEY_SHA256, f->fingerprint);
    } else {
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_KNOWNHOSTS, f->known_hosts);
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_KEYFUNCTION, judge_host);
        (void)api->curl_easy_setopt(easy, CURLOPT_SSH_KEYDATA, f);
    }
    (void)api->curl_easy_setopt(easy, CURLOPT_FTP_CREATE_MISSING_DIRS, 1L);
    (void)api->curl_easy_setopt(easy, CURLOPT_QUOTE, o->before);
    (void)api->curl_easy_setopt(easy, CURLOPT_POSTQUOTE, o->after);
    (void)api->curl_easy_setopt(easy, CURLOPT_NOBODY, o->nothing ? 1L : 0L);
}

/* Adds one command; "%s" stand for names in the directory. */
static void add(struct sftp *f, struct curl_slist **list, struct mm_err *err, const char *verb, const char *a,
                const char *b)
{
    char text[3 * PATH_SIZE];
    (void)snprintf(text, sizeof text, "%s \"%s/%s\"%s%s%s%s%s", verb, f->dir, a, b != NULL ? " \"" : "",
                   b != NULL ? f->dir : "", b != NULL ? "/" : "", b != NULL ? b : "", b != NULL ? "\"" : "");
    struct curl_slist *longer = mm_curl_functions(f->curl)->curl_slist_append(*list, text);
    if (longer == NULL) {
        mm_err_nomem(err);
    } else {
        *list = longer;
    }
}

static bool ready(struct sftp *f, struct mm_err *err)
{
    if (f->curl == NULL && err->rc == SQLITE_OK) {
        f->curl = mm_curl_open("sftp", err);
    }
    return f->curl != NULL && err->rc == SQLITE_OK;
}

/* Does the request on `name` ("" = the directory) and frees the commands. */
static int run(struct sftp *f, struct order *o, struct mm_curl_request *r, const char *name, struct mm_curl_answer *a,
               struct mm_job *job, struct mm_err *err)
{
    char url[URL_MAX + MM_STORE_NAME_MAX + 64];
    (void)snprintf(url, sizeof url, "%s/%s", f->root, name);
    r->url = url;
    r->prepare = prepare;
    r->arg = o;
    o->f = f;
    f->stranger = false;
    struct mm_err here;
    mm_err_init(&here);
    if (err->rc != SQLITE_OK) {
        *a = (struct mm_curl_answer){ 0 };
    } else if (mm_curl_do(f->curl, r, a, job, &here) != SQLITE_OK && a->code == CURLE_PEER_FAILED_VERIFICATION) {
        if (f->fingerprint[0] != '\0') {
            mm_err_set(err, SQLITE_AUTH,
                       "the host key of the server is not the one of fingerprint; if it has changed for a good reason, "
                       "correct snapshot.sftp.url");
        } else {
            mm_err_set(
                err, SQLITE_AUTH,
                "the host key of the server is not the one in %.200s, or is not there: verify it and add it there "
                "(ssh-keyscan shows it), or give fingerprint=SHA256:.. in snapshot.sftp.url",
                f->known_hosts);
        }
    } else if (here.rc != SQLITE_OK) {
        *err = here;
    }
    mm_curl_functions(f->curl)->curl_slist_free_all(o->before);
    mm_curl_functions(f->curl)->curl_slist_free_all(o->after);
    return err->rc;
}

/* Commands alone. True when the server has done them; a refusal is no error but stands in a->text. */
static bool command(struct sftp *f, struct order *o, struct mm_curl_answer *a, struct mm_job *job, struct mm_err *err)
{
    struct mm_curl_request r = { .method = NULL };
    o->nothing = true;
    run(f, o, &r, "", a, job, err);
    mm_curl_free(a);
    return err->rc == SQLITE_OK && a->code == CURLE_OK;
}

static void refused(const struct mm_curl_answer *a, struct mm_err *err)
{
    bool room = strstr(a->text, "space") != NULL || strstr(a->text, "quota") != NULL;
    mm_err_set(err, room ? SQLITE_FULL : SQLITE_AUTH,
               "refused: %s; look at the directory of snapshot.sftp.url, the user's permissions and the room there",
               a->text);
}

static void sftp_put(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct sftp *f = self;
    struct mm_curl_answer a;
    char part[MM_STORE_NAME_MAX + 32];
    if (!ready(f, err)) {
        return;
    }
    mm_store_part_name(name, part);
    struct mm_curl_request put = { .upload = true, .length = job->size };
    struct order up = { 0 };
    run(f, &up, &put, part, &a, job, err);
    mm_curl_free(&a);
    if (err->rc == SQLITE_OK && a.code != CURLE_OK) {
        mm_err_set(err, SQLITE_CANTOPEN, "%s; look at the directory of snapshot.sftp.url", a.text);
    }
    struct order name_it = { 0 };
    add(f, &name_it.before, err, "rename", part, name);
    if (err->rc == SQLITE_OK && !command(f, &name_it, &a, job, err) && err->rc == SQLITE_OK) {
        struct order again = { 0 };
        add(f, &again.before, err, "*rm", name, NULL);
        add(f, &again.before, err, "rename", part, name);
        if (!command(f, &again, &a, job, err) && err->rc == SQLITE_OK) {
            refused(&a, err);
        }
    }
    if (err->rc != SQLITE_OK) {
        struct mm_err ignored;
        mm_err_init(&ignored);
        struct mm_job cleaning = mm_job_cleaning();
        struct order away = { 0 };
        add(f, &away.before, &ignored, "rm", part, NULL);
        (void)command(f, &away, &a, &cleaning, &ignored);
    }
}

static int sftp_get(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct sftp *f = self;
    struct mm_curl_answer a = { 0 };
    if (ready(f, err)) {
        struct mm_curl_request get = { .download = true };
        struct order down = { 0 };
        run(f, &down, &get, name, &a, job, err);
        mm_curl_free(&a);
    }
    return err->rc == SQLITE_OK && a.code == CURLE_OK && f->curl != NULL;
}

/* Calls f for each line of the directory, as `ls -l` writes it. */
static void each(struct sftp *f, struct mm_job *job, struct mm_err *err,
                 void (*one)(struct sftp *f, void *arg, const char *name, int64_t size, struct mm_err *err), void *arg)
{
    struct mm_curl_answer a = { 0 };
    struct order look = { 0 };
    struct mm_curl_request list = { .method = NULL };
    if (!ready(f, err)) {
        return;
    }
    run(f, &look, &list, "", &a, job, err);
    char *save = NULL;
    char *lines = err->rc == SQLITE_OK && a.code == CURLE_OK ? (char *)a.body.data : NULL;
    for (char *line = lines != NULL ? strtok_r(lines, "\r\n", &save) : NULL; line != NULL && err->rc == SQLITE_OK;
         line = strtok_r(NULL, "\r\n", &save)) {
        const char *word[12] = { 0 };
        int n = 0;
        char *more = NULL;
        char kind = line[0];
        for (char *w = strtok_r(line, " ", &more); w != NULL; w = strtok_r(NULL, " ", &more)) {
            word[n < 11 ? n++ : 11] = w;
        }
        const char *name = n > 0 ? word[n - 1] : "";
        if (kind != 'd' && kind != 'l' && n <= 10) {
            one(f, arg, name, n >= 9 ? strtoll(word[4], NULL, 10) : -1, err);
        }
    }
    mm_curl_free(&a);
}

struct listing {
    const char *prefix;
    struct mm_store_list *list;
};

static void list_one(struct sftp *f, void *arg, const char *name, int64_t size, struct mm_err *err)
{
    const struct listing *l = arg;
    (void)f;
    mm_store_list_add(l->list, l->prefix, name, size, 0, err);
}

static void sftp_list(void *self, const char *prefix, struct mm_store_list *list, struct mm_job *job,
                      struct mm_err *err)
{
    struct listing l = { .prefix = prefix, .list = list };
    each(self, job, err, list_one, &l);
}

static int sftp_remove(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct sftp *f = self;
    struct mm_curl_answer a;
    struct order away = { 0 };
    if (!ready(f, err)) {
        return 0;
    }
    add(f, &away.before, err, "rm", name, NULL);
    bool done = command(f, &away, &a, job, err);
    if (!done && err->rc == SQLITE_OK && strcasestr(a.text, "no such") == NULL) {
        refused(&a, err);
    }
    return done;
}

struct sweeping {
    int64_t before_ms;
    struct mm_buf names; /* one after another, each with its NUL */
};

static void sweep_one(struct sftp *f, void *arg, const char *name, int64_t size, struct mm_err *err)
{
    struct sweeping *s = arg;
    (void)f;
    (void)size;
    if (mm_store_is_left(name, s->before_ms)) {
        mm_buf_add(&s->names, name, strlen(name) + 1);
        mm_buf_check(&s->names, err, "the names of what uploads left");
    }
}

static void sftp_sweep(void *self, int64_t before_ms, struct mm_job *job, struct mm_err *err)
{
    struct sweeping s = { .before_ms = before_ms };
    mm_buf_init(&s.names, MM_STORE_PIECE);
    each(self, job, err, sweep_one, &s);
    for (size_t at = 0; at < s.names.len && err->rc == SQLITE_OK; at += strlen((char *)s.names.data + at) + 1) {
        (void)sftp_remove(self, (char *)s.names.data + at, job, err);
    }
    mm_buf_free(&s.names);
}

const struct mm_store_kind mm_store_sftp = {
    .kind = "sftp",
    .open = sftp_open,
    .close = sftp_close,
    .put = sftp_put,
    .get = sftp_get,
    .list = sftp_list,
    .remove = sftp_remove,
    .sweep = sftp_sweep,
};
