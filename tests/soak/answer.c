/*
 * answer.c - answers with what it was asked, says what it finds of requests before, and spoils it.
 *
 * Its input begins with a line "NONCE ORDER"; the first line of its answer is
 * "NONCE ARGUMENT VARIABLE STATE NUMBER NUMBER", where STATE is 0 unless somebody was here before
 * or has left a descriptor, and each NUMBER a random one. Its status is NONCE % 64. If the argument
 * is "nowNONCE" it reads nothing, and says just that.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int served;
static char *heap;

/* Between those that it begins with and those that a checkpoint has. */
static int find_open(void) {
    struct pollfd at[57];
    int found = 0;
    for (int i = 0; i < 57; i++) at[i] = (struct pollfd){.fd = i + 3};
    poll(at, 57, 0);
    for (int i = 0; i < 57; i++) found += !(at[i].revents & POLLNVAL);
    return found;
}

static int find(void) {
    char here[64];
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    mode_t before = umask(077);
    umask(before);
    return served + (heap != NULL) + sigismember(&mask, SIGUSR1) + (before == 055) +
           (getcwd(here, sizeof here) && strcmp(here, "/proc") == 0) + (fcntl(99, F_GETFD) >= 0) +
           find_open();
}

static void spoil(void) {
    sigset_t one;
    served++;
    heap = malloc(200000);
    memset(heap, 7, 200000);
    memset(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 65536);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigprocmask(SIG_BLOCK, &one, NULL);
    umask(055);
    if (chdir("/proc") || dup2(1, 99) < 0) exit(99);
}

static void copy(void) {
    char part[8192];
    for (size_t n; (n = fread(part, 1, sizeof part, stdin)) > 0;) fwrite(part, 1, n, stdout);
}

/* A child that is there after this process: it has its output, and says a little later. */
static void leave_behind(const char *nonce) {
    if (fork() != 0) return;
    usleep(20000);
    printf("child %s\n", nonce);
    fflush(stdout);
    _exit(0);
}

static void wait_for_a_signal(void) {
    for (;;) pause();
}

static void obey(const char *order, const char *nonce) {
    if (strcmp(order, "copy") == 0) copy();
    if (strcmp(order, "flood") == 0)
        while (puts(nonce) >= 0) {
        }
    fflush(stdout);
    if (strcmp(order, "wait") == 0) wait_for_a_signal();
    if (strcmp(order, "deaf") == 0) {
        signal(SIGTERM, SIG_IGN);
        wait_for_a_signal();
    }
    if (strcmp(order, "family") == 0) {
        fork();
        wait_for_a_signal();
    }
    if (strcmp(order, "close") == 0) {
        close(99); /* spoil() has made it of 1 */
        close(1);
        usleep(20000);
    }
    if (strcmp(order, "stay") == 0) leave_behind(nonce);
    if (strcmp(order, "crash") == 0) *(volatile int *)8 = 1;
    if (strcmp(order, "leave") == 0) {
        pid_t pid = fork();
        if (pid == 0) printf("child %s\n", nonce), fflush(stdout), _exit(0);
        waitpid(pid, NULL, 0);
    }
}

int main(int argc, char **argv) {
    char nonce[32], order[32];
    uint64_t drawn, given;
    if (argc > 1 && strncmp(argv[1], "now", 3) == 0) {
        puts(argv[1]);
        return (int)(strtoull(argv[1] + 3, NULL, 10) % 64);
    }
    if (scanf("%31s %31s%*1[\n]", nonce, order) != 2) return 98;
    if (getrandom(&drawn, sizeof drawn, 0) < 0) return 97;
    memcpy(&given, (char *)getauxval(AT_RANDOM), sizeof given);
    printf("%s %s %s %d %016jx %016jx\n", nonce, argc > 1 ? argv[1] : "-", getenv("NONCE") ?: "-",
           find(), (uintmax_t)drawn, (uintmax_t)given);
    spoil();
    obey(order, nonce);
    fflush(stdout);
    return (int)(strtoull(nonce, NULL, 10) % 64);
}
