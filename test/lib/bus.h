/* Short forms for tests of the bus: an open connection, a stream, waits. */
#ifndef MM_TEST_BUS_H
#define MM_TEST_BUS_H

#include "bus/bus.h"
#include "test/lib/nats.h"

enum { BUS_MS = 5000 };
int bus_slow(int ms); /* a wait, multiplied by MARMOT_TEST_SLOW (test/run --slow) */

struct mm_bus *bus_to(const char *url, struct mm_err *err); /* open and connected, NULL with err */
bool bus_stream(struct mm_bus *b, const char *name, const char *subject, int64_t max_msgs, struct mm_err *err);
int bus_put(struct mm_bus *b, const char *subject, const void *data, size_t len, uint64_t token, struct mm_err *err);
bool bus_ack(struct mm_bus *b, struct mm_ack *ack, int ms, struct mm_err *err);     /* waits for the next one */
bool bus_next(struct mm_bus *b, struct mm_delivery *d, int ms, struct mm_err *err); /* the same */
bool bus_fill(struct mm_bus *b, const char *subject, int from, int count, size_t size, struct mm_err *err);
/* Publishes a JetStream API request without the bus's help: for what the bus does not do itself. */
int bus_api(struct mm_bus *b, const char *subject, const char *json, struct mm_err *err);

#endif
