/*
 * pad.c - where children start from: the memory that one uses between clone and exec.
 *
 * A pad is a stack with what its child reads and writes above it and a page without access below
 * it, so that an overflow is a fault and not a corruption.  A child that we are not suspended for
 * is still there when its spawn returns; the kernel clears `child` when it has left our memory
 * (CLONE_CHILD_CLEARTID, set_tid_address(2)), and only then may the pad serve another.
 *
 * A few are kept: mapping one costs more than the rest of the parent's share of a spawn.
 */
#include "internal.h"

#ifdef __linux__
#include <linux/futex.h>
#endif

#define GUARD 65536 /* at least a page, on every architecture */
#define SIZE  (GUARD + FSP_STACK_SIZE + sizeof(struct fsp_pad))
#define KEPT  64

static struct fsp_pad *kept[KEPT];

bool fsp_pad_busy(const struct fsp_pad *pad) {
    return __atomic_load_n(&pad->child, __ATOMIC_ACQUIRE) != 0;
}

/* The kernel wakes a futex there when it clears it (set_tid_address(2)), which no signal delays. */
void fsp_pad_wait(const struct fsp_pad *pad) {
#ifdef __linux__
    while (fsp_pad_busy(pad))
        FSP_CALL("futex", syscall(SYS_futex, &pad->child, FUTEX_WAIT, 1, NULL));
#else
    (void)pad; /* nothing detaches */
#endif
}

void *fsp_pad_stack(struct fsp_pad *pad) {
    return (char *)pad - FSP_STACK_SIZE;
}

struct fsp_pad *fsp_pad_get(void) {
    for (int i = 0; i < KEPT; i++) {
        struct fsp_pad *pad = __atomic_exchange_n(&kept[i], NULL, __ATOMIC_ACQUIRE);
        if (pad) return pad;
    }
    char *map = sys_mmap(SIZE, MAP_PRIVATE | MAP_NORESERVE);
    if (map == NULL) return NULL;
    if (sys_mprotect_none(map, GUARD) < 0) {
        sys_munmap(map, SIZE);
        return NULL;
    }
    return (struct fsp_pad *)(map + GUARD + FSP_STACK_SIZE);
}

void fsp_pad_put(struct fsp_pad *pad) {
    if (pad == NULL || fsp_pad_busy(pad)) return; /* given up with its child */
    for (int i = 0; i < KEPT; i++) {
        struct fsp_pad *none = NULL;
        if (__atomic_compare_exchange_n(&kept[i], &none, pad, 0, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
            return;
    }
    sys_munmap((char *)fsp_pad_stack(pad) - GUARD, SIZE);
}
