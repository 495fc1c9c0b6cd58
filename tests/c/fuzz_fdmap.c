/*
 * fuzz_fdmap.c - any list of moves is made as if all at once (moves.h).
 *
 * The input: how many numbers are open, then a source and a target for each move.
 */
#include "fuzz.h"
#include "moves.h"

#define MOST 100 /* moves */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes b = {data, size};
    struct fsp_move moves[MOST];
    unsigned open = 1 + take_below(&b, MOVES_NUMBERS / 2);
    size_t n = 0;
    while (b.left && n < MOST) {
        int source = (int)take_below(&b, open), target = (int)take_below(&b, MOVES_NUMBERS / 2);
        if (!moves_have_target(moves, n, target)) moves[n++] = (struct fsp_move){source, target};
    }
    FUZZ_REQUIRE(moves_hold(moves, n, (int)open));
    return 0;
}
