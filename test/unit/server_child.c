/* The embedded server: start, second finder, takeover, refusals. marmot-test: parallel */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "bus/server.h"
#include "test/lib/bus.h"

enum { WAIT_MS = 20000, TEND_MS = 50, SLACK_MS = 100 };

static char store[128];
static int64_t longest_ms;

static void pause_ms(int ms)
{
    struct timespec t = { .tv_nsec = ms * 1000000L };
    (void)nanosleep(&t, NULL);
}

static enum mm_server_state tend(struct mm_server *s, struct mm_err *err)
{
    mm_err_init(err);
    int64_t from = mm_clock_mono_ms();
    enum mm_server_state state = mm_server_tend(s, err);
    int64_t took = mm_clock_mono_ms() - from;
    longest_ms = took > longest_ms ? took : longest_ms;
    return state;
}

static bool tend_until(struct mm_server *s, enum mm_server_state wanted, struct mm_err *err)
{
    int64_t end = mm_clock_mono_ms() + WAIT_MS;
    while (tend(s, err) != wanted) {
        if (mm_clock_mono_ms() > end) {
            return false;
        }
        pause_ms(5);
    }
    return true;
}

static struct mm_server *open_at(int port, const char *dir, struct mm_err *err)
{
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
    struct mm_server_options o = { .bind_address = address, .store_dir = dir };
    mm_err_init(err);
    return mm_server_open(&o, err);
}

/* The child's descriptors that name files of ours, but for the lock and the log. */
static int strange_descriptors(int pid, const char *canary, char *names, size_t size)
{
    char dir[64];
    int n = 0;
    (void)snprintf(dir, sizeof dir, "/proc/%d/fd", pid);
    names[0] = '\0';
    DIR *d = opendir(dir);
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        char path[1024];
        char target[512] = "";
        (void)snprintf(path, sizeof path, "%.512s/%s", dir, e->d_name);
        if (readlink(path, target, sizeof target - 1) > 0 && strcmp(target, canary) == 0) {
            n++;
            (void)snprintf(names + strlen(names), size - strlen(names), " %s", e->d_name);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
        return n;
    }
    return -1;
}

static bool descriptor_is(int pid, int fd, const char *wanted)
{
    char path[64];
    char target[512] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    return readlink(path, target, sizeof target - 1) > 0 && strstr(target, wanted) != NULL;
}

static void first_and_second(int port)
{
    struct mm_err err;
    char canary[160];
    char names[512];
    (void)snprintf(canary, sizeof canary, "%s/canary", store);
    int fd = open(canary, O_RDWR | O_CREAT, 0600); /* inheritable on purpose */
    int high = fcntl(fd, F_DUPFD, 200);
    struct mm_server *a = open_at(port, store, &err);
    struct mm_server *b = open_at(port, store, &err);
    nats_check("it starts", a != NULL && tend_until(a, MM_SERVER_RUNNING, &err), "%s", err.msg);
    int pid = mm_server_pid(a);
    nats_check("it is a child in a session of its own", pid > 0 && getsid(pid) == pid, "pid %d", pid);
    nats_check("it inherits none of the host's descriptors", strange_descriptors(pid, canary, names, sizeof names) == 0,
               "%s", names);
    nats_check("but the log and the lock",
               descriptor_is(pid, 2, "/nats.err") && descriptor_is(pid, 3, "/lock") &&
                   descriptor_is(pid, 0, "/dev/null") && descriptor_is(pid, 1, "/dev/null"),
               "they are elsewhere");
    struct stat st;
    char path[160];
    (void)snprintf(path, sizeof path, "%s/nats.conf", store);
    nats_check("its configuration is private", stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "mode %o",
               (unsigned)st.st_mode);
    nats_check("a second one finds it", b != NULL && tend(b, &err) == MM_SERVER_FOREIGN && mm_server_pid(b) == 0, "%s",
               err.msg);
    struct mm_bus *bus = bus_to(mm_server_url(b), &err);
    nats_check("JetStream works there",
               bus != NULL && bus_stream(bus, "s", "s", -1, &err) && bus_fill(bus, "s", 0, 10, 100, &err), "%s",
               err.msg);
    mm_bus_close(bus);

    (void)kill(pid, SIGKILL);
    nats_check("killed, it is started again",
               tend_until(a, MM_SERVER_STARTING, &err) && tend_until(a, MM_SERVER_RUNNING, &err) &&
                   mm_server_pid(a) != pid,
               "%s", err.msg);
    pid = mm_server_pid(a);
    mm_server_close(a);
    nats_check("closed, it is gone and reaped",
               kill(pid, 0) != 0 && errno == ESRCH && waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "pid %d", pid);
    nats_check("the second one takes over", tend_until(b, MM_SERVER_RUNNING, &err), "%s", err.msg);
    bus = bus_to(mm_server_url(b), &err);
    struct mm_stream_info info;
    nats_check("what was stored is there",
               bus != NULL && mm_bus_stream_info(bus, "s", &info, BUS_MS, &err) == 1 && info.last_seq == 10, "%s",
               err.msg);
    mm_bus_close(bus);
    mm_server_close(b);
    (void)close(fd);
    (void)close(high);
}

