#include "base/own.h"

static _Thread_local bool own;

void mm_own_connection(bool mine)
{
    own = mine;
}

bool mm_own_connection_now(void)
{
    return own;
}
