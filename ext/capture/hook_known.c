/* What the last captured commit of this connection left need not be read again
** by the next: the head row, that the log of triggers is empty, where the inbox
** ends. SQLite itself says whether anybody has committed since (the version of
** main, by which it judges its own cache), and the hook whether this connection
** wrote to the bookkeeping in another way. */
#include "capture/hook_int.h"

static bool version_of_main(struct mm_hook *h, uint32_t *version)
{
    return sqlite3_file_control(h->db, "main", SQLITE_FCNTL_DATA_VERSION, version) == SQLITE_OK;
}

/* The write lock is held: the version stays until the commit, which counts it up. */
void mm_known_begin(struct mm_hook *h)
{
    uint32_t before = h->version;
    h->trusted = version_of_main(h, &h->version) && h->known && h->version == before;
    h->known = h->flushed = false;
}

bool mm_known(const struct mm_hook *h)
{
    return h->trusted && !h->touched;
}

void mm_known_commit(struct mm_hook *h)
{
    h->known = h->flushed;
    h->version++;
    h->touched = h->trusted = h->flushed = false;
}

void mm_known_forget(struct mm_hook *h)
{
    h->known = h->trusted = h->flushed = false;
}
