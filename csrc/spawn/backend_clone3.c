/*
 * backend_clone3.c - clone3(2), Linux 5.5: the child on our memory, a pidfd for the way back, every
 * handler reset by the kernel; and either on our descriptor table with us suspended until it
 * executes, or (detached) on a copy of the table with us going on.
 */
#include "internal.h"
#include "os/rawsys.h"

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
    int pidfd = -1;
    struct clone3_args args = {
        .flags = CLONE_VM | CLONE_PIDFD | CLONE3_CLEAR_SIGHAND,
        .pidfd = (uintptr_t)&pidfd,
        .child_tid = (uintptr_t)&l->pad->child,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)fsp_pad_stack(l->pad),
        .stack_size = FSP_STACK_SIZE,
    };
    args.flags |= l->detached ? CLONE_CHILD_CLEARTID : CLONE_VFORK;
    if (l->table != FSP_TABLE_COPIED) args.flags |= CLONE_FILES;
    l->reset_handlers = false;
    l->pad->child = l->detached;
    long r = -(long)fsp_fault("clone3");
    if (r == 0) r = raw_clone(SYS_clone3, (long)&args, sizeof args, 0, 0, 0, fsp_child_main, l);
    if (r < 0) {
        l->pad->child = 0;
        return (int)r;
    }
    l->child = (struct fsp_child){(pid_t)r, pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_clone3 = {
    .name = "clone3",
    .launch = launch,
    .shares_memory = true,
    .shares_table = true,
    .detaches = true,
};
#endif
