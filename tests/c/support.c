/*
 * support.c - see support.h.
 */
#include "support.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>

#include "tap.h"

extern char **environ;

/* ---- plans ---- */

struct fsp_spec support_spec(const char *const *argv) {
    return (struct fsp_spec){
        .file = argv[0],
        .argv = argv,
        .envp = (const char *const *)environ,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = -1,
        .flags = FSP_FLAG_CLOSE_FDS | FSP_FLAG_RESTORE_SIGNALS,
    };
}

struct fsp_plan *support_plan(const struct fsp_spec *spec) {
    struct fsp_plan *plan = NULL;
    if (fsp_plan_new(spec, &plan) < 0) {
        tap_note("no memory for a plan");
        _exit(1);
    }
    return plan;
}

void support_each_backend(void (*tests)(void)) {
    const char *name;
    for (size_t i = 0; (name = fsp_backend_list(i)); i++) {
        tap_with(name);
        if (fsp_backend_select(name) == 0) tests();
    }
    tap_with(NULL);
    fsp_backend_select(NULL);
}

bool support_is_posix_spawn(void) {
    return strcmp(fsp_backend_name(), "posix_spawn") == 0;
}

bool support_by_posix_spawn(const struct fsp_spec *spec) {
    struct fsp_plan *plan = support_plan(spec);
    bool can = support_is_posix_spawn() && fsp_posix_spawn_can(plan);
    fsp_plan_unref(plan);
    return can;
}

/* ---- spawning on this thread ---- */

int support_spawn(const struct fsp_spec *spec, const struct fsp_stdio *io, struct fsp_child *child,
                  struct fsp_error *error) {
    struct fsp_plan *plan = support_plan(spec);
    int r = fsp_spawn(plan, io, 0, NULL, child, error);
    fsp_plan_unref(plan);
    return r;
}

void support_run_with(const struct fsp_spec *spec, const struct fsp_stdio *io, const uint64_t *mask,
                      struct run *run) {
    struct fsp_plan *plan = support_plan(spec);
    struct fsp_child child;
    memset(run, 0, sizeof *run);
    run->result = fsp_spawn(plan, io, 0, mask, &child, &run->error);
    fsp_plan_unref(plan);
    if (run->result == 0) CHECK_INT(fsp_wait(&child, 1, &run->status), 1);
}

size_t support_read_all(int fd, char *buf, size_t size) {
    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, buf + len, size - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        len += (size_t)n;
    }
    buf[len] = '\0';
    return len;
}

void support_run(const struct fsp_spec *spec, struct run *run) {
    struct fsp_child child;
    int fd[2];
    memset(run, 0, sizeof *run);
    support_pipe(fd, 3);
    run->result = support_spawn(spec,
                                &(struct fsp_stdio){
                                    {-1, fd[1], -1}
    },
                                &child, &run->error);
    close(fd[1]);
    if (run->result == 0) {
        run->len = support_read_all(fd[0], run->out, sizeof run->out);
        CHECK_INT(fsp_wait(&child, 1, &run->status), 1);
    }
    close(fd[0]);
}

const char *support_field(const char *report, const char *name) {
    static char value[4096];
    size_t len = strlen(name);
    for (const char *line = report; line && *line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, len) != 0 || line[len] != '=') continue;
        snprintf(value, sizeof value, "%.*s", (int)strcspn(line + len + 1, "\n"), line + len + 1);
        return value;
    }
    return "";
}

/* ---- the system ---- */

