/* The stored form and the secrets beside it. marmot-test: parallel */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "config_keys.h"
#include "test/lib/message.h"

static char folder[] = "/tmp/marmot-config-XXXXXX";
static char db[64], file[96];

static const char with_secrets[] =
    "{\"cluster\":\"shop\",\"nats\":{\"urls\":[\"nats://u:pa%2Css@a:1\",\"nats://b\"],\"user_name\":\"u\","
    "\"user_password\":\"s3cr3t\",\"token\":\"t0ken\"},"
    "\"snapshot\":{\"store\":\"webdav\",\"webdav\":{\"url\":\"https://h/d?dir=/x&login=me&secret=hush\"}}}";

static struct mm_config *parse(const char *text)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(text, &err);
    if (c == NULL) {
        check(false, "a configuration is read", "%s", err.msg);
        exit(1);
    }
    return c;
}

static char *public_of(const struct mm_config *c)
{
    struct mm_buf b;
    struct mm_err err;
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    mm_config_public(c, &b, &err);
    char *s = mm_buf_take(&b);
    if (s == NULL) {
        abort();
    }
    return s;
}

static void write_file(const char *text, mode_t mode)
{
    (void)unlink(file);
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0;
    if (fd < 0 || close(fd) != 0 || !good) {
        check(false, "a file is written", "%s", file);
        exit(1);
    }
}

static void refuses(const char *name, const char *stored, int rc, const char *part)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_restore(stored, db, &err);
    check(c == NULL && err.rc == rc && strstr(err.msg, part) != NULL && strstr(err.msg, file) != NULL, name,
          "rc %d: %s", err.rc, err.msg);
    mm_config_free(c);
}

static void stored_form(void)
{
    struct mm_err err;
    struct stat st;
    mm_err_init(&err);
    struct mm_config *c = parse(with_secrets);
    char *stored = public_of(c);
    check(strstr(stored, "s3cr3t") == NULL && strstr(stored, "t0ken") == NULL && strstr(stored, "pa%2Css") == NULL &&
              strstr(stored, "hush") == NULL && strstr(stored, "shop-changes") != NULL,
          "the stored form holds no secret", "%s", stored);
    check(mm_config_has_secrets(c), "it has secrets", "not seen");
    check(mm_config_save_secrets(c, db, &err) == SQLITE_OK && stat(file, &st) == 0 && (st.st_mode & 07777) == 0600,
          "the secrets file has mode 0600", "%s", err.msg);
    struct mm_config *back = mm_config_restore(stored, db, &err);
    check(back != NULL && mm_config_equal(c, back) && strcmp(back->nats.token, "t0ken") == 0 &&
              strcmp(back->nats.urls, "nats://u:pa%2Css@a:1,nats://b") == 0 && strcmp(back->cluster, "shop") == 0,
          "all comes back", "%s", err.msg);
    if (back != NULL) {
        back->nats.token[0] = 'T';
        check(!mm_config_equal(c, back), "another token is another configuration", "not seen");
    }
    mm_config_free(back);

    write_file("{\"nats.urls\":\"nats://a\",\"nats.token\":\"x\",\"snapshot.webdav.url\":\"y\"}", 0600);
    refuses("a missing secret is named", stored, SQLITE_ERROR, "nats.user_password");
    write_file("{}", 0640);
    refuses("a file that others can read", stored, SQLITE_PERM, "chmod 600");
    write_file("nonsense", 0600);
    refuses("a damaged file", stored, SQLITE_CORRUPT, "damaged");
    (void)unlink(file);
    refuses("a missing file names both", stored, SQLITE_ERROR, db);
    if (symlink("/dev/null", file) == 0) {
        refuses("a link is not followed", stored, SQLITE_PERM, "no regular file");
        mm_err_init(&err);
        check(mm_config_save_secrets(c, db, &err) == SQLITE_PERM, "nor replaced", "%s", err.msg);
    }
    (void)unlink(file);
    free(stored);
    mm_config_free(c);
}

/* Another user's file: only a test that may change owners can make one. */
static void foreign_owner(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = parse(with_secrets);
    char *stored = public_of(c);
    write_file("{\"nats.token\":\"theirs\"}", 0600);
    if (geteuid() == 0 && chown(file, 12345, (gid_t)-1) == 0) {
        refuses("another user's file is not used", stored, SQLITE_PERM, "12345");
        check(mm_config_save_secrets(c, db, &err) == SQLITE_PERM && strstr(err.msg, file) != NULL,
              "nor replaced by ours", "%s", err.msg);
        struct mm_config *plain = parse("{}");
        mm_err_init(&err);
        struct stat st;
        check(mm_config_save_secrets(plain, db, &err) == SQLITE_PERM && stat(file, &st) == 0, "nor removed", "%s",
              err.msg);
        mm_config_free(plain);
    }
    (void)unlink(file);
    free(stored);
    mm_config_free(c);
}

