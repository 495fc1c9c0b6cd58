/*
 * backend_clone.c - clone(2): the same child where clone3 is refused, as container runtimes'
 * default seccomp profiles do (they cannot look into its argument struct).  Handlers are reset by
 * the child.  A kernel without CLONE_PIDFD (before 5.2) ignores it and leaves `pidfd` alone.
 */
#include "internal.h"
#include "os/rawsys.h"

#ifdef FSP_HAVE_RAW_CLONE
#include <sched.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

static int launch(struct fsp_launch *l) {
    int pidfd = -1;
    long stack = (long)fsp_pad_stack(l->pad) + FSP_STACK_SIZE;
    unsigned long flags = CLONE_VM | CLONE_PIDFD | SIGCHLD;
    flags |= l->detached ? CLONE_CHILD_CLEARTID : CLONE_VFORK;
    if (l->table != FSP_TABLE_COPIED) flags |= CLONE_FILES;
    l->reset_handlers = true;
    l->pad->child = l->detached;
    long r = -(long)fsp_fault("clone"), tid = (long)&l->pad->child;
    /* The pidfd comes back through parent_tid.  After it the order differs: tid and tls. */
    if (r == 0)
        r = raw_clone(SYS_clone, (long)flags, stack, (long)&pidfd, FSP_CLONE_TID(tid, 0),
                      fsp_child_main, l);
    if (r < 0) {
        l->pad->child = 0;
        return (int)r;
    }
    if (pidfd < 0) pidfd = sys_pidfd_open((pid_t)r);
    l->child = (struct fsp_child){(pid_t)r, pidfd < 0 ? -1 : pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_clone = {
    .name = "clone",
    .launch = launch,
    .shares_memory = true,
    .shares_table = true,
    .detaches = true,
    .on_trial = true,
};
#endif
