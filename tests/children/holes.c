/*
 * holes.c - what resets could miss, one at a time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fastspawn/checkpoint.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif

static char page_of_its_own[3 * 4096];
static volatile int interrupted;
static sigjmp_buf out;

static void note(int sig) {
    (void)sig;
    interrupted += getppid() > 0; /* a call from a handler */
}

static void jump(int sig) {
    siglongjmp(out, sig);
}

/* Pages that a fork has not, or not the content of; written to by each run. */
static int wiped(int flags) {
    char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return 77;
    if (flags == MAP_PRIVATE && madvise(at, 4096, MADV_WIPEONFORK)) return 77;
    at[5] = 7;
    if (fastspawn_checkpoint(NULL) < 0) return 3;
    printf("%d\n", at[5]);
    at[5] = 9;
    return 0;
}

/* The frame of a handler that has come, and one that never returns. */
static int handled(void) {
    int none[2];
    if (pipe(none)) return 3;
    close(none[0]);
    signal(SIGPIPE, note);
    printf("%d", (int)write(none[1], "x", 1));
    printf(" %d %d", errno == EPIPE, interrupted);
    signal(SIGSEGV, jump);
    int sig = sigsetjmp(out, 1);
    if (sig == 0) *(volatile int *)8 = 1;
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    printf(" %d %d\n", sig, sigismember(&mask, SIGSEGV));
    return 0;
}

/* Signals come in the middle of a call: it is begun anew, or told of. */
static int waits(void) {
    char c = '-';
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask); /* SIGSYS, too */
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = 0;
    sigaction(SIGUSR2, &action, NULL);
    if (write(1, "ready\n", 6) != 6) return 3;
    for (;;) {
        long n = read(0, &c, 1);
        if (n < 0 && errno == EINTR) printf("interrupted ");
        if (n >= 0) break;
    }
    sigaction(SIGUSR1, NULL, &action);
    printf("%c %d %d\n", c, interrupted, sigismember(&action.sa_mask, SIGSYS));
    return 0;
}

static int masks(void) {
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    printf("%d ", sigismember(&old, SIGSYS));
    sigprocmask(SIG_BLOCK, NULL, &old);
    printf("%d ", sigismember(&old, SIGSYS));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, 8, NULL, 8);
    printf("%d ", errno == EFAULT);
    errno = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, 8, 8);
    printf("%d ", errno == EFAULT);
    syscall(SYS_rt_sigaction, SIGUSR1, 8, NULL, 8);
    printf("%d ", errno == EFAULT);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    printf("%d\n", getpid() > 1);
    return 0;
}

static int where(void) {
    unsigned cpu;
    getcpu(&cpu, NULL);
    printf("%d\n", sched_getcpu() == (int)cpu);
    return 0;
}

/* The address of a byte that no run touches; then it waits for the end of its input. */
static int untouched(void) {
    char *at = (char *)(((unsigned long)page_of_its_own + 4095) & ~4095ul);
    char c;
    printf("%d %lu\n", getpid(), (unsigned long)at);
    fflush(stdout);
    while (read(0, &c, 1) > 0) {
    }
    printf("%d\n", *at);
    return 0;
}

/* Of a description that others have, too. */
static int unblocks(void) {
    fcntl(2, F_SETFL, fcntl(2, F_GETFL) | O_NONBLOCK);
    printf("%d\n", (fcntl(2, F_GETFL) & O_NONBLOCK) != 0);
    return 0;
}

/* Without a system call, both. */
static int clocks(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned long long cycles = __builtin_ia32_rdtsc();
    printf("%lld%09ld %llu\n", (long long)now.tv_sec, now.tv_nsec, cycles);
    return 0;
}

static void block_sigsys(int sig) {
    sigset_t one;
    (void)sig;
    sigemptyset(&one);
    sigaddset(&one, SIGSYS);
    sigprocmask(SIG_BLOCK, &one, NULL);
}

static int is_blocked(void) {
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    return sigismember(&now, SIGSYS);
}

/* The handler's return unblocks what the handler has blocked. */
static int blocks_inside(void) {
    sigset_t none;
    int none_reads[2];
    sigemptyset(&none);
    signal(SIGPIPE, block_sigsys);
    if (pipe(none_reads) < 0) return 1;
    close(none_reads[0]);
    if (write(none_reads[1], "", 1) == 1) return 1; /* SIGPIPE */
    printf("%d ", is_blocked());
    sigprocmask(SIG_SETMASK, &none, NULL);
    printf("%d\n", is_blocked());
    return 0;
}

/* A signal that it has sent itself, and that has not come at its end. */
static int pending(void) {
    int none[2];
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGPIPE);
    sigprocmask(SIG_BLOCK, &one, NULL);
    if (pipe(none)) return 3;
    close(none[0]);
    printf("%d\n", (int)write(none[1], "x", 1));
    return 0;
}

#define HUGE (2ul << 20)

