/* Secrets live beside the database, not in it: <db>-marmot, mode 0600. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "config_keys.h"

enum { SECRETS_MAX = 1 << 20 };

static char *path_of(const char *db_path, const char *suffix, struct mm_err *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s%s", db_path, suffix) < 0) {
        mm_err_nomem(err);
        return NULL;
    }
    return path;
}

static int failed(struct mm_err *err, const char *doing, const char *path)
{
    return mm_err_set(err, SQLITE_IOERR, "secrets file %.300s: %s: %s", path, doing, strerror(errno));
}

/* 1 when it is there and ours, 0 when it is absent; -1 with err set. */
static int inspect(const struct stat *st, const char *path, struct mm_err *err)
{
    if (!S_ISREG(st->st_mode)) {
        mm_err_set(err, SQLITE_PERM, "secrets file %.300s is no regular file: move it away", path);
    } else if (st->st_uid != geteuid()) {
        mm_err_set(err, SQLITE_PERM,
                   "secrets file %.300s belongs to user %lu, this process runs as user %lu: it is neither used nor "
                   "replaced; run as its owner, or move it away and give the configuration once more",
                   path, (unsigned long)st->st_uid, (unsigned long)geteuid());
    }
    return err->rc == SQLITE_OK ? 1 : -1;
}

static int look(const char *path, struct mm_err *err)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : (failed(err, "look at it", path), -1);
    }
    return inspect(&st, path, err);
}

static void write_all(int fd, const uint8_t *p, size_t n, const char *path, struct mm_err *err)
{
    while (n > 0 && err->rc == SQLITE_OK) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            failed(err, "write it", path);
            return;
        }
        p += k;
        n -= (size_t)k;
    }
}

/* A rename or removal lasts only once its directory is on disk. */
static void sync_directory(const char *path, struct mm_err *err)
{
    char *copy = strdup(path);
    if (copy == NULL) {
        mm_err_nomem(err);
        return;
    }
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        failed(err, "sync its directory", path);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    free(copy);
}

static void replace(const char *path, const char *db_path, const struct mm_buf *text, struct mm_err *err)
{
    char *temp = path_of(db_path, "-marmot.XXXXXX", err);
    if (temp == NULL) {
        return;
    }
    int fd = mkostemp(temp, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        failed(err, "create one beside the database", path);
        free(temp);
        return;
    }
    write_all(fd, text->data, text->len, path, err);
    if (err->rc == SQLITE_OK && (fchmod(fd, S_IRUSR | S_IWUSR) != 0 || fsync(fd) != 0)) {
        failed(err, "write it", path);
    }
    if (close(fd) != 0) {
        failed(err, "close it", path);
    }
    if (err->rc == SQLITE_OK && rename(temp, path) != 0) {
        failed(err, "put it in place", path);
    }
    if (err->rc != SQLITE_OK) {
        (void)unlink(temp);
    } else {
        sync_directory(path, err);
    }
    free(temp);
}

int mm_config_save_secrets(const struct mm_config *c, const char *db_path, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    char *path = path_of(db_path, "-marmot", err);
    if (path == NULL) {
        return err->rc;
    }
    int there = look(path, err);
    if (there >= 0 && mm_config_has_secrets(c)) {
        struct mm_buf text;
        mm_buf_init(&text, SECRETS_MAX);
        if (mm_config_secret_json(c, &text, err) == SQLITE_OK) {
            mm_buf_byte(&text, '\n');
            mm_buf_check(&text, err, "the secrets");
            replace(path, db_path, &text, err);
        }
        if (text.data != NULL) {
            explicit_bzero(text.data, text.len);
        }
        mm_buf_free(&text);
    } else if (there > 0) {
        if (unlink(path) != 0 && errno != ENOENT) {
            failed(err, "remove it", path);
        }
        sync_directory(path, err);
    }
    free(path);
    return err->rc;
}

