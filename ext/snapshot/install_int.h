/* What the files of the installation share: install.c writes rows and state,
** install_own.c looks what became of this node's own changes. Nobody else includes this. */
#ifndef MM_SNAPSHOT_INSTALL_INT_H
#define MM_SNAPSHOT_INSTALL_INT_H

#include "snapshot/install.h"

/* Before the copy's state takes the place of ours: what of our own the log has lost is
** sent again (SQLITE_MISMATCH where nobody has it any more), what has other numbers there
** is marked to move. */
void mm_install_own(struct mm_repl *r, const struct mm_install *in, struct mm_err *err);

#endif
