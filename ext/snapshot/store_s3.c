/* Snapshots in a bucket of S3 or what speaks like it: signature version 4 over
** the body, too, path style, and large objects in parts, which the bucket
** shows as one when the last request has named them all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sqlite.h"
#include "base/url.h"
#include "snapshot/s3_request.h"
#include "snapshot/xml.h"

#define PART_MIN (8LL * 1024 * 1024) /* S3 wants 5 MiB at least, but for the last */
#define PARTS_MAX 9000               /* S3 takes 10,000 */

static void s3_close(void *self)
{
    struct mm_s3 *s = self;
    mm_curl_close(s->curl);
    if (s->session_token != NULL) {
        explicit_bzero(s->session_token, strlen(s->session_token));
    }
    free(s->session_token);
    explicit_bzero(s->secret, sizeof s->secret);
    free(s);
}

static void copy(char *out, size_t size, const char *text, const char *key, struct mm_err *err)
{
    if (text == NULL || strlen(text) >= size) {
        mm_err_set(err, SQLITE_MISUSE, "%s is longer than %zu bytes", key, size - 1);
    } else {
        (void)snprintf(out, size, "%s", text);
    }
}

static void read_endpoint(struct mm_s3 *s, const struct mm_store_options *o, struct mm_err *err)
{
    struct mm_url u;
    char text[400];
    const char *given = o->s3.endpoint != NULL ? o->s3.endpoint : "";
    bool whole = strstr(given, "://") != NULL;
    int n = snprintf(text, sizeof text, "%s%s", whole ? "" : o->s3.use_ssl ? "https://" : "http://", given);
    if (n < 0 || (size_t)n >= sizeof text || !mm_url_parse(text, &u)) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.s3.endpoint must be host or host:port, or these behind https://");
        return;
    }
    s->tls = strcmp(u.scheme, "https") == 0;
    if ((!s->tls && strcmp(u.scheme, "http") != 0) || u.user[0] != '\0' || u.query[0] != '\0' ||
        (u.path[0] != '\0' && strcmp(u.path, "/") != 0)) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.s3.endpoint must be host or host:port, or these behind https://");
    }
    copy(s->host, sizeof s->host, u.host, "snapshot.s3.endpoint", err);
    const char *usual = s->tls ? ":443" : ":80";
    size_t len = strlen(s->host);
    size_t tail = strlen(usual);
    if (len > tail && strcmp(s->host + len - tail, usual) == 0) {
        s->host[len - tail] = '\0';
    }
    mm_url_free(&u);
}

static void *s3_open(const struct mm_store_options *o, char place[MM_STORE_PLACE_MAX], struct mm_err *err)
{
    struct mm_s3 *s = calloc(1, sizeof *s);
    if (s == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    const char *region = o->s3.region != NULL && o->s3.region[0] != '\0' ? o->s3.region : "us-east-1";
    const char *bucket = o->s3.bucket != NULL ? o->s3.bucket : "";
    const char *path = o->s3.path != NULL ? o->s3.path + strspn(o->s3.path, "/") : "";
    read_endpoint(s, o, err);
    copy(s->region, sizeof s->region, region, "snapshot.s3.region", err);
    copy(s->access_key, sizeof s->access_key, o->s3.access_key, "snapshot.s3.access_key", err);
    copy(s->secret, sizeof s->secret, o->s3.secret, "snapshot.s3.secret", err);
    copy(s->prefix, 512, path, "snapshot.s3.path", err);
    size_t n = strlen(s->prefix);
    if (n > 0 && s->prefix[n - 1] != '/') {
        s->prefix[n] = '/';
    }
    s->session_token = strdup(o->s3.session_token != NULL ? o->s3.session_token : "");
    if (s->session_token == NULL) {
        mm_err_nomem(err);
    } else if (strpbrk(s->session_token, " \r\n") != NULL || strlen(s->session_token) > 8192) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.s3.session_token must be one word of at most 8192 bytes");
    }
    if (strlen(bucket) < 3 || strlen(bucket) > 255 || strchr(bucket, '/') != NULL) {
        mm_err_set(err, SQLITE_MISUSE,
                   "snapshot.s3.bucket must be the name of a bucket, without slashes; a folder in it goes to "
                   "snapshot.s3.path");
    }
    if (s->access_key[0] == '\0' || s->secret[0] == '\0') {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.s3.access_key and snapshot.s3.secret must both be given");
    }
    struct mm_buf b;
    mm_buf_init(&b, sizeof s->bucket);
    mm_buf_byte(&b, '/');
    mm_url_encode(&b, bucket, false);
    mm_buf_byte(&b, 0);
    if (mm_buf_check(&b, err, "snapshot.s3.bucket") == SQLITE_OK) {
        memcpy(s->bucket, b.data, b.len);
    }
    mm_buf_free(&b);
    if (err->rc != SQLITE_OK) {
        s3_close(s);
        return NULL;
    }
    (void)snprintf(place, MM_STORE_PLACE_MAX, "s3 %s://%.150s%.150s/%.150s", s->tls ? "https" : "http", s->host,
                   s->bucket, s->prefix);
    return s;
}

