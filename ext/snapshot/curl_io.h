/* One transfer at a time over libcurl, for the stores s3, webdav and sftp:
** bodies go between a job's file and the network, a job's watcher and its
** limit of silence end any wait.
**
** Threads: those of the store. A struct mm_curl keeps connections open between
** requests. Redirects are not followed (they would carry secrets elsewhere). */
#ifndef MM_SNAPSHOT_CURL_IO_H
#define MM_SNAPSHOT_CURL_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "snapshot/curl_api.h"
#include "snapshot/store_int.h"

#define MM_CURL_HEADERS 12
#define MM_CURL_ANSWER_MAX (8 * 1024 * 1024) /* bytes of an answer kept in memory: a listing of 10,000 objects */

struct mm_curl;

struct mm_curl_request {                      /* all borrowed */
    const char *url;                          /* without userinfo */
    const char *method;                       /* HTTP; NULL: GET, or PUT when there is a body from the file */
    const char *headers[MM_CURL_HEADERS + 1]; /* "Name: value", NULL-terminated */
    const char *text;                         /* body from memory, NULL for none */
    bool upload;                              /* body: `length` bytes of the job's file from `from` on */
    int64_t from, length;
    bool download; /* the body of a success goes to the job's file, at job->done */
    /* Options that only one protocol knows; NULL: none. */
    void (*prepare)(void *arg, const struct mm_curl_api *api, CURL *easy);
    void *arg;
};

struct mm_curl_answer {
    CURLcode code;              /* CURLE_OK, or one that the caller asked to see */
    int status;                 /* HTTP */
    struct mm_buf body;         /* what did not go to the file; a NUL stands behind it */
    char etag[128];             /* with its quotes */
    unsigned long auth;         /* CURLAUTH_* that the server offered with a 401 */
    char text[CURL_ERROR_SIZE]; /* libcurl's words for the code */
};

struct mm_curl *mm_curl_open(const char *protocol, struct mm_err *err); /* "http", "https" or "sftp" */
void mm_curl_close(struct mm_curl *c);                                  /* NULL is fine */
const struct mm_curl_api *mm_curl_functions(const struct mm_curl *c);

/* Does it and fills the answer (free with mm_curl_free, always). Returns err->rc: SQLITE_OK with an HTTP answer of
** any status; libcurl's own codes are errors, except CURLE_REMOTE_FILE_NOT_FOUND and CURLE_QUOTE_ERROR. */
int mm_curl_do(struct mm_curl *c, const struct mm_curl_request *r, struct mm_curl_answer *a, struct mm_job *job,
               struct mm_err *err);
void mm_curl_free(struct mm_curl_answer *a);

/* An HTTP status that is no success, as an error: `said` are the server's own words, "" for none; `remedy` is for
** 401 and 403. Returns err->rc. */
int mm_curl_refused(int status, const char *said, const char *remedy, struct mm_err *err);

#endif
