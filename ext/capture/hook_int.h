/* What the files of the hook share: one connection's state.
**
** hook.c attaches and detaches, hook_kept.c keeps statements on the
** application's connection, hook_cache.c knows the tables, hook_row.c turns
** one row change into bytes, hook_doubt.c asks whether it came about,
** hook_txn.c follows transactions and savepoints, hook_known.c tells what need
** not be read again, hook_flush.c writes the outbox, hook_regroup.c orders a buffer by table,
** hook_temp.c joins where an authorizer denies the usual way, hook_settle.c mends what a schema change in
** the same transaction made stale. Nobody outside capture/ includes this. */
#ifndef MM_CAPTURE_HOOK_INT_H
#define MM_CAPTURE_HOOK_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "capture/hook.h"
#include "capture/host_sqlite.h"
#include "capture/spill.h"
#include "capture/tables.h"
#include "store/inbox.h"

#define MM_CAPTURE_MODULE "marmot_capture"
#define MM_GUARD_MODULE "marmot_guard"

/* A statement that outlives a transaction on a connection that is not ours:
** its host may finalize it at any time (a loop over sqlite3_next_stmt), and
** then `st` turns NULL by itself. */
struct mm_kept {
    sqlite3_stmt *st;
    bool moving; /* parameter 1 is being bound anew: its destructor means nothing */
    int reprepares;
};

enum mm_kept_id {
    MM_KEPT_JOIN,
    MM_KEPT_SPARE,
    MM_KEPT_HEAD,
    MM_KEPT_SCHEMA,
    MM_KEPT_PUT,
    MM_KEPT_NOTED,
    MM_KEPT_DOUBT,
    MM_KEPT_COUNT
};

/* One table as the connection last saw it. */
struct mm_entry {
    char *name;
    struct mm_table *t; /* NULL: not a table */
    bool capture;
    bool types_late; /* SQLite looks at the types of a row after it has told the hook of it (hook_doubt.c) */
    bool add;        /* watched because of watch_all: its watch message is still to be written */
    bool dead;       /* of an older schema, kept while this transaction names it */
    bool touched;    /* has records in the current transaction, the first at `first` */
    uint64_t first;
    uint8_t *pk; /* of each column, for group headers */
};

/* A place in the buffer that a savepoint returns to. */
struct mm_mark {
    uint64_t data;
    uint64_t names;
    const struct mm_entry *last;
    size_t nblob;
    uint64_t inserts;
    uint64_t deletes;
};

/* A row changed by blob I/O, whose new bytes are not there yet: its record. */
struct mm_blob_mark {
    struct mm_entry *entry;
    uint64_t at;
};

/* The last record, of a row that may not go after all: hook_doubt.c. */
struct mm_doubt {
    struct mm_entry *entry; /* NULL: none */
    sqlite3_int64 rowid;
    struct mm_mark before; /* the record */
    uint64_t end;
};

struct mm_hook {
    sqlite3 *db;
    const struct mm_host *host;
    mm_hook_listener *listener;
    void *arg;
    int refs; /* modules and connected tables that hold it */
    int modules;
    bool hooked;    /* the preupdate hook was set */
    bool on;        /* and captures */
    char *filename; /* of main at attach time */
    bool booked;    /* main held our bookkeeping once */
    bool told;      /* UNCAPTURED was said */

    struct mm_kept kept[MM_KEPT_COUNT];
    bool guarded;      /* the guard table is connected: statements may be kept */
    bool closing;      /* the connection closes: nothing may be kept or connected */
    bool schema_moved; /* seen when `next` was prepared again */

    struct mm_entry **entry;
    size_t nentry, entry_cap;
    struct mm_entry *recent;
    bool stale; /* the cache is to be forgotten */
    bool head_known;
    bool watch_all, capturing;
    bool stamping; /* every transaction is stamped, also one of unwatched tables */
    int brake;     /* MM_BRAKE_ */
    uint64_t size; /* captured bytes of the transaction that was written last */
    bool vouched;  /* what was written before this connection's first stamp was looked at */
    int64_t incarnation;

    bool joined;
    bool entered;         /* and ready to capture: the first row did that */
    bool temp_join;       /* TEMP triggers join: the authorizer denies the other way */
    char *left_to_guard;  /* the table whose guard asked last and notes its row itself; else NULL */
    bool skip;            /* decided: nothing of this transaction is captured */
    struct mm_err failed; /* why this transaction must not commit */
    struct mm_spill data, names;
    struct mm_spill noted, noted_names; /* taken from the log of triggers by this transaction's flush */
    struct mm_mark now;                 /* where the buffer ends */
    struct mm_mark *mark;               /* of each savepoint level */
    size_t nmark, mark_cap;
    struct mm_blob_mark *blob;
    size_t blob_cap;
    struct mm_doubt doubt;
    const struct mm_entry *asked; /* MM_KEPT_DOUBT is over its table */
    struct mm_value *row;         /* two rows of row_cap values: old and new */
    size_t row_cap;
    bool written; /* this transaction stands in the outbox, at `place` */
    struct mm_inbox_end place;
    struct mm_inbox_end end; /* where the inbox ended after this connection's last commit */

    /* hook_known.c */
    bool known;       /* head row, log and end are as this connection's last commit left them, */
    uint32_t version; /* if this is still the version of main */
    bool trusted;     /* so it was when the transaction began */
    bool touched;     /* the bookkeeping was written by this connection since its last such transaction */
    bool flushed;     /* and what was written then has made all of it known */
};

