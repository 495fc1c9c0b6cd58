/*
 * backend_fork.c - a child with memory of its own: for credentials, which are unsafe to change on
 * shared memory (the kernel then alters the dumpability of the whole mm), and for tools that
 * cannot follow a shared one.
 *
 * CLONE_VFORK without CLONE_VM copies the memory and still suspends the parent until exec, so
 * the protocol is that of the other backends; only the error lies on a page that both share.
 * The raw system call runs no atfork handlers: the child never returns to code that would need
 * them.
 */
#include "internal.h"
#include "rawsys.h"

#ifdef __linux__
#include <sched.h>

static long start(struct fsp_launch *l) {
    unsigned long flags = CLONE_VFORK | SIGCHLD;
    long pid = raw(clone, flags, 0, 0, 0, 0);
    if (pid == 0) _exit(fsp_child_main(l));
    return pid;
}

static int launch(struct fsp_launch *l) {
    volatile struct fsp_error *mine = l->error;
    volatile struct fsp_error *shared = sys_mmap(sizeof *shared, MAP_SHARED);
    if (shared == NULL) return -ENOMEM;
    l->reset_handlers = true;
    l->error = shared;
    long pid = start(l);
    l->error = mine;
    *mine = *shared;
    munmap((void *)shared, sizeof *shared);
    if (pid < 0) return (int)pid;
    int pidfd = sys_pidfd_open((pid_t)pid);
    l->child = (struct fsp_child){(pid_t)pid, pidfd < 0 ? -1 : pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_fork = {
    .name = "fork",
    .launch = launch,
};
#endif
