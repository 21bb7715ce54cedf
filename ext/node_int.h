/* What the files of the node share. node.c owns the thread and its loop,
** node_open.c what it opens and closes, node_look.c what the application did, node_stray.c what nothing captured, node_full.c an outbox that is full, node_link.c the server, the connection and the joining, node_sync.c the
** waiting callers, node_wake.c what it waits for, node_repair.c blocked shards, node_tell.c the state and its words, node_status.c all that is told, node_view.c copies of it. Nobody else includes this. */
#ifndef MM_NODE_INT_H
#define MM_NODE_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/notify.h"
#include "base/worker.h"
#include "bus/server.h"
#include "node.h"
#include "peers.h"
#include "repl/applier.h"
#include "repl/join.h"
#include "repl/open.h"
#include "repl/publisher.h"
#include "snapshot/reconcile.h"
#include "snapshot/task.h"

enum {
    MM_TICK_MS = 100, /* a turn at least this often, unless all is quiet */
    MM_GAP_US = 1000, /* between two turns, at least, unless it was quiet before */
    MM_GAP_OFFLINE_US = 50000,
    MM_FLUSH_MS = 1000,    /* nothing to apply: at most one write transaction in this time */
    MM_RETRY_MS = 1000,    /* joining, after a failure */
    MM_CONFLICT_MS = 5000, /* joining, after a verdict: somebody may have mended it */
    MM_STANDBY_MS = 100,   /* how often the lock is tried where the system does not tell of its release */
    MM_TRIM_ROWS = 5000,   /* outbox rows deleted in one transaction */
    MM_PART_HEAD = 4096,   /* bytes of a message around a part of a transaction, at most */
    MM_REQUESTS_MS = 20,   /* other processes' requests are looked for this often at most */
    MM_COUNT_MS = 200,     /* the outbox is counted this often while offline */
    MM_MOVE_MS = 200,      /* what triggers noted is moved this often at most */
    MM_STATUS_MS = 50,     /* the status is at most this old while much happens */
    MM_PARTS_WATCHED = 64, /* unfinished transactions; more wait for these to end */
};

/* A caller of marmot_sync, on its own stack; `mu` guards the list. */
struct mm_sync {
    struct mm_sync *next;
    uint64_t id;
    int64_t up_to;              /* outbox id */
    int64_t end[MM_SHARDS_MAX]; /* stream sequences, once begun */
    bool begun, done;
    uint64_t joins;    /* attempts to join when it was first seen, plus 1 */
    int64_t request;   /* row of another process's table, 0 = this process's */
    struct mm_err err; /* set when it cannot be done */
};

/* A call of marmot_retry or marmot_skip, on its caller's stack; `mu` guards it. */
struct mm_repair {
    int shard;
    int64_t seq;
    bool skip, done;
    struct mm_err err;
};

/* A call of marmot_snapshot or marmot_restore, on its caller's stack; `mu` guards it. */
struct mm_call {
    struct mm_call *next;
    enum mm_task_kind kind;
    bool begun, done;
    struct mm_err err;
    struct mm_buf answer;
};

/* A call of marmot_rejoin, on its caller's stack; `mu` guards it. */
enum mm_rejoin_how { MM_REJOIN_NOT, MM_REJOIN_SEED, MM_REJOIN_ADOPT, MM_REJOIN_MERGE };
struct mm_rejoin {
    enum mm_rejoin_how how;
    bool begun, done;
    int64_t since_ms;
    struct mm_err err;
    struct mm_buf answer;
};

/* A transaction whose last part has not come. */
struct mm_parts_watch {
    struct mm_part_row row;
    int64_t end_ms; /* monotonic: to be ended then, should no part come */
};

/* What a copy of the cluster's content is brought for. */
enum mm_purpose {
    MM_FOR_CALL,    /* marmot_restore: should it fail, the node is as it was */
    MM_FOR_RESTORE, /* the log has dropped what was not read here */
    MM_FOR_JOIN,
    MM_FOR_LOST,  /* the server lost what was folded here */
    MM_FOR_EPOCH, /* the cluster goes on in a newer epoch */
};

