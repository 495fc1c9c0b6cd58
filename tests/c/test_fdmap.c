/*
 * test_fdmap.c - moves are made as if all at once, whatever their order and aliases.
 *
 * Each case runs the operations on a simulated table, twice: with copies that take the lowest free
 * number as fcntl gives it to child.c, and with the one spare number of backend_posix_spawn.c.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

#define NUMBERS 256
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

static bool is_target(const struct fsp_move *moves, size_t n, int fd) {
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
        if (!is_target(moves, n, fd) && (t->file[fd] != fd || !t->cloexec[fd])) return false;
    return true;
}

static bool holds(const struct fsp_move *moves, size_t n, int open) {
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

static void show(const struct fsp_move *moves, size_t n) {
    char text[1024] = "";
    size_t len = 0;
    for (size_t i = 0; i < n && len + 24 < sizeof text; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, " %d->%d", moves[i].source,
                                moves[i].target);
    tap_note("not made as if all at once:%s", text);
}

static bool expect(const struct fsp_move *moves, size_t n, int open) {
    bool ok = holds(moves, n, open);
    if (!ok) show(moves, n);
    return CHECK(ok);
}

/* Every list of `n` moves with distinct targets below `targets` and sources below `sources`. */
static bool every_list(struct fsp_move *moves, size_t at, size_t n, int targets, int sources) {
    if (at == n) return expect(moves, n, targets > sources ? targets : sources);
    for (int target = 0; target < targets; target++) {
        if (is_target(moves, at, target)) continue;
        for (int source = 0; source < sources; source++) {
            moves[at] = (struct fsp_move){source, target};
            if (!every_list(moves, at + 1, n, targets, sources)) return false;
        }
    }
    return true;
}

static void nothing_to_move(void) {
    expect(NULL, 0, 3);
}

static void every_list_of_up_to_four(void) {
    struct fsp_move moves[4];
    for (size_t n = 1; n <= 4; n++) every_list(moves, 0, n, 5, 6);
}

static void every_map_of_five(void) {
    struct fsp_move moves[5];
    int map[5];
    for (int code = 0; code < 5 * 5 * 5 * 5 * 5; code++) {
        for (int i = 0, rest = code; i < 5; i++, rest /= 5) map[i] = rest % 5;
        for (int i = 0; i < 5; i++) moves[i] = (struct fsp_move){map[i], i};
        if (!expect(moves, 5, 5)) return;
    }
}

static void stdout_and_stderr_swapped(void) {
    expect(
        (struct fsp_move[]){
            {1, 2},
            {2, 1}
    },
        2, 3);
}

static void a_cycle_with_branches(void) {
    expect(
        (struct fsp_move[]){
            {0, 1},
            {1, 2},
            {2, 0},
            {0, 9},
            {1, 8},
            {2, 7},
            {9, 6}
    },
        7, 10);
}

static void two_cycles_at_once(void) {
    expect(
        (struct fsp_move[]){
            {0, 1},
            {3, 4},
            {1, 0},
            {4, 5},
            {5, 3}
    },
        5, 6);
}

static void one_file_on_all(void) {
    expect(
        (struct fsp_move[]){
            {7, 0},
            {7, 1},
            {7, 2},
            {7, 7}
    },
        4, 8);
}

static void kept_numbers_are_sources_too(void) {
    expect(
        (struct fsp_move[]){
            {5, 0},
            {6, 1},
            {5, 5},
            {6, 6}
    },
        4, 7);
}

/* Targets that are not open yet must not be taken by a copy that still waits. */
static void a_cycle_and_numbers_not_open(void) {
    expect(
        (struct fsp_move[]){
            {0, 1},
            {1, 0},
            {2, 3},
            {2, 4}
    },
        4, 3);
}

static unsigned long draw(unsigned long *state, unsigned long below) {
    *state = *state * 6364136223846793005ul + 1442695040888963407ul;
    return (*state >> 33) % below;
}

static void random_lists(void) {
    unsigned long state = 1;
    for (int round = 0; round < 20000; round++) {
        struct fsp_move moves[64];
        size_t n = 1 + draw(&state, LENGTH(moves));
        int open = 64 + (int)draw(&state, 64);
        for (size_t i = 0; i < n;) {
            int target = (int)draw(&state, (unsigned long)open);
            if (is_target(moves, i, target)) continue;
            moves[i++] = (struct fsp_move){(int)draw(&state, (unsigned long)open), target};
        }
        if (!expect(moves, n, open)) return;
    }
}

static void random_permutations(void) {
    unsigned long state = 2;
    for (int round = 0; round < 5000; round++) {
        struct fsp_move moves[64];
        size_t n = 2 + draw(&state, LENGTH(moves) - 2);
        for (size_t i = 0; i < n; i++) moves[i] = (struct fsp_move){(int)i, (int)i};
        for (size_t i = n - 1; i > 0; i--) {
            size_t j = draw(&state, i + 1);
            int swap = moves[i].source;
            moves[i].source = moves[j].source;
            moves[j].source = swap;
        }
        if (!expect(moves, n, (int)n)) return;
    }
}

int main(void) {
    tap_begin();
    RUN(nothing_to_move);
    RUN(every_list_of_up_to_four);
    RUN(every_map_of_five);
    RUN(stdout_and_stderr_swapped);
    RUN(a_cycle_with_branches);
    RUN(two_cycles_at_once);
    RUN(one_file_on_all);
    RUN(kept_numbers_are_sources_too);
    RUN(a_cycle_and_numbers_not_open);
    RUN(random_lists);
    RUN(random_permutations);
    return tap_end();
}
