/*
 * settle.c - a child makes itself what its plan says, up to the program itself.
 *
 * Shared by the two ways in which a process comes to be: between clone and exec (child.c), and
 * between the fork of a template and its main (preload.c).  The rules of child.c hold here.
 */
#include "internal.h"
#include "os/rawsys.h"

#ifdef __linux__
#include <sys/prctl.h>

#ifndef SIGXFZ
#define SIGXFZ 0 /* not on Linux */
#endif

FSP_UNINSTRUMENTED int fsp_child_failed(struct fsp_launch *l, long r, enum fsp_stage stage,
                                        int index) {
    l->error->index = index;
    l->error->stage = stage;
    l->error->err = (int)-r;
    return 127;
}

static FSP_UNINSTRUMENTED long dup_onto(int from, int to) {
    long r;
    do r = raw(dup3, from, to, 0);
    while (r == -EINTR || r == -EBUSY);
    return r;
}

static FSP_UNINSTRUMENTED long place_fds(struct fsp_launch *l, int *index) {
    size_t nops = fsp_fdmap_order(l->moves, l->nmoves, l->ops);
    long saved = -1, r;
    for (size_t i = 0; i < nops; i++) {
        const struct fsp_fdop *op = &l->ops[i];
        int from = op->source == FSP_FD_SAVED ? (int)saved : op->source;
        *index = op->target;
        switch (op->kind) {
        case FSP_FD_SAVE:
            r = saved = raw(fcntl, from, F_DUPFD_CLOEXEC, 3);
            break;
        case FSP_FD_KEEP:
            r = raw(fcntl, from, F_SETFD, 0);
            break;
        default:
            r = dup_onto(from, op->target);
        }
        if (r < 0) return r;
    }
    return 0;
}

static FSP_UNINSTRUMENTED void set_handler(int sig, void (*handler)(int)) {
    struct ksigaction action = {.handler = handler};
    if (sig) raw(rt_sigaction, sig, &action, NULL, sizeof action.mask);
}

static FSP_UNINSTRUMENTED void set_default(int sig) {
    set_handler(sig, SIG_DFL);
}

/* A handler must not run here when the mask is lifted; ignored signals stay ignored. */
static FSP_UNINSTRUMENTED void reset_handlers(void) {
    for (int sig = 1; sig <= 64; sig++) {
        struct ksigaction old = {0};
        if (raw(rt_sigaction, sig, NULL, &old, sizeof old.mask) < 0) continue;
        if (old.handler != SIG_DFL && old.handler != SIG_IGN) set_default(sig);
    }
}

/* Whoever started us may have ignored them for us, who have no terminal (nohup, a shell's &). */
static FSP_UNINSTRUMENTED void reset_terminal_signals(void) {
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) set_default(signals[i]);
}

static FSP_UNINSTRUMENTED void reset_signals(const struct fsp_launch *l) {
    if (l->reset_handlers) reset_handlers();
    if (l->plan->flags & FSP_FLAG_RESTORE_SIGNALS) {
        set_default(SIGPIPE);
        set_default(SIGXFZ);
        set_default(SIGXFSZ);
    }
    for (int sig = 1; l->ignored >> (sig - 1); sig++)
        if (l->ignored >> (sig - 1) & 1) set_handler(sig, SIG_IGN);
    if (l->terminal) reset_terminal_signals();
}

/* A session, and its terminal, which is descriptor 0 by now; or a group. */
static FSP_UNINSTRUMENTED long settle_session(const struct fsp_launch *l, enum fsp_stage *stage) {
    const struct fsp_plan *plan = l->plan;
    long r = 0;
    *stage = FSP_STAGE_SESSION;
    if (l->terminal || plan->flags & FSP_FLAG_SETSID) r = raw(setsid, 0);
    if (r >= 0 && l->terminal) return raw(ioctl, 0, TIOCSCTTY, 0);
    if (r < 0) return r;
    *stage = FSP_STAGE_PGROUP;
    return plan->flags & FSP_FLAG_SETPGROUP ? raw(setpgid, 0, plan->pgroup) : 0;
}

