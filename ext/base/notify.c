#include "base/notify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/sqlite.h"

enum { SLOT_WAKE, SLOT_FILE };

/* Each write to a file that is watched costs its writer a good part of the write
** itself, told or not. So a watch for writes ends with the first one, and begins
** anew with mm_notify_arm. */
struct mm_notify {
    int epoll_fd;
    int inotify_fd; /* -1 = the system gives none */
    int watch;      /* -1 = no file is watched */
    bool spent;     /* the watch has told of a write, and ended */
    char *path;     /* of a file watched for writes; else NULL */
};

enum { WRITE_ONCE = IN_MODIFY | IN_ONESHOT };

struct mm_notify *mm_notify_open(int wake_fd, struct mm_err *err)
{
    struct mm_notify *w = calloc(1, sizeof *w);
    if (w == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = SLOT_WAKE };
    w->watch = w->inotify_fd = -1;
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll_fd < 0 || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, wake_fd, &e) != 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "no epoll descriptor to wait with: %s", strerror(errno));
        mm_notify_close(w);
        return NULL;
    }
    return w;
}

static void close_inotify(struct mm_notify *w)
{
    if (w->inotify_fd >= 0) {
        (void)close(w->inotify_fd);
    }
    w->inotify_fd = w->watch = -1;
    w->spent = false;
    free(w->path);
    w->path = NULL;
}

void mm_notify_close(struct mm_notify *w)
{
    if (w == NULL) {
        return;
    }
    close_inotify(w);
    if (w->epoll_fd >= 0) {
        (void)close(w->epoll_fd);
    }
    free(w);
}

int mm_notify_fd(const struct mm_notify *w)
{
    return w->epoll_fd;
}

/* A new instance each time: what an older watch has queued goes with it. */
bool mm_notify_watch(struct mm_notify *w, const char *path, enum mm_notify_what what)
{
    close_inotify(w);
    w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (w->inotify_fd >= 0) {
        w->watch = inotify_add_watch(w->inotify_fd, path, what == MM_NOTIFY_WRITTEN ? WRITE_ONCE : IN_CLOSE_WRITE);
    }
    if (what == MM_NOTIFY_WRITTEN && w->watch >= 0) {
        w->path = strdup(path);
    }
    struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u32 = SLOT_FILE };
    if (w->watch < 0 || (what == MM_NOTIFY_WRITTEN && w->path == NULL) ||
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->inotify_fd, &e) != 0) {
        close_inotify(w);
    }
    return mm_notify_works(w);
}

bool mm_notify_works(const struct mm_notify *w)
{
    return w->watch >= 0;
}

bool mm_notify_take(struct mm_notify *w)
{
    char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool any = false;
    bool lost = false;
    ssize_t n;
    while (w->inotify_fd >= 0 && (n = read(w->inotify_fd, buf, sizeof buf)) > 0) {
        any = true;
        for (const char *p = buf; p < buf + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
            bool now = e->wd == w->watch; /* not what an earlier watch still says of its end */
            w->spent = w->spent || (now && w->path != NULL && (e->mask & IN_MODIFY) != 0);
            lost = lost || (now && (e->mask & IN_IGNORED) != 0 && !w->spent); /* the file was removed */
            p += sizeof *e + e->len;
        }
    }
    if (lost) {
        close_inotify(w);
    }
    return any;
}

bool mm_notify_arm(struct mm_notify *w)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u32 = SLOT_FILE };
    bool renewed = w->spent;
    if (renewed) {
        w->spent = false;
        w->watch = inotify_add_watch(w->inotify_fd, w->path, WRITE_ONCE);
        if (w->watch < 0) {
            close_inotify(w);
        }
    }
    if (w->inotify_fd >= 0) {
        (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, w->inotify_fd, &e);
    }
    return renewed;
}

void mm_notify_each_fd(const struct mm_notify *w, void (*f)(int fd))
{
    if (w->inotify_fd >= 0) {
        f(w->inotify_fd);
    }
    if (w->epoll_fd >= 0) {
        f(w->epoll_fd);
    }
}
