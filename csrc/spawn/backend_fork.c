/*
 * backend_fork.c - a child with memory of its own: for credentials, which are unsafe to change on
 * shared memory (the kernel then alters the dumpability of the whole mm), and for tools that
 * cannot follow a shared one.
 *
 * CLONE_VFORK without CLONE_VM copies the memory and still suspends the parent until exec, so
 * the protocol is that of the other backends; only the error lies on a page that both share.
 * The raw system call runs no atfork handlers: the child never returns to code that would need
 * them.
 *
 * QEMU's user mode ignores CLONE_VFORK, as it may: such a system is recognised with a child that
 * waits for a sign of its parent, and there the exec is waited for with a pipe that it closes.
 */
#include "internal.h"
#include "os/rawsys.h"

#ifdef __linux__
#include <sched.h>

/* What parent and child share. */
struct page {
    struct fsp_error error;
    int stat;    /* a descriptor of the parent's proc(5), or -1 */
    int goes_on; /* the parent's sign */
    int told;    /* the child's: there was none */
};

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

static int suspends; /* 1: we are suspended, -1: we are not; 0: not known yet */

static long start(int (*child)(void *), void *arg, int *pidfd) {
    unsigned long flags = CLONE_VFORK | SIGCHLD;
    long pid = raw(clone, flags | (pidfd ? CLONE_PIDFD : 0), 0, pidfd, 0, 0);
    if (pid == 0) _exit(child(arg));
    return pid;
}

/* With a descriptor that is this child's for sure; where there is none (emulators refuse to make
 * it, too many are open), without. */
static long start_named(int (*child)(void *), void *arg, int *pidfd) {
    long pid = start(child, arg, pidfd);
    return pid >= 0 || pid == -EAGAIN || pid == -ENOMEM ? pid : start(child, arg, NULL);
}

/* Milliseconds for a sign, where the parent could give one, and where that is not known. */
#define PATIENCE 10000
#define GUESS    20

/* The letter of proc(5) for how a thread is, or 0. */
static char state_of(int stat) {
    char text[256];
    long n = raw(pread64, stat, text, sizeof text, 0);
    while (n > 0 && text[n - 1] != ')') n--;
    return n > 0 && n + 1 < (long)sizeof text ? text[n + 1] : 0;
}

/* On a busy machine a parent that is not suspended may not get to run for a while, but it is not
 * asleep as a suspended one is (D). */
static int waiting_child(void *arg) {
    volatile struct page *page = arg;
    struct timespec ms = {0, 1000000};
    int asleep = 0;
    for (int i = 0; i < PATIENCE && !page->goes_on; i++) {
        char state = state_of(page->stat);
        asleep = state == 'D' ? asleep + 1 : 0;
        bool could = state == 'R' || state == 't'; /* t: its tracer has stopped it */
        page->told = asleep > 1 || (i >= GUESS && !could);
        if (page->told) break;
        raw(nanosleep, &ms, NULL);
    }
    return 0;
}

/* Once per process: 0 or the clone's -errno. */
static int learn(volatile struct page *page) {
    if (__atomic_load_n(&suspends, __ATOMIC_RELAXED)) return 0;
    struct fsp_status status;
    struct fsp_child child = {-1, -1};
    page->stat = sys_open("/proc/thread-self/stat", O_RDONLY | O_CLOEXEC);
    long pid = start(waiting_child, (void *)page, NULL);
    page->goes_on = 1;
    if (page->stat >= 0) sys_close(page->stat);
    if (pid < 0) return (int)pid;
    child.pid = (pid_t)pid;
    fsp_wait(&child, 1, &status);
    __atomic_store_n(&suspends, page->told ? 1 : -1, __ATOMIC_RELAXED);
    return 0;
}

static bool is_named(const struct fsp_launch *l, int fd) {
    for (size_t i = 0; i < l->nmoves; i++)
        if (l->moves[i].source == fd || l->moves[i].target == fd) return true;
    return false;
}

/* The descriptor at a number that the plan does not name, or -errno and closed. */
static int move_away(const struct fsp_launch *l, int fd) {
    while (fd >= 0 && (fd < 3 || is_named(l, fd))) {
        int next = sys_dup_above(fd, fd < 3 ? 3 : fd + 1);
        sys_close(fd);
        fd = next;
    }
    return fd;
}

static int open_tell(const struct fsp_launch *l, int fd[2]) {
    int r = sys_pipe(fd);
    if (r < 0) return r;
    for (int i = 0; i < 2; i++) fd[i] = move_away(l, fd[i]);
    r = fd[0] < 0 ? fd[0] : fd[1] < 0 ? fd[1] : 0;
    for (int i = 0; i < 2 && r < 0; i++) sys_close(fd[i]);
    return r;
}

static void wait_for_exec(int fd[2]) {
    char none;
    sys_close(fd[1]);
    while (sys_read(fd[0], &none, 1) > 0) continue;
    sys_close(fd[0]);
}

static long start_and_wait(struct fsp_launch *l, int *pidfd) {
    if (__atomic_load_n(&suspends, __ATOMIC_RELAXED) > 0)
        return start_named(fsp_child_main, l, pidfd);
    int fd[2], r = open_tell(l, fd);
    if (r < 0) return r;
    l->tell = fd[1];
    long pid = start_named(fsp_child_main, l, pidfd);
    l->tell = 0;
    wait_for_exec(fd);
    return pid;
}

static int launch(struct fsp_launch *l) {
    volatile struct fsp_error *mine = l->error;
    volatile struct page *page = sys_mmap(sizeof *page, MAP_SHARED);
    if (page == NULL) return -ENOMEM;
    l->reset_handlers = true;
    l->error = &page->error;
    int pidfd = -1;
    long pid = learn(page);
    if (pid == 0) pid = start_and_wait(l, &pidfd);
    l->error = mine;
    *mine = page->error;
    sys_munmap((void *)page, sizeof *page);
    if (pid < 0) return (int)pid;
    if (pidfd < 0) pidfd = sys_pidfd_open((pid_t)pid); /* before Linux 5.2 */
    l->child = (struct fsp_child){(pid_t)pid, pidfd < 0 ? -1 : pidfd};
    return 0;
}

const struct fsp_backend fsp_backend_fork = {
    .name = "fork",
    .launch = launch,
};
#endif
