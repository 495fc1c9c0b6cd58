/*
 * backend_vfork.c - vfork(2): needs nothing of the architecture but libc.
 *
 * The child borrows the very stack frame that called vfork, so it is noinline and does nothing
 * between the two returns but call and leave.
 */
#include "internal.h"

#ifdef __linux__

static __attribute__((noinline)) FSP_UNINSTRUMENTED pid_t start(struct fsp_launch *l) {
    pid_t pid = vfork();
    if (pid == 0) _exit(fsp_child_main(l));
    return pid;
}

static int launch(struct fsp_launch *l) {
    l->reset_handlers = true;
    long pid = FSP_CALL("vfork", start(l));
    if (pid < 0) return (int)pid;
    int pidfd = sys_pidfd_open((pid_t)pid);
    l->child = (struct fsp_child){(pid_t)pid, pidfd < 0 ? -1 : pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_vfork = {
    .name = "vfork",
    .launch = launch,
    .shares_memory = true,
    .on_trial = true,
};
#endif
