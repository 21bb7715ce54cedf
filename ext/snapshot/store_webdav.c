/* Snapshots on a WebDAV server. The URL is Marmot's: what stands in front of
** the question mark is the server's root, `dir` the directory below it, which
** is made where it is missing, `login` and `secret` the user's; user:password@
** does as well. An upload goes to a name of its own and is moved when the
** server has all of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "base/url.h"
#include "snapshot/curl_io.h"
#include "snapshot/xml.h"

#define URL_MAX 4096
#define REMEDY "look at login and secret of snapshot.webdav.url, and at the user's permissions there"

struct webdav {
    struct mm_curl *curl; /* opened at the first call */
    char *root;           /* "https://host/path", no slash behind it */
    char *dir;            /* "/dir/in/it", encoded; "" for the root itself */
    char *query;          /* "?a=b" of other parameters, or "" */
    char *user, *password;
    unsigned long auth; /* how the server wants the password; 0: not asked yet */
    bool made;          /* the directory is there */
};

static void webdav_close(void *self)
{
    struct webdav *w = self;
    mm_curl_close(w->curl);
    if (w->password != NULL) {
        explicit_bzero(w->password, strlen(w->password));
    }
    free(w->root);
    free(w->dir);
    free(w->query);
    free(w->user);
    free(w->password);
    free(w);
}

static void trim_slashes(struct mm_buf *b)
{
    while (b->len > 0 && b->data[b->len - 1] == '/') {
        b->len--;
    }
}

static char *text_of(struct mm_buf *b, const char *what, struct mm_err *err)
{
    mm_buf_byte(b, 0);
    char *text = mm_buf_check(b, err, what) == SQLITE_OK ? mm_buf_take(b) : NULL;
    mm_buf_free(b);
    return text;
}

static char *directory_of(const struct mm_url *u, struct mm_err *err)
{
    struct mm_buf given, b;
    mm_buf_init(&given, URL_MAX / 4);
    mm_buf_init(&b, URL_MAX / 2);
    mm_url_param(u, "dir", &given);
    trim_slashes(&given);
    char *dir = text_of(&given, "dir of snapshot.webdav.url", err);
    for (const char *p = dir != NULL ? dir : ""; *p != '\0';) {
        p += strspn(p, "/");
        char *part = strndup(p, strcspn(p, "/"));
        if (part == NULL) {
            mm_err_nomem(err);
            break;
        }
        mm_buf_byte(&b, '/');
        mm_url_encode(&b, part, false);
        p += strlen(part);
        free(part);
    }
    free(dir);
    return text_of(&b, "dir of snapshot.webdav.url", err);
}

static char *credential(const struct mm_url *u, const char *param, const char *otherwise, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, URL_MAX / 4);
    if (!mm_url_param(u, param, &b)) {
        mm_buf_str(&b, otherwise);
    }
    return text_of(&b, "snapshot.webdav.url", err);
}

/* Parameters that are none of ours belong to the server. */
static char *other_parameters(const struct mm_url *u, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, URL_MAX / 4);
    for (const char *p = u->query; *p != '\0'; p += *p == '&') {
        size_t n = strcspn(p, "&");
        if (strncmp(p, "dir=", 4) != 0 && strncmp(p, "login=", 6) != 0 && strncmp(p, "secret=", 7) != 0 && n > 0) {
            mm_buf_byte(&b, b.len == 0 ? '?' : '&');
            mm_buf_add(&b, p, n);
        }
        p += n;
    }
    return text_of(&b, "snapshot.webdav.url", err);
}