static void key_of(const struct mm_s3 *s, const char *name, char out[sizeof s->prefix])
{
    (void)snprintf(out, sizeof s->prefix, "%.800s%.200s", s->prefix, name);
}

/* --- Uploads. --- */

/* Starts an upload in parts; its id, encoded for queries, in `id`. */
static void begin(struct mm_s3 *s, const char *key, struct mm_buf *id, struct mm_job *job, struct mm_err *err)
{
    struct mm_s3_ask q = { .method = "POST", .key = key, .query = "uploads=" };
    struct mm_curl_answer a;
    char text[1024] = "";
    mm_s3_request(s, &q, &a, job, err);
    mm_s3_judge(s, &a, false, err);
    if (err->rc == SQLITE_OK) {
        mm_xml_find((const char *)a.body.data, a.body.len, "UploadId", text, sizeof text);
        if (text[0] == '\0') {
            mm_err_set(err, SQLITE_PROTOCOL, "the server begins an upload without an UploadId");
        }
    }
    mm_url_encode(id, text, false);
    mm_buf_byte(id, 0);
    mm_buf_check(id, err, "the UploadId");
    mm_curl_free(&a);
}

static void put_part(struct mm_s3 *s, const char *key, const char *id, int number, int64_t from, int64_t length,
                     struct mm_buf *list, struct mm_job *job, struct mm_err *err)
{
    char query[MM_S3_URL_MAX];
    (void)snprintf(query, sizeof query, "partNumber=%d&uploadId=%s", number, id);
    struct mm_s3_ask q = {
        .method = "PUT", .key = key, .query = query, .upload = true, .from = from, .length = length
    };
    struct mm_curl_answer a;
    do {
        job->done = from;
        mm_s3_request(s, &q, &a, job, err);
        mm_s3_judge(s, &a, false, err);
        mm_curl_free(&a);
    } while (mm_job_again(job, err));
    if (err->rc == SQLITE_OK && (a.etag[0] == '\0' || strpbrk(a.etag, "<&") != NULL)) {
        mm_err_set(err, SQLITE_PROTOCOL, "the server takes a part without giving its ETag");
    }
    mm_buf_printf(list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", number, a.etag);
}

static void put_in_parts(struct mm_s3 *s, const char *key, struct mm_job *job, struct mm_err *err)
{
    struct mm_buf id, list;
    char query[MM_S3_URL_MAX];
    int64_t part = job->size / PARTS_MAX + 1 > PART_MIN ? job->size / PARTS_MAX + 1 : PART_MIN;
    mm_buf_init(&id, MM_S3_URL_MAX - 64);
    mm_buf_init(&list, 4 * 1024 * 1024);
    mm_buf_str(&list, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    begin(s, key, &id, job, err);
    bool begun = err->rc == SQLITE_OK;
    for (int64_t from = 0, n = 1; from < job->size && err->rc == SQLITE_OK; from += part, n++) {
        int64_t length = job->size - from < part ? job->size - from : part;
        put_part(s, key, (const char *)id.data, (int)n, from, length, &list, job, err);
    }
    if (begun) {
        (void)snprintf(query, sizeof query, "uploadId=%s", (const char *)id.data);
    }
    if (err->rc == SQLITE_OK) {
        mm_buf_str(&list, "</CompleteMultipartUpload>");
        mm_buf_byte(&list, 0);
        struct mm_s3_ask q = { .method = "POST", .key = key, .query = query, .text = (const char *)list.data };
        if (mm_buf_check(&list, err, "the list of parts") == SQLITE_OK) {
            (void)mm_s3_simply(s, &q, false, job, err);
        }
    }
    if (err->rc != SQLITE_OK && begun) {
        struct mm_err ignored;
        mm_err_init(&ignored);
        struct mm_job cleaning = mm_job_cleaning();
        struct mm_s3_ask q = { .method = "DELETE", .key = key, .query = query };
        (void)mm_s3_simply(s, &q, true, &cleaning, &ignored);
    }
    mm_buf_free(&id);
    mm_buf_free(&list);
}

static void s3_put(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct mm_s3 *s = self;
    char key[sizeof s->prefix];
    key_of(s, name, key);
    if (job->size > PART_MIN) {
        put_in_parts(s, key, job, err);
    } else {
        struct mm_s3_ask q = { .method = "PUT", .key = key, .query = "", .upload = true, .length = job->size };
        (void)mm_s3_simply(s, &q, false, job, err);
    }
}

static int s3_get(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct mm_s3 *s = self;
    char key[sizeof s->prefix];
    key_of(s, name, key);
    struct mm_s3_ask q = { .method = "GET", .key = key, .query = "", .download = true };
    int status = mm_s3_simply(s, &q, true, job, err);
    return status == 200 || status == 206;
}

static int s3_remove(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct mm_s3 *s = self;
    char key[sizeof s->prefix];
    key_of(s, name, key);
    struct mm_s3_ask q = { .method = "DELETE", .key = key, .query = "" };
    return mm_s3_simply(s, &q, true, job, err) != 404;
}

/* --- Listings. --- */

/* "2026-01-31T12:00:00.000Z"; 0 when it is none. */
static int64_t time_of(const char *text)
{
    struct tm tm = { 0 };
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    return rest != NULL ? (int64_t)timegm(&tm) * 1000 : 0;
}

static void read_list(const struct mm_s3 *s, const struct mm_curl_answer *a, const char *prefix,
                      struct mm_store_list *list, struct mm_buf *next, struct mm_err *err)
{
    struct mm_xml x;
    char key[1024] = "";
    char token[1024] = "";
    int64_t size = -1;
    int64_t time_ms = 0;
    bool more = false;
    size_t skip = strlen(s->prefix);
    mm_xml_init(&x, (const char *)a->body.data, a->body.len);
    while (err->rc == SQLITE_OK && mm_xml_next(&x)) {
        if (x.open) {
            continue;
        }
        if (strcmp(x.name, "Key") == 0) {
            (void)snprintf(key, sizeof key, "%s", x.text);
        } else if (strcmp(x.name, "Size") == 0) {
            size = strtoll(x.text, NULL, 10);
        } else if (strcmp(x.name, "LastModified") == 0) {
            time_ms = time_of(x.text);
        } else if (strcmp(x.name, "IsTruncated") == 0) {
            more = strcmp(x.text, "true") == 0;
        } else if (strcmp(x.name, "NextContinuationToken") == 0) {
            (void)snprintf(token, sizeof token, "%s", x.text);
        } else if (strcmp(x.name, "Contents") == 0 && strncmp(key, s->prefix, skip) == 0) {
            mm_store_list_add(list, prefix, key + skip, size, time_ms, err);
        }
    }
    mm_buf_clear(next);
    if (more) {
        mm_url_encode(next, token, false);
    }
}

static void s3_list(void *self, const char *prefix, struct mm_store_list *list, struct mm_job *job, struct mm_err *err)
{
    struct mm_s3 *s = self;
    struct mm_buf next;
    mm_buf_init(&next, MM_S3_URL_MAX);
    do {
        struct mm_buf query;
        struct mm_curl_answer a;
        mm_buf_init(&query, MM_S3_URL_MAX);
        if (next.len > 0) {
            mm_buf_printf(&query, "continuation-token=%.*s&", (int)next.len, (const char *)next.data);
        }
        mm_buf_str(&query, "delimiter=%2F&list-type=2&prefix=");
        mm_url_encode(&query, s->prefix, false);
        mm_url_encode(&query, prefix, false);
        mm_buf_byte(&query, 0);
        mm_buf_check(&query, err, "the request for a listing");
        struct mm_s3_ask q = { .method = "GET", .key = "", .query = (const char *)query.data };
        mm_s3_request(s, &q, &a, job, err);
        mm_s3_judge(s, &a, false, err);
        mm_buf_clear(&next);
        if (err->rc == SQLITE_OK) {
            read_list(s, &a, prefix, list, &next, err);
        }
        mm_curl_free(&a);
        mm_buf_free(&query);
    } while (next.len > 0 && mm_job_moved(job, err));
    mm_buf_free(&next);
}

/* Uploads in parts that were never ended hold their space until they are given up. */
static void s3_sweep(void *self, int64_t before_ms, struct mm_job *job, struct mm_err *err)
{
    struct mm_s3 *s = self;
    struct mm_buf query;
    struct mm_curl_answer a;
    mm_buf_init(&query, MM_S3_URL_MAX);
    mm_buf_str(&query, "prefix=");
    mm_url_encode(&query, s->prefix, false);
    mm_buf_str(&query, "&uploads=");
    mm_buf_byte(&query, 0);
    mm_buf_check(&query, err, "the request for a listing");
    struct mm_s3_ask q = { .method = "GET", .key = "", .query = (const char *)query.data };
    mm_s3_request(s, &q, &a, job, err);
    mm_s3_judge(s, &a, false, err);
    struct mm_xml x;
    char key[1024] = "";
    char id[1024] = "";
    mm_xml_init(&x, (const char *)a.body.data, a.body.len);
    while (err->rc == SQLITE_OK && mm_xml_next(&x)) {
        if (x.open) {
            continue;
        }
        if (strcmp(x.name, "Key") == 0) {
            (void)snprintf(key, sizeof key, "%s", x.text);
        } else if (strcmp(x.name, "UploadId") == 0) {
            (void)snprintf(id, sizeof id, "%s", x.text);
        } else if (strcmp(x.name, "Initiated") == 0) {
            int64_t began = time_of(x.text);
            if (began == 0 || began >= before_ms) {
                id[0] = '\0';
            }
        } else if (strcmp(x.name, "Upload") == 0 && id[0] != '\0') {
            mm_buf_clear(&query);
            mm_buf_str(&query, "uploadId=");
            mm_url_encode(&query, id, false);
            mm_buf_byte(&query, 0);
            struct mm_s3_ask away = { .method = "DELETE", .key = key, .query = (const char *)query.data };
            if (mm_buf_check(&query, err, "an UploadId") == SQLITE_OK) {
                (void)mm_s3_simply(s, &away, true, job, err);
            }
        }
    }
    mm_curl_free(&a);
    mm_buf_free(&query);
}

const struct mm_store_kind mm_store_s3 = {
    .kind = "s3",
    .open = s3_open,
    .close = s3_close,
    .put = s3_put,
    .get = s3_get,
    .list = s3_list,
    .remove = s3_remove,
    .sweep = s3_sweep,
};
