/*
 * backend_posix_spawn.c - posix_spawn(3): macOS, and anything odd.
 *
 * It knows no limits, umask or identity, tells no stage, and names no process handle; what it
 * cannot express goes to fork (fsp_posix_spawn_can).  The extensions that it needs came late to
 * libcs (addchdir 2.29, addclosefrom 2.34), so they are looked up when the program starts.
 */
#include "internal.h"

#include <spawn.h>

#ifndef POSIX_SPAWN_SETSID
#ifdef __APPLE__
#define POSIX_SPAWN_SETSID 0x0400
#else
#define POSIX_SPAWN_SETSID 0x80
#endif
#endif

#ifdef __APPLE__
#define HAVE_CHDIR     true
#define HAVE_CLOSEFROM true
#define add_chdir      posix_spawn_file_actions_addchdir_np
#else
#define WEAK           __attribute__((weak))
extern int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *, const char *) WEAK;
extern int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *, int) WEAK;
#define HAVE_CHDIR     (posix_spawn_file_actions_addchdir_np != NULL)
#define HAVE_CLOSEFROM (posix_spawn_file_actions_addclosefrom_np != NULL)
#define add_chdir      posix_spawn_file_actions_addchdir_np
#endif

bool fsp_posix_spawn_can(const struct fsp_plan *plan) {
    if (plan->umask >= 0 || plan->nrlimits || fsp_plan_credentials(plan)) return false;
    if (plan->cgroup || plan->death_signal || plan->flags & FSP_FLAG_NO_NEW_PRIVS) return false;
    if (plan->cwd && !HAVE_CHDIR) return false;
#ifndef __APPLE__
    /* closefrom leaves no gaps for descriptors that stay. */
    if (plan->flags & FSP_FLAG_CLOSE_FDS)
        return HAVE_CLOSEFROM && (plan->nkeep == 0 || plan->keep[plan->nkeep - 1] < 3);
#endif
    return true;
}

/* A number that no move names, for the copy that a cycle needs. */
static int spare_fd(const struct fsp_launch *l) {
    int spare = 3;
    for (size_t i = 0; i < l->nmoves; i++) {
        if (l->moves[i].source >= spare) spare = l->moves[i].source + 1;
        if (l->moves[i].target >= spare) spare = l->moves[i].target + 1;
    }
    return spare;
}

static int add_fd_actions(struct fsp_launch *l, posix_spawn_file_actions_t *fa) {
    int spare = spare_fd(l), r = 0;
    bool saved = false;
    size_t nops = fsp_fdmap_order(l->moves, l->nmoves, l->ops);
    for (size_t i = 0; i < nops && r == 0; i++) {
        const struct fsp_fdop *op = &l->ops[i];
        int from = op->source == FSP_FD_SAVED ? spare : op->source;
        int to = op->kind == FSP_FD_SAVE ? spare : op->target;
        saved |= op->kind == FSP_FD_SAVE;
#ifdef __APPLE__
        if (op->kind == FSP_FD_KEEP) {
            r = posix_spawn_file_actions_addinherit_np(fa, from);
            continue;
        }
#endif
        r = posix_spawn_file_actions_adddup2(fa, from, to); /* dup2(n, n) clears close-on-exec */
    }
    if (r == 0 && saved) r = posix_spawn_file_actions_addclose(fa, spare);
    return r;
}

static int add_actions(struct fsp_launch *l, posix_spawn_file_actions_t *fa) {
    int r = add_fd_actions(l, fa);
    if (r == 0 && l->plan->cwd) r = add_chdir(fa, l->plan->cwd);
#ifdef __APPLE__
    /* CLOEXEC_DEFAULT closes everything that no action names. */
    for (int fd = 0; fd < 3 && r == 0 && l->sweep; fd++)
        if (FSP_CALL("fcntl", fcntl(fd, F_GETFD)) >= 0)
            r = posix_spawn_file_actions_addinherit_np(fa, fd);
#else
    if (r == 0 && l->sweep) r = posix_spawn_file_actions_addclosefrom_np(fa, 3);
#endif
    return r;
}

