/*
 * One process at a time through the core, without Python: what a caller in C would see.
 *
 *     alone exec|fork|reset PRELOAD EXPECTED PATH ARG0 ARG...
 *
 * One spawner, and one template stopped before the program's first effect: each job is executed, is
 * a fork of the template, or is done by the one process that puts itself back. The caller sleeps
 * until a job is over before it hands over the next. Every output is compared with EXPECTED and
 * every exit status with 0.
 *
 * What goes in and out is what cases/worker.py says: a line that it is ready, or why it cannot be;
 * then for each line "COUNT SECONDS" one with the figures of such a batch. The CPU of children is
 * that of those reaped and that of those alive: the template, the process that puts itself back.
 */
#define _GNU_SOURCE
#include "fastspawn.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND  1000000000ull
#define PATIENT (20 * SECOND)

extern char **environ;

static struct {
    struct fsp_engine *engine;
    struct fsp_plan *plan;
    struct fsp_template *template;
    struct fsp_reset *reset;
    const char *expected;
} house;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) < 0) return 0; /* it has gone */
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t now(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

static _Noreturn void unavailable(const char *what, const char *why) {
    printf("{\"unavailable\": \"%s: %s\"}\n", what, why);
    exit(0);
}

static void need(const char *what, int r) {
    if (r < 0) unavailable(what, strerror(-r));
}

/* ---- one job ---- */

static struct fsp_job *submit(void) {
    struct fsp_job_options options = {
        .in = FSP_IO_NULL,
        .out = FSP_IO_PIPE,
        .snapshot = house.template,
        .reset = house.reset,
    };
    struct fsp_job *job;
    int r = fsp_engine_submit(house.engine, house.plan, &options, &job);
    if (r == 0) return job;
    fprintf(stderr, "alone: %s\n", strerror(-r));
    exit(1);
}

static void wait_for_end(struct fsp_job *job) {
    struct pollfd ready = {.fd = fsp_engine_fd(house.engine), .events = POLLIN};
    for (;;) {
        if (poll(&ready, 1, -1) < 0 && errno != EINTR) exit(1);
        for (struct fsp_job *one = fsp_engine_take(house.engine); one; one = fsp_job_next(one))
            if (one == job && fsp_job_news(one)->ended) return;
    }
}

/* Is its answer what it has to be? */
static int run(void) {
    struct fsp_job *job = submit();
    wait_for_end(job);
    const struct fsp_outcome *o = fsp_job_outcome(job);
    const struct fsp_buf *out = &o->output[0];
    int right = o->error.err == 0 && o->status.code == 0 && out->len == strlen(house.expected) &&
                memcmp(out->data, house.expected, out->len) == 0;
    fsp_job_free(job);
    return right;
}

/* ---- a batch ---- */

static uint64_t resets(void) {
    struct fsp_reset_state state = {0};
    if (house.reset) fsp_reset_get_state(house.reset, &state);
    return state.resets;
}

static uint64_t of_children_in(const char *path) {
    uint64_t used = 0;
    int pid;
    FILE *file = fopen(path, "re");
    while (file && fscanf(file, "%d", &pid) == 1) {
        clockid_t clock;
        if (clock_getcpuclockid(pid, &clock) == 0) used += clock_ns(clock);
    }
    if (file) fclose(file);
    return used;
}

static uint64_t reaped(void) {
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * SECOND +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static uint64_t of_children(void) {
    uint64_t used = reaped();
    char path[64 + sizeof((struct dirent *)0)->d_name];
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
        if (entry->d_name[0] != '.') used += of_children_in(path);
    }
    if (tasks) closedir(tasks);
    return used;
}

static void batch(long count, double seconds) {
    uint64_t parent = clock_ns(CLOCK_PROCESS_CPUTIME_ID), child = of_children();
    uint64_t before = resets(), start = now(), until = start + (uint64_t)(seconds * 1e9), end;
    long done = 0, wrong = 0;
    do {
        wrong += !run();
        done++;
        end = now();
    } while (done < count && end < until);
    parent = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - parent;
    child = of_children() - child;
    /* Now and then one is too old, and a fork does what is asked until there is another. */
    if (house.reset && resets() - before < (uint64_t)(done - done / 100 - 2)) wrong = done;
    printf("{\"spawns\": %ld, \"wrong\": %ld, \"wall_us\": %.3f, \"parent_cpu_us\": %.3f, "
           "\"child_cpu_us\": %.3f}\n",
           done, wrong, (double)(end - start) / 1e3 / (double)done,
           (double)parent / 1e3 / (double)done, (double)child / 1e3 / (double)done);
}

/* ---- what it runs ---- */

static void open_house(const char *way, const char *library, char **command) {
    struct fsp_spec spec = {
        .file = command[0],
        .argv = (const char *const *)command + 1,
        .envp = (const char *const *)environ,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = -1,
        .flags = FSP_FLAG_SETSID | FSP_FLAG_CLOSE_FDS | FSP_FLAG_RESTORE_SIGNALS,
    };
    need("plan", fsp_plan_new(&spec, &house.plan));
    need("engine", fsp_engine_new(1, NULL, &house.engine));
    if (strcmp(way, "exec") == 0) return;
    need("template", fsp_template_new(house.engine, house.plan, NULL, library, PATIENT,
                                      FSP_TEMPLATE_EFFECT, &house.template));
    if (strcmp(way, "reset") == 0)
        need("reset", fsp_reset_new(house.engine, house.template, &house.reset));
}

/* There is a template process that forks, or a process that was put back. */
static void wait_for_what_serves(void) {
    struct fsp_template_state state;
    struct fsp_reset_state put_back = {0};
    for (uint64_t end = now() + PATIENT; now() < end; (void)run()) {
        if (house.template == NULL) return;
        fsp_template_get_state(house.template, &state);
        if (house.reset) fsp_reset_get_state(house.reset, &put_back);
        if (put_back.off) unavailable("no process is put back", strerror(put_back.error));
        if (house.reset ? put_back.resets > 0 : state.at_effect > 0 && state.forked > 0) return;
    }
    unavailable("template", "it took too long");
}

static void close_house(void) {
    if (house.reset) fsp_reset_free(house.reset);
    if (house.template) fsp_template_free(house.template);
    fsp_engine_free(house.engine);
    fsp_plan_unref(house.plan);
}

int main(int argc, char **argv) {
    char line[64];
    long count;
    double seconds;
    if (argc < 6) {
        fprintf(stderr, "usage: alone exec|fork|reset PRELOAD EXPECTED PATH ARG0 ARG...\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    house.expected = argv[3];
    open_house(argv[1], argv[2], argv + 4);
    wait_for_what_serves();
    puts("{\"ready\": true}");
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%ld %lf", &count, &seconds) == 2)
        batch(count, seconds);
    close_house();
    return 0;
}
