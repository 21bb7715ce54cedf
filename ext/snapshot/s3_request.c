#include "snapshot/s3_request.h"

#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "base/url.h"
#include "snapshot/aws4.h"
#include "snapshot/xml.h"

#define REMEDY                                                                                                     \
    "look at snapshot.s3.access_key, secret, session_token and region, the key's permissions, and this machine's " \
    "clock"

static void hash_piece(struct mm_job *job, int64_t from, int64_t length, char out[MM_AWS4_HASH], struct mm_err *err)
{
    struct sha256_ctx c;
    uint8_t digest[SHA256_DIGEST_SIZE];
    uint8_t *piece = malloc(MM_STORE_PIECE);
    if (piece == NULL) {
        mm_err_nomem(err);
    }
    sha256_init(&c);
    for (int64_t at = 0; at < length && err->rc == SQLITE_OK;) {
        size_t n = length - at < MM_STORE_PIECE ? (size_t)(length - at) : MM_STORE_PIECE;
        int64_t got = mm_job_read(job, from + at, piece, n, err);
        sha256_update(&c, got > 0 ? (size_t)got : 0, piece);
        at += got;
        (void)mm_job_moved(job, err);
    }
    sha256_digest(&c, sizeof digest, digest);
    mm_aws4_hex(digest, out);
    free(piece);
}

int mm_s3_request(struct mm_s3 *s, const struct mm_s3_ask *q, struct mm_curl_answer *a, struct mm_job *job,
                  struct mm_err *err)
{
    *a = (struct mm_curl_answer){ 0 };
    if (s->curl == NULL && err->rc == SQLITE_OK) {
        s->curl = mm_curl_open(s->tls ? "https" : "http", err);
    }
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    char payload[MM_AWS4_HASH];
    if (q->upload) {
        hash_piece(job, q->from, q->length, payload, err);
    } else {
        mm_aws4_hash(q->text != NULL ? q->text : "", q->text != NULL ? strlen(q->text) : 0, payload);
    }
    struct mm_buf path, url, authorization, token;
    char date[17];
    char date_header[64];
    char payload_header[128];
    mm_buf_init(&path, MM_S3_URL_MAX);
    mm_buf_init(&url, 2 * MM_S3_URL_MAX);
    mm_buf_init(&authorization, MM_S3_URL_MAX);
    mm_buf_init(&token, 3 * MM_S3_URL_MAX);
    mm_buf_printf(&path, "%s/", s->bucket);
    mm_url_encode(&path, q->key, true);
    mm_buf_byte(&path, 0);
    if (mm_buf_check(&path, err, "the name in the bucket") == SQLITE_OK) {
        struct mm_aws4 sign = { .access_key = s->access_key,
                                .secret = s->secret,
                                .session_token = s->session_token,
                                .region = s->region,
                                .method = q->method,
                                .host = s->host,
                                .path = (const char *)path.data,
                                .query = q->query,
                                .payload = payload,
                                .time_s = mm_clock_wall_ms() / 1000 };
        mm_buf_str(&authorization, "Authorization: ");
        mm_aws4_sign(&sign, &authorization, date);
        (void)snprintf(date_header, sizeof date_header, "x-amz-date: %s", date);
        (void)snprintf(payload_header, sizeof payload_header, "x-amz-content-sha256: %s", payload);
        mm_buf_printf(&token, "x-amz-security-token: %s", s->session_token);
        mm_buf_printf(&url, "%s://%s%s%s%s", s->tls ? "https" : "http", s->host, (const char *)path.data,
                      q->query[0] != '\0' ? "?" : "", q->query);
        mm_buf_byte(&authorization, 0);
        mm_buf_byte(&token, 0);
        mm_buf_byte(&url, 0);
        mm_buf_check(&authorization, err, "the signature");
        mm_buf_check(&token, err, "the session token");
        mm_buf_check(&url, err, "the URL");
    }
    if (err->rc == SQLITE_OK) {
        struct mm_curl_request r = { .url = (const char *)url.data,
                                     .method = q->method,
                                     .headers = { (const char *)authorization.data, date_header, payload_header,
                                                  "Content-Type: application/octet-stream",
                                                  s->session_token[0] != '\0' ? (const char *)token.data : NULL },
                                     .text = q->text,
                                     .upload = q->upload,
                                     .from = q->from,
                                     .length = q->length,
                                     .download = q->download };
        mm_curl_do(s->curl, &r, a, job, err);
    }
    mm_buf_free(&path);
    mm_buf_free(&url);
    mm_buf_free(&authorization);
    mm_buf_free(&token);
    return err->rc;
}

void mm_s3_judge(struct mm_s3 *s, const struct mm_curl_answer *a, bool absent, struct mm_err *err)
{
    char code[64] = "";
    char said[200] = "";
    char text[280];
    if (err->rc != SQLITE_OK) {
        return;
    }
    if (a->body.len > 0) {
        mm_xml_find((const char *)a->body.data, a->body.len, "Code", code, sizeof code);
        mm_xml_find((const char *)a->body.data, a->body.len, "Message", said, sizeof said);
    }
    if (a->status >= 200 && a->status < 300 && strcmp(code, "") == 0) {
        return;
    }
    (void)snprintf(text, sizeof text, "%s%s%s", code, code[0] != '\0' && said[0] != '\0' ? ", " : "", said);
    if (strcmp(code, "NoSuchBucket") == 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "the bucket %s is absent: make it, or correct snapshot.s3.bucket",
                   s->bucket + 1);
    } else if (strcmp(code, "NoSuchUpload") == 0) {
        mm_err_set(err, SQLITE_IOERR, "the server has forgotten the upload: %s", text);
    } else if (a->status == 404 && absent) {
        return;
    } else if (strstr(code, "Quota") != NULL || strstr(code, "InsufficientStorage") != NULL) {
        mm_err_set(err, SQLITE_FULL, "no room there: %s; make room, or raise the limit of the bucket", text);
    } else if (strcmp(code, "InternalError") == 0 || strcmp(code, "SlowDown") == 0) {
        mm_err_set(err, SQLITE_IOERR, "the server cannot serve now: %s", text);
    } else if (strcmp(code, "AuthorizationHeaderMalformed") == 0 || (a->status >= 300 && a->status < 400)) {
        mm_err_set(err, SQLITE_AUTH,
                   "the server wants another region or endpoint (HTTP %d): %s; look at snapshot.s3.region and endpoint",
                   a->status, text);
    } else {
        mm_curl_refused(a->status, text, REMEDY, err);
    }
}

int mm_s3_simply(struct mm_s3 *s, const struct mm_s3_ask *q, bool absent, struct mm_job *job, struct mm_err *err)
{
    struct mm_curl_answer a;
    mm_s3_request(s, q, &a, job, err);
    mm_s3_judge(s, &a, absent, err);
    mm_curl_free(&a);
    return a.status;
}
