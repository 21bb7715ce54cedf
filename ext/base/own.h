/* Marks connections that this library opens for itself: while a thread has
** said so, the entry for every new connection of the process leaves those of
** this thread alone. */
#ifndef MM_BASE_OWN_H
#define MM_BASE_OWN_H

#include <stdbool.h>

void mm_own_connection(bool mine); /* of the calling thread */
bool mm_own_connection_now(void);

#endif
