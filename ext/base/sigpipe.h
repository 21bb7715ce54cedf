/* Keeps SIGPIPE from the host where its own thread uses a connection: OpenSSL
** writes to sockets with write(), and a server that goes away at that moment
** would end a host that left the signal as it is.
**
** Threads: begin and end in the same one, in pairs that may nest. Not needed in
** threads of ours, which block all signals. */
#ifndef MM_BASE_SIGPIPE_H
#define MM_BASE_SIGPIPE_H

#include <signal.h>
#include <stdbool.h>

struct mm_sigpipe {
    sigset_t before;
    bool pending; /* one waited already: the host's own */
};

void mm_sigpipe_begin(struct mm_sigpipe *s);
void mm_sigpipe_end(struct mm_sigpipe *s); /* forgets one that came meanwhile */

#endif
