/* What the programs of named cases share: a world of one kind, steps in which
** nothing is left to chance, and checks that are counted.
**
** Threads: one. */
#ifndef MM_TEST_CASES_H
#define MM_TEST_CASES_H

#include "test/model/world.h"

void case_check(const char *name, bool good, const char *why);
int case_end(void); /* for main to return */

/* Not compressed; nodes 0: 2 or 3 of them. */
void case_open(struct world *w, int shards, int nodes, bool small_parts);
/* Settles it and closes it: the last check of a case. */
void case_finish(struct world *w, const char *name);

/* A step in which the clock stands still, and whose delivery brings `messages` (1 to 8). */
struct world_step case_step(enum world_act a, unsigned node, int messages);
void case_act(struct world *w, enum world_act a, unsigned node);   /* 7 messages */
void case_fold(struct world *w, unsigned node);                    /* delivers them, and folds */
void case_fold_each(struct world *w, unsigned node, int messages); /* at most so many, each in a batch of its own */
void case_turns(struct world *w, unsigned node);                   /* whole turns, until nothing is left to do */
void case_rest(struct world *w);                                   /* those of all nodes */
/* So many messages of a node at most meet this fate; returns how many. */
int case_met(struct world *w, int node, int most, enum net_fate fate);
/* The first stream loses what it has behind `end`, and `unaware` has not asked yet; whether it was lost. */
bool case_lose(struct world *w, int64_t end, int unaware);
/* What the node has to send is stored and acknowledged; it has not read any of it. */
void case_publish(struct world *w, unsigned node);

/* Its application's (formats as SQLite has them); a failure fails the world. */
bool case_run(struct world *w, int node, const char *fmt, ...);
int64_t case_answer(struct world *w, int node, const char *fmt, ...);

struct mm_shard *case_shard(struct world *w, int node); /* its first */
size_t case_pending(struct world *w, int node);         /* there */

#endif
