/*
 * wait.c - the end of a child: its status, its resources, and signals until then.
 *
 * A child is named by its pidfd where there is one.  The pid of a child that we have not reaped
 * cannot be reused, so signalling by pid is safe until then, and only until then: fsp_wait
 * forgets both.
 *
 * Someone else may take the status: a thread in waitpid(-1), or the kernel itself where SIGCHLD is
 * ignored.  The pidfd remembers it, once the process has been reaped, since Linux 6.15.
 */
#include "internal.h"

#include <poll.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int decode(int code, int status) {
    return code == CLD_EXITED ? status : -status;
}

static void forget(struct fsp_child *child) {
    sys_close(child->pidfd);
    child->pidfd = -1;
    child->pid = -1;
}

bool fsp_lacks_pidfd(const struct fsp_child *child) {
    if (child->pid <= 0 || child->pidfd >= 0) return false;
    int pidfd = sys_pidfd_open(getpid());
    sys_close(pidfd);
    return fsp_is_refused(pidfd);
}

#ifdef __linux__

/* The system call, not libc's waitid: it has a fifth parameter, the child's rusage. */
static long reap(const struct fsp_child *child, int options, siginfo_t *info,
                 struct rusage *usage) {
    bool by_fd = child->pidfd >= 0;
    info->si_pid = 0;
    return FSP_CALL("waitid",
                    syscall(SYS_waitid, by_fd ? P_PIDFD : P_PID, by_fd ? child->pidfd : child->pid,
                            info, WEXITED | options, usage));
}

#else

static long reap(const struct fsp_child *child, int options, siginfo_t *info,
                 struct rusage *usage) {
    int status;
    info->si_pid = 0;
    long r = FSP_CALL("wait4", wait4(child->pid, &status, options, usage));
    if (r <= 0) return r;
    info->si_pid = (pid_t)r;
    info->si_code = WIFEXITED(status) ? CLD_EXITED : CLD_KILLED;
    info->si_status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    return 0;
}

#endif

#ifdef __linux__

static int decode_wait(int status) {
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* Told by POLLHUP since Linux 6.9.  Whoever cannot be asked will not tell later, either. */
static bool is_reaped(int pidfd, int timeout) {
    struct pollfd fd = {pidfd, 0, 0};
    long r = FSP_CALL("poll", poll(&fd, 1, timeout));
    return r < 0 ? r != -EINTR : fd.revents & POLLHUP;
}

/*
 * Someone else has taken the status, or is taking it: he is let finish.  1 and the code, 0 (only
 * with !block) if it is not known yet, or -errno if nobody will ever tell.
 */
static int recall(const struct fsp_child *child, int block, int *code) {
    if (child->pidfd < 0) return -ECHILD;
    for (;;) {
        struct sys_pidfd_info info = {.mask = SYS_PIDFD_INFO_EXIT};
        bool reaped = is_reaped(child->pidfd, 0); /* first: the code is there by then */
        int r = sys_pidfd_info(child->pidfd, &info);
        if (r == 0 && info.mask & SYS_PIDFD_INFO_EXIT) {
            *code = decode_wait(info.exit_code);
            return 1;
        }
        if (reaped || (r < 0 && r != -ESRCH)) return -ECHILD;
        /* Not our child at all, as in a process that was forked since. */
        if (r == 0 && info.ppid != (uint32_t)getpid()) return -ECHILD;
        if (!block) return 0;
        is_reaped(child->pidfd, -1);
    }
}

#else

static int recall(const struct fsp_child *child, int block, int *code) {
    (void)child, (void)block, (void)code;
    return -ECHILD;
}

#endif

/* 1, and *status as far as it can still be known, or 0 as recall(). */
static int settle_lost(const struct fsp_child *child, int block, struct fsp_status *status) {
    int code = 0, r = recall(child, block, &code);
    if (r == 0) return 0;
    *status = (struct fsp_status){.code = code, .lost = r < 0};
    return 1;
}

int fsp_reap(const struct fsp_child *child, int block, struct fsp_status *status) {
    siginfo_t info;
    struct rusage usage;
    long r;
    while ((r = reap(child, block ? 0 : WNOHANG, &info, &usage)) == -EINTR || r == -EAGAIN) {
        /* Someone (libuv does) made the pidfd non-blocking: waitid then answers EAGAIN. */
        if (r == -EAGAIN && !block) return 0;
        if (r == -EAGAIN)
            (void)FSP_CALL("poll", poll(&(struct pollfd){child->pidfd, POLLIN, 0}, 1, -1));
    }
    if (r == -ECHILD) return settle_lost(child, block, status);
    if (r < 0) return (int)r;
    if (info.si_pid == 0) return 0;
    *status = (struct fsp_status){.code = decode(info.si_code, info.si_status), .usage = usage};
    return 1;
}

int fsp_wait(struct fsp_child *child, int block, struct fsp_status *status) {
    int r = fsp_reap(child, block, status);
    if (r == 1) forget(child);
    return r;
}

int fsp_look(const struct fsp_child *child, struct fsp_status *status) {
    siginfo_t info;
    struct rusage usage;
    if (child->pidfd < 0) return 0;
    long r = reap(child, WNOHANG | WNOWAIT, &info, &usage);
    return r == -ECHILD ? settle_lost(child, 0, status) : 0;
}

bool fsp_has_exited(const struct fsp_child *child) {
    siginfo_t info = {0};
    long r =
        FSP_CALL("waitid", waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT));
    return r == -ECHILD || (r == 0 && info.si_pid != 0);
}

bool fsp_is_child(const struct fsp_child *child) {
    siginfo_t info;
    struct rusage usage;
    if (reap(child, WNOHANG | WNOWAIT, &info, &usage) != -ECHILD) return true;
    return fsp_kill(child, 0, 0) == -ESRCH;
}

#ifdef __linux__
#define PIDFD_SIGNAL_PROCESS_GROUP 4u /* Linux 6.9 */

/* Is the child still ours to name by its pid?  Not if someone else reaped it. */
static int still_there(const struct fsp_child *child) {
    return child->pidfd >= 0 ? sys_pidfd_signal(child->pidfd, 0, 0) : 0;
}

static int signal_group(const struct fsp_child *child, int sig) {
    if (child->pidfd >= 0) {
        int r = sys_pidfd_signal(child->pidfd, sig, PIDFD_SIGNAL_PROCESS_GROUP);
        if (r != -EINVAL && r != -ENOSYS && r != -EPERM) return r;
        r = still_there(child);
        if (r == -ESRCH) return r;
    }
    return (int)FSP_CALL("kill", kill(-child->pid, sig));
}

static int signal_child(const struct fsp_child *child, int sig) {
    if (child->pidfd >= 0) {
        int r = sys_pidfd_signal(child->pidfd, sig, 0);
        if (r != -ENOSYS && r != -EPERM) return r;
    }
    return (int)FSP_CALL("kill", kill(child->pid, sig));
}

/* A child on its way to exec may not lead its group yet; then it is alone. */
int fsp_kill(const struct fsp_child *child, int group, int sig) {
    if (child->pid <= 0) return -ESRCH;
    int r = group ? signal_group(child, sig) : -ESRCH;
    return r == -ESRCH ? signal_child(child, sig) : r;
}

#else

int fsp_kill(const struct fsp_child *child, int group, int sig) {
    if (child->pid <= 0) return -ESRCH;
    return (int)FSP_CALL("kill", kill(group ? -child->pid : child->pid, sig));
}

#endif
