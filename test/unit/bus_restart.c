/* Losing the server: restarts, silence, and servers that talk nonsense. marmot-test: parallel */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sigpipe.h"
#include "base/sqlite.h"
#include "test/lib/bus.h"

enum { RESTARTS = 30 };

static struct nats_server server;

/* The client library forgets the buffer of a message that the end of the
** connection cuts in two. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:natsBuf_Create\n";
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GROWTH_KB = 512 * 1024 }; /* freed memory is kept for the sanitizer's reports */
#else
enum { GROWTH_KB = 2048 };
#endif

/* kill -9 while messages are on their way in both directions; what was
** acknowledged must be there, in order, afterwards. */
static void in_mid_flow(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_bus *b = bus_to(server.url, &err);
    bool good = b != NULL && bus_stream(b, "f", "f", -1, &err) && mm_bus_follow(b, "f", 1, 1, BUS_MS, &err) == 0;
    int64_t last = 0;
    int64_t acked = 0;
    bool ordered = true;
    int losses = 0;
    uint64_t sent = 0;
    struct mm_delivery d;
    struct mm_ack ack;
    for (int round = 0; round < 5 && good; round++) {
        for (int i = 0; i < 2000 && mm_bus_connected(b) && good; i++) {
            if (i == 1500) {
                nats_kill(&server, SIGKILL);
            }
            mm_err_init(&err);
            (void)bus_put(b, "f", "0123456789", 10, sent++, &err);
            good = mm_bus_wait(b, 0, &err) == 0 || err.rc == SQLITE_IOERR;
            while (mm_bus_next_ack(b, &ack) != 0) {
                acked = ack.kind == MM_ACK_STORED && ack.seq > acked ? ack.seq : acked;
            }
            while (mm_bus_next(b, &d) != 0) {
                ordered = ordered && d.kind == MM_DELIVERY_MESSAGE && d.seq == last + 1;
                last = d.seq;
                mm_bus_release(&d);
            }
        }
        int64_t end = mm_clock_mono_ms() + BUS_MS;
        while (mm_bus_connected(b) && mm_clock_mono_ms() < end) {
            mm_err_init(&err);
            (void)mm_bus_wait(b, 100, &err);
            while (mm_bus_next(b, &d) != 0) {
                ordered = ordered && d.kind == MM_DELIVERY_MESSAGE && d.seq == last + 1;
                last = d.seq;
                mm_bus_release(&d);
            }
        }
        losses += !mm_bus_connected(b);
        mm_err_init(&err);
        good = good && bus_put(b, "f", "x", 1, 0, &err) == SQLITE_IOERR;
        mm_err_init(&err);
        nats_again(&server);
        good = good && mm_bus_connect(b, &err) == 0 && mm_bus_follow(b, "f", 1, last + 1, BUS_MS, &err) == 0;
    }
    struct mm_stream_info info = { 0 };
    good = good && mm_bus_stream_info(b, "f", &info, BUS_MS, &err) == 1;
    while (good && last < info.last_seq) {
        good = bus_next(b, &d, BUS_MS, &err) && d.kind == MM_DELIVERY_MESSAGE;
        ordered = ordered && d.seq == last + 1;
        last = d.seq;
        mm_bus_release(&d);
    }
    nats_check("five kill -9 in mid-flow: each is noticed", good && losses == 5, "%s %d", err.msg, losses);
    nats_check("all is delivered once and in order", good && ordered && last == info.last_seq, "%s last %lld of %lld",
               err.msg, (long long)last, (long long)info.last_seq);
    nats_check("what was acknowledged is kept", acked > 1000 && acked <= info.last_seq, "%lld of %lld",
               (long long)acked, (long long)info.last_seq);
    mm_bus_close(b);
}

static bool once(struct mm_bus *b, int round, struct mm_err *err)
{
    char key[32];
    (void)snprintf(key, sizeof key, "n%d", round);
    return mm_bus_connect(b, err) == 0 && mm_bus_kv_open(b, "leak", 1, 0, BUS_MS, err) == 0 &&
           mm_bus_kv_create(b, "leak", key, "1", 1, BUS_MS, err) == 1 && bus_stream(b, "leak", "leak", -1, err) &&
           mm_bus_follow(b, "leak", 1, 1, BUS_MS, err) == 0 && bus_fill(b, "leak", 0, 500, 200, err);
}

