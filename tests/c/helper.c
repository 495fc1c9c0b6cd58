/*
 * helper.c - the test program as its own child (support.h).
 *
 *   PROGRAM --helper MODE [FD]
 *
 * `report` tells on FD (default 1) what a process can see of how it was started, as name=value
 * lines.  It looks at its descriptors before it opens any.  `linger` lets itself be traced, says
 * that it is here, and waits for the end of its stdin.
 */
#include "support.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

char support_self[PATH_MAX];
extern char **environ;

static char text[65536];
static size_t len;

static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void add(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text + len, sizeof text - len, format, args);
    va_end(args);
    if (n > 0) len += (size_t)n < sizeof text - len ? (size_t)n : sizeof text - len - 1;
}

/* "3:DEV.INO " for each descriptor; a close-on-exec one could not be here. */
static void add_fds(void) {
    struct stat st;
    add("fds=");
    for (int fd = 0; fd < 4096; fd++)
        if (fstat(fd, &st) == 0)
            add("%d:%lx.%lx ", fd, (unsigned long)st.st_dev, (unsigned long)st.st_ino);
    add("\n");
}

static void add_signals(void) {
    sigset_t blocked;
    struct sigaction sa;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    add("blocked=");
    for (int sig = 1; sig < NSIG; sig++)
        if (sigismember(&blocked, sig) == 1) add("%d ", sig);
    add("\nignored=");
    for (int sig = 1; sig < NSIG; sig++)
        if (sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN) add("%d ", sig);
    add("\n");
}

static void add_limit(const char *name, int resource) {
    struct rlimit limit;
    getrlimit(resource, &limit);
    add("%s=%llu:%llu\n", name, (unsigned long long)limit.rlim_cur,
        (unsigned long long)limit.rlim_max);
}

static void report(int argc, char **argv) {
    char cwd[PATH_MAX];
    mode_t mask = umask(0);
    umask(mask);
    add_fds();
    add_signals();
    add("pid=%d\nppid=%d\nsid=%d\npgid=%d\numask=%o\n", getpid(), getppid(), getsid(0), getpgrp(),
        (unsigned)mask);
    add("cwd=%s\n", getcwd(cwd, sizeof cwd) ? cwd : "");
    add_limit("nofile", RLIMIT_NOFILE);
    add_limit("core", RLIMIT_CORE);
    add("argc=%d\nargv0=%s\nlast=%s\n", argc, argv[0], argv[argc - 1]);
    add("environ=");
    for (char **e = environ; *e; e++) add("%s;", *e);
    add("\n");
}

/* Use the processor until it shows. */
static void burn(void) {
    struct rusage usage;
    volatile unsigned long work = 0;
    do {
        while (++work % 100000) continue;
        getrusage(RUSAGE_SELF, &usage);
    } while (usage.ru_utime.tv_sec == 0 && usage.ru_utime.tv_usec < 30000);
}

static void write_all(int fd) {
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, text + at, len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) _exit(3);
        at += (size_t)n;
    }
}

static void linger(void) {
    char byte;
#ifdef __linux__
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* unknown where there is no Yama */
#endif
    add("here\n");
    write_all(1);
    len = 0;
    while (read(0, &byte, 1) > 0) continue;
}

static void find_self(const char *argv0) {
#ifdef __APPLE__
    uint32_t size = sizeof support_self;
    (void)argv0;
    _NSGetExecutablePath(support_self, &size);
#else
    ssize_t n = readlink("/proc/self/exe", support_self, sizeof support_self - 1);
    if (n < 0) snprintf(support_self, sizeof support_self, "%s", argv0);
#endif
}

void support_begin(int argc, char **argv) {
    find_self(argv[0]);
    if (argc == 3 && strcmp(argv[1], "--puppet") == 0) support_puppet(argv[2]);
    if (argc < 3 || strcmp(argv[1], "--helper") != 0) return;
    if (strcmp(argv[2], "burn") == 0) burn();
    if (strcmp(argv[2], "linger") == 0) linger();
    if (strcmp(argv[2], "report") == 0) report(argc, argv);
    write_all(argc > 3 && argv[3][0] >= '0' && argv[3][0] <= '9' ? atoi(argv[3]) : 1);
    _exit(0);
}
