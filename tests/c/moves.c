/*
 * moves.c - see moves.h.
 *
 * The operations are made on a simulated table, twice: with copies that take the lowest free number
 * as fcntl gives it to child.c, and with the one spare number of backend_posix_spawn.c.
 */
#include "moves.h"

#define NUMBERS MOVES_NUMBERS
#define NOTHING (-1)

struct table {
    int file[NUMBERS];
    bool cloexec[NUMBERS];
};

/* Numbers below `open` are open, each a file of its own, all close-on-exec. */
static void fill(struct table *t, int open) {
    for (int i = 0; i < NUMBERS; i++) {
        t->file[i] = i < open ? i : NOTHING;
        t->cloexec[i] = true;
    }
}

static int lowest_free(const struct table *t) {
    int fd = 3;
    while (t->file[fd] != NOTHING) fd++;
    return fd;
}

/* Make the operations; false if one of them could not be made. */
static bool apply(struct table *t, const struct fsp_fdop *ops, size_t n, int spare, int *saves) {
    int saved = NOTHING;
    for (size_t i = 0; i < n; i++) {
        int from = ops[i].source == FSP_FD_SAVED ? saved : ops[i].source;
        if (from < 0 || from >= NUMBERS || t->file[from] == NOTHING) return false;
        switch (ops[i].kind) {
        case FSP_FD_SAVE:
            saved = spare ? spare : lowest_free(t);
            t->file[saved] = t->file[from];
            t->cloexec[saved] = true;
            ++*saves;
            break;
        case FSP_FD_KEEP:
            if (ops[i].source != ops[i].target) return false;
            t->cloexec[from] = false;
            break;
        default:
            if (from == ops[i].target) return false; /* dup3 refuses that */
            t->file[ops[i].target] = t->file[from];
            t->cloexec[ops[i].target] = false;
        }
    }
    return true;
}

bool moves_have_target(const struct fsp_move *moves, size_t n, int fd) {
    for (size_t i = 0; i < n; i++)
        if (moves[i].target == fd) return true;
    return false;
}

/* Everything has moved, and nothing else has changed below `open`. */
static bool moved(const struct table *t, const struct fsp_move *moves, size_t n, int open) {
    for (size_t i = 0; i < n; i++)
        if (t->file[moves[i].target] != moves[i].source || t->cloexec[moves[i].target])
            return false;
    for (int fd = 0; fd < open; fd++)
        if (!moves_have_target(moves, n, fd) && (t->file[fd] != fd || !t->cloexec[fd]))
            return false;
    return true;
}

bool moves_hold(const struct fsp_move *moves, size_t n, int open) {
    struct fsp_move consumed[NUMBERS];
    struct fsp_fdop ops[FSP_FDMAP_OPS(NUMBERS) + 1];
    struct table t;
    const int canary = 0x5ca1ab1e;
    if (n) memcpy(consumed, moves, n * sizeof *moves);
    ops[FSP_FDMAP_OPS(n)].source = canary;
    size_t made = fsp_fdmap_order(consumed, n, ops);
    if (made > FSP_FDMAP_OPS(n) || ops[FSP_FDMAP_OPS(n)].source != canary) return false;
    for (int spare = 0; spare < 2; spare++) {
        int saves = 0;
        fill(&t, open);
        if (!apply(&t, ops, made, spare ? NUMBERS - 1 : 0, &saves)) return false;
        if ((size_t)saves > n / 2 || made != n + (size_t)saves) return false;
        if (!moved(&t, moves, n, open)) return false;
    }
    return true;
}
