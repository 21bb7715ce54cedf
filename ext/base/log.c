#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

static atomic_int log_fd = STDERR_FILENO;
static atomic_int log_level = MM_LOG_WARN;
static atomic_bool log_json;

int mm_log_setup(bool verbose, bool json, const char *path)
{
    int fd = STDERR_FILENO;
    if (path != NULL && path[0] != '\0') {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (fd < 0) {
            return errno;
        }
    }
    /* The old file stays open: another thread may be in the middle of a line. */
    atomic_store(&log_fd, fd);
    atomic_store(&log_level, verbose ? MM_LOG_DEBUG : MM_LOG_WARN);
    atomic_store(&log_json, json);
    return 0;
}

void mm_log_silence(void)
{
    atomic_store(&log_level, MM_LOG_ERROR + 1);
}

void mm_log(enum mm_log_level level, const char *fmt, ...)
{
    static const char *const names[] = { "debug", "info", "warning", "error" };
    if ((int)level < atomic_load(&log_level)) {
        return;
    }
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char when[25];
    mm_clock_format(mm_clock_wall_ms(), when);
    struct mm_buf b;
    mm_buf_init(&b, 8192);
    if (atomic_load(&log_json)) {
        mm_buf_printf(&b, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":", when, names[level]);
        mm_buf_json(&b, text);
        mm_buf_str(&b, "}\n");
    } else {
        mm_buf_printf(&b, "%s marmot %s: %s\n", when, names[level], text);
    }
    if (!mm_buf_failed(&b)) {
        ssize_t n = write(atomic_load(&log_fd), b.data, b.len);
        (void)n; /* a log that cannot be written must not stop the node */
    }
    mm_buf_free(&b);
}
