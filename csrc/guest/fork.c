/*
 * fork.c - a fork of this process that is a whole process, and the child that its request asks for.
 *
 * It is made by the raw system call with CLONE_PARENT: the spawner's child, not ours, and reaped,
 * signalled and timed by it like any other.  Libc does not know, so what its own fork would see to
 * is done here: the thread id that it keeps (CLONE_CHILD_SETTID on the address that the kernel
 * knows), and the robust list.  There is one thread, so no lock can be held.
 */
#include "internal.h"

#ifdef __linux__
#include <dlfcn.h>
#include <sched.h>
#include <sys/prctl.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

/* ---- what its request asks for ---- */

/* The fork's three descriptors, and then no trace of how they came. */
static size_t list_moves(const struct parcel *p, struct fsp_move *moves, int *null) {
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        int from = p->request.fd[i];
        if (from == FSP_SNAP_OWN) continue;
        if (from == FSP_SNAP_NULL) {
            if (*null < 0) *null = (int)raw(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
            if (*null < 0) word_fail(p->request.slot, *null, i);
            moves[n++] = (struct fsp_move){*null, i};
        } else
            moves[n++] = (struct fsp_move){p->fd[from], i};
    }
    return n;
}

/* The socket goes, unless the fork may need it. */
static void keep_socket(const struct parcel *p) {
    if (self.pid) self.pid = 0;
    if (p->request.flags & FSP_SNAP_MAY_CHECKPOINT) {
        self.pid = (int)raw(getpid, 0);
        self.slot = p->request.slot;
        self.parent = p->request.parent;
        copies_note_streams();
        const struct fsp_plan *plan = self_plan();
        if (plan->cwd) inputs_set_place(plan->cwd);
    } else
        raw(close, self.socket);
}

void fork_settle(const struct parcel *p) {
    struct fsp_move moves[3];
    struct fsp_fdop ops[FSP_FDMAP_OPS(3)];
    int null = -1;
    struct fsp_plan *plan = self_plan();
    struct fsp_launch launch = {
        .plan = plan,
        .moves = moves,
        .ops = ops,
        .nmoves = list_moves(p, moves, &null),
        .error = &self.page->slot[p->request.slot].error,
        .mask = p->request.mask,
        .parent = p->request.parent,
    };
    if (!(plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP))) raw(setpgid, 0, p->request.group);
    if (!fsp_child_settle(&launch)) leave(127);
    word_close(p);
    if (null >= 0) raw(close, null);
    /* As exec would: else its own /proc/self is closed to it, with /dev/stdin and all. */
    if (fsp_plan_credentials(plan)) raw(prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
    keep_socket(p);
    if (!self.running) raw(rt_sigprocmask, SIG_SETMASK, &launch.mask, NULL, sizeof launch.mask);
}

/* ---- the fork ---- */

/* As libc's fork has it; what runs around that is the caller's. */
void fork_prepare(void) {
    if (self.before) self.before();
    atfork_prepare();
}

void fork_end(void) {
    atfork_parent();
    if (self.after) self.after();
}

/* 0 in the fork. */
long fork_for(const struct parcel *p) {
    unsigned long flags = CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    if (self.libc_tid == NULL) flags |= CLONE_CHILD_SETTID;
    int *pid = &self.page->slot[p->request.slot].pid;
    long r = raw(clone, flags, 0, pid, FSP_CLONE_TID((long)self.tid, 0));
    if (r == 0 && self.libc_tid) *self.libc_tid = (int)raw(getpid, 0);
    if (r == 0 && self.robust_list) raw(set_robust_list, self.robust_list, self.robust_size);
    return r;
}

/* ---- can there be one? ---- */

/*
 * glibc has the kernel keep the thread's id where it looks for it, up to 2.42.  Later ones have it
 * clear the state for pthread_join there, and tell debuggers where the id is (nptl_db: a field's
 * bits, elements and offset).  dlsym takes locks: not where the program may hold them.
 */
void fork_ask_for_tid(void) {
    const uint32_t *field = dlsym(RTLD_DEFAULT, "_thread_db_pthread_tid");
    if (field) self.said_tid = (int *)((char *)pthread_self() + field[2]);
}

/* musl (1.2) has the kernel clear a lock, and its own copy of the id stands near the start of
 * struct pthread. */
static int *find_tid(int pid) {
    int *field = (int *)pthread_self();
    if (self.said_tid) return *self.said_tid == pid ? self.said_tid : NULL;
    for (size_t i = 0; i < 24; i++)
        if (field[i] == pid) return &field[i];
    return NULL;
}

/* One thread once a fork is prepared, and an address for its id: else it would be no whole
 * process. */
enum fsp_refusal fork_refusal(void) {
    if (!atfork_knows_all()) return FSP_REFUSED_ATFORK;
    enum fsp_refusal why = tasks_refusal();
    if (why == FSP_REFUSED_THREADS) makers_find();
    if (why) return why;
    if (raw(prctl, PR_GET_TID_ADDRESS, &self.tid, 0, 0, 0) < 0) return FSP_REFUSED_KERNEL;
    self.libc_tid = NULL;
    int pid = (int)raw(getpid, 0);
    if (*self.tid == pid) return FSP_REFUSED_NOT;
    self.libc_tid = find_tid(pid);
    return self.libc_tid ? FSP_REFUSED_NOT : FSP_REFUSED_TID;
}

#endif
