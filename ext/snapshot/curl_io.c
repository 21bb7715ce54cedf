#include "snapshot/curl_io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/sqlite.h"

#define CONNECT_MS 20000 /* name, connection, TLS and SSH handshake together */

struct mm_curl {
    const struct mm_curl_api *api;
    CURL *easy;
};

/* What the callbacks of one transfer share. */
struct transfer {
    struct mm_curl *c;
    const struct mm_curl_request *r;
    struct mm_curl_answer *a;
    struct mm_job *job;
    struct mm_err *err;
    int64_t sent;  /* of the upload, as read by libcurl */
    int64_t moved; /* what libcurl counted at the last look */
    bool judged;   /* the first bytes of a body have come */
    bool to_file;  /* they belong to the file */
};

struct mm_curl *mm_curl_open(const char *protocol, struct mm_err *err)
{
    const struct mm_curl_api *api = err->rc == SQLITE_OK ? mm_curl_api(protocol, err) : NULL;
    struct mm_curl *c = api != NULL ? calloc(1, sizeof *c) : NULL;
    if (c != NULL) {
        c->api = api;
        c->easy = api->curl_easy_init();
    }
    if (api != NULL && (c == NULL || c->easy == NULL)) {
        free(c);
        c = NULL;
        mm_err_nomem(err);
    }
    return c;
}

void mm_curl_close(struct mm_curl *c)
{
    if (c != NULL) {
        c->api->curl_easy_cleanup(c->easy);
        free(c);
    }
}

const struct mm_curl_api *mm_curl_functions(const struct mm_curl *c)
{
    return c->api;
}

void mm_curl_free(struct mm_curl_answer *a)
{
    mm_buf_free(&a->body);
}

/* --- Callbacks: whatever fails sets err and ends the transfer. --- */

static size_t give(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t n = size * count;
    int64_t left = t->r->length - t->sent;
    n = (int64_t)n < left ? n : (size_t)left;
    int64_t got = n > 0 ? mm_job_read(t->job, t->r->from + t->sent, data, n, t->err) : 0;
    if (got < 0) {
        return CURL_READFUNC_ABORT;
    }
    t->sent += got;
    return (size_t)got;
}

static int rewind_to(void *arg, curl_off_t offset, int origin)
{
    struct transfer *t = arg;
    if (origin != SEEK_SET) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    t->sent = offset;
    return CURL_SEEKFUNC_OK;
}