struct mm_node {
    char *path, *vfs;
    struct mm_config *config;
    struct mm_worker *worker;
    atomic_llong drain_until_ms; /* closing: go on until then, 0 = end at once */
    int lock_fd;

    pthread_mutex_t mu;
    pthread_cond_t told;
    enum mm_node_state state; /* mu, as all below it */
    char why[1024];
    int64_t since_ms;
    bool no_jetstream; /* the server is there, its JetStream is not */
    struct mm_sync *syncs;
    uint64_t next_sync;
    uint64_t asked;           /* the last of these before this turn's look */
    struct mm_repair *repair; /* one at a time: the caller's, NULL = none */
    struct mm_call *calls;    /* waiting for the long work, oldest first */
    struct mm_rejoin *rejoin; /* one at a time: the caller's, NULL = none */
    char last_error[512];
    struct mm_node_shard *shards; /* nshards of them, NULL before the first look */
    int nshards;
    char *tables_json;
    int64_t incarnation, epoch, pending_rows, pending_bytes;
    char url[256];
    int server_pid;
    struct mm_peers peers;          /* the other nodes, as they told */
    int64_t full_bytes;             /* of the outbox while it is beyond outbox_max_bytes, else 0 */
    int64_t strays;                 /* commits that nothing captured, not mended yet */
    bool guards_stopped;            /* among them what triggers left out */
    char hello_cluster[40];         /* the cluster's id, "" before joining */
    int64_t caught_up_ms;           /* monotonic: last at the end of every shard; 0 = not looked yet */
    atomic_llong connections;       /* made so far */
    atomic_llong connected_ms;      /* monotonic: the last one was made */
    atomic_bool ask_peers;          /* somebody wants to hear from all of them now */
    char no_snapshot[MM_HELLO_WHY]; /* node_warn.c: why this node takes none, "" = it may */
    char id_warning[320];           /* autoincrement; "" = none */
    char log_warning[400];          /* "" = there is room */
    bool warn_snapshot;             /* the last attempt did, and none was made since */

