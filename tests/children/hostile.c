/*
 * hostile.c - attacks whoever it can reach: one attack for each request.
 *
 *   hostile MARK [checkpoint]
 *
 * The first line of the input names the attack, and its victims by their ids; the rest is a body.
 * MARK is for a test to find what is left.  What ends others is for test_hostile.py's own servers:
 * victims are named, and "everyone" does nothing but under an account that only a test has.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fastspawn/checkpoint.h"

#define MOST          4096
#define FIRST_ACCOUNT 61000 /* to 61999: nobody else's */
#define COUNT(array)  (sizeof(array) / sizeof *(array))

static int ignored(long result) {
    return result < 0;
}

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

/* 0, or what was refused. */
static int outcome(long result) {
    return result < 0 ? errno : 0;
}

/* Whatever /proc lists above the three, also where calls of ours are told that there is none. */
static size_t beyond(int *found) {
    DIR *fds = opendir("/proc/self/fd");
    size_t n = 0;
    if (fds == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(fds)) && n < MOST;) {
        int fd = atoi(entry->d_name);
        if (fd > 2 && fd != dirfd(fds)) found[n++] = fd;
    }
    closedir(fds);
    return n;
}

/* ---- no attack: what others ask meanwhile ---- */

static void state(void) {
    char cwd[MOST];
    struct rlimit limit;
    cpu_set_t cpus;
    sigset_t blocked;
    struct sigaction action;
    mode_t mask = umask(0);
    umask(mask);
    printf("%s %o %d %d", getcwd(cwd, sizeof cwd), mask, getpriority(PRIO_PROCESS, 0),
           sched_getscheduler(0));
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (getrlimit(i, &limit) == 0)
            printf(" %ld:%ld", (long)limit.rlim_cur, (long)limit.rlim_max);
    sched_getaffinity(0, sizeof cpus, &cpus);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    printf(" %d", CPU_COUNT(&cpus));
    for (int sig = 1; sig < 32; sig++) {
        sigaction(sig, NULL, &action);
        printf(" %d%d", action.sa_handler == SIG_IGN, sigismember(&blocked, sig));
    }
    printf(" %s\n", getenv("SPOILT") ? "spoilt" : "clean");
}

/* Has begun; and at its input's end, what that was. */
static void echo(void) {
    char some[MOST];
    say("begun");
    for (size_t n; (n = fread(some, 1, sizeof some, stdin)) > 0;) fwrite(some, 1, n, stdout);
}

/* ---- what it holds ---- */

static void held(void) {
    int fds[MOST];
    struct stat at;
    for (size_t i = 0, n = beyond(fds); i < n; i++) {
        int open = fstat(fds[i], &at) == 0;
        printf("%d %s\n", fds[i], !open ? "hidden" : S_ISSOCK(at.st_mode) ? "socket" : "other");
    }
}

/* Into every descriptor that is not for it. */
static void garbage(void) {
    int fds[MOST];
    char noise[5000];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(i * 7919 >> 3);
    for (size_t i = 0, n = beyond(fds); i < n; i++) {
        ignored(fcntl(fds[i], F_SETFL, O_NONBLOCK));
        ignored(write(fds[i], "", 1));
        ignored(write(fds[i], noise, 64));
        ignored(write(fds[i], noise, sizeof noise));
    }
    say("done");
}

/* Messages of each kind, as somebody might send who knows the protocol, with descriptors. */
static void messages(void) {
    int fds[MOST];
    for (size_t i = 0, n = beyond(fds); i < n; i++) {
        for (unsigned kind = 0; kind < 8; kind++) {
            unsigned head[8] = {kind, 1, 0, 0};
            union {
                struct cmsghdr header;
                char room[CMSG_SPACE(2 * sizeof(int))];
            } rights = {0};
            struct iovec part = {head, sizeof head};
            struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
            ignored(sendmsg(fds[i], &message, MSG_DONTWAIT | MSG_NOSIGNAL));
            message.msg_control = rights.room;
            message.msg_controllen = sizeof rights.room;
            rights.header.cmsg_level = SOL_SOCKET;
            rights.header.cmsg_type = SCM_RIGHTS;
            rights.header.cmsg_len = CMSG_LEN(2 * sizeof(int));
            memcpy(CMSG_DATA(&rights.header), (int[]){0, 1}, 2 * sizeof(int));
            ignored(sendmsg(fds[i], &message, MSG_DONTWAIT | MSG_NOSIGNAL));
        }
    }
    say("done");
}