static void plain_form(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = parse("{\"node_id\":7,\"join\":\"merge\",\"nats\":{\"urls\":\"nats://a\"}}");
    char *stored = public_of(c);
    write_file("{}", 0600);
    check(mm_config_save_secrets(c, db, &err) == SQLITE_OK && access(file, F_OK) != 0, "without secrets the file goes",
          "%s", err.msg);
    check(mm_config_save_secrets(c, db, &err) == SQLITE_OK, "and may be absent", "%s", err.msg);
    struct mm_config *back = mm_config_restore(stored, db, &err);
    check(back != NULL && mm_config_equal(c, back) && back->node_id == 7 && back->join == MM_JOIN_MERGE,
          "a configuration without secrets comes back", "%s", err.msg);
    mm_config_free(back);
    mm_err_init(&err);
    back = mm_config_restore("{\"nats\":{\"server_binary\":\"/bin/sh\"}}", db, &err);
    check(back == NULL && strstr(err.msg, "nats.server_binary") != NULL, "what is stored cannot name a program", "%s",
          err.msg);
    mm_config_free(back);
    mm_err_init(&err);
    back = mm_config_parse("{\"nats\":{\"token\":{\"secret\":true}}}", &err);
    check(back == NULL && strstr(err.msg, "nats.token") != NULL, "a user's text has no marks", "%s", err.msg);
    mm_config_free(back);
    free(stored);
    mm_config_free(c);
}

static void cluster_settings(void)
{
    struct mm_err err;
    struct mm_buf a, b;
    mm_err_init(&err);
    mm_buf_init(&a, 1 << 16);
    mm_buf_init(&b, 1 << 16);
    struct mm_config *one = parse(with_secrets);
    struct mm_config *two = parse("{\"cluster\":\"shop\",\"node_id\":5,\"snapshot\":{\"store\":\"webdav\","
                                  "\"webdav\":{\"url\":\"https://h/d?dir=/x&login=you&secret=other\"}}}");
    mm_config_cluster_settings(one, &a, &err);
    mm_config_cluster_settings(two, &b, &err);
    mm_buf_byte(&a, 0);
    mm_buf_byte(&b, 0);
    check(err.rc == 0 && strcmp((char *)a.data, (char *)b.data) == 0 && strstr((char *)a.data, "hush") == NULL &&
              strstr((char *)a.data, "https://h/d?dir=/x") != NULL,
          "settings of the cluster hold no credentials", "%s", (char *)a.data);
    mm_config_free(two);
    two = parse("{\"cluster\":\"shop\",\"replication_log\":{\"shards\":2}}");
    mm_buf_clear(&b);
    mm_config_cluster_settings(two, &b, &err);
    mm_buf_byte(&b, 0);
    check(strcmp((char *)a.data, (char *)b.data) != 0, "another number of shards is another cluster", "equal");
    mm_config_free(one);
    mm_config_free(two);
    mm_buf_free(&a);
    mm_buf_free(&b);
}

static void redaction(void)
{
    static const char *const cases[][2] = {
        { "nats://a:1,tls://b", "nats://a:1,tls://b" },
        { "nats://u:p@a:1,tls://t@b/", "nats://a:1,tls://b/" },
        { "nats://u:p/@x@a:1", "nats://a:1" },
        { "sftp://u:p@h:22/path", "sftp://h:22/path" },
        { "https://h/d?login=me&dir=/x&secret=hush", "https://h/d?dir=/x" },
        { "", "" },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct mm_buf b;
        mm_buf_init(&b, 1000);
        mm_config_redact(cases[k][0], &b);
        mm_buf_byte(&b, 0);
        check(strcmp((char *)b.data, cases[k][1]) == 0, "a URL without its secrets", "%s", (char *)b.data);
        mm_buf_free(&b);
    }
}

int main(void)
{
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(db, sizeof db, "%s/app.db", folder);
    (void)snprintf(file, sizeof file, "%s-marmot", db);
    stored_form();
    foreign_owner();
    plain_form();
    cluster_settings();
    redaction();
    check(rmdir(folder) == 0, "nothing is left beside the database", "%s", folder);
    return check_failures() != 0;
}