/* The file's text with a NUL behind it (free), NULL with err set. */
static char *read_file(const char *path, size_t *len, struct mm_err *err)
{
    struct stat st;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        failed(err, "open it", path);
    } else if (inspect(&st, path, err) > 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        mm_err_set(err, SQLITE_PERM,
                   "secrets file %.300s has mode %04o, others can reach it: chmod 600, and change the "
                   "secrets if others may have read them",
                   path, (unsigned)(st.st_mode & 07777));
    } else if (err->rc == SQLITE_OK && st.st_size > SECRETS_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "secrets file %.300s has %lld bytes: the limit is %d", path,
                   (long long)st.st_size, SECRETS_MAX);
    } else if (err->rc == SQLITE_OK && (text = calloc(1, (size_t)st.st_size + 1)) == NULL) {
        mm_err_nomem(err);
    }
    *len = 0;
    while (text != NULL && *len < (size_t)st.st_size && err->rc == SQLITE_OK) {
        ssize_t k = read(fd, text + *len, (size_t)st.st_size - *len);
        if (k == 0) {
            break;
        }
        if (k < 0 && errno != EINTR) {
            failed(err, "read it", path);
        }
        *len += k > 0 ? (size_t)k : 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return text;
}

static void fill(struct mm_config *c, const bool *marked, json_t *root, const char *path, struct mm_err *err)
{
    for (size_t i = 0; i < mm_config_nkeys && err->rc == SQLITE_OK; i++) {
        const json_t *v = json_object_get(root, mm_config_keys[i].path);
        if (marked[i] && json_is_string(v)) {
            mm_config_put_text(c, &mm_config_keys[i], json_string_value(v), json_string_length(v), err);
        } else if (marked[i]) {
            mm_err_set(err, SQLITE_ERROR,
                       "secrets file %.250s lacks %s: give the configuration once more to marmot_init", path,
                       mm_config_keys[i].path);
        }
    }
}

static bool any(const bool *marked, size_t *first)
{
    for (*first = 0; *first < mm_config_nkeys; (*first)++) {
        if (marked[*first]) {
            return true;
        }
    }
    return false;
}

int mm_config_load_secrets(struct mm_config *c, const bool *marked, const char *db_path, struct mm_err *err)
{
    size_t first;
    size_t len = 0;
    if (err->rc != SQLITE_OK || !any(marked, &first)) {
        return err->rc;
    }
    char *path = path_of(db_path, "-marmot", err);
    int there = path != NULL ? look(path, err) : -1;
    if (there == 0) {
        mm_err_set(err, SQLITE_ERROR,
                   "the configuration in %.160s needs the secret %s, but the secrets file %.160s is missing: put it "
                   "back, or give the configuration once more to marmot_init",
                   db_path, mm_config_keys[first].path, path);
    }
    char *text = there > 0 ? read_file(path, &len, err) : NULL;
    if (err->rc == SQLITE_OK) {
        json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(root)) {
            mm_err_set(err, SQLITE_CORRUPT,
                       "secrets file %.250s is damaged (no JSON object): give the configuration "
                       "once more to marmot_init",
                       path);
        } else {
            fill(c, marked, root, path, err);
        }
        json_decref(root);
    }
    if (text != NULL) {
        explicit_bzero(text, len);
    }
    free(text);
    free(path);
    return err->rc;
}

struct mm_config *mm_config_restore(const char *stored, const char *db_path, struct mm_err *err)
{
    struct mm_config *c = err->rc == SQLITE_OK ? mm_config_new(err) : NULL;
    bool *marked = calloc(mm_config_nkeys, sizeof *marked);
    if (marked == NULL) {
        mm_err_nomem(err);
    } else if (c != NULL && mm_config_read_json(c, stored, marked, err) != SQLITE_OK) {
        mm_err_prefix(err, "stored in %.200s", db_path);
    } else if (c != NULL && mm_config_load_secrets(c, marked, db_path, err) == SQLITE_OK) {
        mm_config_settle(c, err);
    }
    free(marked);
    if (err->rc != SQLITE_OK) {
        mm_config_free(c);
        return NULL;
    }
    return c;
}