static void hang_up(void) {
    int fds[MOST];
    for (size_t i = 0, n = beyond(fds); i < n; i++) {
        shutdown(fds[i], SHUT_RDWR);
        close(fds[i]);
    }
    for (int fd = 0; fd < 3; fd++) close(fd);
    _exit(0);
}

/* All that it has become one another. */
static void swap(void) {
    int fds[MOST], pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) return;
    for (size_t i = 0, n = beyond(fds); i < n; i++) dup2(1, fds[i]);
    dup2(2, 0);
    dup2(0, 2);
    say("done");
}

static void deaf(void) {
    say("done");
    _exit(0);
}

static void fill(void) {
    static char much[1 << 16];
    memset(much, 'x', sizeof much);
    while (write(1, much, sizeof much) > 0) ignored(write(2, "x", 1));
}

/* What belongs to both ends of a pipe; and signals to its parent once there is something. */
static void modes(void) {
    for (int fd = 0; fd < 2; fd++) {
        ignored(fcntl(fd, F_SETPIPE_SZ, 4096));
        ignored(fcntl(fd, F_SETOWN, getppid()));
        ignored(fcntl(fd, F_SETSIG, SIGURG));
        ignored(fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC));
    }
    say("done");
}

/* The file that standard error may be. */
static void blank(void) {
    printf("%d\n", outcome(ftruncate(2, 0)));
}

/* ---- what it does to itself ---- */

static void settings(void) {
    sigset_t all;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sigfillset(&all);
    umask(0777);
    ignored(chdir("/"));
    setenv("SPOILT", "yes", 1);
    for (int sig = 1; sig < 32; sig++) signal(sig, SIG_IGN);
    sigprocmask(SIG_BLOCK, &all, NULL);
    ignored(nice(19));
    sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    sched_setaffinity(0, sizeof one, &one);
    setsid();
    prctl(PR_SET_PDEATHSIG, 0);
    prctl(PR_SET_DUMPABLE, 0);
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (i != RLIMIT_AS && i != RLIMIT_STACK) setrlimit(i, &(struct rlimit){0, 0});
    say("done");
}

static void stop(void) {
    say("begun");
    kill(0, SIGSTOP);
}

static void stay(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    say("begun");
    for (;;) sleep(60);
}

static void group(void) {
    kill(0, SIGKILL);
}

/* As much as it may write. */
static void disk(void) {
    static char much[1 << 16];
    signal(SIGXFSZ, SIG_IGN);
    int fd = open(P_tmpdir, O_TMPFILE | O_WRONLY, 0600);
    while (write(fd, much, sizeof much) > 0) continue;
    printf("%d\n", errno);
}

static void crash(void) {
    *(volatile int *)8 = 1;
}

/* Over what is a resident's, or a fork's, in its own memory. */
static void scribble(void) {
    char line[MOST], mode[8];
    unsigned long from, to;
    FILE *maps = fopen("/proc/self/maps", "r");
    static unsigned long parts[64][2];
    size_t n = 0;
    while (maps && fgets(line, sizeof line, maps) && n < COUNT(parts)) {
        if (strstr(line, "fastspawn") == NULL && strstr(line, "_preload") == NULL) continue;
        if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || mode[1] != 'w') continue;
        parts[n][0] = from, parts[n++][1] = to;
    }
    say("done");
    while (n--) memset((char *)parts[n][0], 0xa5, parts[n][1] - parts[n][0]);
}

/* Memory that others have, too, and that it can write to: how much. */
static void shared(void) {
    char line[MOST], mode[8];
    unsigned long from, to, pages = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) == 3 && mode[1] == 'w' && mode[3] == 's')
            pages += (to - from) / 4096;
    printf("%lu\n", pages);
}

/* ---- what it leaves ---- */

