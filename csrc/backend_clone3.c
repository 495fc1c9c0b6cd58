/*
 * backend_clone3.c - clone3(2), Linux 5.5: the child on our memory and descriptor table, the
 * parent suspended, a pidfd for the way back, every handler reset by the kernel.
 */
#include "internal.h"
#include "rawsys.h"

#ifdef FSP_HAVE_RAW_CLONE
#include <sched.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#define CLONE3_CLEAR_SIGHAND 0x100000000ull

struct clone3_args { /* CLONE_ARGS_SIZE_VER0 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

static int launch(struct fsp_launch *l) {
    void *stack = fsp_stack_get();
    if (stack == NULL) return -ENOMEM;
    int pidfd = -1;
    struct clone3_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE3_CLEAR_SIGHAND,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)stack,
        .stack_size = FSP_STACK_SIZE,
    };
    if (l->table != FSP_TABLE_COPIED) args.flags |= CLONE_FILES;
    l->reset_handlers = false;
    long r = -(long)fsp_fault("clone3");
    if (r == 0) r = raw_clone(SYS_clone3, (long)&args, sizeof args, 0, 0, 0, fsp_child_main, l);
    fsp_stack_put(stack);
    if (r < 0) return (int)r;
    l->child = (struct fsp_child){(pid_t)r, pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_clone3 = {
    .name = "clone3",
    .launch = launch,
    .shares_memory = true,
    .shares_table = true,
};
#endif
