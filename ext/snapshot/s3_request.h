/* One request to a bucket of S3 or what speaks like it: signed over all of it,
** its answer judged.
**
** Threads: those of the store. */
#ifndef MM_SNAPSHOT_S3_REQUEST_H
#define MM_SNAPSHOT_S3_REQUEST_H

#include "snapshot/curl_io.h"

#define MM_S3_URL_MAX 4096

struct mm_s3 {
    struct mm_curl *curl; /* opened at the first call */
    bool tls;
    char host[300];    /* without the port that is usual */
    char bucket[300];  /* "/bucket", encoded */
    char prefix[1024]; /* of the names in the bucket: "path/" or "", as it is */
    char region[101], access_key[201], secret[256];
    char *session_token;
};

struct mm_s3_ask {
    const char *method;
    const char *key;   /* whole name in the bucket, "" for the bucket itself */
    const char *query; /* canonical */
    const char *text;  /* body from memory */
    bool upload;       /* body from the file */
    int64_t from, length;
    bool download;
};

/* Sends it. Free the answer, always. Returns err->rc: an HTTP answer of any status is no error here. */
int mm_s3_request(struct mm_s3 *s, const struct mm_s3_ask *q, struct mm_curl_answer *a, struct mm_job *job,
                  struct mm_err *err);
/* Sets err unless the answer is a success. `absent`: a missing key is none of the errors. */
void mm_s3_judge(struct mm_s3 *s, const struct mm_curl_answer *a, bool absent, struct mm_err *err);
/* A request whose answer matters as success or error alone: its HTTP status. */
int mm_s3_simply(struct mm_s3 *s, const struct mm_s3_ask *q, bool absent, struct mm_job *job, struct mm_err *err);

#endif
