/*
 * moves.h - what moves of descriptors have to come to (csrc/spawn/fdmap.c), on a simulated table.
 */
#ifndef MOVES_H
#define MOVES_H

#include "support.h"

#define MOVES_NUMBERS 256

/* Is this the target of one of them? */
bool moves_have_target(const struct fsp_move *moves, size_t n, int fd);
/* Are they made as if all at once, where the numbers below `open` are open? */
bool moves_hold(const struct fsp_move *moves, size_t n, int open);

#endif
