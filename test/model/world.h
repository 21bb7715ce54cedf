/* A small cluster in one process: real databases, real capture, pending,
** publisher and applier; the network and the clock are doubles. One function
** runs one step; the checks compare with the naive fold.
**
** Threads: one. A world that failed says why once and does nothing more. */
#ifndef MM_TEST_WORLD_H
#define MM_TEST_WORLD_H

#include "repl/applier.h"
#include "repl/publisher.h"
#include "snapshot/diff.h"
#include "test/lib/naive_fold.h"
#include "test/model/bus_double.h"
#include "test/model/faults.h"

enum {
    WORLD_NODES = 4,
    WORLD_SHARDS = 2,
    WORLD_TABLES = 11,
    WORLD_KINDS = 2,
    WORLD_ALL = WORLD_TABLES + 1 /* with one that no node begins with */
};

struct mm_reconcile;

/* Work on a copy of the cluster's content beside a node, as ext/snapshot/task.c does it. */
struct world_bring {
    enum { BRING_NOT, BRING_OPEN, BRING_READY } stage;
    bool tables; /* for those that wait for a copy */
    bool mend;   /* to find what was written past the capture, */
    int64_t mend_rows;
    struct mm_reconcile *mender;
    int64_t epoch;   /* of the snapshot */
    int64_t dropped; /* messages that the log had let go then */
    bool passed;     /* something was written past the capture behind the comparison */
    bool altered;    /* a table got a column since this began */
    int64_t upto;    /* outbox id at the comparison */
    bool due;        /* the log has gone on without this node: nothing else is done before */
    bool lost;       /* or the log has lost what it had folded */
    bool held;
    struct mm_scratch scratch; /* of BRING_OPEN */
    struct mm_work work;
    struct mm_diff diff; /* of BRING_READY */
};

enum world_rejoin { REJOIN_NOT, REJOIN_ADOPT, REJOIN_MERGE };

struct world_node {
    char path[128];
    int64_t id;
    sqlite3 *app;
    bool open;     /* a transaction of the application is open */
    bool hurt;     /* something failed in it */
    bool unhooked; /* nothing is captured any more, and why */
    char why[256];
    struct mm_repl r;
    struct mm_applier *applier;
    struct naive base[WORLD_SHARDS]; /* what the log says at the node's positions */
    uint64_t seen_writes;            /* of the file, and positions, at the last comparison */
    int64_t seen_seq[WORLD_SHARDS];
    sqlite3_stmt *read[WORLD_SHARDS][WORLD_ALL];
    bool has_backup;
    size_t backup_commits;
    int64_t backup_astray[WORLD_SHARDS];
    bool past, past_again; /* something was written past the capture; since it was last compared */
    bool backup_past;
    enum world_rejoin rejoin; /* into an epoch that lacks what is here */
    enum world_rejoin again;  /* and with those of a table that it has left and watches again */
    bool newcomer, bare;      /* it came later; without a table */
    enum world_rejoin join;   /* what becomes of the rows that it came with, NOT = it came without */
    struct world_bring bring;
    int64_t astray[WORLD_SHARDS]; /* from here on the log has lost what it has folded, 0 = no such place */
};

struct world_commit {
    uint8_t txid[MM_TXID_SIZE];
    int node;
    bool touches[WORLD_SHARDS];
    bool optional; /* its database was set back behind it */
};

struct world {
    struct net *net;
    int shards, nnode;
    int kind;                                      /* 0: the cluster began with rows in its tables, 1: without */
    struct naive_def def[WORLD_SHARDS][WORLD_ALL]; /* the tables of each shard */
    int ndef[WORLD_SHARDS];
    int64_t incarnations; /* given so far */
    struct world_node node[WORLD_NODES];
    struct world_commit *commit;
    size_t ncommit;
    int64_t part_size;
    bool compress;
    bool copied, alone;              /* a file was copied; none is any more */
    bool again;                      /* some table began anew, or waited for a copy */
    bool shapes;                     /* tables get columns, at each node in its own time, */
    bool grown[WORLD_ALL][2];        /* these */
    bool born;                       /* the last table is there, on some node */
    bool lost;                       /* the log has lost its end: nothing leaves an outbox any more */
    bool jumped;                     /* some node took content from a copy, in which no conflicts are */
    const struct world_node *seeder; /* who has begun a new epoch, NULL = nobody; it counts when epoch is above 1 */
    int64_t epoch;                   /* 1, or the one that a node has seeded: */
    struct {                         /* of each shard where it begins, and with what */
        int64_t at;
        struct naive base;
    } seed[WORLD_SHARDS];
    struct mm_manifest *kept[2]; /* the newest snapshot and the one before, NULL = none */
    bool failed;
    char why[512];
    long folded, reloads, busy, conflicts, brought, mended, newcomers, rejoined, came_back, altered,
        made; /* for the summary */
};

