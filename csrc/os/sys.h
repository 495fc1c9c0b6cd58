/*
 * sys.h - the seam: the one way out of the core.
 *
 * Every system call and allocation goes through a wrapper here (or, in a child that shares our
 * memory, through the raw ones in rawsys.h), asks fsp_fault() first, and returns a result or
 * -errno.  A test can therefore make any of them fail at any step.  The cost when no test is
 * watching is one load and one branch that is never taken.
 */
#ifndef FSP_SYS_H
#define FSP_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/ioctl.h>
#include <sys/syscall.h>
#endif

#define fsp_likely(x)   __builtin_expect(!!(x), 1)
#define fsp_unlikely(x) __builtin_expect(!!(x), 0)

/* Code between clone and exec runs on a borrowed address space: no instrumentation there. */
#if defined(__clang__)
#define FSP_UNINSTRUMENTED                                                                         \
    __attribute__((no_sanitize("address", "thread", "undefined"),                                  \
                   disable_sanitizer_instrumentation))
#else
#define FSP_UNINSTRUMENTED __attribute__((no_sanitize("address", "thread", "undefined")))
#endif

extern int (*fsp_fault_hook)(const char *call);

static inline FSP_UNINSTRUMENTED int fsp_fault(const char *call) {
    int (*hook)(const char *) = __atomic_load_n(&fsp_fault_hook, __ATOMIC_RELAXED);
    return fsp_unlikely(hook != NULL) ? hook(call) : 0;
}

#ifdef __clang_analyzer__ /* what it cannot know: outside of tests nothing is refused, and */
#define fsp_fault(call)  0
#define fsp_last_error() (errno > 0 ? errno : (__builtin_unreachable(), 1)) /* no errno is 0 */
#else
#define fsp_last_error() errno
#endif

/* Run a call that answers -1 and errno, behind the seam. */
#define FSP_CALL(name, expr)                                                                       \
    ({                                                                                             \
        long fsp_r_ = -(long)fsp_fault(name);                                                      \
        if (fsp_likely(fsp_r_ == 0)) {                                                             \
            fsp_r_ = (long)(expr);                                                                 \
            if (fsp_unlikely(fsp_r_ == -1)) fsp_r_ = -(long)fsp_last_error();                      \
        }                                                                                          \
        fsp_r_;                                                                                    \
    })

static inline void *sys_malloc(size_t size) {
    return fsp_fault("malloc") ? NULL : malloc(size);
}

static inline void *sys_calloc(size_t n, size_t size) {
    return fsp_fault("malloc") ? NULL : calloc(n, size);
}

static inline void *sys_realloc(void *old, size_t size) {
    return fsp_fault("realloc") ? NULL : realloc(old, size);
}