static void leaks(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_bus_options o = { .urls = server.url, .connect_timeout_ms = BUS_MS, .extra_fd = -1 };
    struct mm_bus *b = mm_bus_open(&o, &err);
    int64_t fds = 0;
    int64_t threads = 0;
    int64_t rss = 0;
    int done = 0;
    for (; done < RESTARTS && b != NULL && once(b, done, &err); done++) {
        nats_kill(&server, done % 2 != 0 ? SIGKILL : SIGTERM);
        for (int i = 0; i < 100 && mm_bus_connected(b); i++) {
            (void)mm_bus_wait(b, 50, &err);
        }
        if (done == 4) {
            fds = nats_count_fds();
            threads = nats_count_threads();
            rss = nats_rss_kb();
        }
        if (mm_bus_connected(b) || mm_bus_connect(b, &err) != SQLITE_CANTOPEN) {
            break;
        }
        mm_err_init(&err);
        nats_again(&server);
    }
    nats_check("30 restarts", done == RESTARTS, "%d, %s", done, err.msg);
    (void)mm_bus_connected(b);
    nats_check("no descriptor more", nats_count_fds() <= fds, "%lld, then %lld", (long long)fds,
               (long long)nats_count_fds());
    nats_check("no thread more", nats_count_threads() <= threads, "%lld, then %lld", (long long)threads,
               (long long)nats_count_threads());
    nats_check("no memory to speak of", nats_rss_kb() - rss < GROWTH_KB, "%lld KiB, then %lld", (long long)rss,
               (long long)nats_rss_kb());
    printf("# %lld descriptors, %lld threads, %lld KiB, then %lld KiB\n", (long long)fds, (long long)threads,
           (long long)rss, (long long)nats_rss_kb());
    mm_bus_close(b);
    int cycles = 0;
    for (; cycles < 200; cycles++) {
        struct mm_bus *c = bus_to(server.url, &err);
        if (c == NULL) {
            break;
        }
        mm_bus_close(c);
    }
    nats_check("200 opened and closed", cycles == 200 && nats_count_fds() < fds && nats_count_threads() <= threads,
               "%d, %s", cycles, err.msg);
}

/* A server that stops without closing its sockets. */
static void silence(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_bus_options o = {
        .urls = server.url, .connect_timeout_ms = 500, .ping_interval_ms = 300, .extra_fd = -1
    };
    struct mm_bus *b = mm_bus_open(&o, &err);
    bool good = b != NULL && mm_bus_connect(b, &err) == 0;
    int64_t from = mm_clock_mono_ms();
    good = good && mm_bus_wait(b, 2000, &err) == 0;
    nats_check("quiet is not dead: the pings hold it", good && mm_bus_connected(b) && mm_clock_mono_ms() - from >= 2000,
               "%s", err.msg);
    (void)kill(server.pid, SIGSTOP);
    from = mm_clock_mono_ms();
    good = good && mm_bus_wait(b, 10000, &err) == 0;
    nats_check("stopped, it is noticed within two intervals",
               good && !mm_bus_connected(b) && mm_clock_mono_ms() - from < 5000, "%s %lld ms", err.msg,
               (long long)(mm_clock_mono_ms() - from));
    from = mm_clock_mono_ms();
    nats_check("and a connect ends in time",
               mm_bus_connect(b, &err) == SQLITE_CANTOPEN && mm_clock_mono_ms() - from < 3000, "rc %d %lld ms", err.rc,
               (long long)(mm_clock_mono_ms() - from));
    (void)kill(server.pid, SIGCONT);
    mm_err_init(&err);
    nats_check("going on, it takes us again", mm_bus_connect(b, &err) == 0, "%s", err.msg);
    mm_bus_close(b);
}

/* --- A server that answers every request with one and the same text. --- */

struct liar {
    int fd;
    int port;
    _Atomic(const char *) answer;
    atomic_bool raw; /* no message around it */
    pthread_t thread;
};

static void say(int fd, const char *text, size_t len)
{
    ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
    (void)n;
}

/* One line of the client's; false when it has gone. */
static bool read_line(FILE *f, char *line, int size)
{
    return fgets(line, size, f) != NULL;
}

static void answer(struct liar *l, int fd, const char *reply)
{
    static const char *const prefixes[] = { ".r.", ".a." };
    char head[512];
    const char *text = atomic_load(&l->answer);
    int sid = strstr(reply, prefixes[1]) != NULL ? 1 : 2; /* the order in which the bus subscribes */
    if (atomic_load(&l->raw)) {
        say(fd, text, strlen(text));
        return;
    }
    int n = snprintf(head, sizeof head, "MSG %s %d %zu\r\n", reply, sid, strlen(text));
    say(fd, head, (size_t)n);
    say(fd, text, strlen(text));
    say(fd, "\r\n", 2);
}

