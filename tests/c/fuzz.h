/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is a program fuzz_*.c that has LLVMFuzzerTestOneInput: it makes something of any bytes,
 * and stops (FUZZ_REQUIRE) where what came out is not as it must be.  It is run by libFuzzer
 * (`make fuzz-c`), and by mutate.c with the files in corpus/ and others that it makes of them
 * (`make test-c`).
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "support.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (condition) break;                                                                      \
        fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                    \
        abort();                                                                                   \
    } while (0)

/* What is left of an input: zeros, past its end. */
struct bytes {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t take(struct bytes *b) {
    if (b->left == 0) return 0;
    b->left--;
    return *b->at++;
}

static inline unsigned take_below(struct bytes *b, unsigned n) {
    return take(b) % n;
}

static inline uint32_t take_32(struct bytes *b) {
    uint32_t n = 0;
    for (int i = 0; i < 4; i++) n |= (uint32_t)take(b) << 8 * i;
    return n;
}

static inline uint64_t take_64(struct bytes *b) {
    uint64_t low = take_32(b);
    return low | (uint64_t)take_32(b) << 32;
}

/* Up to so many of the next bytes; their number. */
static inline size_t take_some(struct bytes *b, void *to, size_t max) {
    size_t n = max < b->left ? max : b->left;
    if (n) memcpy(to, b->at, n);
    b->at += n;
    b->left -= n;
    return n;
}

#endif
