/*
 * way.c - a few jobs, and which functions of the core are entered and left for them.
 *
 * For tests/c/way.py, which compiles the core with calls of the two functions below and makes files
 * of the addresses.  Argument: the command, which is a whole path.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastspawn.h"

#define UNSEEN __attribute__((no_instrument_function))
#define JOBS   3 /* the first learn what the kernel has, and open what the last finds open */

enum what { LEAVE, ENTER, JOB };

static struct {
    unsigned thread; /* 0: a child that borrows one's memory, and its number */
    enum what what;
    const void *function;
} event[1 << 16];
static unsigned events, threads;
static __thread unsigned thread;
static __thread const char *base; /* of the thread's stack */

void __cyg_profile_func_enter(void *function, void *site) UNSEEN;
void __cyg_profile_func_exit(void *function, void *site) UNSEEN;

/* No system call and no lock: it runs between clone and exec, too. */
static UNSEEN void note(enum what what, const void *function) {
    const char *here = __builtin_frame_address(0);
    if (thread == 0) {
        thread = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
        base = here + 4096;
    }
    unsigned i = __atomic_fetch_add(&events, 1, __ATOMIC_RELAXED);
    if (i >= sizeof event / sizeof *event) return;
    event[i].thread = here < base && base - here < (1 << 20) ? thread : 0;
    event[i].what = what;
    event[i].function = function;
}

void __cyg_profile_func_enter(void *function, void *site) {
    (void)site;
    note(ENTER, function);
}

void __cyg_profile_func_exit(void *function, void *site) {
    (void)site;
    note(LEAVE, function);
}

static UNSEEN void check(int r, const char *what) {
    if (r >= 0) return;
    fprintf(stderr, "way: %s: %s\n", what, strerror(-r));
    exit(1);
}

static UNSEEN void run(struct fsp_engine *engine, int fd, struct fsp_plan *plan) {
    struct fsp_job_options options = {
        .in = FSP_IO_NULL, .out = FSP_IO_PIPE, .err = FSP_IO_PIPE, .limits = {.drain = 1000000000}};
    struct fsp_job *job, *heard = NULL;
    check(fsp_engine_submit(engine, plan, &options, &job), "submit");
    do {
        struct pollfd news = {fd, POLLIN, 0};
        poll(&news, 1, -1);
        heard = fsp_engine_take(engine);
    } while (heard == NULL || !fsp_job_news(heard)->ended);
    check(-fsp_job_outcome(job)->error.err, "the command");
    fsp_job_free(job);
}

UNSEEN int main(int argc, char **argv) {
    const char *const args[] = {argv[argc - 1], NULL}, *const env[] = {NULL};
    struct fsp_spec spec = {
        .file = argv[argc - 1],
        .argv = args,
        .envp = env,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = -1,
        .flags = FSP_FLAG_CLOSE_FDS | FSP_FLAG_RESTORE_SIGNALS | FSP_FLAG_SETSID,
    };
    struct fsp_engine *engine;
    struct fsp_plan *plan;
    check(fsp_plan_new(&spec, &plan), "plan");
    check(fsp_engine_new(1, NULL, &engine), "engine");
    int fd = fsp_engine_fd(engine);
    for (int i = 0; i < JOBS; i++) {
        poll(NULL, 0, 100); /* the spawner has come to rest */
        note(JOB, NULL);
        run(engine, fd, plan);
    }
    note(JOB, NULL);
    fsp_plan_unref(plan);
    fsp_engine_free(engine);
    check(events > sizeof event / sizeof *event ? -ENOSPC : 0, "events");
    for (unsigned i = 0; i < events; i++)
        printf("%u %d %p\n", event[i].thread, event[i].what, event[i].function);
    return 0;
}
