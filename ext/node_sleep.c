/* sleep_timeout: a node that has nothing to do stores a snapshot of what is new,
** disconnects, stops its child server, and waits for the next local commit or
** call. It keeps the lock. */
#include <poll.h>

#include "base/clock.h"
#include "node_int.h"

enum { LOOK_MS = 1000 };

/* Work is under way, or something came since the last look. A look at the snapshots is none: where the
** log has a bound of bytes there is one every second. */
static bool active(struct mm_node *n, bool changed)
{
    int64_t moved = 0;
    bool pending = n->unread_rows > 0;
    for (int k = 0; k < n->r.nshard; k++) {
        moved += n->r.shard[k].pos.seq;
        pending = pending || mm_pending_count(n->r.shard[k].pending) > 0;
    }
    bool came = changed || moved != n->sleep_moved;
    n->sleep_moved = moved;
    enum mm_node_state state = mm_node_state_now(n);
    bool works = n->task != NULL && mm_task_kind(n->task) != MM_TASK_KEEP;
    return came || pending || works || mm_node_sync_waiting(n) || (state != MM_NODE_LIVE && state != MM_NODE_OFFLINE);
}

int mm_node_sleep_timeout(struct mm_node *n, bool changed)
{
    int64_t now = mm_clock_mono_ms();
    if (n->config->sleep_timeout_ms == 0) {
        return -1;
    }
    bool ended = changed && n->keep_ended; /* such a look, which woke the thread */
    n->keep_ended = n->keep_ended && !ended;
    if (n->active_ms == 0 || active(n, changed && !ended)) {
        n->active_ms = now;
        n->rested = n->task != NULL && n->rested; /* the one under way counts for the next sleep, too */
    }
    int64_t left = n->active_ms + n->config->sleep_timeout_ms - now;
    if (left > 0) {
        return left < LOOK_MS ? (int)left : LOOK_MS;
    }
    if (n->task == NULL && !n->rested) {
        n->rested = true;
        mm_node_keep_rest(n);
    }
    return n->task != NULL ? LOOK_MS : 0; /* its end wakes the thread */
}

static bool open_again(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    while (!mm_worker_stopping(n->self) && mm_node_open_bus(n, &err) != SQLITE_OK) {
        mm_node_tell(n, MM_NODE_BLOCKED, err.msg);
        mm_node_close_bus(n);
        mm_node_wait_standby(n, MM_RETRY_MS);
        mm_err_init(&err);
    }
    return n->r.bus != NULL;
}

bool mm_node_sleep(struct mm_node *n)
{
    mm_node_unlink(n, "nothing happened for sleep_timeout");
    mm_node_close_bus(n);
    mm_node_tell(n, MM_NODE_SLEEPING, "nothing happened for sleep_timeout; the next local commit wakes it");
    mm_node_publish_status(n);
    int step = 1; /* a commit that is being written shows a little later */
    while (!mm_worker_awake(n->self) && !mm_node_changed(n)) {
        struct pollfd p = { .fd = mm_notify_fd(n->notify), .events = POLLIN };
        (void)mm_notify_arm(n->notify);
        (void)poll(&p, 1, step);
        step = mm_notify_take(n->notify) ? 1 : step * 2 > LOOK_MS ? LOOK_MS : step * 2;
    }
    n->active_ms = 0;
    n->rested = false;
    n->offered = false;
    n->r.reload_needed = true;
    return open_again(n);
}
