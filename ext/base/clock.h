/* Time: monotonic for waits, wall clock for what people read. No decision
** about data rests on either. */
#ifndef MM_BASE_CLOCK_H
#define MM_BASE_CLOCK_H

#include <stdint.h>

int64_t mm_clock_mono_ms(void); /* CLOCK_MONOTONIC */
int64_t mm_clock_mono_us(void);
int64_t mm_clock_wall_ms(void); /* since 1970, UTC */

/* "2025-01-31T12:00:00.000Z" of a wall time; `out` holds at least 25 bytes. */
void mm_clock_format(int64_t wall_ms, char out[25]);

#endif
