/* A snapshot store at the end of a pipe, for tests: options as key=value
** arguments, then one command a line on stdin, one answer a line:
**   put NAME FILE | get NAME FILE MAX | list PREFIX | remove NAME | sweep | end BYTES
** `ok ...` or `error <code> <message>`. `end` makes the following calls end
** once BYTES have moved (-1: never); pieces=N in an answer counts the watcher's calls. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "bus/bus.h"
#include "snapshot/store.h"

struct watching {
    long long end_at, calls;
};

static bool go_on(void *arg, int64_t done, int64_t total)
{
    struct watching *w = arg;
    (void)total;
    w->calls++;
    return w->end_at < 0 || done < w->end_at;
}

static const char *value(int argc, char **argv, const char *key)
{
    size_t n = strlen(key);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], key, n) == 0 && argv[i][n] == '=') {
            return argv[i] + n + 1;
        }
    }
    return "";
}

static void list(struct mm_store *s, const char *prefix, const struct mm_store_watch *watch, struct mm_err *err)
{
    struct mm_store_list l;
    if (mm_store_list(s, prefix, &l, watch, err) == SQLITE_OK) {
        printf("ok");
        for (size_t i = 0; i < l.count; i++) {
            printf(" %s:%lld:%lld", l.objects[i].name, (long long)l.objects[i].size, (long long)l.objects[i].time_ms);
        }
        printf("\n");
        mm_store_list_free(&l);
    }
}

/* KiB resident at most since the start of the program. */
static long peak(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = strtol(line + 6, NULL, 10);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return kib;
}

static void transfer(struct mm_store *s, bool up, const char *name, const char *path, long long max,
                     const struct mm_store_watch *watch, struct mm_err *err)
{
    struct stat st;
    int fd = up ? open(path, O_RDONLY) : open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || fstat(fd, &st) != 0) {
        mm_err_set(err, SQLITE_MISUSE, "store_tool: %s cannot be opened", path);
        return;
    }
    int found = 1;
    if (up) {
        mm_store_put(s, name, fd, st.st_size, watch, err);
    } else {
        found = mm_store_get(s, name, fd, max, watch, err);
    }
    (void)close(fd);
    if (err->rc == SQLITE_OK) {
        const struct watching *w = watch->arg;
        printf("ok %d calls=%lld rss=%ld\n", found, w->calls, peak());
    }
}

static void command(struct mm_store *s, char *line, struct watching *w)
{
    char *save = NULL;
    const char *verb = strtok_r(line, " \n", &save);
    const char *a = strtok_r(NULL, " \n", &save);
    const char *b = strtok_r(NULL, " \n", &save);
    const char *c = strtok_r(NULL, " \n", &save);
    const struct mm_store_watch watch = { .go_on = go_on, .arg = w };
    struct mm_err err;
    mm_err_init(&err);
    w->calls = 0;
    if (verb == NULL) {
        mm_err_set(&err, SQLITE_MISUSE, "store_tool: no command");
    } else if (strcmp(verb, "end") == 0 && a != NULL) {
        w->end_at = strtoll(a, NULL, 10);
        printf("ok\n");
    } else if (strcmp(verb, "list") == 0) {
        list(s, a != NULL ? a : "", &watch, &err);
    } else if (strcmp(verb, "sweep") == 0) {
        if (mm_store_sweep(s, &watch, &err) == SQLITE_OK) {
            printf("ok\n");
        }
    } else if (strcmp(verb, "remove") == 0 && a != NULL) {
        int found = mm_store_remove(s, a, &watch, &err);
        if (err.rc == SQLITE_OK) {
            printf("ok %d\n", found);
        }
    } else if ((strcmp(verb, "put") == 0 || strcmp(verb, "get") == 0) && b != NULL) {
        transfer(s, verb[0] == 'p', a, b, c != NULL ? strtoll(c, NULL, 10) : INT64_MAX, &watch, &err);
    } else {
        mm_err_set(&err, SQLITE_MISUSE, "store_tool: what is %s?", verb);
    }
    if (err.rc != SQLITE_OK) {
        printf("error %d %s\n", err.rc, err.msg);
    }
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    struct mm_bus_options bus = { .urls = value(argc, argv, "nats"),
                                  .user = value(argc, argv, "user"),
                                  .password = value(argc, argv, "password"),
                                  .connect_timeout_ms = 2000,
                                  .extra_fd = -1 };
    struct mm_store_options o = { .kind = value(argc, argv, "kind"),
                                  .idle_timeout_ms = atoi(value(argc, argv, "idle")),
                                  .webdav_url = value(argc, argv, "webdav"),
                                  .sftp_url = value(argc, argv, "sftp"),
                                  .file_path = value(argc, argv, "file") };
    o.nats.bus = &bus;
    o.nats.bucket = value(argc, argv, "bucket");
    o.nats.replicas = 1;
    o.s3.endpoint = value(argc, argv, "endpoint");
    o.s3.use_ssl = strcmp(value(argc, argv, "ssl"), "1") == 0;
    o.s3.bucket = value(argc, argv, "bucket");
    o.s3.path = value(argc, argv, "path");
    o.s3.region = value(argc, argv, "region");
    o.s3.access_key = value(argc, argv, "access");
    o.s3.secret = value(argc, argv, "secret");
    o.s3.session_token = value(argc, argv, "session");
    struct mm_err err;
    mm_err_init(&err);
    struct mm_store *s = mm_store_open(&o, &err);
    if (s == NULL) {
        printf("error %d %s\n", err.rc, err.msg);
        return 0;
    }
    printf("ok %s\n", mm_store_place(s));
    (void)fflush(stdout);
    struct watching w = { .end_at = -1 };
    char line[1024];
    while (fgets(line, sizeof line, stdin) != NULL) {
        command(s, line, &w);
    }
    mm_store_close(s);
    return 0;
}
