/* The signature of S3 requests (AWS Signature Version 4), over what is sent:
** libcurl's own differs from version to version.
**
** Threads: none of its own. */
#ifndef MM_SNAPSHOT_AWS4_H
#define MM_SNAPSHOT_AWS4_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define MM_AWS4_HASH 65 /* a SHA-256 in hexadecimal and its NUL */

struct mm_aws4 {                                     /* all borrowed */
    const char *access_key, *secret, *session_token; /* token "" for none */
    const char *region;
    const char *method;
    const char *host;         /* as the Host header will have it */
    const char *path, *query; /* encoded; the query sorted, each name with its = */
    const char *payload;      /* hash of the body */
    int64_t time_s;           /* since 1970 */
};

/* Appends the values of the headers Authorization and x-amz-date. */
void mm_aws4_sign(const struct mm_aws4 *a, struct mm_buf *authorization, char date[17]);
void mm_aws4_hash(const void *data, size_t len, char out[MM_AWS4_HASH]);
void mm_aws4_hex(const uint8_t digest[32], char out[MM_AWS4_HASH]);

#endif