/* At the first bytes: does the body belong to the file, and where in it? */
static void judge(struct transfer *t)
{
    long status = 0;
    curl_off_t length = -1;
    t->judged = true;
    (void)t->c->api->curl_easy_getinfo(t->c->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)t->c->api->curl_easy_getinfo(t->c->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    bool http = strncasecmp(t->r->url, "http", 4) == 0;
    t->to_file = t->r->download && (!http || status == 200 || status == 206);
    if (!t->to_file) {
        return;
    }
    /* 200 to a range: all of it comes again. Another length: another object by now. */
    bool again =
        t->job->done > 0 && ((http && status == 200) || (length >= 0 && t->job->done + length != t->job->size));
    if (again && (!http || status == 206)) {
        mm_job_restart(t->job, t->err);
        mm_err_set(t->err, SQLITE_IOERR, "the object changed while it was read");
        return;
    }
    if (again) {
        mm_job_restart(t->job, t->err);
    }
    if (length >= 0) {
        t->job->size = t->job->done + length;
    }
    if (t->job->size > t->job->max_bytes) {
        mm_err_set(t->err, SQLITE_TOOBIG, "the object has %lld bytes, more than the %lld that were expected",
                   (long long)t->job->size, (long long)t->job->max_bytes);
    }
}

static size_t take(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t n = size * count;
    if (!t->judged) {
        judge(t);
    }
    if (t->err->rc != SQLITE_OK) {
        return 0;
    }
    if (t->to_file) {
        return mm_job_write(t->job, data, n, t->err) ? n : 0;
    }
    mm_buf_add(&t->a->body, data, n);
    return mm_buf_check(&t->a->body, t->err, "the answer of the store") == SQLITE_OK ? n : 0;
}

static size_t header(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t n = size * count;
    if (n > 5 && strncasecmp(data, "etag:", 5) == 0) {
        const char *from = data + 5;
        const char *end = data + n;
        while (from < end && (*from == ' ' || *from == '\t')) {
            from++;
        }
        while (end > from && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) {
            end--;
        }
        (void)snprintf(t->a->etag, sizeof t->a->etag, "%.*s", (int)(end - from), from);
    }
    return n;
}

static int look(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    struct transfer *t = arg;
    (void)down_total;
    (void)up_total;
    if (t->r->upload) {
        t->job->done = t->r->from + up;
    }
    bool moved = up + down != t->moved;
    t->moved = up + down;
    return (moved ? mm_job_moved(t->job, t->err) : mm_job_waits(t->job, t->err)) ? 0 : 1;
}

/* libcurl opens sockets without close-on-exec: programs that the host starts would inherit them. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* --- One transfer. --- */

static void set_common(struct transfer *t, struct curl_slist *headers)
{
    const struct mm_curl_api *f = t->c->api;
    CURL *e = t->c->easy;
    const struct mm_curl_request *r = t->r;
    f->curl_easy_reset(e);
    (void)f->curl_easy_setopt(e, CURLOPT_URL, r->url);
    (void)f->curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https,sftp");
    (void)f->curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)f->curl_easy_setopt(e, CURLOPT_USERAGENT, "libmarmot");
    (void)f->curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->a->text);
    (void)f->curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                              (long)(t->job->idle_timeout_ms < CONNECT_MS ? t->job->idle_timeout_ms : CONNECT_MS));
    (void)f->curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    (void)f->curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    (void)f->curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, look);
    (void)f->curl_easy_setopt(e, CURLOPT_XFERINFODATA, t);
    (void)f->curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take);
    (void)f->curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    (void)f->curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, header);
    (void)f->curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    if (headers != NULL) {
        (void)f->curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    }
    const char *authorities = getenv("SSL_CERT_FILE"); /* as OpenSSL has it; libcurl would not look */
    if (authorities != NULL && authorities[0] != '\0') {
        (void)f->curl_easy_setopt(e, CURLOPT_CAINFO, authorities);
    }
}

static void set_bodies(struct transfer *t)
{
    const struct mm_curl_api *f = t->c->api;
    CURL *e = t->c->easy;
    const struct mm_curl_request *r = t->r;
    if (r->upload) {
        (void)f->curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        (void)f->curl_easy_setopt(e, CURLOPT_READFUNCTION, give);
        (void)f->curl_easy_setopt(e, CURLOPT_READDATA, t);
        (void)f->curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, rewind_to);
        (void)f->curl_easy_setopt(e, CURLOPT_SEEKDATA, t);
        (void)f->curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->length);
    } else if (r->text != NULL) {
        (void)f->curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->text);
        (void)f->curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(r->text));
    }
    if (r->method != NULL) {
        (void)f->curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    }
    if (r->download && t->job->done > 0) {
        (void)f->curl_easy_setopt(e, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)t->job->done);
    }
    if (r->prepare != NULL) {
        r->prepare(r->arg, f, e);
    }
}

