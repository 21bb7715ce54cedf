/* Hook capture: every row change of a connection, into the outbox, inside the
** application's own transaction (SPEC 2).
**
** Threads: a struct mm_hook belongs to one connection and runs on whatever
** thread uses that connection; `note` is called there too. The hook calls no
** code of ours above store/.
** Ownership: attached to the connection; freed by the destructor of its
** modules when the connection closes. */
#ifndef MM_CAPTURE_HOOK_H
#define MM_CAPTURE_HOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

struct mm_hook;

enum mm_hook_note {
    MM_NOTE_COMMIT,     /* a captured transaction was committed: wake the publisher */
    MM_NOTE_UNCAPTURED, /* this connection is not captured from now on; `why` says it */
    MM_NOTE_CLOSED,     /* the connection closed; the hook is about to be freed */
};

/* Called on the application's thread, must be quick, no SQL, no lock that is
** ever held over SQL. `why` is for UNCAPTURED. */
typedef void mm_hook_listener(void *arg, enum mm_hook_note note, const char *why);

/* True when this SQLite offers the preupdate hook for handles of this api
** table (symbols found in the same object, SPEC 2). `why` gets the reason
** when not (static text). */
bool mm_hook_available(const char **why);

/* True when `db` has a preupdate hook of the application (found without
** harm: EXPLAIN DELETE shows OP_Clear if and only if there is none). */
bool mm_hook_taken(sqlite3 *db, struct mm_err *err);

/* Installs modules and hook on `db`, whose main must hold our bookkeeping.
** Nothing is captured before mm_hook_attach succeeded. Changes the schema
** cookie when `late` (statements prepared before would truncate unseen).
** Where an authorizer denies our way into the transaction, TEMP triggers are
** tried. Returns NULL with err set; calling it twice on one connection returns
** the same object, and tries anew what UNCAPTURED was said of. */
struct mm_hook *mm_hook_attach(sqlite3 *db, bool late, mm_hook_listener *listener, void *arg, struct mm_err *err);

/* For connections at open time (auto-extension): runs no SQL; modules and
** hook are installed, bookkeeping is looked at by the first write. */
struct mm_hook *mm_hook_attach_early(sqlite3 *db, mm_hook_listener *listener, void *arg, struct mm_err *err);

/* Stops capturing; captured but uncommitted changes stay with their
** transaction. Used by marmot_stop/cleanup on the calling connection; all
** others see `capturing` in the head row at their next transaction. The hook
** itself stays where it is (the application may have set its own over it). */
void mm_hook_detach(struct mm_hook *h);

/* Forgets what is cached about tables (after marmot_watch and the like, on the
** calling connection; the others notice the schema cookie, which marmot_watch
** changes on purpose). */
void mm_hook_forget_tables(struct mm_hook *h);

#endif