/* Pages of 2 MB, of which each run writes to a part. */
static int huge(void) {
    char *map = mmap(NULL, 4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *at = (char *)(((unsigned long)map + HUGE - 1) & ~(HUGE - 1));
    if (map == MAP_FAILED || madvise(at, 2 * HUGE, MADV_HUGEPAGE)) return 77;
    memset(at, 7, 2 * HUGE);
    if (fastspawn_checkpoint(NULL) < 0) return 3;
    int wrong = 0;
    for (unsigned long i = 0; i < 2 * HUGE; i++) wrong += at[i] != 7;
    for (int i = 0; i < 9; i++) {
        unsigned short page;
        if (getrandom(&page, sizeof page, 0) < 0) return 3;
        at[page % 1024 * 4096ul + page % 4096] = 9;
    }
    printf("%d\n", wrong);
    return 0;
}

static int dive(int n) {
    volatile char room[4096];
    room[0] = (char)n;
    return n ? dive(n - 1) + room[0] : 0;
}

/* A number at which a resident has something of its own. */
#define OURS 515

static int places(void) {
    int n = dup2(OURS, 5);
    printf("%d %d\n", n, errno == EBADF);
    return 0;
}

/* By each call that takes a number, also below a directory, and with more in its register. */
static int hidden(void) {
    struct stat at;
    struct statx more;
    long high = OURS | 1L << 40, low = OURS | -1L << 32, none = 0xffffff9c; /* AT_FDCWD */
    long fds[] = {
        fstat(OURS, &at),
        fstatat(OURS, "", &at, AT_EMPTY_PATH),
        statx(OURS, "", AT_EMPTY_PATH, STATX_TYPE, &more),
        fchdir(OURS),
        syscall(SYS_close, high),
        syscall(SYS_close, low),
        syscall(SYS_fcntl, low, F_GETFD),
        syscall(SYS_dup, low),
    };
    int told = 0;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) told += fds[i] == -1 && errno == EBADF;
    int self = (int)syscall(SYS_openat, none, "/proc/self/exe", O_RDONLY | O_CLOEXEC);
    printf("%d %d %ld\n", told, self > 2, syscall(SYS_close, self | 1L << 40));
    return 0;
}

/* What is below one of ours. */
static int below(void) {
    int there = openat(OURS, "x", O_RDONLY) < 0 && errno == EBADF;
    there += mkdirat(OURS, "x", 0700) < 0 && errno == EBADF;
    there += linkat(AT_FDCWD, "/proc/self/exe", OURS, "x", 0) < 0 && errno == EBADF;
    there += symlinkat("x", OURS, "x") < 0 && errno == EBADF;
    printf("%d\n", there);
    return 0;
}

static int polls(void) {
    struct pollfd fds[2] = {
        {.fd = -1},
        {.fd = OURS, .events = POLLIN}
    };
    int n = poll(fds, 2, 0);
    printf("%d %d\n", n, fds[1].revents == POLLNVAL);
    return 0;
}

static int selects(void) {
    fd_set set;
    struct timespec none = {0};
    FD_ZERO(&set);
    FD_SET(OURS, &set);
    int n = pselect(FD_SETSIZE, &set, NULL, NULL, &none, NULL);
    printf("%d %d\n", n, errno == EBADF);
    return 0;
}

/* As many programs do at their begin: calls that ask, or set what is set. */
static int begins(void) {
    struct rlimit limit;
    struct pollfd one = {.fd = -1};
    fd_set set;
    struct timeval none = {0};
    FD_ZERO(&set);
    getrlimit(RLIMIT_CORE, &limit);
    printf("%d %d", setrlimit(RLIMIT_CORE, &limit), ioctl(2, TIOCGPGRP, &(pid_t){0}));
    printf(" %d %d", poll(&one, 1, 0), select(FD_SETSIZE, &set, NULL, NULL, &none));
    printf(" %d\n", ioctl(1, FICLONE, OURS));
    return 0;
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (strcmp(how, "wiped") == 0) return wiped(MAP_PRIVATE);
    if (strcmp(how, "droppable") == 0) return wiped(MAP_DROPPABLE);
    if (strcmp(how, "handled") == 0) return handled();
    if (strcmp(how, "waits") == 0) return waits();
    if (strcmp(how, "masks") == 0) return masks();
    if (strcmp(how, "where") == 0) return where();
    if (strcmp(how, "untouched") == 0) return untouched();
    if (strcmp(how, "unblocks") == 0) return unblocks();
    if (strcmp(how, "clocks") == 0) return clocks();
    if (strcmp(how, "inside") == 0) return blocks_inside();
    if (strcmp(how, "pending") == 0) return pending();
    if (strcmp(how, "huge") == 0) return huge();
    if (strcmp(how, "deep") == 0) return printf("%d\n", dive(1000)) < 0;
    if (strcmp(how, "places") == 0) return places();
    if (strcmp(how, "hidden") == 0) return hidden();
    if (strcmp(how, "below") == 0) return below();
    if (strcmp(how, "polls") == 0) return polls();
    if (strcmp(how, "selects") == 0) return selects();
    if (strcmp(how, "begins") == 0) return begins();
    if (strcmp(how, "fault") == 0) return *(volatile char *)8;
    return 2;
}