static void serve(struct liar *l, int fd)
{
    static const char info[] =
        "INFO {\"server_id\":\"x\",\"version\":\"2.9.10\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,"
        "\"host\":\"127.0.0.1\",\"port\":1}\r\n";
    char line[4096];
    FILE *f = fdopen(fd, "r");
    say(fd, info, sizeof info - 1);
    while (f != NULL && read_line(f, line, sizeof line)) {
        char subject[256] = "";
        char reply[256] = "";
        if (strncmp(line, "PING", 4) == 0) {
            say(fd, "PONG\r\n", 6);
        } else if (strncmp(line, "PUB ", 4) == 0 || strncmp(line, "HPUB ", 5) == 0) {
            size_t a = 0;
            size_t c = 0;
            bool headers = line[0] == 'H';
            int n = sscanf(line + (headers ? 5 : 4), headers ? "%255s %255s %zu %zu" : "%255s %255s %zu", subject,
                           reply, &a, &c);
            size_t body = (headers ? c : a) + 2;
            while (body-- > 0 && getc(f) != EOF) {
            }
            if (n >= 3) {
                answer(l, fd, reply);
            }
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
}

static void *lie(void *arg)
{
    struct liar *l = arg;
    for (int fd = accept(l->fd, NULL, NULL); fd >= 0; fd = accept(l->fd, NULL, NULL)) {
        serve(l, fd);
    }
    return NULL;
}

static bool start_lying(struct liar *l)
{
    l->port = nats_free_port();
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)l->port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return bind(l->fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(l->fd, 4) == 0 &&
           pthread_create(&l->thread, NULL, lie, l) == 0;
}

/* Every call against one answer: none may succeed, hang or crash. */
static int believed(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_stream_info info;
    struct mm_ack ack;
    struct mm_stored m;
    char *value = NULL;
    size_t len = 0;
    int n = 0;
    mm_err_init(&err);
    n += mm_bus_stream_info(b, "s", &info, 1000, &err) != 0 && info.last_seq <= 0;
    n += err.rc == SQLITE_BUSY;
    mm_err_init(&err);
    n += mm_bus_stream_get(b, "s", 5, &m, 1000, &err);
    free(m.data);
    mm_err_init(&err);
    n += mm_bus_kv_get(b, "k", "v", &value, &len, 1000, &err);
    free(value);
    mm_err_init(&err);
    n += mm_bus_kv_create(b, "k", "v", "x", 1, 1000, &err);
    mm_err_init(&err);
    if (mm_bus_connected(b) && bus_put(b, "s", "x", 1, 3, &err) == 0 && bus_ack(b, &ack, 1000, &err)) {
        n += ack.kind == MM_ACK_STORED || ack.kind == MM_ACK_DUPLICATE;
    }
    return n;
}

static void nonsense(void)
{
    static const char *const answers[] = { "x",
                                           "{",
                                           "[]",
                                           "[1,2",
                                           "null",
                                           "7",
                                           "\"text\"",
                                           "{}",
                                           "{\"error\":5}",
                                           "{\"error\":{}}",
                                           "{\"error\":{\"code\":\"a\",\"err_code\":-1,\"description\":7},\"seq\":9}",
                                           "{\"config\":7,\"state\":[]}",
                                           "{\"seq\":-4,\"stream\":\"s\"}",
                                           "{\"seq\":\"7\"}",
                                           "{\"seq\":99999999999999999999999999}",
                                           "{\"message\":7}",
                                           "{\"message\":{\"seq\":5,\"data\":\"=!=\"}}",
                                           "{\"message\":{\"seq\":6,\"data\":\"eHg=\"}}",
                                           "{\"message\":{\"seq\":5,\"data\":\"eHg\",\"hdrs\":\"%\"}}",
                                           "{\"seq\":1,\"seq\":2}",
                                           "\xff\xfe{",
                                           "{\"config\":{},\"state\":{\"last_seq\":-9}}" };
    static const char *const raws[] = { "MSG",
                                        "MSG x 2 99999999999999\r\n",
                                        "-ERR 'Stale Connection'\r\n",
                                        "\r\n\r\n\r\n",
                                        "HMSG a 2 9 3\r\nx",
                                        "GET / HTTP/1.1\r\n\r\n",
                                        "MSG x 9 -1\r\n",
                                        "INFO {\"max_payload\":-1\r\n" };
    struct liar l = { .answer = "" };
    struct mm_err err;
    mm_err_init(&err);
    if (!nats_check("a server of the test's own", start_lying(&l), "%s", strerror(errno))) {
        return;
    }
    char url[64];
    (void)snprintf(url, sizeof url, "nats://127.0.0.1:%d", l.port);
    struct mm_bus *b = bus_to(url, &err);
    int wrong = 0;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0] && b != NULL; i++) {
        atomic_store(&l.answer, answers[i]);
        if (!mm_bus_connected(b)) {
            mm_err_init(&err);
            (void)mm_bus_connect(b, &err);
        }
        if (believed(b) != 0 || !mm_bus_connected(b)) {
            printf("# believed, or not survived: %s\n", answers[i]);
            wrong++;
        }
    }
    nats_check("answers without sense are errors", b != NULL && wrong == 0, "%s %d", err.msg, wrong);
    mm_bus_close(b);
    atomic_store(&l.raw, true);
    wrong = 0;
    int64_t fds = nats_count_fds();
    for (size_t i = 0; i < sizeof raws / sizeof raws[0]; i++) {
        struct mm_stream_info info;
        atomic_store(&l.answer, raws[i]);
        mm_err_init(&err);
        b = bus_to(url, &err);
        wrong += b == NULL || mm_bus_stream_info(b, "s", &info, 200, &err) != 0 || err.rc == 0;
        mm_bus_close(b);
    }
    nats_check("nor does a broken protocol pass", wrong == 0, "%d %s", wrong, err.msg);
    for (int i = 0; i < 200 && nats_count_fds() > fds; i++) {
        (void)poll(NULL, 0, 10);
    }
    nats_check("and leaves nothing open", nats_count_fds() <= fds, "%lld, then %lld", (long long)fds,
               (long long)nats_count_fds());
    (void)shutdown(l.fd, SHUT_RDWR);
    (void)pthread_join(l.thread, NULL);
    (void)close(l.fd);
}