static void *webdav_open(const struct mm_store_options *o, char place[MM_STORE_PLACE_MAX], struct mm_err *err)
{
    struct mm_url u;
    if (o->webdav_url == NULL || strlen(o->webdav_url) > URL_MAX / 4 || !mm_url_parse(o->webdav_url, &u)) {
        mm_err_set(err, SQLITE_MISUSE,
                   "snapshot.webdav.url is no URL like https://host/path?dir=/snapshots&login=user&secret=password");
        return NULL;
    }
    struct webdav *w = calloc(1, sizeof *w);
    if (w == NULL) {
        mm_err_nomem(err);
    } else if (strcmp(u.scheme, "http") != 0 && strcmp(u.scheme, "https") != 0) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.webdav.url must begin with http:// or https://");
    } else {
        struct mm_buf root;
        mm_buf_init(&root, URL_MAX / 2);
        mm_buf_printf(&root, "%s://%s%s", u.scheme, u.host, u.path);
        trim_slashes(&root);
        w->root = text_of(&root, "snapshot.webdav.url", err);
        w->dir = directory_of(&u, err);
        w->query = other_parameters(&u, err);
        w->user = credential(&u, "login", u.user, err);
        w->password = credential(&u, "secret", u.password, err);
    }
    mm_url_free(&u);
    if (err->rc != SQLITE_OK) {
        if (w != NULL) {
            webdav_close(w);
        }
        return NULL;
    }
    (void)snprintf(place, MM_STORE_PLACE_MAX, "webdav %s%s/", w->root, w->dir);
    return w;
}

/* --- Requests. --- */

static void identify(void *arg, const struct mm_curl_api *api, CURL *easy)
{
    const struct webdav *w = arg;
    if (w->user[0] != '\0') {
        (void)api->curl_easy_setopt(easy, CURLOPT_USERNAME, w->user);
        (void)api->curl_easy_setopt(easy, CURLOPT_PASSWORD, w->password);
        (void)api->curl_easy_setopt(easy, CURLOPT_HTTPAUTH, w->auth != 0 ? w->auth : CURLAUTH_BASIC | CURLAUTH_DIGEST);
    }
}

static void url_of(const struct webdav *w, const char *name, char out[URL_MAX])
{
    (void)snprintf(out, URL_MAX, "%s%s/%s%s", w->root, w->dir, name, w->query);
}

/* A request whose answer is its status alone. */
static int simply(struct webdav *w, const char *method, const char *url, const char *header, struct mm_job *job,
                  struct mm_err *err)
{
    struct mm_curl_answer a;
    struct mm_curl_request r = { .url = url, .method = method, .headers = { header }, .prepare = identify, .arg = w };
    mm_curl_do(w->curl, &r, &a, job, err);
    mm_curl_free(&a);
    return a.status;
}

/* 207 and the listing, or 404 for a directory that is not there (409, too: what holds it is not there). */
static int look_at(struct webdav *w, const char *depth, struct mm_curl_answer *a, struct mm_job *job,
                   struct mm_err *err)
{
    static const char wanted[] = "<?xml version=\"1.0\"?><D:propfind xmlns:D=\"DAV:\"><D:prop><D:resourcetype/>"
                                 "<D:getcontentlength/><D:getlastmodified/></D:prop></D:propfind>";
    char url[URL_MAX];
    url_of(w, "", url);
    struct mm_curl_request r = { .url = url,
                                 .method = "PROPFIND",
                                 .headers = { depth, "Content-Type: application/xml" },
                                 .text = wanted,
                                 .prepare = identify,
                                 .arg = w };
    const char *protocol = strncmp(w->root, "https", 5) == 0 ? "https" : "http";
    if (w->curl == NULL) {
        w->curl = mm_curl_open(protocol, err);
    }
    if (w->curl == NULL) {
        *a = (struct mm_curl_answer){ 0 };
        return 0;
    }
    mm_curl_do(w->curl, &r, a, job, err);
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    if (a->status == 207) {
        /* From now on at once, by the better of the ways that the server offers. */
        w->auth = (a->auth & CURLAUTH_DIGEST) != 0 ? CURLAUTH_DIGEST : CURLAUTH_BASIC;
        w->made = true;
        return 207;
    }
    if (a->status == 404 || a->status == 409) {
        return 404;
    }
    if (a->status == 200 || a->status == 405 || a->status == 501) {
        mm_err_set(err, SQLITE_CANTOPEN,
                   "the server does not speak WebDAV there (HTTP %d to PROPFIND); look at the URL", a->status);
    }
    mm_curl_refused(a->status, "", REMEDY, err);
    return 0;
}