    /* The thread's own. */
    struct mm_worker *self;
    struct mm_notify *notify;
    bool log_watched;           /* writes to the write-ahead log wake the thread */
    sqlite3_stmt *version_stmt; /* tells whether another connection has committed */
    int64_t version, peek_at_us, peek_step_us, busy_until_ms;
    int64_t active_ms, sleep_moved; /* for sleep_timeout */
    bool rested, resting;           /* a snapshot before the sleep was thought of; is being begun */
    bool keep_ended;                /* a look at the snapshots, without an error: no activity */
    struct mm_repl r;
    struct mm_applier *applier;
    struct mm_server *server;
    struct mm_sync *remote; /* requests of other processes */
    int64_t remote_seen, next_requests_ms;
    char *settings;
    char bus_name[64];
    bool watch_all;
    bool linked;                   /* the connection's cluster and streams were checked */
    enum mm_node_state verdict;    /* JOIN_CONFLICT, DIVERGED or BLOCKED, else LIVE */
    struct mm_err problem;         /* why not live */
    struct mm_err publish_problem; /* something pending can never be sent as it is */
    struct mm_err outbox_problem;  /* the outbox cannot be read: nothing is published until it can */
    struct mm_err store_problem;   /* what is folded cannot be written here, at the last attempt */
    char store_error[512];         /* the last such error, of any kind */
    int store_wait_ms;
    bool silent; /* the server is there, its JetStream gives no answer: see problem */
    int64_t next_full_look_ms;
    bool brake_known; /* the head row says what full_bytes does */
    bool stamping;    /* strays are looked for */
    struct mm_inbox_end stray_end;
    int64_t next_stray_ms, strays_found; /* when the task began */
    bool triggers_due;                   /* they may be of an older schema */
    int64_t next_move_ms, next_ids_ms;
    bool replay_due; /* a table may wait for the log to be read again */
    bool watch_due;  /* new tables are still to be watched */
    int64_t next_connect_ms, next_join_ms, next_flush_ms, next_follow_ms, next_replay_ms, not_before_ms;
    int connect_wait_ms;
    struct mm_task *task;             /* node_task.c: long work under way, NULL = none; changed under mu */
    enum mm_purpose purpose;          /* of a copy that is brought, */
    enum mm_join_mode how;            /* and what becomes of rows that differ from it */
    struct mm_reconcile *reconcile;   /* node_reconcile.c: once the task is ready */
    enum mm_rejoin_how rejoining;     /* the call that is being worked on */
    struct mm_join_options task_join; /* of a seed */
    bool held;                        /* the task compares: nothing is folded, followed or sent */
    struct mm_err bring_why;          /* what made the copy necessary */
    int64_t next_bring_ms;
    int64_t install_at_ms; /* a long lock was told of: not before this; 0 = not told */
    int bring_wait_ms;
    struct mm_err bring_failed; /* of the last attempt, until one succeeds */
    bool bring_hopeless;        /* it ends by itself no more */
    /* node_tables.c: since when tables wait, when to try again, and with what it was tried. */
    int64_t tables_since_ms, next_tables_ms;
    int tables_wait_ms;
    bool tables_tried;
    char tables_newest[80];
    struct mm_bus_options task_bus;
    struct mm_store_options task_store;
    /* node_keep.c: what is known of the newest snapshot, and when to look again. */
    int64_t snap_seq[MM_SHARDS_MAX], older_seq[MM_SHARDS_MAX], snap_tables, snap_at_ms, next_keep_ms;
    int keep_wait_ms;
    bool snap_known, snapshot_fails;
    bool schema_look;                     /* it may have changed: compare */
    uint64_t schema_was, schema_to_store; /* of the watched tables; changed here and in no snapshot, 0 = none */
    int64_t next_warn_ms, next_full_ms, full_moved; /* node_warn.c */
    /* node_parts.c; quiet: since it was last unfit to end any, and a while more. */
    int64_t parts_keep_ms, parts_quiet_ms, next_parts_ms;
    struct mm_parts_watch parts[MM_PARTS_WATCHED];
    int nparts;
    char keep_error[512], lease_bucket[256];
    bool offered; /* a connection was tried at least once */
    bool nothing_watched;
    uint64_t joins; /* attempts so far */
    int64_t last_turn_us;
    int64_t counted, unread_rows, unread_bytes, next_count_ms; /* outbox rows beyond those read */
    int64_t told_moved, told_waiting, next_status_ms;
    enum mm_node_state told_state;
    bool listening, hello_due; /* what nodes tell; somebody asked */
    int64_t next_hello_ms;
    int64_t heard_epoch; /* the newest that others told of */
    char hello_state[32];
    bool streams_checked;
    int failed_connects;  /* in a row */
    int64_t next_trim_ms; /* cleanup_interval */
    struct mm_http *http; /* NULL: not wanted, or not now */
    bool http_enabled;
    int wake_fd; /* the waiting (node_wake.c) and the page's descriptor in one; -1 = no page */
    int64_t next_http_ms, page_ms;
    struct mm_buf page;
};

/* node_open.c. The lock: this process replicates the file; tried, not waited for. */
bool mm_node_take_lock(struct mm_node *n);
int mm_node_open_repl(struct mm_node *n, struct mm_err *err); /* database, bookkeeping in memory; gate held */
int mm_node_open_bus(struct mm_node *n, struct mm_err *err);  /* does not connect */
void mm_node_close_bus(struct mm_node *n);                    /* also what listens, and the child server */
void mm_node_close_all(struct mm_node *n);
struct mm_repl_options mm_node_repl_options(const struct mm_node *n);
struct mm_bus_options mm_node_bus_options(struct mm_node *n);     /* without extra_fd */
struct mm_store_options mm_node_store_options(struct mm_node *n); /* its bus: task_bus */

