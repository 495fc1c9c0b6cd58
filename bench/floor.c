/*
 * The floor of the benchmark: how fast this machine can start one process after another and
 * collect its output when nothing else is in the way. No HTTP, no event loop, no PATH search.
 *
 *     floor THREADS COUNT EXPECTED PATH ARG0 ARG...
 *
 * THREADS threads start COUNT processes in all; each start is pipe2 + vfork + execve + read to
 * EOF + wait4, one after another on its thread. Every output is compared with EXPECTED and every
 * exit status with 0. One line of JSON goes to stdout:
 *
 *     spawns, failures, seconds (wall), p50_us and p99_us of one start-to-reaped turn,
 *     parent_cpu_us and child_cpu_us per spawn (user + sys, from getrusage).
 *
 * Not done here: anything a server would need (deadlines, stdin, stderr, limits).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct job {
    const char *path;
    char *const *argv;
    const char *expected;
    size_t expected_len;
    long count;
    uint32_t *turn_ns; /* one entry per spawn */
    atomic_long next;
    atomic_long failures;
};

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Returns 1 when all of the output arrived, equals what was expected and the status was 0. */
static int spawn_once(const struct job *job) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) return 0;

    pid_t pid = vfork();
    if (pid == 0) {
        if (dup2(fds[1], STDOUT_FILENO) < 0) _exit(127);
        execve(job->path, job->argv, environ);
        _exit(127);
    }
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return 0;
    }

    char buf[4096];
    size_t len = 0;
    int same = 1;
    for (;;) {
        ssize_t got = read(fds[0], buf, sizeof buf);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            same = same && got == 0;
            break;
        }
        size_t n = (size_t)got;
        same = same && len + n <= job->expected_len && memcmp(job->expected + len, buf, n) == 0;
        len += n;
    }
    close(fds[0]);

    int status;
    while (wait4(pid, &status, 0, NULL) < 0)
        if (errno != EINTR) return 0;
    return same && len == job->expected_len && status == 0;
}

static void *spawn_loop(void *arg) {
    struct job *job = arg;
    for (;;) {
        long i = atomic_fetch_add(&job->next, 1);
        if (i >= job->count) return NULL;
        uint64_t start = now_ns();
        if (!spawn_once(job)) atomic_fetch_add(&job->failures, 1);
        job->turn_ns[i] = (uint32_t)(now_ns() - start);
    }
}

static double cpu_us(int who) {
    struct rusage ru;
    getrusage(who, &ru);
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1e6 +
           (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
}

static int compare_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: floor THREADS COUNT EXPECTED PATH ARG0 ARG...\n");
        return 2;
    }
    long threads = strtol(argv[1], NULL, 10);
    struct job job = {
        .path = argv[4],
        .argv = argv + 5,
        .expected = argv[3],
        .expected_len = strlen(argv[3]),
        .count = strtol(argv[2], NULL, 10),
    };
    if (threads < 1 || threads > 4096 || job.count < 1) {
        fprintf(stderr, "floor: THREADS and COUNT must be positive\n");
        return 2;
    }
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    job.turn_ns = calloc((size_t)job.count, sizeof *job.turn_ns);
    if (!ids || !job.turn_ns) {
        fprintf(stderr, "floor: out of memory\n");
        return 1;
    }

    double parent = cpu_us(RUSAGE_SELF), child = cpu_us(RUSAGE_CHILDREN);
    uint64_t start = now_ns();
    for (long i = 0; i < threads; i++) {
        int err = pthread_create(&ids[i], NULL, spawn_loop, &job);
        if (err) {
            fprintf(stderr, "floor: pthread_create: %s\n", strerror(err));
            return 1;
        }
    }
    for (long i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    double seconds = (double)(now_ns() - start) / 1e9;
    parent = cpu_us(RUSAGE_SELF) - parent;
    child = cpu_us(RUSAGE_CHILDREN) - child;

    size_t count = (size_t)job.count;
    qsort(job.turn_ns, count, sizeof *job.turn_ns, compare_u32);
    printf("{\"spawns\":%zu,\"failures\":%ld,\"seconds\":%.6f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"parent_cpu_us\":%.2f,\"child_cpu_us\":%.2f}\n",
           count, atomic_load(&job.failures), seconds, job.turn_ns[count / 2] / 1e3,
           job.turn_ns[count - 1 - count / 100] / 1e3, parent / (double)count,
           child / (double)count);
    free(job.turn_ns);
    free(ids);
    return 0;
}