#if UNDER_TSAN
/*
 * TSan believes that a process has one table of descriptors: where each spawner has its own, the
 * same number is another file in each, and closing it in one is no race with using it in the
 * other.  What these calls do to descriptors is not reported then; memory is.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:sys_open\nrace:sys_close\nrace:sys_pipe\nrace:sys_read\nrace:sys_write\n"
           "race:sys_nonblock\nrace:sys_dup_above\nrace:fsp_waker_*\nrace:fsp_poller_*\n"
           "race:move_down\nrace:close_end\nrace:open_channel\nrace:open_socket\nrace:open_page\n";
}
#endif

int support_threads(void) {
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    if (dir == NULL) return 1;
    for (struct dirent *entry; (entry = readdir(dir));) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

size_t support_heap_bytes(void) {
    if (UNDER_TSAN || __sanitizer_get_current_allocated_bytes == NULL) return 0;
    return __sanitizer_get_current_allocated_bytes();
}

static char dir_path[128];
static pid_t dir_owner;

static void remove_dir(void) {
    char command[2 * sizeof dir_path + 40];
    if (getpid() != dir_owner) return;
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", dir_path, dir_path);
    if (system(command) != 0) tap_note("cannot remove %s", dir_path);
}

const char *support_dir(void) {
    if (dir_owner) return dir_path;
    const char *tmp = getenv("TMPDIR");
    char real[PATH_MAX], made[PATH_MAX + 16];
    if (realpath(tmp && *tmp ? tmp : "/tmp", real) == NULL) strcpy(real, "/tmp");
    snprintf(made, sizeof made, "%s/fsp-XXXXXX", real);
    if (mkdtemp(made) == NULL || strlen(made) >= sizeof dir_path) {
        tap_note("no temporary directory");
        _exit(1);
    }
    strcpy(dir_path, made);
    dir_owner = getpid();
    atexit(remove_dir);
    return dir_path;
}

const char *support_path(const char *name) {
    static char paths[64][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % LENGTH(paths)];
    snprintf(path, sizeof paths[0], "%s/%s", support_dir(), name);
    return path;
}

void support_write_file(const char *path, const char *text, unsigned mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(fchmod(fd, mode) == 0);
    close(fd);
}

void support_age(const char *path, int seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct timespec then[2] = {
        {now.tv_sec - seconds, 0},
        {now.tv_sec - seconds, 0}
    };
    CHECK(utimensat(AT_FDCWD, path, then, 0) == 0);
}

void support_pipe(int fd[2], int floor) {
    int low[2];
    bool ok = pipe(low) == 0;
    for (int i = 0; i < 2; i++) {
        fd[i] = fcntl(low[i], F_DUPFD_CLOEXEC, floor);
        ok = ok && fd[i] >= 0;
    }
    close(low[0]);
    close(low[1]);
    CHECK(ok);
}

void support_dup_to(int fd, int number) {
    CHECK_INT(dup2(fd, number), number);
}

bool support_remembers(void) {
#if defined(__linux__) && defined(SYS_pidfd_open)
    static int known; /* 1: it does, -1: it does not */
    if (known) return known > 0;
    struct sys_pidfd_info info = {.mask = SYS_PIDFD_INFO_EXIT};
    int go[2], fd;
    support_pipe(go, 3);
    pid_t pid = fork();
    if (pid == 0) {
        close(go[1]);
        _exit(read(go[0], go, 1) == 0 ? 7 : 1);
    }
    close(go[0]);
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    close(go[1]);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue; /* SIGCHLD may be ignored */
    if (fd >= 0) poll(&(struct pollfd){fd, 0, 0}, 1, 10000);
    bool told = ioctl(fd, SYS_PIDFD_GET_INFO, &info) == 0 && info.mask & SYS_PIDFD_INFO_EXIT;
    known = told && WEXITSTATUS(info.exit_code) == 7 ? 1 : -1;
    close(fd);
    return known > 0;
#else
    return false;
#endif
}

void *support_reap_any(void *unused) {
    (void)unused;
    while (waitpid(-1, NULL, 0) < 0 && errno == EINTR) continue;
    return NULL;
}

bool support_kill(long pid) {
    return CHECK(pid > 1) && kill((pid_t)pid, SIGKILL) == 0;
}

bool support_stopped(pid_t pid) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}