/* True when the directory is there. */
static bool greet(struct webdav *w, struct mm_job *job, struct mm_err *err)
{
    if (!w->made && err->rc == SQLITE_OK) {
        struct mm_curl_answer a;
        look_at(w, "Depth: 0", &a, job, err);
        mm_curl_free(&a);
    }
    return w->made && err->rc == SQLITE_OK;
}

/* Makes the directory, each part of it. Servers say 405 to one that is there, some 201. */
static void make_directory(struct webdav *w, struct mm_job *job, struct mm_err *err)
{
    size_t n = strlen(w->dir);
    for (size_t at = 1; at <= n && err->rc == SQLITE_OK; at++) {
        if (w->dir[at] != '/' && w->dir[at] != '\0') {
            continue;
        }
        char url[URL_MAX];
        (void)snprintf(url, sizeof url, "%s%.*s/%s", w->root, (int)at, w->dir, w->query);
        int status = simply(w, "MKCOL", url, NULL, job, err);
        bool there = status == 201 || status == 200 || status == 405 || status == 301;
        if (err->rc == SQLITE_OK && (status == 404 || status == 409)) {
            mm_err_set(err, SQLITE_CANTOPEN, "%s is absent there (HTTP %d); look at snapshot.webdav.url", w->root,
                       status);
        } else if (err->rc == SQLITE_OK && !there) {
            mm_curl_refused(status, "", REMEDY, err);
        }
    }
    if (err->rc == SQLITE_OK && !greet(w, job, err)) {
        mm_err_set(err, SQLITE_CANTOPEN,
                   "the directory is absent there and cannot be made; look at snapshot.webdav.url");
    }
}

static void webdav_put(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct webdav *w = self;
    char part[MM_STORE_NAME_MAX + 32];
    char from[URL_MAX];
    char to[URL_MAX];
    char destination[URL_MAX + 32];
    mm_store_part_name(name, part);
    url_of(w, part, from);
    url_of(w, name, to);
    (void)snprintf(destination, sizeof destination, "Destination: %s", to);
    if (!greet(w, job, err)) {
        make_directory(w, job, err);
    }
    if (err->rc != SQLITE_OK) {
        return;
    }
    struct mm_curl_answer a;
    struct mm_curl_request put = { .url = from, .upload = true, .length = job->size, .prepare = identify, .arg = w };
    mm_curl_do(w->curl, &put, &a, job, err);
    mm_curl_free(&a);
    if (err->rc == SQLITE_OK && (a.status < 200 || a.status > 299)) {
        w->made = a.status != 404 && a.status != 409; /* somebody removed it: the next try makes it */
        mm_curl_refused(w->made ? a.status : 503, "", REMEDY, err);
    }
    if (err->rc == SQLITE_OK) {
        struct mm_curl_request move = {
            .url = from, .method = "MOVE", .headers = { destination, "Overwrite: T" }, .prepare = identify, .arg = w
        };
        mm_curl_do(w->curl, &move, &a, job, err);
        mm_curl_free(&a);
        if (err->rc == SQLITE_OK && a.status != 201 && a.status != 204 && a.status != 200) {
            mm_curl_refused(a.status, "it does not move the upload to its name", REMEDY, err);
        }
    }
    if (err->rc != SQLITE_OK) {
        struct mm_err ignored;
        mm_err_init(&ignored);
        struct mm_job cleaning = mm_job_cleaning();
        (void)simply(w, "DELETE", from, NULL, &cleaning, &ignored);
    }
}

static int webdav_get(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct webdav *w = self;
    char url[URL_MAX];
    if (!greet(w, job, err)) {
        return 0;
    }
    url_of(w, name, url);
    struct mm_curl_answer a;
    struct mm_curl_request get = { .url = url, .download = true, .prepare = identify, .arg = w };
    mm_curl_do(w->curl, &get, &a, job, err);
    mm_curl_free(&a);
    if (err->rc == SQLITE_OK && a.status != 200 && a.status != 206 && a.status != 404) {
        mm_curl_refused(a.status, "", REMEDY, err);
    }
    return a.status == 200 || a.status == 206;
}

