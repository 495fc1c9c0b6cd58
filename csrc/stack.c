/*
 * stack.c - stacks for children that share our memory.
 *
 * A page without access lies below each, so that an overflow is a fault and not a corruption.
 * A few are kept: mapping one costs more than the rest of the parent's share of a spawn.
 */
#include "internal.h"

#define GUARD 65536 /* at least a page, on every architecture */
#define CACHE 16

static void *cache[CACHE];

void *fsp_stack_get(void) {
    for (int i = 0; i < CACHE; i++) {
        void *stack = __atomic_exchange_n(&cache[i], NULL, __ATOMIC_ACQUIRE);
        if (stack) return stack;
    }
    char *map = sys_mmap(GUARD + FSP_STACK_SIZE, MAP_PRIVATE | MAP_NORESERVE);
    if (map == NULL) return NULL;
    if (sys_mprotect_none(map, GUARD) < 0) {
        munmap(map, GUARD + FSP_STACK_SIZE);
        return NULL;
    }
    return map + GUARD;
}

void fsp_stack_put(void *stack) {
    for (int i = 0; i < CACHE; i++) {
        void *none = NULL;
        if (__atomic_compare_exchange_n(&cache[i], &none, stack, 0, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
            return;
    }
    munmap((char *)stack - GUARD, GUARD + FSP_STACK_SIZE);
}