static int set_attributes(const struct fsp_launch *l, posix_spawnattr_t *attr) {
    const struct fsp_plan *plan = l->plan;
    int flags = POSIX_SPAWN_SETSIGMASK;
    sigset_t set;
    sigemptyset(&set);
    memcpy(&set, &l->mask, sizeof set < sizeof l->mask ? sizeof set : sizeof l->mask);
    int r = posix_spawnattr_setsigmask(attr, &set);
    if (plan->flags & FSP_FLAG_RESTORE_SIGNALS) {
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        sigaddset(&set, SIGXFSZ);
        flags |= POSIX_SPAWN_SETSIGDEF;
        if (r == 0) r = posix_spawnattr_setsigdefault(attr, &set);
    }
    if (plan->flags & FSP_FLAG_SETSID) flags |= POSIX_SPAWN_SETSID;
    if (plan->flags & FSP_FLAG_SETPGROUP) {
        flags |= POSIX_SPAWN_SETPGROUP;
        if (r == 0) r = posix_spawnattr_setpgroup(attr, plan->pgroup);
    }
#ifdef POSIX_SPAWN_SETSCHEDULER
    if (l->batch) flags |= POSIX_SPAWN_SETSCHEDULER; /* to the default, with glibc */
#endif
#ifdef __APPLE__
    if (l->sweep) flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
#endif
    return r ? r : posix_spawnattr_setflags(attr, (short)flags);
}

static int spawn_one(struct fsp_launch *l, const char *path, posix_spawn_file_actions_t *fa,
                     posix_spawnattr_t *attr) {
    int r = fsp_fault("posix_spawn");
    return r ? r
             : posix_spawn(&l->child.pid, path, fa, attr, (char *const *)l->plan->argv,
                           (char *const *)l->plan->envp);
}

/* The child's rule (try_exec in child.c), one posix_spawn per directory. */
static int spawn_first(struct fsp_launch *l, posix_spawn_file_actions_t *fa,
                       posix_spawnattr_t *attr) {
    const struct fsp_plan *plan = l->plan;
    if (!plan->search) return spawn_one(l, plan->file, fa, attr);
    int r = l->path ? spawn_one(l, l->path, fa, attr) : ENOENT, first = 0;
    char path[PATH_MAX];
    const char *rest = plan->search;
    while (r != 0 && rest) {
        r = -fsp_path_next(&rest, plan->file, path, sizeof path);
        if (r <= 0) r = spawn_one(l, path, fa, attr);
        if (r != 0 && r != ENOENT && r != ENOTDIR && first == 0) first = r;
    }
    return r && first ? first : r;
}

/* It tells no stage: a directory that cannot be entered is recognised afterwards. */
static enum fsp_stage blame(const struct fsp_plan *plan) {
    struct stat st;
    if (plan->cwd == NULL) return FSP_STAGE_EXEC;
    if (sys_stat(plan->cwd, &st) < 0 || !S_ISDIR(st.st_mode)) return FSP_STAGE_CWD;
    return sys_executable(plan->cwd) < 0 ? FSP_STAGE_CWD : FSP_STAGE_EXEC;
}

static int launch(struct fsp_launch *l) {
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    int r = posix_spawn_file_actions_init(&fa);
    if (r) return -r;
    r = posix_spawnattr_init(&attr);
    if (r == 0) {
        r = add_actions(l, &fa);
        /* glibc takes no number above RLIMIT_NOFILE, not even that of an open descriptor. */
        bool too_high = r == EBADF;
        if (r == 0) r = set_attributes(l, &attr);
        if (r == 0) r = spawn_first(l, &fa, &attr);
        if (too_high) r = -EMFILE;
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&fa);
    if (r < 0) return r;
    if (r == EAGAIN || r == ENOMEM || r == ENOSYS) return -r;
    l->child.pidfd = -1;
    if (r) {
        l->child.pid = -1;
        l->error->stage = blame(l->plan);
        l->error->index = -1;
        l->error->err = r;
        return 0;
    }
#ifdef __linux__
    int pidfd = sys_pidfd_open(l->child.pid);
    if (pidfd >= 0) l->child.pidfd = pidfd;
#endif
    return 0;
}

const struct fsp_backend fsp_backend_posix_spawn = {
    .name = "posix_spawn",
    .launch = launch,
    .shares_memory = true,
    .by_libc = true,
    .on_trial = true,
};
