/* Messages for tests of the wire: fixed samples (the golden files), random
** ones, and a comparison that knows what travels. */
#ifndef MM_TEST_MESSAGE_H
#define MM_TEST_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/wire.h"

struct message_sample {
    const char *name; /* of the golden file */
    void (*make)(struct mm_msg *m, struct mm_arena *a);
};
extern const struct message_sample message_samples[];
extern const size_t message_nsamples;

struct message_random { /* xorshift; the seed is printed by the caller */
    uint64_t state;
};
uint64_t message_next(struct message_random *r, uint64_t below);
/* A transaction of a few tables, all kinds of rows and values. */
void message_random_txn(struct message_random *r, struct mm_txn *txn, struct mm_arena *a);
void message_random(struct message_random *r, struct mm_msg *m, struct mm_arena *a);

/* True when `got` is what must arrive of `sent`; else why[128] says what differs. */
bool message_txn_same(const struct mm_txn *sent, const struct mm_txn *got, bool all_columns, char why[128]);
bool message_same(const struct mm_msg *sent, const struct mm_msg *got, char why[128]);

/* Reads every byte that a decoded message claims to have; returns a sum. */
uint64_t message_touch(const struct mm_msg *m);
uint64_t message_touch_txn(const struct mm_txn *txn);

/* "ok name" or "not ok name: why"; counts the failures. */
void check(bool good, const char *name, const char *why, ...) __attribute__((format(printf, 3, 4)));
int check_failures(void);

#endif