/* node_wake.c. Waits for work, at most wait_ms; the gate is not held. */
void mm_node_wait(struct mm_node *n, int wait_ms);
void mm_node_rest(struct mm_node *n);    /* between two turns */
int mm_node_tick(struct mm_node *n);     /* how long nothing needs to be looked at by the clock, ms */
bool mm_node_changed(struct mm_node *n); /* another connection has committed since the last call */
/* Takes the lock; else false, and how long to wait before the next attempt. */
bool mm_node_elect(struct mm_node *n, int *wait_ms);
void mm_node_wait_standby(struct mm_node *n, int wait_ms);

/* node_sleep.c. How long until the node may sleep, at least (0 = now, -1 = never);
** changed: another connection has committed. And the sleep:
** false when the node is to stop instead of going on. */
int mm_node_sleep_timeout(struct mm_node *n, bool changed);
bool mm_node_sleep(struct mm_node *n);

/* node_look.c. What the application did since the last turn; busy: next time. */
void mm_node_look(struct mm_node *n);
/* True when what is in memory is that of the database again. */
bool mm_node_reload(struct mm_node *n);
/* Behind each reading of the outbox: what was counted as unread is pending now, and not to be counted twice. */
void mm_node_all_read(struct mm_node *n);

/* node_link.c. Returns true when there is a connection whose streams are
** followed. May wait for the network; the gate is not held there. */
bool mm_node_link(struct mm_node *n);
void mm_node_unlink(struct mm_node *n, const char *why);
int mm_node_link_timeout(const struct mm_node *n);

struct mm_join_options mm_node_join_options(const struct mm_node *n);

/* node_sync.c */
void mm_node_sync_look(struct mm_node *n);    /* before the look of each turn */
void mm_node_sync_step(struct mm_node *n);    /* begins and ends what waits */
void mm_node_sync_restart(struct mm_node *n); /* this process takes over: what waits begins anew */
void mm_node_sync_standby(struct mm_node *n); /* asks the process that replicates */
bool mm_node_sync_waiting(struct mm_node *n);

/* node_peers.c: what nodes tell each other. */
void mm_node_peers_step(struct mm_node *n);
int mm_node_peers_timeout(const struct mm_node *n);
void mm_node_peers_farewell(struct mm_node *n);

/* node_task.c. A copy of the cluster's content is needed: begins to bring it, unless it
** was tried a moment ago. True: under way. `how`: STRICT refuses a copy that the rows
** here differ from (of a node that has joined they may), ADOPT takes the cluster's,
** MERGE keeps and sends those that exist only here; with these two a copy of a file
** that differs is kept, unless it is of a member that only comes up to the log. */
bool mm_node_bring(struct mm_node *n, enum mm_purpose p, enum mm_join_mode how, const struct mm_err *why);
void mm_node_task_step(struct mm_node *n);
void mm_node_task_end(struct mm_node *n); /* whatever is under way; callers get an error */

/* An epoch of this node's own: held from here on. */
bool mm_node_task_seed(struct mm_node *n, uint64_t token, struct mm_err *err);
void mm_node_task_close(struct mm_node *n); /* it is over, and the node goes on */
void mm_node_brought(struct mm_node *n);    /* the content is that of the cluster: live from here on */

/* node_rejoin.c: marmot_rejoin. */
void mm_node_rejoin_step(struct mm_node *n);  /* no task is under way */
void mm_node_rejoin_ready(struct mm_node *n); /* a SEED task is */
/* What it began came to its end, or could not be begun. */
void mm_node_rejoin_failed(struct mm_node *n, const struct mm_err *err);
void mm_node_rejoin_brought(struct mm_node *n, int64_t given_up);
void mm_node_remedy(const struct mm_node *n, struct mm_buf *out); /* mu held; JSON string */

bool mm_node_task_begin(struct mm_node *n, enum mm_task_kind kind, struct mm_err *err);

/* node_judge.c, in READY. Whether the copy may take the place of what is here, or be compared with it. */
int mm_node_judge(struct mm_node *n, struct mm_err *err);
/* True once a write lock that may be long was told for a while, or when it will not be long. */
bool mm_node_lock_told(struct mm_node *n);

