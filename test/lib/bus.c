#include "test/lib/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

int bus_slow(int ms)
{
    const char *times = getenv("MARMOT_TEST_SLOW");
    double slow = times != NULL ? strtod(times, NULL) : 1;
    return slow > 1 ? (int)(ms * slow) : ms;
}

struct mm_bus *bus_to(const char *url, struct mm_err *err)
{
    struct mm_bus_options o = { .urls = url, .name = "test", .connect_timeout_ms = BUS_MS, .extra_fd = -1 };
    struct mm_bus *b = mm_bus_open(&o, err);
    if (b != NULL && mm_bus_connect(b, err) != 0) {
        mm_bus_close(b);
        return NULL;
    }
    return b;
}

bool bus_stream(struct mm_bus *b, const char *name, const char *subject, int64_t max_msgs, struct mm_err *err)
{
    struct mm_stream_config c = { .name = name,
                                  .subject = subject,
                                  .description = "test",
                                  .max_msgs = max_msgs,
                                  .max_bytes = -1,
                                  .max_msg_size = -1,
                                  .replicas = 1,
                                  .discard_new = true,
                                  .duplicates_ns = 30000000000LL };
    struct mm_stream_info info;
    return mm_bus_stream_create(b, &c, &info, BUS_MS, err) == 1;
}

int bus_put(struct mm_bus *b, const char *subject, const void *data, size_t len, uint64_t token, struct mm_err *err)
{
    struct mm_publish p = { .subject = subject, .expect_last = -1, .data = data, .len = len, .token = token };
    return mm_bus_publish(b, &p, err);
}

bool bus_ack(struct mm_bus *b, struct mm_ack *ack, int ms, struct mm_err *err)
{
    int64_t end = mm_clock_mono_ms() + ms;
    while (mm_bus_next_ack(b, ack) == 0) {
        int64_t left = end - mm_clock_mono_ms();
        if (left <= 0 || !mm_bus_connected(b) || mm_bus_wait(b, (int)left, err) != 0) {
            return false;
        }
    }
    return true;
}

bool bus_next(struct mm_bus *b, struct mm_delivery *d, int ms, struct mm_err *err)
{
    int64_t end = mm_clock_mono_ms() + ms;
    struct mm_ack unwanted;
    while (mm_bus_next(b, d) == 0) {
        int64_t left = end - mm_clock_mono_ms();
        if (left <= 0 || !mm_bus_connected(b) || mm_bus_wait(b, (int)left, err) != 0) {
            return false;
        }
        while (mm_bus_next_ack(b, &unwanted) != 0) {
        }
    }
    return true;
}

bool bus_fill(struct mm_bus *b, const char *subject, int from, int count, size_t size, struct mm_err *err)
{
    char data[65536];
    int acked = 0;
    struct mm_ack ack;
    memset(data, 'x', sizeof data);
    size = size > sizeof data ? sizeof data : size;
    for (int i = 0; i < count; i++) {
        (void)snprintf(data, sizeof data, "%d", from + i);
        if (bus_put(b, subject, data, size, (uint64_t)i, err) != 0) {
            return false;
        }
        while (i - acked >= 512) {
            if (!bus_ack(b, &ack, bus_slow(BUS_MS), err) || ack.kind != MM_ACK_STORED) {
                return false;
            }
            acked++;
        }
    }
    while (acked < count) {
        if (!bus_ack(b, &ack, bus_slow(BUS_MS), err) || ack.kind != MM_ACK_STORED) {
            return false;
        }
        acked++;
    }
    return true;
}

int bus_api(struct mm_bus *b, const char *subject, const char *json, struct mm_err *err)
{
    struct mm_ack ack;
    /* The answer arrives as an acknowledgement without a sequence. */
    if (bus_put(b, subject, json, strlen(json), 1, err) == 0) {
        (void)bus_ack(b, &ack, bus_slow(BUS_MS), err);
    }
    return err->rc;
}
