#include "snapshot/aws4.h"

#include <nettle/hmac.h>
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void mm_aws4_hex(const uint8_t digest[32], char out[MM_AWS4_HASH])
{
    for (size_t i = 0; i < 32; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
    }
}

void mm_aws4_hash(const void *data, size_t len, char out[MM_AWS4_HASH])
{
    struct sha256_ctx c;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&c);
    sha256_update(&c, len, data);
    sha256_digest(&c, sizeof digest, digest);
    mm_aws4_hex(digest, out);
}

static void hmac(const uint8_t *key, size_t n, const char *text, uint8_t out[32])
{
    struct hmac_sha256_ctx c;
    hmac_sha256_set_key(&c, n, key);
    hmac_sha256_update(&c, strlen(text), (const uint8_t *)text);
    hmac_sha256_digest(&c, SHA256_DIGEST_SIZE, out);
    explicit_bzero(&c, sizeof c);
}

/* The key of one day, region and service. */
static void signing_key(const struct mm_aws4 *a, const char *day, uint8_t key[32])
{
    char first[260];
    (void)snprintf(first, sizeof first, "AWS4%s", a->secret);
    hmac((const uint8_t *)first, strlen(first), day, key);
    hmac(key, 32, a->region, key);
    hmac(key, 32, "s3", key);
    hmac(key, 32, "aws4_request", key);
    explicit_bzero(first, sizeof first);
}

void mm_aws4_sign(const struct mm_aws4 *a, struct mm_buf *authorization, char date[17])
{
    struct tm tm;
    time_t t = (time_t)a->time_s;
    char day[9];
    (void)gmtime_r(&t, &tm);
    (void)strftime(date, 17, "%Y%m%dT%H%M%SZ", &tm);
    (void)strftime(day, sizeof day, "%Y%m%d", &tm);

    bool token = a->session_token[0] != '\0';
    const char *names =
        token ? "host;x-amz-content-sha256;x-amz-date;x-amz-security-token" : "host;x-amz-content-sha256;x-amz-date";
    struct mm_buf canonical;
    mm_buf_init(&canonical, 64 * 1024);
    mm_buf_printf(&canonical, "%s\n%s\n%s\nhost:%s\nx-amz-content-sha256:%s\nx-amz-date:%s\n", a->method, a->path,
                  a->query, a->host, a->payload, date);
    if (token) {
        mm_buf_printf(&canonical, "x-amz-security-token:%s\n", a->session_token);
    }
    mm_buf_printf(&canonical, "\n%s\n%s", names, a->payload);

    char hash[MM_AWS4_HASH] = "";
    char text[256];
    uint8_t key[32];
    uint8_t signature[32];
    char hex[MM_AWS4_HASH];
    if (!mm_buf_failed(&canonical)) {
        mm_aws4_hash(canonical.data, canonical.len, hash);
    }
    (void)snprintf(text, sizeof text, "AWS4-HMAC-SHA256\n%s\n%s/%.100s/s3/aws4_request\n%s", date, day, a->region,
                   hash);
    signing_key(a, day, key);
    hmac(key, 32, text, signature);
    mm_aws4_hex(signature, hex);
    mm_buf_printf(authorization, "AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/aws4_request,SignedHeaders=%s,Signature=%s",
                  a->access_key, day, a->region, names, hex);
    explicit_bzero(key, sizeof key);
    if (canonical.data != NULL) {
        explicit_bzero(canonical.data, canonical.len);
    }
    mm_buf_free(&canonical);
}