/* Owns a server until it is killed; tells the server's pid through the pipe. */
static void own(int port, int out)
{
    struct mm_err err;
    struct mm_server *s = open_at(port, store, &err);
    if (s == NULL || !tend_until(s, MM_SERVER_RUNNING, &err)) {
        _exit(1);
    }
    int pid = mm_server_pid(s);
    if (write(out, &pid, sizeof pid) != sizeof pid) {
        _exit(1);
    }
    for (;;) {
        (void)pause();
    }
}

static void takeover(int port)
{
    struct mm_err err;
    int ends[2];
    int old = 0;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that the orphan's end can be seen */
    if (pipe2(ends, O_CLOEXEC) != 0) {
        nats_check("a pipe", false, "%s", strerror(errno));
        return;
    }
    pid_t owner = fork();
    if (owner == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        own(port, ends[1]);
    }
    (void)close(ends[1]);
    bool good = read(ends[0], &old, sizeof old) == (ssize_t)sizeof old;
    (void)close(ends[0]);
    struct mm_server *s = open_at(port, store, &err);
    nats_check("another process owns it", good && tend(s, &err) == MM_SERVER_FOREIGN, "%s", err.msg);
    (void)kill(owner, SIGKILL);
    (void)waitpid(owner, NULL, 0);
    int64_t from = mm_clock_mono_ms();
    good = tend_until(s, MM_SERVER_RUNNING, &err);
    nats_check("its owner killed, this process takes it over", good, "%s", err.msg);
    printf("# takeover took %lld ms\n", (long long)(mm_clock_mono_ms() - from));
    int status = 0;
    nats_check("no orphan is left",
               waitpid(old, &status, 0) == old && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %d",
               status);
    nats_check("one server serves the store", mm_server_pid(s) > 0 && mm_server_pid(s) != old && nats_answers(port),
               "pid %d", mm_server_pid(s));
    mm_server_close(s);
}

static void races(int port)
{
    struct mm_err err;
    struct mm_server *s[6];
    int running = 0;
    for (int i = 0; i < 6; i++) {
        s[i] = open_at(port, store, &err);
    }
    int64_t end = mm_clock_mono_ms() + WAIT_MS;
    bool settled = false;
    while (!settled && mm_clock_mono_ms() < end) {
        running = 0;
        int foreign = 0;
        for (int i = 0; i < 6; i++) {
            enum mm_server_state state = tend(s[i], &err);
            running += state == MM_SERVER_RUNNING;
            foreign += state == MM_SERVER_FOREIGN;
        }
        settled = running == 1 && foreign == 5;
        pause_ms(5);
    }
    nats_check("of six that want to start it one does", settled, "%d run", running);
    for (int i = 0; i < 6; i++) {
        mm_server_close(s[i]);
    }
}

