/* The configuration file: opened with care, read whole, parsed as TOML. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "config_keys.h"
#include "config_toml.h"

enum { FILE_MAX = 1 << 20 };

/* Marmot ships this binding; without authentication it is not opened to the
** network here, yet such a file must load. */
#define MARMOT_BINDING "0.0.0.0:"

/* The path may hold a password when it was meant as something else. */
static const char *shown(const char *path)
{
    return strchr(path, '@') == NULL ? path : "(not shown: its name holds an @)";
}

/* The text (free) and its length; NULL with err set. */
static char *read_whole(const char *path, size_t *len, struct stat *st, struct mm_err *err)
{
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st) != 0) {
        mm_err_set(err, SQLITE_CANTOPEN,
                   "configuration file %.200s cannot be opened (%s): give the path of a TOML file, a JSON object as "
                   "'{\"nats\":{\"urls\":[\"nats://127.0.0.1:4222\"]}}', or NATS URLs",
                   shown(path), strerror(errno));
    } else if (!S_ISREG(st->st_mode)) {
        mm_err_set(err, SQLITE_CANTOPEN, "configuration file %.200s is no regular file", shown(path));
    } else if (st->st_size > FILE_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "configuration file %.200s has %lld bytes: the limit is %d", shown(path),
                   (long long)st->st_size, FILE_MAX);
    } else if ((text = calloc(1, (size_t)st->st_size + 1)) == NULL) {
        mm_err_nomem(err);
    }
    *len = 0;
    while (text != NULL && *len < (size_t)st->st_size && err->rc == SQLITE_OK) {
        ssize_t k = read(fd, text + *len, (size_t)st->st_size - *len);
        if (k == 0) {
            break;
        }
        if (k < 0 && errno != EINTR) {
            mm_err_set(err, SQLITE_IOERR, "configuration file %.200s cannot be read (%s)", shown(path),
                       strerror(errno));
        }
        *len += k > 0 ? (size_t)k : 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return text;
}

/* A file that others may write must not choose what this user runs. */
static void check_programs(const struct mm_config *c, const struct stat *st, struct mm_err *err)
{
    bool names = c->nats.server_binary[0] != '\0' || c->nats.server_config[0] != '\0';
    bool safe = (st->st_uid == geteuid() || st->st_uid == 0) && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
    if (names && !safe) {
        mm_err_set(err, SQLITE_PERM,
                   "it names a program to run (nats.server_binary or nats.server_config), but others than its user may "
                   "write it: make it yours, chmod go-w");
    }
}

static void bind_carefully(struct mm_config *c, struct mm_err *err)
{
    bool guarded = c->nats.token[0] != '\0' || c->nats.user_password[0] != '\0' || c->nats.insecure;
    const char *bind = c->nats.bind_address;
    if (guarded || c->nats.urls[0] != '\0' || strncmp(bind, MARMOT_BINDING, strlen(MARMOT_BINDING)) != 0) {
        return;
    }
    char local[64];
    (void)snprintf(local, sizeof local, "127.0.0.1:%.40s", bind + strlen(MARMOT_BINDING));
    mm_config_warn(c, err,
                   "nats.bind_address %.60s is open to the network without authentication, so the embedded server uses "
                   "%s: give nats.user_name and nats.user_password or nats.token, or nats.insecure true",
                   bind, local);
    mm_config_put_text(c, mm_config_key_find("nats.bind_address"), local, strlen(local), err);
}

int mm_config_read_file(struct mm_config *c, const char *path, struct mm_err *err)
{
    size_t len = 0;
    struct stat st;
    char *text = read_whole(path, &len, &st, err);
    if (err->rc == SQLITE_OK) {
        json_t *root = mm_toml_parse(text, len, err);
        if (root != NULL && mm_config_read_tree(c, root, NULL, true, err) == SQLITE_OK) {
            check_programs(c, &st, err);
            bind_carefully(c, err);
        }
        json_decref(root);
        mm_err_prefix(err, "configuration file %.200s", shown(path));
    }
    if (text != NULL) {
        explicit_bzero(text, len);
    }
    free(text);
    return err->rc;
}
