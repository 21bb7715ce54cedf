#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t mm_clock_mono_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t mm_clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t mm_clock_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

void mm_clock_format(int64_t wall_ms, char out[25])
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    char date[32];
    gmtime_r(&s, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out, 25, "%.19s.%03uZ", date, (unsigned)(wall_ms % 1000) % 1000U);
}
