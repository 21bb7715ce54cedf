/* What the files of the world share: world.c steps, world_faulty.c those that go wrong,
** world_node.c a node's loop, world_snapshot.c, world_bring.c and world_mend.c its tasks, world_check.c
** compares, world_undo.c what is undone, world_write.c the application, world_watch.c,
** world_shape.c and world_anew.c its tables, world_sql.c its statements.
** Nobody else includes this. */
#ifndef MM_TEST_WORLD_INT_H
#define MM_TEST_WORLD_INT_H

#include "base/clock.h"
#include "repl/join.h"
#include "test/model/world.h"

/* Ends the program: the test cannot be made. */
void world_need(bool good, const char *what);
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

extern const struct naive_def world_tables[WORLD_ALL];
extern bool world_usable[WORLD_ALL]; /* this library replicates such tables */
extern const char world_schema[], world_rows[];
extern const char *const world_younger[2]; /* what tables may get: the last two columns of their definition */
#define WORLD_CLUSTER "00000000000000000000000000000001"

/* world_first.c */
struct world_founding {
    const char *path;
    uint8_t message[4096];
    size_t len;
};
const struct world_founding *world_founding(int kind);

/* world.c */
int64_t world_incarnation(struct world *w); /* a new one */
/* Opens the file at n->path as a node. */
void world_node_begin(struct world *w, struct world_node *n, int64_t id);

/* world_check.c */
void world_read_first(sqlite3 *db, int kind); /* what all begin with */
const struct naive_table *world_first(const struct world *w, int table);
void world_begin_base(struct world *w, int shard, struct naive *base);
void world_advance(struct world *w, int shard, struct naive *base, int64_t to);
void world_check_node(struct world *w, struct world_node *n, const char *when);
void world_check_states(struct world *w, struct world_node *n);
void world_check_commits(struct world *w);
void world_check_content(struct world *w, sqlite3 *db, int shard, int64_t seq, const char *what);
void world_check_parts(struct world *w, int shard);
void world_check_conflicts(struct world *w);

/* world_old.c: what would be the next message of some origin, were it not of another epoch. */
void world_old_message(struct world *w, uint64_t seed);

/* world_node.c */
sqlite3 *world_connect(const char *path);
void world_node_open(struct world *w, struct world_node *n);
void world_node_warm(struct world *w, struct world_node *n);
void world_node_close(struct world_node *n);
void world_node_deliver(struct world *w, struct world_node *n, int count);
void world_node_apply(struct world *w, struct world_node *n);
void world_node_break(struct world *w, struct world_node *n, int after);
void world_node_pump(struct world *w, struct world_node *n);
void world_node_acks(struct world_node *n);
void world_node_flush(struct world *w, struct world_node *n);
void world_node_ends(struct world *w, struct world_node *n); /* of the streams, as they are now */
void world_node_follow_again(struct world_node *n);
void world_node_cut(struct world *w, struct world_node *n);
void world_node_restart(struct world *w, struct world_node *n);

/* world_snapshot.c */
extern const char *const world_kept_path[]; /* of w->kept */
extern const char world_fresh_path[];
void world_keep(struct world *w, const struct mm_manifest *m); /* the fresh one */
struct mm_repl_options world_options(const struct world *w, const struct world_node *n);
/* The log holds the messages that it ends with. */
bool world_snapshot_usable(const struct world *w, const struct mm_manifest *m);
void world_snapshot(struct world *w, struct world_node *n);
void world_purge(struct world *w);
void world_snapshots_close(struct world *w);
void world_lose(struct world *w, uint64_t seed);
void world_lack(struct world *w, struct world_node *n, uint64_t seed);

/* world_bring.c */
/* `begin`: where nothing is under way. */
void world_bring(struct world *w, struct world_node *n, bool begin, uint64_t seed);
void world_bring_end(struct world_node *n);
/* The node has folded what the log has lost, and cannot be compared. Ask after each
** reload: it may have stored nothing of it. */
bool world_astray(const struct world *w, struct world_node *n);
/* It must, and does nothing else before; look: after a connection, if so. */
void world_bring_due(struct world_node *n, bool lost);
void world_bring_look(struct world *w, struct world_node *n);
/* Something is under way, or is to be. */
bool world_brings(const struct world *w, struct world_node *n);

/* world_new.c */
struct mm_join_options world_join_options(const struct world_node *n);
void world_record(struct world *w); /* the cluster's, before anybody asks for it */
enum world_newcomer { NEW_BARE, NEW_EMPTY, NEW_ADOPTS, NEW_MERGES, NEW_KINDS };
void world_new(struct world *w, enum world_newcomer kind, uint64_t seed);
/* One that has not joined tries to: true when it needs a copy for that. */
bool world_join(struct world *w, struct world_node *n);

/* world_epoch.c */
void world_seed_epoch(struct world *w, struct world_node *n, uint64_t seed);
/* The cluster goes on in an epoch that the node is not in. */
bool world_epoch_due(struct world *w, struct world_node *n);
void world_epoch_refused(struct world_node *n, uint64_t seed);
void world_epoch_rejoined(struct world *w, struct world_node *n);

/* world_mend.c */
/* README: a table that came with rows is compared once a snapshot holds it, and until then the node that began
** it takes none if something was written past its capture. */
bool world_may_pass(struct world *w, struct world_node *n);
void world_past(struct world *w, struct world_node *n, uint64_t seed);
/* True when all is done; false with SQLITE_BUSY: once more. */
bool world_mend_step(struct world *w, struct world_node *n, const char *copy, struct mm_err *err);

/* world_watch.c */
void world_watching(struct world *w, struct world_node *n, uint64_t seed); /* leaves a table, or comes back to one */
bool world_watch_all(struct world *w, struct world_node *n);               /* it comes back to all; false: to none */
bool world_watches(struct world *w, struct world_node *n, const char *table);
void world_watch_look(struct world *w, struct world_node *n); /* what ext/node_look.c does about tables */

/* world_shape.c */
void world_alter(struct world *w, struct world_node *n, uint64_t seed); /* a table of it gets a column */
bool world_alter_all(struct world *w, struct world_node *n);            /* all that any may get; false: it has them */
bool world_younger_sql(sqlite3 *db, const struct naive_def *d, const char *value, unsigned pick, char *out,
                       size_t size); /* false: it has none */

/* world_anew.c */
void world_anew_learn(sqlite3 *db); /* what the tables are made with */
bool world_has_table(sqlite3 *db, const char *name);
void world_create(struct world *w, struct world_node *n, uint64_t seed); /* a table that is not there */
bool world_create_all(struct world *w, struct world_node *n);            /* all that are not; false: it has them */
void world_drop(struct world *w, struct world_node *n, uint64_t seed);

/* world_control.c */
void world_policy(struct world *w, struct world_node *n, uint64_t seed);
void world_end_parts(struct world *w, struct world_node *n, uint64_t seed);

/* world_write.c: one transaction of the application (or a part of one). */
void world_write(struct world *w, struct world_node *n, uint64_t seed);
bool world_begin(struct world *w, struct world_node *n);
void world_end(struct world *w, struct world_node *n, bool keep);
void world_hold(struct world *w, struct world_node *n, uint64_t seed);
mm_coll_of world_coll; /* as the schema has them */
int64_t world_outbox_last(struct world_node *n);
/* The transactions behind this outbox id, which have just been committed. */
void world_remember(struct world *w, struct world_node *n, int64_t before);

/* world_sql.c */
void world_statement(struct world *w, struct world_node *n, sqlite3 *db, uint64_t *seed);

#endif