enum world_act {
    WORLD_WRITE,
    WORLD_PUMP,
    WORLD_TAKE,  /* the server meets messages under way */
    WORLD_STRAY, /* the same for connections that were cut */
    WORLD_DELIVER,
    WORLD_APPLY,
    WORLD_BREAK, /* folds, and is interrupted somewhere */
    WORLD_ACK,
    WORLD_FLUSH,
    WORLD_CUT, /* the connection is lost */
    WORLD_RESTART,
    WORLD_HOLD, /* the application keeps a write transaction open, or ends it */
    WORLD_TIME,
    WORLD_TURN, /* a whole turn of the loop, nothing goes wrong */
    WORLD_BACKUP,
    WORLD_SETBACK,
    WORLD_COPY,   /* the file is copied: one node more */
    WORLD_POLICY, /* a column gets another rule */
    WORLD_OLD,    /* a message of another epoch arrives */
    WORLD_END,    /* a node ends what it holds parts of, also where they still come */
    WORLD_AGAIN,  /* a table begins anew: its log is read a second time */
    WORLD_SNAPSHOT,
    WORLD_PURGE, /* the log forgets what the older snapshot holds */
    WORLD_BRING, /* one step of a node's taking the cluster's content from a snapshot and the log */
    WORLD_LOSE,  /* the server loses the end of a stream, behind some snapshot */
    WORLD_LACK,  /* a table has lost its content and waits for a copy */
    WORLD_NEW,   /* a node begins with an empty file, empty tables, or rows of its own */
    WORLD_SEED,  /* a node begins a new epoch with what it holds */
    WORLD_PAST,  /* somebody writes to a node's file past the capture */
    WORLD_WATCH, /* a node leaves a table, or watches it again */
    WORLD_ALTER, /* a table of a node gets a column */
    WORLD_DROP,  /* it drops one */
    WORLD_MAKE,  /* it makes one: anew, or one that no node began with */
    WORLD_ACTS
};

struct world_step {
    enum world_act act;
    unsigned node;
    uint64_t seed; /* of what it does in detail */
};

/* Once a process, before the first call into SQLite: files in memory, and the
** database that all nodes begin with. */
void world_prepare(void);

void world_open(struct world *w, uint64_t seed);
void world_close(struct world *w);
/* What a node learns at its first write and message is learnt now. */
void world_warm(struct world *w);
void world_seed(uint64_t seed); /* of all that SQLite draws by chance */
/* One step without the comparisons. */
void world_act(struct world *w, const struct world_step *s);
/* The same, and the nth of a kind goes wrong in it; a process that died is
** started again. False: there were not so many. */
bool world_act_faulty(struct world *w, const struct world_step *s, enum fault kind, long nth);
/* A table begins anew (its index in world_tables). False: not now, something is pending. */
bool world_again(struct world *w, struct world_node *n, int table);
void world_check_now(struct world *w, const struct world_step *s);
/* All that is pending on the node, undone, leaves what the log says; so it does when it is done
** again before. In a transaction that is rolled back; false: nothing was pending, or not now. */
bool world_check_undo(struct world *w, struct world_node *n);
struct world_node *world_node_of(struct world *w, const struct world_step *s);
void world_step(struct world *w, const struct world_step *s);
/* Nothing goes wrong any more: until all is published and folded; then the
** last comparisons. */
void world_settle(struct world *w);
/* At rest: some table begins anew while its application writes on; then the same once more. */
void world_read_again(struct world *w, uint64_t seed);

const char *world_act_name(enum world_act a);
uint64_t world_random(uint64_t *state);

#endif
