/* outbox_max_bytes: what waits for the log beyond it is told, and slows down or
** refuses what would come on top (outbox_full). What triggers note while nothing of
** ours runs finds its bounds in the database (store/log.h). */
#include <stdio.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "store/log.h"
#include "store/outbox.h"
#include "store/stray.h"

enum { AGAIN_PERCENT = 90, LOOK_MS = 100, ROOM_PARTS = 16 };

static int64_t waiting(const struct mm_node *n)
{
    int64_t bytes = n->unread_bytes;
    for (int k = 0; n->r.shard != NULL && k < n->r.nshard; k++) {
        bytes += mm_pending_bytes(n->r.shard[k].pending);
    }
    return bytes;
}

static const char *effect(enum mm_outbox_full how)
{
    return how == MM_FULL_REFUSE ? "captured COMMITs fail"
           : how == MM_FULL_SLOW ? "captured COMMITs take longer"
                                 : "local writes go on and need disk";
}

/* mu held, or on the node's thread. */
void mm_node_full_text(const struct mm_node *n, char out[MM_FULL_TEXT])
{
    (void)snprintf(out, MM_FULL_TEXT,
                   "the outbox holds %lld bytes, more than outbox_max_bytes (%lld): %s until the log has taken them; "
                   "start or reach the NATS server, or raise outbox_max_bytes",
                   (long long)n->full_bytes, (long long)n->config->outbox_max_bytes, effect(n->config->outbox_full));
}

/* And how much triggers may note while nothing of ours runs. */
static bool set_brake(struct mm_node *n, int brake, int64_t room)
{
    sqlite3 *db = n->r.db;
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    if (mm_head_brake(db, &err) != brake || mm_log_room(db, &err) != room) {
        mm_db_exec(db, &err, "BEGIN IMMEDIATE");
        bool begun = err.rc == SQLITE_OK;
        mm_head_set_brake(db, brake, &err);
        mm_log_set_room(db, room, &err);
        if (begun) {
            mm_stray_end(db, &err);
        }
    }
    mm_gate_leave();
    return err.rc == SQLITE_OK; /* else it is tried again */
}

static int brake_of(const struct mm_node *n)
{
    return n->full_bytes == 0                         ? MM_BRAKE_OFF
           : n->config->outbox_full == MM_FULL_REFUSE ? MM_BRAKE_REFUSE
           : n->config->outbox_full == MM_FULL_SLOW   ? MM_BRAKE_SLOW
                                                      : MM_BRAKE_OFF;
}

/* While the node runs it moves what triggers note: the log alone has all the room,
** so that a large transaction of a foreign writer fits, whatever waits. */
void mm_node_full_leave(struct mm_node *n)
{
    struct mm_err err;
    int64_t most = n->config->outbox_max_bytes;
    mm_err_init(&err);
    if (!n->linked && !n->r.reload_needed) {
        mm_gate_enter();
        mm_outbox_count(n->r.outbox, &n->counted, &n->unread_rows, &n->unread_bytes, &err);
        mm_gate_leave();
    }
    int64_t bytes = waiting(n);
    if (bytes >= most / ROOM_PARTS && n->brake_known) {
        n->brake_known = false;
        (void)set_brake(n, brake_of(n), bytes < most ? most - bytes : 0);
    }
}

void mm_node_full_step(struct mm_node *n)
{
    int64_t now = mm_clock_mono_ms();
    int64_t most = n->config->outbox_max_bytes;
    if (now < n->next_full_look_ms) {
        return;
    }
    n->next_full_look_ms = now + LOOK_MS;
    int64_t bytes = waiting(n);
    bool was = n->full_bytes > 0;
    bool full = bytes > (was ? most / 100 * AGAIN_PERCENT : most);
    (void)pthread_mutex_lock(&n->mu);
    n->full_bytes = full ? bytes : 0;
    (void)pthread_mutex_unlock(&n->mu);
    if (!n->brake_known || full != was) {
        n->brake_known = set_brake(n, brake_of(n), most);
    }
    if (full && !was) {
        char why[MM_FULL_TEXT];
        mm_node_full_text(n, why);
        mm_log(MM_LOG_WARN, "node %lld: %s", (long long)n->config->node_id, why);
    } else if (was && !full) {
        mm_log(MM_LOG_INFO, "node %lld: the outbox is below outbox_max_bytes again", (long long)n->config->node_id);
    }
}