/* hook.c: frees it with the last reference. */
void mm_hook_release(struct mm_hook *h);

/* hook_kept.c. A statement is NULL with err set; every use ends with
** mm_kept_done, which forgets bound bytes and finalizes what must not be kept. */
sqlite3_stmt *mm_kept_get(struct mm_hook *h, enum mm_kept_id id, struct mm_err *err);
void mm_kept_done(struct mm_hook *h, enum mm_kept_id id);
/* True when SQLite prepared it again, or we did, since the last call. */
bool mm_kept_reprepared(struct mm_hook *h, enum mm_kept_id id);
void mm_kept_drop(struct mm_hook *h, enum mm_kept_id id);
void mm_kept_drop_all(struct mm_hook *h);
/* Has join and spare at hand before the first write needs them. */
void mm_kept_prepare(struct mm_hook *h, struct mm_err *err);
/* Interrupts and steps the spare: the running statement and its transaction
** fail. False when the spare could not do it. */
bool mm_hook_veto(struct mm_hook *h);
/* Reads the head row into h. Sets h->schema_moved. Returns err->rc. */
int mm_hook_head(struct mm_hook *h, struct mm_err *err);

/* Steps a statement on the schema alone: sets h->schema_moved. */
void mm_hook_schema(struct mm_hook *h, struct mm_err *err);

/* hook_known.c. Reading back what nobody else has changed costs a good part of
** a small commit. begin: a transaction joins; commit: it has ended so; forget:
** whatever was known is not any more. */
void mm_known_begin(struct mm_hook *h);
bool mm_known(const struct mm_hook *h);
void mm_known_commit(struct mm_hook *h);
void mm_known_forget(struct mm_hook *h);

/* hook_cache.c */
/* True when triggers alone capture the table, which this connection need not do then. */
bool mm_hook_by_triggers(struct mm_hook *h, const char *table, struct mm_err *err);
struct mm_entry *mm_cache_get(struct mm_hook *h, const char *table, int nstored, struct mm_err *err);
void mm_cache_forget(struct mm_hook *h);
void mm_cache_end(struct mm_hook *h, bool committed); /* of a transaction */
void mm_cache_free(struct mm_hook *h);

/* hook_temp.c: TEMP triggers on the watched tables as they are now. False when
** not every write of each of them joins by these, or err is set. */
bool mm_hook_temp_join(struct mm_hook *h, struct mm_err *err);

/* hook_row.c */
mm_preupdate_fn mm_hook_row;
/* Puts the group header before a record of e, when it is due. */
void mm_row_group(struct mm_hook *h, struct mm_entry *e);

/* hook_doubt.c. due: a row that is said to go may stay; keep: it was just recorded; next: the hook is called
** again, for that row; settle: the transaction is to be written. */
bool mm_doubt_due(const struct mm_hook *h, const struct mm_entry *e);
void mm_doubt_keep(struct mm_hook *h, struct mm_entry *e, sqlite3_int64 rowid, const struct mm_mark *before);
void mm_doubt_next(struct mm_hook *h, int op, const char *schema, const char *table, sqlite3_int64 rowid);
void mm_doubt_settle(struct mm_hook *h, struct mm_err *err);
char *mm_doubt_sql(const struct mm_hook *h); /* sqlite3_free */

/* hook_read.c. True when the key names one row: there is one, and no NULL in it. */
bool mm_row_identity(const struct mm_table *t, const struct mm_value *row);
/* hook_read.c: the row of main.<t> whose key columns (or rowid, when not
** NULL) are these; values live in `a`. 1, or 0 when it is not there. */
int mm_row_read(sqlite3 *db, const struct mm_table *t, const struct mm_value *key, const sqlite3_int64 *rowid,
                struct mm_value *out, struct mm_arena *a, struct mm_err *err);

/* hook_txn.c */
extern const sqlite3_module mm_capture_module;
/* Brings this connection into its transaction; false when that failed and
** no preupdate value may be touched. */
bool mm_hook_join(struct mm_hook *h, const char *table);
/* The same for a guard, which asks before the row: a failure is reported, not
** said or turned into a veto. */
bool mm_hook_try_join(struct mm_hook *h, struct mm_err *err);
/* hook_guard.c: the function that guards ask, on this connection. */
int mm_hook_guard(struct mm_hook *h);
void mm_hook_cut(struct mm_hook *h, const struct mm_mark *to);
void mm_hook_say_uncaptured(struct mm_hook *h, const char *why);
int mm_hook_disconnect(sqlite3_vtab *v);
int mm_hook_connect(sqlite3 *db, void *arg, int argc, const char *const *argv, sqlite3_vtab **out, char **msg);

/* hook_flush.c: writes the buffer to the outbox. Returns err->rc. */
int mm_hook_flush(struct mm_hook *h, struct mm_err *err);

/* hook_settle.c: after a schema change, the buffer by the definitions as they
** are now, into `data` and `names`. False when it can stay as it is. */
bool mm_hook_settle(struct mm_hook *h, struct mm_spill *data, struct mm_spill *names, struct mm_err *err);

/* hook_regroup.c: a buffer whose tables take turns, with one header and one set
** of names for each table. Order holds within a table; across tables it never
** counts. Returns err->rc. */
int mm_hook_regroup(const uint8_t *bytes, uint64_t len, const uint8_t *names, uint64_t names_len, struct mm_spill *out,
                    struct mm_spill *out_names, struct mm_err *err);

struct mm_hook_vtab {
    sqlite3_vtab base;
    struct mm_hook *h;
};

#endif