static FSP_UNINSTRUMENTED long set_rlimits(const struct fsp_plan *plan, int *index) {
    for (size_t i = 0; i < plan->nrlimits; i++) {
        const struct fsp_rlimit *limit = &plan->rlimits[i];
        uint64_t value[2] = {limit->value.rlim_cur, limit->value.rlim_max}; /* struct rlimit64 */
        *index = (int)i;
        long r = raw(prlimit64, 0, limit->resource, value, NULL);
        if (r < 0) return r;
    }
    return 0;
}

/* 32-bit ids have numbers of their own on the oldest architectures. */
#ifdef SYS_setgroups32
#define SYS_fsp_setgroups SYS_setgroups32
#define SYS_fsp_setresgid SYS_setresgid32
#define SYS_fsp_setresuid SYS_setresuid32
#else
#define SYS_fsp_setgroups SYS_setgroups
#define SYS_fsp_setresgid SYS_setresgid
#define SYS_fsp_setresuid SYS_setresuid
#endif

/* Groups first and the user last: after that there is no right left to do the others. */
static FSP_UNINSTRUMENTED long set_identity(const struct fsp_plan *plan, enum fsp_stage *stage) {
    long r = 0;
    *stage = FSP_STAGE_GROUPS;
    if (plan->set_groups) r = raw(fsp_setgroups, plan->ngroups, plan->groups);
    if (r < 0) return r;
    *stage = FSP_STAGE_GID;
    if (plan->gid != FSP_ID_NONE) r = raw(fsp_setresgid, plan->gid, plan->gid, plan->gid);
    if (r < 0) return r;
    *stage = FSP_STAGE_UID;
    if (plan->uid != FSP_ID_NONE) r = raw(fsp_setresuid, plan->uid, plan->uid, plan->uid);
    return r;
}

/*
 * With a descriptor of its own, and not one that the parent has open: the engine's threads have
 * tables without the program's files.  "0" is whoever writes (cgroups(7)).
 */
static FSP_UNINSTRUMENTED long enter_cgroup(const char *procs) {
    long fd = raw(openat, AT_FDCWD, procs, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    long r = raw(write, fd, "0", 1);
    raw(close, fd);
    return r;
}

FSP_UNINSTRUMENTED long fsp_child_follow(int sig, pid_t parent) {
    long r = raw(prctl, PR_SET_PDEATHSIG, sig, 0, 0, 0);
    if (r < 0) return r;
    /* Had it gone before, no signal would ever come. */
    return raw(getppid, 0) == parent ? 0 : -ESRCH;
}

static FSP_UNINSTRUMENTED bool failed(struct fsp_launch *l, long r, enum fsp_stage stage,
                                      int index) {
    fsp_child_failed(l, r, stage, index);
    return false;
}

FSP_UNINSTRUMENTED bool fsp_child_settle(struct fsp_launch *l) {
    const struct fsp_plan *plan = l->plan;
    enum fsp_stage stage;
    int index = -1;
    long r;

    if ((r = place_fds(l, &index)) < 0) {
        /* A number above RLIMIT_NOFILE can stay where it is, but not be made again: copy. */
        bool fetched = l->table == FSP_TABLE_FETCH;
        return failed(l, r, fetched ? FSP_STAGE_TABLE : FSP_STAGE_FDS, index);
    }
    if (plan->cwd && (r = raw(chdir, plan->cwd)) < 0) return failed(l, r, FSP_STAGE_CWD, -1);
    if (plan->umask >= 0) raw(umask, plan->umask);
    reset_signals(l);
    if (l->batch) raw(sched_setscheduler, 0, SCHED_OTHER, &(int){0});
    if ((r = settle_session(l, &stage)) < 0) return failed(l, r, stage, -1);
    if (plan->cgroup && (r = enter_cgroup(plan->cgroup)) < 0)
        return failed(l, r, FSP_STAGE_CGROUP, -1);
    if ((r = set_rlimits(plan, &index)) < 0) return failed(l, r, FSP_STAGE_RLIMIT, index);
    if ((r = set_identity(plan, &stage)) < 0) return failed(l, r, stage, -1);
    if (plan->flags & FSP_FLAG_NO_NEW_PRIVS &&
        (r = raw(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) < 0)
        return failed(l, r, FSP_STAGE_PRIVS, -1);
    /* After the identity: a change of it takes the setting away. */
    if (plan->death_signal && (r = fsp_child_follow(plan->death_signal, l->parent)) < 0)
        return failed(l, r, FSP_STAGE_DEATH, -1);
    return true;
}

#endif
