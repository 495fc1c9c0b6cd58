/*
 * tap.c - see tap.h.
 *
 * Lines are written with one write() each to a copy of stdout high up in the table, so that a
 * forked process can report and a test may do what it likes with 0 to 2.
 */
#include "tap.h"

#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS    4096
#define TEST_LIMIT 900 /* seconds, for what hangs: a busy machine is no reason */
#define OUTPUT     1000

/* What must be the same after a test. */
struct census {
    int nfds;
    struct {
        int fd;
        dev_t dev;
        ino_t ino;
    } fds[MAX_FDS];
};

static int output = STDOUT_FILENO;
static int tests, failed_tests, failures;
static const char *running_test = "", *with;

static void say(const char *format, va_list args) {
    char line[1024];
    int n = vsnprintf(line, sizeof line - 1, format, args);
    if (n > (int)sizeof line - 2) n = (int)sizeof line - 2;
    line[n++] = '\n';
    ssize_t written = write(output, line, (size_t)n);
    (void)written;
}

static void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void print(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
}

void tap_note(const char *format, ...) {
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print("# %s", text);
}

void tap_millisecond(void) {
    nanosleep(&(struct timespec){0, 1000000}, NULL);
}

bool tap_check(bool ok, const char *file, int line, const char *what) {
    if (ok) return true;
    failures++;
    tap_note("%s:%d: failed: %s", file, line, what);
    return false;
}

bool tap_check_int(long long is, long long be, const char *file, int line, const char *what) {
    if (is == be) return true;
    failures++;
    tap_note("%s:%d: %s is %lld, not %lld", file, line, what, is, be);
    return false;
}

bool tap_check_str(const char *is, const char *be, const char *file, int line, const char *what) {
    if (strcmp(is, be) == 0) return true;
    failures++;
    tap_note("%s:%d: %s is \"%s\", not \"%s\"", file, line, what, is, be);
    return false;
}

/* ---- what a test may not leave behind ---- */

static void take_census(struct census *c) {
    DIR *dir = opendir("/dev/fd");
    struct dirent *entry;
    struct stat st;
    c->nfds = 0;
    while (dir && (entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir) || fstat(fd, &st) < 0) continue;
        if (c->nfds == MAX_FDS) continue;
        c->fds[c->nfds].fd = fd;
        c->fds[c->nfds].dev = st.st_dev;
        c->fds[c->nfds++].ino = st.st_ino;
    }
    if (dir) closedir(dir);
}

static int find_fd(const struct census *c, int fd) {
    for (int i = 0; i < c->nfds; i++)
        if (c->fds[i].fd == fd) return i;
    return -1;
}

static void compare_fds(const struct census *before, const struct census *after) {
    for (int i = 0; i < after->nfds; i++) {
        int fd = after->fds[i].fd, j = find_fd(before, fd);
        if (j < 0)
            tap_note("descriptor %d was left open", fd);
        else if (before->fds[j].ino != after->fds[i].ino || before->fds[j].dev != after->fds[i].dev)
            tap_note("descriptor %d is another file", fd);
        else
            continue;
        failures++;
    }
    for (int i = 0; i < before->nfds; i++)
        if (find_fd(after, before->fds[i].fd) < 0) {
            tap_note("descriptor %d was closed", before->fds[i].fd);
            failures++;
        }
}

static void check_children(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) != -1) {
        failures++;
        if (pid == 0) {
            tap_note("a child was left running");
            return;
        }
        tap_note("child %d was left unreaped (status %#x)", (int)pid, (unsigned)status);
    }
    CHECK_INT(errno, ECHILD);
}

/* Runs `body` between two looks at what this process has. */
static void guarded(void (*body)(void *), void *arg) {
    struct census *before = malloc(sizeof *before), *after = malloc(sizeof *after);
    sigset_t mask, mask_after;
    int threads = support_threads();
    sigprocmask(SIG_SETMASK, NULL, &mask);
    take_census(before);
    body(arg);
    fsp_fault_set(NULL);
    check_children();
    /* A joined thread is gone a little later than pthread_join says. */
    if (!WAIT_UNTIL(support_threads() == threads)) CHECK_INT(support_threads(), threads);
    take_census(after);
    compare_fds(before, after);
    sigprocmask(SIG_SETMASK, NULL, &mask_after);
    for (int sig = 1; sig < NSIG; sig++)
        if (sigismember(&mask, sig) != sigismember(&mask_after, sig))
            tap_check(false, __FILE__, __LINE__, "the signal mask is as it was");
    free(before);
    free(after);
}

/* ---- running ---- */

static void hung(int sig) {
    (void)sig;
    print("Bail out! %s does not end", running_test);
    _exit(1);
}

static void *nothing(void *arg) {
    return arg;
}

void tap_begin(void) {
    pthread_t thread; /* with the first one TSan starts one of its own */
    if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
    for (int fd = 3; fd < MAX_FDS; fd++) close(fd); /* whatever the caller left open */
    int high = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, OUTPUT);
    if (high < 0) high = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 200);
    if (high >= 0) output = high;
    struct sigaction sa = {.sa_handler = hung};
    sigaction(SIGALRM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int tap_end(void) {
    print("1..%d", tests);
    return failed_tests ? 1 : 0;
}

void tap_with(const char *what) {
    with = what;
}

static void call(void *test) {
    (*(void (**)(void))test)();
}

void tap_run(const char *name, void (*test)(void)) {
    running_test = name;
    failures = 0;
    alarm(TEST_LIMIT);
    guarded(call, &test);
    alarm(0);
    tests++;
    if (failures) failed_tests++;
    print("%s %d - %s%s%s", failures ? "not ok" : "ok", tests, name, with ? ", " : "",
          with ? with : "");
}

int tap_fork_start(void (*part)(void *), void *arg) {
    pid_t pid = fork();
    if (pid == 0) {
        failures = 0;
        alarm(TEST_LIMIT);
        guarded(part, arg);
        _exit(failures ? 1 : 0);
    }
    return pid;
}

bool tap_fork_end(int pid) {
    int status = -1;
    if (!CHECK(pid > 0)) return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    return CHECK_INT(status, 0);
}

void tap_fork(void (*part)(void *), void *arg) {
    tap_fork_end(tap_fork_start(part, arg));
}
