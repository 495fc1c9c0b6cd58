/*
 * fdmap.c - place descriptors as if all at once.
 *
 * dup2() moves one descriptor at a time and overwrites its target, so (1 -> 2, 2 -> 1) needs an
 * order and a spare.  This is the parallel-move problem of compilers: make every move whose
 * target no other waiting move still reads; when only cycles are left, save one source out of
 * the way and go on.  A cycle's source has one reader (targets are distinct and every branch of
 * the graph was made before), so one spare at a time is enough.
 *
 * A move onto itself is only told to survive exec: dup2(n, n) would leave close-on-exec set.
 *
 * Pure code, async-signal-safe: it also runs in the child.
 */
#include "internal.h"

static FSP_UNINSTRUMENTED bool is_read(const struct fsp_move *moves, size_t n, size_t except,
                                       int fd) {
    for (size_t i = 0; i < n; i++)
        if (i != except && moves[i].source == fd) return true;
    return false;
}

FSP_UNINSTRUMENTED size_t fsp_fdmap_order(struct fsp_move *moves, size_t n, struct fsp_fdop *ops) {
    size_t made = 0;
    for (size_t i = 0; i < n;) {
        if (moves[i].source != moves[i].target) {
            i++;
            continue;
        }
        /* Nothing writes to this number (targets are distinct): the order is free, and other
         * moves may read it before or after. */
        ops[made++] = (struct fsp_fdop){FSP_FD_KEEP, moves[i].source, moves[i].target};
        moves[i] = moves[--n];
    }
    while (n > 0) {
        bool progress = false;
        for (size_t i = 0; i < n;) {
            if (is_read(moves, n, i, moves[i].target)) {
                i++;
                continue;
            }
            ops[made++] = (struct fsp_fdop){FSP_FD_DUP, moves[i].source, moves[i].target};
            moves[i] = moves[--n];
            progress = true;
        }
        if (progress || n == 0) continue;
        ops[made++] = (struct fsp_fdop){FSP_FD_SAVE, moves[0].source, -1};
        moves[0].source = FSP_FD_SAVED;
    }
    return made;
}