static int listen_at(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 16) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void refusals(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_server_options o = { .bind_address = "0.0.0.0:4999", .store_dir = store };
    nats_check("open to the network without authentication: refused",
               mm_server_open(&o, &err) == NULL && err.rc == SQLITE_PERM && strstr(err.msg, "nats.insecure") != NULL,
               "rc %d", err.rc);
    mm_err_init(&err);
    o.insecure = true;
    struct mm_server *s = mm_server_open(&o, &err);
    nats_check("unless insecure says so", s != NULL && strcmp(mm_server_url(s), "nats://127.0.0.1:4999") == 0, "%s",
               err.msg);
    mm_server_close(s);
    static const char *const bad[] = { "",       "127.0.0.1",     "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x",
                                       "a\"b:1", "host.example:1" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mm_err_init(&err);
        o.bind_address = bad[i];
        s = mm_server_open(&o, &err);
        nats_check("an address that is none", s == NULL && err.rc == SQLITE_MISUSE, "'%s' rc %d", bad[i], err.rc);
    }

    int port = nats_free_port();
    int fd = listen_at(port);
    s = open_at(port, store, &err);
    nats_check("a port held by something silent",
               tend_until(s, MM_SERVER_FAILED, &err) && strstr(err.msg, "not NATS") != NULL, "%s", err.msg);
    (void)close(fd);
    mm_server_close(s);

    char address[32];
    port = nats_free_port();
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
    struct mm_server_options none = { .bind_address = address,
                                      .store_dir = store,
                                      .binary = "/nonexistent/nats-server" };
    mm_err_init(&err);
    s = mm_server_open(&none, &err);
    nats_check("no such program",
               s != NULL && tend(s, &err) == MM_SERVER_FAILED && strstr(err.msg, "nats.server_binary") != NULL, "%s",
               err.msg);
    mm_server_close(s);

    char config[160];
    (void)snprintf(config, sizeof config, "%s/broken.conf", store);
    FILE *f = fopen(config, "w");
    (void)fprintf(f, "no_such_field_at_all: 7\n");
    (void)fclose(f);
    struct mm_server_options broken = { .bind_address = address, .store_dir = store, .config_file = config };
    mm_err_init(&err);
    s = mm_server_open(&broken, &err);
    nats_check("a broken configuration is told in the server's words",
               s != NULL && tend_until(s, MM_SERVER_FAILED, &err) && strstr(err.msg, "no_such_field_at_all") != NULL,
               "%s", err.msg);
    nats_check("and the store is free again", mm_server_pid(s) == 0, "pid %d", mm_server_pid(s));
    mm_server_close(s);
    f = fopen(config, "w");
    (void)fprintf(f, "max_payload: 2MB\n");
    (void)fclose(f);
    mm_err_init(&err);
    s = mm_server_open(&broken, &err);
    bool good = s != NULL && tend_until(s, MM_SERVER_RUNNING, &err);
    struct mm_bus *bus = good ? bus_to(mm_server_url(s), &err) : NULL;
    nats_check("a configuration of the user's own",
               bus != NULL && mm_bus_max_payload(bus) == 2 * 1024 * 1024 && bus_stream(bus, "own", "own", -1, &err),
               "%s", err.msg);
    mm_bus_close(bus);
    mm_server_close(s);
}

static void guarded(int port)
{
    struct mm_err err;
    char address[32];
    mm_err_init(&err);
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
    struct mm_server_options o = {
        .bind_address = address, .store_dir = store, .user = "app", .password = "a\"b\\c $HOME"
    };
    struct mm_server *s = mm_server_open(&o, &err);
    nats_check("with a password", s != NULL && tend_until(s, MM_SERVER_RUNNING, &err), "%s", err.msg);
    struct mm_bus *b = bus_to(mm_server_url(s), &err);
    nats_check("nobody gets in without", b == NULL && err.rc == SQLITE_AUTH, "rc %d %s", err.rc, err.msg);
    mm_err_init(&err);
    struct mm_bus_options c = {
        .urls = mm_server_url(s), .user = "app", .password = "a\"b\\c $HOME", .connect_timeout_ms = 2000, .extra_fd = -1
    };
    b = mm_bus_open(&c, &err);
    nats_check("its own connection does", b != NULL && mm_bus_connect(b, &err) == 0, "%s", err.msg);
    mm_bus_close(b);
    mm_server_close(s);
}

static void foreign(void)
{
    struct mm_err err;
    struct nats_server other;
    nats_start(&other, "");
    struct mm_server *s = open_at(other.port, store, &err);
    nats_check("a server of others is used, not doubled",
               tend_until(s, MM_SERVER_FOREIGN, &err) && mm_server_pid(s) == 0, "%s", err.msg);
    mm_server_close(s);
    nats_stop(&other);
}

int main(void)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    const char *tmp = getenv("TMPDIR");
    (void)unsetenv("MARMOT_NATS_SERVER");
    (void)snprintf(store, sizeof store, "%s/mm-server-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(store) == NULL) {
        printf("not ok a folder: %s\n", strerror(errno));
        return 1;
    }
    int64_t fds = nats_count_fds();
    int port = nats_free_port();
    first_and_second(port);
    takeover(port);
    races(port);
    refusals();
    guarded(nats_free_port());
    foreign();
    printf("# the longest tend took %lld ms\n", (long long)longest_ms);
    nats_check("no tend took long", longest_ms <= TEND_MS + SLACK_MS, "%lld ms", (long long)longest_ms);
    nats_check("no descriptor is left open", nats_count_fds() <= fds, "%lld, then %lld", (long long)fds,
               (long long)nats_count_fds());
    nats_remove(store);
    return nats_report();
}