/* --- Listing. --- */

struct entry {
    char name[MM_STORE_NAME_MAX + 64]; /* "" for what is no file of ours */
    int64_t size, time_ms;
};

/* Calls f for each file that the answer names. */
static void each(struct webdav *w, const struct mm_curl_answer *a,
                 void (*f)(struct webdav *w, void *arg, const struct entry *e, struct mm_err *err), void *arg,
                 struct mm_err *err)
{
    struct mm_xml x;
    struct entry e = { "", -1, 0 };
    bool collection = false;
    mm_xml_init(&x, (const char *)a->body.data, a->body.len);
    while (err->rc == SQLITE_OK && mm_xml_next(&x)) {
        if (x.open && strcmp(x.name, "response") == 0) {
            e = (struct entry){ "", -1, 0 };
            collection = false;
        } else if (strcmp(x.name, "collection") == 0) {
            collection = true;
        } else if (x.open) {
            continue;
        } else if (strcmp(x.name, "href") == 0) {
            const char *last = strrchr(x.text, '/');
            (void)snprintf(e.name, sizeof e.name, "%.*s", (int)sizeof e.name - 1, last != NULL ? last + 1 : x.text);
            e.name[strcspn(e.name, "?")] = '\0';
            mm_url_decode(e.name);
        } else if (strcmp(x.name, "getcontentlength") == 0 && x.text[0] != '\0') {
            e.size = strtoll(x.text, NULL, 10);
        } else if (strcmp(x.name, "getlastmodified") == 0) {
            int64_t s = (int64_t)mm_curl_functions(w->curl)->curl_getdate(x.text, NULL);
            e.time_ms = s > 0 ? s * 1000 : 0;
        } else if (strcmp(x.name, "response") == 0 && !collection && e.name[0] != '\0') {
            f(w, arg, &e, err);
        }
    }
}

struct listing {
    const char *prefix;
    struct mm_store_list *list;
};

static void list_one(struct webdav *w, void *arg, const struct entry *e, struct mm_err *err)
{
    struct listing *l = arg;
    (void)w;
    mm_store_list_add(l->list, l->prefix, e->name, e->size, e->time_ms, err);
}

static void webdav_list(void *self, const char *prefix, struct mm_store_list *list, struct mm_job *job,
                        struct mm_err *err)
{
    struct listing l = { .prefix = prefix, .list = list };
    struct mm_curl_answer a;
    if (look_at(self, "Depth: 1", &a, job, err) == 207) {
        each(self, &a, list_one, &l, err);
    }
    mm_curl_free(&a);
}

static int webdav_remove(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct webdav *w = self;
    char url[URL_MAX];
    if (!greet(w, job, err)) {
        return 0;
    }
    url_of(w, name, url);
    int status = simply(w, "DELETE", url, NULL, job, err);
    if (err->rc == SQLITE_OK && status != 404 && (status < 200 || status > 299)) {
        mm_curl_refused(status, "", REMEDY, err);
    }
    return err->rc == SQLITE_OK && status != 404;
}

struct sweeping {
    int64_t before_ms;
    struct mm_job *job;
};

static void sweep_one(struct webdav *w, void *arg, const struct entry *e, struct mm_err *err)
{
    const struct sweeping *s = arg;
    if (mm_store_is_left(e->name, s->before_ms)) {
        (void)webdav_remove(w, e->name, s->job, err);
    }
}

static void webdav_sweep(void *self, int64_t before_ms, struct mm_job *job, struct mm_err *err)
{
    struct sweeping s = { .before_ms = before_ms, .job = job };
    struct mm_curl_answer a;
    if (look_at(self, "Depth: 1", &a, job, err) == 207) {
        each(self, &a, sweep_one, &s, err);
    }
    mm_curl_free(&a);
}

const struct mm_store_kind mm_store_webdav = {
    .kind = "webdav",
    .open = webdav_open,
    .close = webdav_close,
    .put = webdav_put,
    .get = webdav_get,
    .list = webdav_list,
    .remove = webdav_remove,
    .sweep = webdav_sweep,
};