/* node_reconcile.c. A task of that kind is ready: the next step of publishing what it
** found. True when it is over, with err set or without. */
bool mm_node_reconcile_step(struct mm_node *n, struct mm_err *err);

/* node_tables.c. Tables that join alone, with a copy: begins one when no task is under
** way; READY: true when it is over. */
void mm_node_tables_step(struct mm_node *n);
bool mm_node_tables_ready(struct mm_node *n);
void mm_node_tables_failed(struct mm_node *n, const struct mm_err *err);

/* node_keep.c. Snapshots that nobody asks for. */
struct mm_keep mm_node_keep(struct mm_node *n, struct mm_err *err);
void mm_node_keep_step(struct mm_node *n); /* no task is under way */
bool mm_node_keep_rest(struct mm_node *n); /* before a sleep: true when a snapshot is being taken */
void mm_node_kept(struct mm_node *n, const struct mm_err *err);

/* node_parts.c. Ends transactions of which no part has come for an hour. */
void mm_node_parts_open(struct mm_node *n);
void mm_node_parts_step(struct mm_node *n);

/* node.c */
void mm_node_flush(struct mm_node *n, bool now);

/* node_streams.c: once a start, while there is a connection. Waits for the network. */
void mm_node_check_streams(struct mm_node *n);

/* node_stray.c; the gate is held. known: what an earlier process left, before the
** thread runs. open: the database was opened. read: what is
** counted. look: counts more, if there is. begin (no gate): before a task, which it
** may forbid. mended: those that were known when the
** task began. leave: before the database is closed. */
enum { MM_STRAY_TEXT = 320 };
void mm_node_stray_known(struct mm_node *n, struct mm_err *err);
void mm_node_stray_open(struct mm_node *n, struct mm_err *err);
void mm_node_stray_read(struct mm_node *n, struct mm_err *err);
void mm_node_stray_look(struct mm_node *n, struct mm_err *err);
int mm_node_stray_begin(struct mm_node *n, enum mm_task_kind kind, struct mm_err *err);
void mm_node_stray_mended(struct mm_node *n, struct mm_err *err);
void mm_node_stray_leave(struct mm_node *n);
void mm_node_stray_text(const struct mm_node *n, char out[MM_STRAY_TEXT]);

/* node_full.c */
enum { MM_FULL_TEXT = 320 };
void mm_node_full_step(struct mm_node *n);
void mm_node_full_leave(struct mm_node *n); /* this process is about to replicate no more */
void mm_node_full_text(const struct mm_node *n, char out[MM_FULL_TEXT]);

/* node_http.c: the page for Prometheus. Open returns what the bus is to be woken by. */
int mm_node_http_open(struct mm_node *n);
void mm_node_http_step(struct mm_node *n);
void mm_node_http_close(struct mm_node *n);
void mm_node_http_each_fd(const struct mm_node *n, void (*f)(int fd));

/* node_repair.c */
void mm_node_repair_step(struct mm_node *n);

/* Why a node whose tables need not be the cluster's takes no snapshot and seeds nothing:
** told to the others, who do not name it in their remedy. */
#define MM_NOT_THE_CLUSTERS "publish or replicate is false in its configuration"
/* How that begins where a table of the cluster's list is not held there: no snapshot and no epoch begins with that. */
#define MM_LACKS_TABLE "table "

/* node_warn.c. What the status warns of; warnings: its JSON array, mu held. */
void mm_node_warn_step(struct mm_node *n);
void mm_node_warnings(struct mm_node *n, struct mm_buf *out);

/* node_tell.c. What was folded could not be written: the state says so; returns
** how long to leave the disk alone, ms. And it could again. */
int mm_node_not_stored(struct mm_node *n, const char *what, const struct mm_err *err);
void mm_node_stored(struct mm_node *n);
void mm_node_tell_state(struct mm_node *n); /* and, when there is news, all else of the status */

/* node_status.c */
void mm_node_tell(struct mm_node *n, enum mm_node_state s, const char *why);
void mm_node_publish_status(struct mm_node *n);

#endif