/* A mapping or NULL; the caller reports -ENOMEM. */
static inline void *sys_mmap(size_t size, int flags) {
    if (fsp_fault("mmap")) return NULL;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Cannot fail for what a mapping call gave. */
static inline void sys_munmap(void *p, size_t size) {
    munmap(p, size);
}

static inline int sys_mprotect_none(void *p, size_t size) {
    return (int)FSP_CALL("mprotect", mprotect(p, size, PROT_NONE));
}

/* Never retried: on Linux the descriptor is gone even after EINTR (close(2)). */
static inline void sys_close(int fd) {
    if (fd >= 0) close(fd);
}

/* What was at `over`, a number that is open, gives way; that cannot fail (dup(2)). */
static inline void sys_dup_over(int fd, int over) {
#ifdef __linux__
    dup3(fd, over, O_CLOEXEC);
#else
    if (dup2(fd, over) >= 0) (void)fcntl(over, F_SETFD, FD_CLOEXEC);
#endif
}

static inline int sys_cloexec(int fd) {
    return (int)FSP_CALL("fcntl", fcntl(fd, F_SETFD, FD_CLOEXEC));
}

static inline int sys_nonblock(int fd) {
    return (int)FSP_CALL("fcntl", fcntl(fd, F_SETFL, O_NONBLOCK));
}

static inline int sys_dup_above(int fd, int floor) {
    return (int)FSP_CALL("fcntl", fcntl(fd, F_DUPFD_CLOEXEC, floor));
}

/* How many bytes it holds at most (fcntl(2)); -ENOSYS: nobody tells here. */
static inline int sys_pipe_size(int fd) {
#ifdef __linux__
    return (int)FSP_CALL("fcntl", fcntl(fd, F_GETPIPE_SZ));
#else
    (void)fd;
    return -ENOSYS;
#endif
}

/* Both ends close-on-exec. */
static inline int sys_pipe(int fd[2]) {
#ifdef __linux__
    return (int)FSP_CALL("pipe2", pipe2(fd, O_CLOEXEC));
#else
    int r = (int)FSP_CALL("pipe2", pipe(fd));
    if (r == 0) {
        (void)fcntl(fd[0], F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd[1], F_SETFD, FD_CLOEXEC);
    }
    return r;
#endif
}

static inline int sys_open(const char *path, int flags) {
    return (int)FSP_CALL("open", open(path, flags | O_CLOEXEC));
}

static inline ssize_t sys_read(int fd, void *buf, size_t len) {
    ssize_t r;
    do r = FSP_CALL("read", read(fd, buf, len));
    while (r == -EINTR);
    return r;
}

static inline ssize_t sys_write(int fd, const void *buf, size_t len) {
    ssize_t r;
    do r = FSP_CALL("write", write(fd, buf, len));
    while (r == -EINTR);
    return r;
}

static inline int sys_stat(const char *path, struct stat *st) {
    return (int)FSP_CALL("stat", stat(path, st));
}

static inline int sys_fstat(int fd, struct stat *st) {
    return (int)FSP_CALL("fstat", fstat(fd, st));
}

/* May this process execute the file, by its effective identity? */
static inline int sys_executable(const char *path) {
    return (int)FSP_CALL("access", faccessat(AT_FDCWD, path, X_OK, AT_EACCESS));
}

static inline uint64_t sys_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A thread in which no handler of the program is run. */
static inline int sys_thread(pthread_t *thread, void *(*run)(void *), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -fsp_fault("thread");
    if (r == 0) r = -pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

#ifdef __linux__

static inline int sys_pidfd_open(pid_t pid) {
#ifdef SYS_pidfd_open
    return (int)FSP_CALL("pidfd_open", syscall(SYS_pidfd_open, pid, 0));
#else
    return -ENOSYS;
#endif
}

/*
 * The calling thread waits for a processor from now on, instead of preempting whoever runs
 * (SCHED_BATCH, sched(7)), if it was scheduled in the default way.  Its children inherit that.
 * System calls, since musl has no such function.
 */
static inline int sys_batch(void) {
    const int none = 0; /* struct sched_param */
    long r = FSP_CALL("sched_getscheduler", syscall(SYS_sched_getscheduler, 0));
    if (r != SCHED_OTHER) return r < 0 ? (int)r : -EPERM;
    return (int)FSP_CALL("sched_setscheduler",
                         syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &none));
}

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2u
#endif
#ifndef SYS_close_range
#define SYS_close_range 436 /* the same number on every architecture since Linux 5.9 */
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags) {
    return (int)FSP_CALL("close_range", syscall(SYS_close_range, first, last, flags));
}

static inline int sys_pidfd_signal(int pidfd, int sig, unsigned flags) {
    return (int)FSP_CALL("pidfd_send_signal",
                         syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, flags));
}

/*
 * What a pidfd tells of its process (PIDFD_GET_INFO, Linux 6.13).  The head that every kernel with
 * the call has: it copies as much as it is given room for.
 */
struct sys_pidfd_info {
    uint64_t mask; /* asked for; what was told */
    uint64_t cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code; /* as wait(2) has it */
};
#define SYS_PIDFD_GET_INFO  _IOWR(0xff, 11, struct sys_pidfd_info)
#define SYS_PIDFD_INFO_EXIT 8u /* Linux 6.15; the process has been reaped */

static inline int sys_pidfd_info(int pidfd, struct sys_pidfd_info *info) {
    return (int)FSP_CALL("pidfd_info", ioctl(pidfd, SYS_PIDFD_GET_INFO, info));
}

/* The kernel's signal sets, which hold the two signals that libc hides from its own masks. */
static inline int sys_sigmask(const uint64_t *set, uint64_t *old) {
    return (int)FSP_CALL("sigprocmask",
                         syscall(SYS_rt_sigprocmask, SIG_SETMASK, set, old, sizeof *set));
}

#else

static inline int sys_pidfd_open(pid_t pid) {
    (void)pid;
    return -ENOSYS;
}

static inline int sys_batch(void) {
    return -ENOSYS;
}

static inline int sys_sigmask(const uint64_t *set, uint64_t *old) {
    sigset_t native = set ? (sigset_t)*set : 0, before;
    int r = pthread_sigmask(SIG_SETMASK, set ? &native : NULL, &before);
    if (old) *old = before;
    return -r;
}

#endif
#endif
