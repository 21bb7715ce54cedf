#include "test/lib/nats.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 10000, FIRST_PORT = 21000, LAST_PORT = 31000 };

static int failures;

static void die(const char *what)
{
    printf("not ok nats-server for the test: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

int nats_free_port(void)
{
    static unsigned next;
    if (next == 0) {
        next = (unsigned)getpid() * 7919u;
    }
    for (int i = 0; i < LAST_PORT - FIRST_PORT; i++) {
        int port = FIRST_PORT + (int)(next++ % (LAST_PORT - FIRST_PORT));
        struct sockaddr_in a = loopback(port);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int one = 1;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        int rc = bind(fd, (struct sockaddr *)&a, sizeof a);
        (void)close(fd);
        if (rc == 0) {
            return port;
        }
    }
    die("no free port");
    return 0;
}

bool nats_answers(int port)
{
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = false;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
        char text[8] = "";
        struct pollfd p = { .fd = fd, .events = POLLIN };
        good = poll(&p, 1, 200) == 1 && read(fd, text, 5) == 5 && memcmp(text, "INFO ", 5) == 0;
    }
    (void)close(fd);
    return good;
}

static void write_config(const struct nats_server *s)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/nats.conf", s->dir);
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        die(path);
    }
    (void)fprintf(f, "listen: \"127.0.0.1:%d\"\nlog_file: \"%s/nats.log\"\n%s\n", s->port, s->dir, s->config);
    if (strstr(s->config, "jetstream") == NULL) {
        (void)fprintf(f, "jetstream { store_dir: \"%s/js\" }\n", s->dir);
    }
    (void)fclose(f);
}

void nats_again(struct nats_server *s)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/nats.conf", s->dir);
    write_config(s);
    s->pid = fork();
    if (s->pid < 0) {
        die("fork");
    }
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        for (int fd = 3; fd < 256; fd++) {
            (void)close(fd);
        }
        (void)execlp("nats-server", "nats-server", "-c", path, (char *)NULL);
        (void)execl("/usr/sbin/nats-server", "nats-server", "-c", path, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < START_MS / 5; i++) {
        if (nats_answers(s->port)) {
            return;
        }
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            errno = ECHILD;
            die("it ended at once");
        }
        struct timespec t = { .tv_nsec = 5000000 };
        (void)nanosleep(&t, NULL);
    }
    errno = ETIMEDOUT;
    die("it does not answer");
}

void nats_start(struct nats_server *s, const char *config)
{
    const char *tmp = getenv("TMPDIR");
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)snprintf(s->dir, sizeof s->dir, "%s/mm-nats-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(s->dir) == NULL) {
        die("mkdtemp");
    }
    s->port = nats_free_port();
    (void)snprintf(s->url, sizeof s->url, "nats://127.0.0.1:%d", s->port);
    (void)snprintf(s->config, sizeof s->config, "%s", config);
    nats_again(s);
}

void nats_kill(struct nats_server *s, int sig)
{
    if (s->pid > 0) {
        (void)kill(s->pid, sig);
        (void)waitpid(s->pid, NULL, 0);
        s->pid = 0;
    }
}

void nats_remove(const char *dir)
{
    DIR *d = opendir(dir);
    if (d == NULL) {
        (void)unlink(dir);
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char path[4096];
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            nats_remove(path);
        }
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

void nats_stop(struct nats_server *s)
{
    nats_kill(s, SIGKILL);
    nats_remove(s->dir);
}

static int64_t count_entries(const char *dir)
{
    int64_t n = 0;
    DIR *d = opendir(dir);
    while (d != NULL && readdir(d) != NULL) {
        n++;
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return n;
}

int64_t nats_count_fds(void)
{
    return count_entries("/proc/self/fd");
}

int64_t nats_count_threads(void)
{
    return count_entries("/proc/self/task");
}

int64_t nats_rss_kb(void)
{
    char line[256];
    int64_t kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kb = strtoll(line + 6, NULL, 10);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return kb;
}

bool nats_check(const char *name, bool good, const char *why, ...)
{
    if (good) {
        printf("ok %s\n", name);
        return true;
    }
    va_list ap;
    va_start(ap, why);
    printf("not ok %s: ", name);
    (void)vprintf(why, ap);
    va_end(ap);
    printf("\n");
    failures++;
    return false;
}

int nats_report(void)
{
    return failures == 0 ? 0 : 1;
}
