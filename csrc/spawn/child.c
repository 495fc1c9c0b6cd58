/*
 * child.c - the only code between clone and exec, with settle.c.
 *
 * It runs on its parent's memory while the parent is suspended: raw system calls, no malloc, no
 * locks, no libc state (not even errno), no Python.  The first failure is written to
 * launch->error, which the parent reads when it wakes; success is that nothing was written.
 *
 * Order matters, and is CPython's where a program could tell: descriptors, cwd, umask, signals,
 * session, group, limits, identity, closing, mask, exec.  The descriptor table comes first of
 * all: until it is ours, a dup2 would overwrite the parent's.
 */
#include "internal.h"
#include "os/rawsys.h"

#ifdef __linux__

/*
 * The parent's descriptors from wherever the parent has them into a table that holds none but
 * 0-2, so that a parent with many open files costs no copy of them (pidfd_getfd, Linux 5.6).
 */
static FSP_UNINSTRUMENTED long fetch_sources(struct fsp_launch *l) {
    long pidfd = raw(pidfd_open, l->parent, 0);
    if (pidfd < 0) return pidfd;
    for (size_t i = 0; i < l->nmoves; i++) {
        if (l->moves[i].source < 3) continue;
        long fd = raw(pidfd_getfd, pidfd, l->moves[i].source, 0);
        if (fd < 0) return fd;
        l->moves[i].source = (int)fd;
    }
    return 0;
}

static FSP_UNINSTRUMENTED long own_table(struct fsp_launch *l) {
    long r = 0;
    if (l->table == FSP_TABLE_UNSHARE) r = raw(close_range, l->table_end, ~0u, CLOSE_RANGE_UNSHARE);
    if (l->table == FSP_TABLE_FETCH) {
        r = raw(close_range, 3, ~0u, CLOSE_RANGE_UNSHARE);
        if (r == 0) r = fetch_sources(l);
    }
    return r;
}

static FSP_UNINSTRUMENTED bool is_kept(const struct fsp_launch *l, long fd) {
    const struct fsp_plan *plan = l->plan;
    if (l->tell && l->tell == fd) return true;
    for (size_t i = 0; i < plan->nkeep; i++)
        if (plan->keep[i] == fd) return true;
    return false;
}

/* Every number that there may be. */
static FSP_UNINSTRUMENTED void sweep_blindly(const struct fsp_launch *l) {
    uint64_t limit[2] = {0};
    if (raw(prlimit64, 0, RLIMIT_NOFILE, NULL, limit) < 0) limit[0] = 1 << 16;
    for (long fd = 3; fd < (long)limit[0]; fd++)
        if (!is_kept(l, fd)) raw(close, fd);
}

/* Before Linux 5.9: ask /proc which descriptors there are; it may be missing, or not tell. */
static FSP_UNINSTRUMENTED void sweep_slowly(const struct fsp_launch *l) {
    struct dirent64_head {
        uint64_t ino;
        int64_t off;
        uint16_t reclen;
        uint8_t type;
        char name[];
    };
    _Alignas(8) char buf[1024];
    long dir = raw(openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    long n = dir;
    while (dir >= 0 && (n = raw(getdents64, dir, buf, sizeof buf)) > 0)
        for (long at = 0; at < n;) {
            const struct dirent64_head *entry = (const void *)(buf + at);
            long fd = 0;
            const char *c = entry->name;
            for (; *c >= '0' && *c <= '9'; c++) fd = fd * 10 + (*c - '0');
            if (c > entry->name && fd > 2 && fd != dir && !is_kept(l, fd)) raw(close, fd);
            at += entry->reclen;
        }
    if (dir >= 0) raw(close, dir);
    if (n < 0) sweep_blindly(l);
}

static FSP_UNINSTRUMENTED long close_gap(const struct fsp_launch *l, unsigned first,
                                         unsigned last) {
    unsigned tell = (unsigned)l->tell;
    if (tell < first || tell > last) return raw(close_range, first, last, 0);
    long r = tell > first ? raw(close_range, first, tell - 1, 0) : 0;
    return r < 0 || tell == last ? r : raw(close_range, tell + 1, last, 0);
}

/* Close the gaps between what is kept (ascending, see plan.c). */
static FSP_UNINSTRUMENTED void sweep(const struct fsp_launch *l) {
    const struct fsp_plan *plan = l->plan;
    unsigned from = 3;
    for (size_t i = 0; i <= plan->nkeep; i++) {
        unsigned keep = i < plan->nkeep ? (unsigned)plan->keep[i] : 0;
        if (i < plan->nkeep && keep < 3) continue;
        unsigned last = i < plan->nkeep ? keep - 1 : ~0u;
        if (from <= last && close_gap(l, from, last) < 0) {
            sweep_slowly(l);
            return;
        }
        from = keep + 1;
    }
}

/* The first error that is not "no such file" is the one to report, as os.execvpe does. */
static FSP_UNINSTRUMENTED long try_exec(const struct fsp_launch *l) {
    const struct fsp_plan *plan = l->plan;
    if (l->path) {
        long r = raw(execve, l->path, plan->argv, plan->envp);
        if (!plan->search) return r;
    }
    if (!plan->search) return raw(execve, plan->file, plan->argv, plan->envp);

    char path[PATH_MAX];
    const char *rest = plan->search;
    long first = 0, r = -ENOENT;
    while (rest) {
        r = fsp_path_next(&rest, plan->file, path, sizeof path);
        if (r > 0) r = raw(execve, path, plan->argv, plan->envp);
        if (r != -ENOENT && r != -ENOTDIR && first == 0) first = r;
    }
    return first ? first : r;
}

FSP_UNINSTRUMENTED int fsp_child_main(void *arg) {
    struct fsp_launch *l = arg;
    long r = own_table(l);
    if (r < 0) return fsp_child_failed(l, r, FSP_STAGE_TABLE, -1);
    if (!fsp_child_settle(l)) return 127;
    if (l->sweep) sweep(l);
    raw(rt_sigprocmask, SIG_SETMASK, &l->mask, NULL, sizeof l->mask);
    return fsp_child_failed(l, try_exec(l), FSP_STAGE_EXEC, -1);
}

#endif
