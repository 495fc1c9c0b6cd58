/*
 * shares.c - what a run sets of what others have, or the next run: of a file that was open before,
 * and of a lock in shared memory that it ends with.  And handlers that come in the middle of a call
 * and do what cannot be undone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SET (O_APPEND | O_NONBLOCK)

static const char *path; /* of a file, which is open before the first effect */
static int before;

static int is_set(int fd) {
    return (fcntl(fd, F_GETFL) & SET) != 0;
}

/* /dev/null, by its number and by a copy. */
static int nulls(void) {
    int one = 1, copy = dup(0);
    printf("%d ", is_set(0));
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_APPEND);
    ioctl(copy, FIONBIO, &one);
    printf("%d\n", (fcntl(0, F_GETFL) & SET) == SET);
    return 0;
}

static int null_locked(void) {
    printf("%d\n", flock(dup(0), LOCK_EX | LOCK_NB));
    return 0;
}

static int copied(void) {
    int copy = dup(before);
    printf("%d ", is_set(before));
    fcntl(copy, F_SETFL, O_NONBLOCK);
    printf("%d\n", is_set(before));
    return 0;
}

static int placed(void) {
    dup2(before, 0);
    fcntl(0, F_SETFL, O_NONBLOCK);
    printf("%d\n", is_set(before));
    return 0;
}

static int locked(void) {
    printf("%d\n", flock(fcntl(before, F_DUPFD_CLOEXEC, 0), LOCK_EX | LOCK_NB));
    return 0;
}

/* Of a file that the run has opened. */
static int own_locked(void) {
    struct flock all = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    getppid(); /* the first effect */
    int fd = open(path, O_RDONLY), one = 1;
    printf("%d ", flock(dup(fd), LOCK_EX | LOCK_NB));
    printf("%d ", fcntl(dup(fd), F_OFD_SETLK, &all));
    printf("%d ", ioctl(dup(fd), FIONBIO, &one));
    dup2(fd, 0);
    printf("%d\n", fcntl(0, F_SETFL, 0));
    return 0;
}

/* Numbers that are none, as a register has them: without a sign. */
static int nowhere(void) {
    getppid(); /* the first effect */
    printf("%ld ", syscall(SYS_dup2, 1, 0x80000000UL));
    printf("%ld ", syscall(SYS_dup3, 1, 0xffffffffUL, O_CLOEXEC));
    printf("%ld\n", syscall(SYS_dup2, 0x80000000UL, 1));
    return 0;
}

/* It ends with the lock. */
static int robust(void) {
    int fd = open(path, O_RDWR);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || ftruncate(fd, 4096) < 0) return 3;
    pthread_mutex_t *lock = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (st.st_size == 0) {
        pthread_mutexattr_t how;
        pthread_mutexattr_init(&how);
        pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(lock, &how);
    }
    int r = pthread_mutex_trylock(lock);
    if (r == EOWNERDEAD) pthread_mutex_consistent(lock);
    printf("%s\n", r == 0 ? "free" : r == EOWNERDEAD ? "abandoned" : "held");
    fflush(stdout);
    if (getenv("UNLOCK")) pthread_mutex_unlock(lock);
    _exit(5);
}

/* ---- handlers that leave ---- */

static volatile int came;

static void write_to_it(int sig) {
    (void)sig;
    if (fork() == 0) _exit(open(path, O_WRONLY) < 0);
}

static void set_priority(int sig) {
    (void)sig;
    setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0));
    came = 1;
}

static void every(int us, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct itimerval time = {
        .it_value = {0, us}
    };
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &time, NULL);
}

/* Of a call that makes a descriptor, and waits for somebody who the handler starts. */
static int opens(void) {
    mkfifo(path, 0600);
    every(10000, write_to_it);
    int fd = open(path, O_RDONLY), status = -1;
    wait(&status);
    printf("%d %d\n", fd > 2, status);
    return 0;
}

/* At any instruction of a call. */
static int asks(void) {
    every(1000, set_priority);
    while (!came) getppid();
    printf("%d\n", came);
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(void);
    } ways[] = {
        {"nulls",       nulls      },
        {"null_locked", null_locked},
        {"copied",      copied     },
        {"placed",      placed     },
        {"locked",      locked     },
        {"own_locked",  own_locked },
        {"nowhere",     nowhere    },
        {"robust",      robust     },
        {"opens",       opens      },
        {"asks",        asks       }
    };
    if (argc < 3) return 2;
    path = argv[2];
    before = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(argv[1], ways[i].name) == 0) return ways[i].run();
    return 2;
}