static int inheritable;

static void count_inheritable(int fd)
{
    inheritable += (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0;
}

/* Threads that do not block every signal which can be blocked. */
static int open_to_signals(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        char path[300];
        char line[256];
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        FILE *f = e->d_name[0] != '.' && strtol(e->d_name, NULL, 10) != getpid() ? fopen(path, "r") : NULL;
        while (f != NULL && fgets(line, sizeof line, f) != NULL) {
            uint64_t usual = 0x7fffffff & ~(UINT64_C(1) << (SIGKILL - 1)) & ~(UINT64_C(1) << (SIGSTOP - 1));
            n += strncmp(line, "SigBlk:", 7) == 0 && (strtoull(line + 7, NULL, 16) & usual) != usual;
        }
        if (f != NULL) {
            (void)fclose(f);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return n;
}

static void manners(struct mm_bus *b)
{
    int threads = open_to_signals();
#if defined(__SANITIZE_THREAD__)
    threads = 0; /* its run-time has a thread of its own */
#endif
    nats_check("no thread of the library takes the host's signals", threads == 0, "%d do", threads);
    mm_bus_each_fd(b, count_inheritable);
    nats_check("no socket reaches the host's programs", inheritable == 0, "%d do", inheritable);
}

/* As OpenSSL writes: to a reader that is gone. SIGPIPE is not ignored here. */
static void broken_pipe(void)
{
    int fd[2];
    struct mm_sigpipe outer;
    struct mm_sigpipe inner;
    sigset_t set;
    bool good = pipe(fd) == 0 && close(fd[0]) == 0;
    mm_sigpipe_begin(&outer);
    mm_sigpipe_begin(&inner);
    good = good && write(fd[1], "x", 1) < 0 && errno == EPIPE;
    mm_sigpipe_end(&inner);
    mm_sigpipe_end(&outer);
    nats_check("a broken connection does not end the host", good, "errno %d", errno);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)raise(SIGPIPE);
    mm_sigpipe_begin(&outer);
    (void)!write(fd[1], "x", 1);
    mm_sigpipe_end(&outer);
    const struct timespec at_once = { 0, 0 };
    nats_check("the host's own SIGPIPE waits for it still", sigtimedwait(&set, NULL, &at_once) == SIGPIPE,
               "it is gone");
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)close(fd[1]);
}

static void dispositions(void)
{
    struct sigaction now;
    bool good = sigaction(SIGPIPE, NULL, &now) == 0;
    nats_check("SIGPIPE is the host's", good && now.sa_handler == SIG_DFL, "it was changed");
}

int main(void)
{
    struct mm_err err;
    mm_err_init(&err);
    (void)signal(SIGPIPE, SIG_DFL);
    nats_start(&server, "");
    srand(42);
    int a = rand();
    srand(42);
    struct mm_bus *b = bus_to(server.url, &err);
    nats_check("rand() is the host's", b != NULL && rand() == a, "%s", err.msg);
    if (b != NULL) {
        manners(b);
    }
    mm_bus_close(b);
    dispositions();
    broken_pipe();
    in_mid_flow();
    leaks();
    silence();
    nonsense();
    nats_stop(&server);
    return nats_report();
}