static int fail(const struct mm_curl *c, CURLcode code, const char *text, struct mm_err *err)
{
    const char *said = text[0] != '\0' ? text : c->api->curl_easy_strerror(code);
    switch (code) {
    case CURLE_OUT_OF_MEMORY:
        return mm_err_nomem(err);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return mm_err_set(err, SQLITE_CANTOPEN, "not reachable: %s; look at the address, and whether its server runs",
                          said);
    case CURLE_OPERATION_TIMEDOUT:
        return mm_err_set(err, SQLITE_BUSY, "no answer in time: %s", said);
    case CURLE_LOGIN_DENIED:
    case CURLE_REMOTE_ACCESS_DENIED:
        return mm_err_set(err, SQLITE_AUTH,
                          "refused: %s; look at user, password or key, and the user's permissions there", said);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return mm_err_set(err, SQLITE_AUTH,
                          "the server cannot prove who it is: %s; its authority must be among the system's (package "
                          "ca-certificates) or in the file that SSL_CERT_FILE names",
                          said);
    case CURLE_REMOTE_DISK_FULL:
        return mm_err_set(err, SQLITE_FULL, "no room there: %s", said);
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSH:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return mm_err_set(err, SQLITE_IOERR, "the connection broke: %s", said);
    default:
        return mm_err_set(err, SQLITE_ERROR, "the transfer failed: %s (libcurl's error %d)", said, (int)code);
    }
}

static void read_answer(struct transfer *t)
{
    const struct mm_curl_api *f = t->c->api;
    long status = 0;
    long offered = 0;
    (void)f->curl_easy_getinfo(t->c->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)f->curl_easy_getinfo(t->c->easy, CURLINFO_HTTPAUTH_AVAIL, &offered);
    t->a->status = (int)status;
    t->a->auth = (unsigned long)offered;
    if (t->r->upload) {
        t->job->done = t->r->from + t->r->length;
    }
    bool http = strncasecmp(t->r->url, "http", 4) == 0;
    if (t->r->download && !t->judged && t->a->code == CURLE_OK && (!http || status == 200)) {
        t->job->size = t->job->done = 0; /* an empty object has no first byte */
    }
}

int mm_curl_do(struct mm_curl *c, const struct mm_curl_request *r, struct mm_curl_answer *a, struct mm_job *job,
               struct mm_err *err)
{
    *a = (struct mm_curl_answer){ 0 };
    mm_buf_init(&a->body, MM_CURL_ANSWER_MAX);
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    struct transfer t = { .c = c, .r = r, .a = a, .job = job, .err = err };
    struct curl_slist *headers = NULL;
    for (int i = 0; r->headers[i] != NULL; i++) {
        struct curl_slist *longer = c->api->curl_slist_append(headers, r->headers[i]);
        if (longer == NULL) {
            c->api->curl_slist_free_all(headers);
            return mm_err_nomem(err);
        }
        headers = longer;
    }
    job->moved_ms = mm_clock_mono_ms();
    set_common(&t, headers);
    set_bodies(&t);
    a->code = c->api->curl_easy_perform(c->easy);
    read_answer(&t);
    c->api->curl_slist_free_all(headers);
    c->api->curl_easy_reset(c->easy); /* forgets what points into this call */
    mm_buf_byte(&a->body, 0);
    if (mm_buf_check(&a->body, err, "the answer of the store") == SQLITE_OK) {
        a->body.len--;
    }
    if (a->code != CURLE_OK && a->code != CURLE_REMOTE_FILE_NOT_FOUND && a->code != CURLE_QUOTE_ERROR) {
        fail(c, a->code, a->text, err);
    }
    return err->rc;
}

int mm_curl_refused(int status, const char *said, const char *remedy, struct mm_err *err)
{
    const char *colon = said[0] != '\0' ? ": " : "";
    switch (status) {
    case 401:
    case 403:
        return mm_err_set(err, SQLITE_AUTH, "refused (HTTP %d)%s%.200s; %s", status, colon, said, remedy);
    case 413:
    case 507:
        return mm_err_set(err, SQLITE_FULL,
                          "no room there (HTTP %d)%s%.200s; make room, or raise the limit of the store", status, colon,
                          said);
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        return mm_err_set(err, SQLITE_IOERR, "the server cannot serve now (HTTP %d)%s%.200s", status, colon, said);
    default:
        return mm_err_set(err, SQLITE_ERROR, "the server answers HTTP %d%s%.200s", status, colon, said);
    }
}
