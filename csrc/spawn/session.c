/*
 * session.c - signals to all of a session: a shell puts each of its jobs into a group of its own.
 *
 * No system call names a session, so its processes are looked for in proc(5).  That is safe as long
 * as the leader has not been reaped, since its pid, and with it the session's, is not given to
 * another then; and each process is named by a pidfd, and looked at again, before it is signalled.
 * Whoever has left the session (setsid(2)) is not found.
 */
#include "internal.h"

#ifdef __linux__

#include <dirent.h>
#include <stdio.h>

/* The session of a process that has not ended, or 0. */
static pid_t session_of(pid_t pid) {
    char path[32], text[512], state;
    int session;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = sys_open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t n = sys_read(fd, text, sizeof text - 1);
    sys_close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    const char *rest = strrchr(text, ')'); /* its name may have anything in it */
    if (rest == NULL || sscanf(rest, ") %c %*d %*d %d", &state, &session) != 2) return 0;
    return state == 'Z' || state == 'X' ? 0 : session;
}

static void signal_member(pid_t pid, pid_t session, int sig) {
    int pidfd = sys_pidfd_open(pid);
    if (pidfd < 0 && !fsp_is_refused(pidfd)) return;
    if (session_of(pid) == session) {
        int r = pidfd < 0 ? -ENOSYS : sys_pidfd_signal(pidfd, sig, 0);
        if (r == -ENOSYS) (void)FSP_CALL("kill", kill(pid, sig));
    }
    sys_close(pidfd);
}

/* How many there are besides the leader. */
static int each_member(pid_t leader, int sig) {
    int n = 0, fd = sys_open("/proc", O_RDONLY | O_DIRECTORY);
    if (fd < 0) return 0;
    DIR *all = fsp_fault("fdopendir") ? NULL : fdopendir(fd);
    if (all == NULL) {
        sys_close(fd);
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(all));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid <= 0 || pid == leader || session_of(pid) != leader) continue;
        if (sig) signal_member(pid, leader, sig);
        n++;
    }
    closedir(all);
    return n;
}

/* Our child, running or not reaped: nobody else has its pid. */
static bool is_ours(const struct fsp_child *child) {
    siginfo_t info;
    return child->pid > 0 && FSP_CALL("waitid", waitid(P_PID, (id_t)child->pid, &info,
                                                       WEXITED | WNOHANG | WNOWAIT)) == 0;
}

int fsp_kill_session(const struct fsp_child *leader, int sig) {
    if (!is_ours(leader)) return 0;
    if (sig) fsp_kill(leader, 0, sig);
    return each_member(leader->pid, sig);
}

#else

int fsp_kill_session(const struct fsp_child *leader, int sig) {
    return sig ? fsp_kill(leader, 1, sig) : 0;
}

#endif