/* A grandchild out of its group and its session, that keeps the pipes. */
static void leave(void) {
    int gone[2];
    char byte;
    if (pipe(gone) < 0) return;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        ignored(write(gone[1], "", 1));
        for (;;) sleep(60);
    }
    ignored(read(gone[0], &byte, 1)); /* before that it would end with the group */
    printf("%d\n", child);
}

/* Of its own group, deaf, with the pipes. */
static void brood(void) {
    for (int i = 0; i < 5; i++)
        if (fork() == 0) stay();
    stay();
}

static void storm(void) {
    int made = 0;
    for (pid_t child; (child = fork()) >= 0; made++)
        if (child == 0)
            for (;;) sleep(60);
    printf("%d ", made);
    stay();
}

/* ---- what it does to others ---- */

static char *victim(void) {
    return strtok(NULL, " ");
}

static int opens(pid_t pid, const char *name, int how) {
    char path[64], byte;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, how);
    int error = fd < 0 ? errno : 0;
    if (!error && how == O_RDONLY) error = outcome(read(fd, &byte, 1));
    if (fd >= 0) close(fd);
    return error;
}

/* Whose memory, descriptors and environment could it have? Nothing is changed. */
static void peek(void) {
    for (char *word; (word = victim());) {
        pid_t pid = atoi(word);
        char fds[64];
        struct rlimit core;
        snprintf(fds, sizeof fds, "/proc/%d/fd", pid);
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        printf("%s signal %d", word, outcome(kill(pid, 0)));
        printf(" trace %d", outcome(ptrace(PTRACE_SEIZE, pid, 0, 0)));
        printf(" memory %d environ %d", opens(pid, "mem", O_RDWR), opens(pid, "environ", O_RDONLY));
        printf(" take %d", outcome(syscall(SYS_pidfd_getfd, pidfd, 1, 0)));
        DIR *listed = opendir(fds);
        printf(" fds %d", listed ? 0 : errno);
        printf(" limits %d\n", outcome(prlimit(pid, RLIMIT_CORE, NULL, &core)));
    }
}

static void murder(void) {
    for (char *word; (word = victim());) printf("%d ", outcome(kill(atoi(word), SIGKILL)));
    printf("\n");
}

/* kill(-1), as an account that has nothing else to lose. */
static void everyone(void) {
    unsigned inside = 0, outside = 0, count = 0, account = getuid();
    FILE *map = fopen("/proc/self/uid_map", "r");
    if (map == NULL || fscanf(map, "%u %u %u", &inside, &outside, &count) != 3) return;
    account += outside - inside;
    if (account < FIRST_ACCOUNT || account >= FIRST_ACCOUNT + 1000) {
        say("not as this account");
        return;
    }
    say("begun");
    kill(-1, SIGKILL);
}

static const struct {
    const char *name;
    void (*act)(void);
} ACTS[] = {
    {"state",    state   },
    {"echo",     echo    },
    {"held",     held    },
    {"garbage",  garbage },
    {"messages", messages},
    {"hang_up",  hang_up },
    {"swap",     swap    },
    {"deaf",     deaf    },
    {"fill",     fill    },
    {"modes",    modes   },
    {"blank",    blank   },
    {"settings", settings},
    {"stop",     stop    },
    {"stay",     stay    },
    {"group",    group   },
    {"disk",     disk    },
    {"crash",    crash   },
    {"scribble", scribble},
    {"shared",   shared  },
    {"leave",    leave   },
    {"brood",    brood   },
    {"storm",    storm   },
    {"peek",     peek    },
    {"kill",     murder  },
    {"everyone", everyone},
};

int main(int argc, char **argv) {
    static char line[MOST];
    if (argc > 2 && strcmp(argv[2], "checkpoint") == 0) fastspawn_checkpoint(NULL);
    if (fgets(line, sizeof line, stdin) == NULL) return 0;
    line[strcspn(line, "\n")] = 0;
    char *name = strtok(line, " ");
    for (size_t i = 0; name && i < COUNT(ACTS); i++) {
        if (strcmp(ACTS[i].name, name) == 0) {
            ACTS[i].act();
            return 0;
        }
    }
    return 2;
}
