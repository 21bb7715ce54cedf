/* Limits of streams that were created with other ones. */
#include "base/log.h"
#include "node_int.h"

void mm_node_check_streams(struct mm_node *n)
{
    const struct mm_config *c = n->config;
    if (n->streams_checked) {
        return;
    }
    for (int k = 0; k < n->r.nshard; k++) {
        struct mm_err err;
        mm_err_init(&err);
        int differs = mm_bus_stream_limits(n->r.bus, n->r.shard[k].stream, c->log.max_bytes, (int)c->log.replicas,
                                           c->log.update_existing, MM_REQUEST_MS, &err);
        if (err.rc != SQLITE_OK) {
            mm_log(MM_LOG_WARN, "node %lld: the limits of stream %s stay as they are: %s", (long long)c->node_id,
                   n->r.shard[k].stream, err.msg);
        } else if (differs != 0 && c->log.update_existing) {
            mm_log(MM_LOG_INFO, "node %lld: stream %s has the configured limits now", (long long)c->node_id,
                   n->r.shard[k].stream);
        } else if (differs != 0) {
            mm_log(
                MM_LOG_WARN,
                "node %lld: stream %s was created with another replication_log.max_bytes or replicas, which stay: set "
                "replication_log.update_existing to change them",
                (long long)c->node_id, n->r.shard[k].stream);
        }
    }
    n->streams_checked = true;
}
