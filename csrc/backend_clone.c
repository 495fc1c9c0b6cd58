/*
 * backend_clone.c - clone(2): the same child where clone3 is refused, as container runtimes'
 * default seccomp profiles do (they cannot look into its argument struct).  Handlers are reset by
 * the child.  A kernel without CLONE_PIDFD (before 5.2) ignores it and leaves `pidfd` alone.
 */
#include "internal.h"
#include "rawsys.h"

#ifdef FSP_HAVE_RAW_CLONE
#include <sched.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

static int launch(struct fsp_launch *l) {
    char *stack = fsp_stack_get();
    if (stack == NULL) return -ENOMEM;
    int pidfd = -1;
    unsigned long flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
    if (l->table != FSP_TABLE_COPIED) flags |= CLONE_FILES;
    l->reset_handlers = true;
    long r = -(long)fsp_fault("clone");
    if (r == 0) /* the pidfd comes back through parent_tid; the two last are tid and tls, unused */
        r = raw_clone(SYS_clone, (long)flags, (long)(stack + FSP_STACK_SIZE), (long)&pidfd, 0, 0,
                      fsp_child_main, l);
    fsp_stack_put(stack);
    if (r < 0) return (int)r;
    if (pidfd < 0) pidfd = sys_pidfd_open((pid_t)r);
    l->child = (struct fsp_child){(pid_t)r, pidfd < 0 ? -1 : pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_clone = {
    .name = "clone",
    .launch = launch,
    .shares_memory = true,
    .shares_table = true,
};
#endif
