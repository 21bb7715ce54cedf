#include "bus/server_child.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/gate.h"
#include "base/clock.h"

/* Something that accepts and says nothing for so long is no NATS server. */
#define GREETING_MS 2000

#define LOCK_AT 3

extern char **environ;

struct start {
    char *const *argv;
    pid_t parent;
    int null_fd;
    int lock_fd;
    int log_fd;
    int failed; /* errno of the child, seen by the parent: memory is shared until exec */
};

static void close_above(int last)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)last + 1, ~0u, 0u) == 0) {
        return;
    }
#endif
    long max = sysconf(_SC_OPEN_MAX);
    for (int fd = last + 1; fd < (max > 0 ? max : 65536); fd++) {
        (void)close(fd);
    }
}

/* Runs between vfork and exec: async-signal-safe calls only. */
static void become(struct start *s)
{
    /* SIGKILL and not SIGTERM: a server that hangs must not outlive its owner
    ** and keep the store locked. It costs no data: what the server has
    ** acknowledged is in the kernel's hands. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != s->parent) {
        s->failed = errno != 0 ? errno : ESRCH;
        return;
    }
    /* Handlers of the host must not run here, nor its ignored signals be inherited. */
    struct sigaction plain;
    memset(&plain, 0, sizeof plain);
    plain.sa_handler = SIG_DFL;
    for (int sig = 1; sig < NSIG; sig++) {
        (void)sigaction(sig, &plain, NULL);
    }
    /* A Ctrl-C in the host's terminal is meant for the host: the server ends after it. */
    (void)setsid();
    if (dup2(s->null_fd, 0) < 0 || dup2(s->null_fd, 1) < 0 || dup2(s->log_fd, 2) < 0) {
        s->failed = errno;
        return;
    }
    if (s->lock_fd == LOCK_AT) {
        (void)fcntl(LOCK_AT, F_SETFD, 0);
    } else if (dup2(s->lock_fd, LOCK_AT) < 0) {
        s->failed = errno;
        return;
    }
    close_above(LOCK_AT);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execve(s->argv[0], s->argv, environ);
    s->failed = errno;
}

pid_t mm_child_start(char *const argv[], int lock_fd, int log_fd)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    struct start s = { .argv = argv, .parent = getpid(), .lock_fd = lock_fd, .log_fd = log_fd };
    s.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (s.null_fd < 0) {
        return -1;
    }
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = 0;
    /* Not fork: it would run the host's atfork handlers and copy its memory. */
    mm_gate_exec(true);
    pid_t pid = vfork();
    if (pid == 0) {
        become(&s);
        _exit(127);
    }
    int failed = pid < 0 ? errno : s.failed;
    mm_gate_exec(false);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)close(s.null_fd);
    if (pid > 0 && failed != 0) {
        (void)waitpid(pid, NULL, 0);
        pid = -1;
    }
    errno = failed;
    return pid;
}

bool mm_child_alive(pid_t pid)
{
    pid_t r;
    do {
        r = waitpid(pid, NULL, WNOHANG);
    } while (r < 0 && errno == EINTR);
    /* ECHILD: a handler of the host has reaped it. */
    return r == 0;
}

static int connect_to(const char *host, int port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    bool is6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
    if (!is6 && inet_pton(AF_INET, host, &v4.sin_addr) != 1) {
        v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK); /* "localhost": the only name that is let through */
    }
    int fd = socket(is6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    int rc = is6 ? connect(fd, (struct sockaddr *)&v6, sizeof v6) : connect(fd, (struct sockaddr *)&v4, sizeof v4);
    if (rc != 0 && errno != EINPROGRESS) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

void mm_probe_stop(struct mm_probe *p)
{
    if (p->fd >= 0) {
        (void)close(p->fd);
        p->fd = -1;
    }
}

enum mm_probe_result mm_probe_look(struct mm_probe *p, const char *host, int port, int wait_ms)
{
    if (p->fd < 0) {
        p->fd = connect_to(host, port);
        p->since_ms = mm_clock_mono_ms();
        if (p->fd < 0) {
            return MM_PROBE_NOBODY;
        }
    }
    struct pollfd look = { .fd = p->fd, .events = POLLIN };
    enum mm_probe_result result = MM_PROBE_PENDING;
    if (poll(&look, 1, wait_ms) == 1) {
        char text[6] = "";
        ssize_t n = recv(p->fd, text, 5, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return MM_PROBE_PENDING;
        }
        result = n == 5 && memcmp(text, "INFO ", 5) == 0                   ? MM_PROBE_NATS
                 : n < 0 && (errno == ECONNREFUSED || errno == ECONNRESET) ? MM_PROBE_NOBODY
                                                                           : MM_PROBE_OTHER;
    } else if (mm_clock_mono_ms() - p->since_ms > GREETING_MS) {
        result = MM_PROBE_OTHER;
    }
    if (result != MM_PROBE_PENDING) {
        mm_probe_stop(p);
    }
    return result;
}
