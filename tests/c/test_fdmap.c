/*
 * test_fdmap.c - moves are made as if all at once, whatever their order and aliases.
 */
#include "moves.h"
#include "tap.h"

#include <stdio.h>

static void show(const struct fsp_move *moves, size_t n) {
    char text[1024] = "";
    size_t len = 0;
    for (size_t i = 0; i < n && len + 24 < sizeof text; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, " %d->%d", moves[i].source,
                                moves[i].target);
    tap_note("not made as if all at once:%s", text);
}

static bool expect(const struct fsp_move *moves, size_t n, int open) {
    bool ok = moves_hold(moves, n, open);
    if (!ok) show(moves, n);
    return CHECK(ok);
}

/* Every list of `n` moves with distinct targets below `targets` and sources below `sources`. */
static bool every_list(struct fsp_move *moves, size_t at, size_t n, int targets, int sources) {
    if (at == n) return expect(moves, n, targets > sources ? targets : sources);
    for (int target = 0; target < targets; target++) {
        if (moves_have_target(moves, at, target)) continue;
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
            if (moves_have_target(moves, i, target)) continue;
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
