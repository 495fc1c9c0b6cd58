/*
 * wait.c - the end of a child: its status, its resources, and signals until then.
 *
 * A child is named by its pidfd where there is one.  The pid of a child that we have not reaped
 * cannot be reused, so signalling by pid is safe until then, and only until then: fsp_wait
 * forgets both.
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

int fsp_wait(struct fsp_child *child, int block, struct fsp_status *status) {
    siginfo_t info;
    struct rusage usage;
    long r;
    while ((r = reap(child, block ? 0 : WNOHANG, &info, &usage)) == -EINTR || r == -EAGAIN) {
        /* Someone (libuv does) made the pidfd non-blocking: waitid then answers EAGAIN. */
        if (r == -EAGAIN && !block) return 0;
        if (r == -EAGAIN) poll(&(struct pollfd){child->pidfd, POLLIN, 0}, 1, -1);
    }
    if (r == -ECHILD) {
        *status = (struct fsp_status){.lost = 1};
        forget(child);
        return 1;
    }
    if (r < 0) return (int)r;
    if (info.si_pid == 0) return 0;
    *status = (struct fsp_status){.code = decode(info.si_code, info.si_status), .usage = usage};
    forget(child);
    return 1;
}

bool fsp_has_exited(const struct fsp_child *child) {
    siginfo_t info = {0};
    long r =
        FSP_CALL("waitid", waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT));
    return r == -ECHILD || (r == 0 && info.si_pid != 0);
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
