/*
 * busy.c - a program whose template, forks and residents have much to do (test_guest_sweep.c):
 * what it does is named by its first argument, which it has before main.
 */
#define _GNU_SOURCE
#include <fastspawn/checkpoint.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static char large[64 * PAGE];
static char *mapped, *heap;
static int kept = -1;

static void *wait_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

static void start_threads(void) {
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, wait_for_ever, NULL)) _exit(9);
}

/* What it comes to its main with. */
static __attribute__((constructor)) void begin(int argc, char **argv) {
    if (argc < 2) _exit(9);
    if (strcmp(argv[1], "threads") == 0) start_threads();
    memset(large, 1, sizeof large);
    heap = sbrk(16 * PAGE);
    memset(heap, 2, 16 * PAGE);
    mapped = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(mapped, 3, 16 * PAGE);
    kept = open("/dev/null", O_RDWR);
}

static int change_much(void) {
    struct rlimit limit;
    sbrk(-4 * PAGE);
    char *more = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(more, 4, 8 * PAGE);
    munmap(mapped + 4 * PAGE, PAGE);
    mprotect(mapped + 8 * PAGE, PAGE, PROT_READ);
    madvise(mapped + 10 * PAGE, PAGE, MADV_DONTNEED);
    memset(large, 5, sizeof large / 2);
    getrlimit(RLIMIT_NOFILE, &limit);
    close(kept);
    close_range(20, 30, 0);
    puts("much");
    return 3;
}

static int grow(void) {
    char *end = sbrk(8 * PAGE);
    memset(end, 6, 8 * PAGE);
    puts("more");
    return 0;
}

/* More of the heap, less, and some again; what was mapped moves, and more of it. */
static void move(void) {
    char *top = sbrk(0);
    sbrk(4 * PAGE);
    sbrk(-8 * PAGE);
    sbrk(2 * PAGE);
    memset(top - 4 * PAGE, 7, 2 * PAGE);
    mremap(mapped + 12 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    munmap(mapped, PAGE);
}

static int limit_and_ask(void) {
    struct rlimit limit;
    cpu_set_t processors;
    char byte, control[64];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    getrlimit(RLIMIT_CORE, &limit);
    limit.rlim_cur = 0;
    prlimit(getpid(), RLIMIT_CORE, &limit, NULL);
    sched_getaffinity(getpid(), sizeof processors, &processors);
    return s < 0 || recvmsg(s, &message, MSG_DONTWAIT) >= 0;
}

static void ignore(int sig) {
    (void)sig;
}

/* A name, a timer, and a handler that keeps all others out. */
static int set_process(void) {
    struct sigaction action = {.sa_handler = ignore};
    sigfillset(&action.sa_mask);
    alarm(1000);
    return prctl(PR_SET_NAME, "mends") || sigaction(SIGUSR1, &action, NULL);
}

static int mend(void) {
    move();
    if (limit_and_ask() || set_process()) return 1;
    puts("mend");
    return 0;
}

/* It leaves as a resident, with holes in its memory. */
static int leave(void) {
    move();
    int name = open("/proc/self/comm", O_WRONLY);
    if (name < 0 || close(name)) return 1;
    puts("leave");
    return 0;
}

static int read_program(void) {
    char name[1000], magic[4];
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd < 0 || read(fd, magic, 4) != 4 || memcmp(magic, "\177ELF", 4) != 0) return 1;
    return close(fd) || readlink("/proc/self/exe", name, sizeof name) <= 0;
}

static int look(const char *path) {
    char text[64] = "", place[1000];
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || getcwd(place, sizeof place) == NULL || stat(path, &st) < 0) return 1;
    if (readlink(path, place, sizeof place) > 0 || read(fd, text, 2) != 2) return 1;
    dprintf(1, "%.2s", text);
    ssize_t n = read(fd, text, sizeof text);
    return n > 0 && write(1, text, (size_t)n) == n ? 0 : 1;
}

/* Nothing is there to be read, and nobody is gone. */
static int ask_streams(void) {
    struct pollfd stream[3] = {{.fd = 0}, {.fd = 1}, {.fd = 2}};
    return poll(stream, 3, 0) != 0 || fcntl(1, F_GETFD) != 0 || isatty(1);
}

/* At many names, itself, its streams, and where it may run. */
static int look_around(const char *path) {
    char name[64];
    struct stat st;
    cpu_set_t processors;
    if (pthread_getaffinity_np(pthread_self(), sizeof processors, &processors)) return 1;
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "/nowhere/at-all/that-has-a-name-of-some-length/%d", i);
        if (stat(name, &st) == 0) return 1;
    }
    return read_program() || ask_streams() || look(path);
}

/* Above its checkpoint: stdin closed, stderr where stdout goes, a copy of that, and a variable. */
static int move_streams(void) {
    int copy = fcntl(1, F_DUPFD, 20);
    if (copy < 0 || close(0) || dup2(1, 2) < 0 || setenv("SET", "it", 1)) return 1;
    fastspawn_checkpoint(NULL);
    const char *set = getenv("SET");
    if (set == NULL || strcmp(set, "it") != 0 || fcntl(0, F_GETFD) >= 0) return 1;
    return write(2, "moved\n", 6) != 6 || write(copy, "copy\n", 5) != 5;
}

/* Threads keep it from being a template at its checkpoint. */
static int come_late(void) {
    start_threads();
    if (fastspawn_checkpoint(NULL) >= 0) return 1;
    puts("late");
    return 0;
}

#define FILES 2000

/* It says that it comes from these, too. */
static int come_from_many(void) {
    static char name[FILES][64];
    static const char *files[FILES + 1];
    for (int i = 0; i < FILES; i++) {
        snprintf(name[i], sizeof name[i], "/nowhere/at-all/that-has-a-name-of-some-length/%d", i);
        files[i] = name[i];
    }
    fastspawn_checkpoint(files);
    puts("many");
    return 0;
}

int main(int argc, char **argv) {
    if (strcmp(argv[1], "late") == 0) return come_late();
    if (strcmp(argv[1], "many") == 0) return come_from_many();
    if (strcmp(argv[1], "streams") == 0) return move_streams();
    if (strcmp(argv[1], "much") == 0) return change_much();
    if (strcmp(argv[1], "more") == 0) return grow();
    if (strcmp(argv[1], "mend") == 0) return mend();
    if (strcmp(argv[1], "leave") == 0) return leave();
    if (strcmp(argv[1], "look") == 0 && argc > 2) return look(argv[2]);
    if (strcmp(argv[1], "around") == 0 && argc > 2) return look_around(argv[2]);
    puts("x");
    return 0;
}
