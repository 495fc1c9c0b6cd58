/*
 * test_engine_template.c - the engine's side of templates: whatever their processes do or do not
 * do, each job ends once, with the right answer, by fork or by exec.
 *
 * Behind real template processes there is a shell; the ones that misbehave are puppets (puppet.c).
 */
#include "listen.h"

#ifdef __linux__
#include "template/snapshot.h"

#include <dirent.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/resource.h>

#define SECOND 1000000000ull

static char library[PATH_MAX]; /* the preload object */

static void find_library(void) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", support_self);
    const char *folder = dirname(dirname(dirname(copy)));
    snprintf(library, sizeof library, "%s/preload.so", folder);
}

static struct fsp_template *open_template(struct fsp_engine *e, struct fsp_spec spec,
                                          uint64_t timeout, unsigned flags) {
    struct fsp_template *t = NULL;
    struct fsp_plan *plan = support_plan(&spec);
    CHECK_INT(fsp_template_new(e, plan, NULL, library, timeout, flags, &t), 0);
    fsp_plan_unref(plan);
    return t;
}

static struct fsp_template_state state_of(struct fsp_template *t) {
    struct fsp_template_state state;
    fsp_template_get_state(t, &state);
    return state;
}

static struct fsp_template *open_shell(struct fsp_engine *e) {
    struct fsp_template *t = open_template(e, SHELL(":"), 20 * SECOND, 0);
    CHECK(WAIT_UNTIL(state_of(t).ready == state_of(t).spawners));
    return t;
}

/* It speaks for itself: what it is to load is no object, and the loader goes on without. */
static struct fsp_template *open_puppet(struct fsp_engine *e, const char *mode, uint64_t timeout) {
    struct fsp_template *t = NULL;
    struct fsp_spec spec = COMMAND(support_self, "--puppet", mode);
    struct fsp_plan *plan = support_plan(&spec);
    CHECK_INT(fsp_template_new(e, plan, NULL, "/dev/null", timeout, 0, &t), 0);
    fsp_plan_unref(plan);
    return t;
}

static struct fsp_job_options options_for(struct fsp_template *t) {
    struct fsp_job_options options = listen_options();
    options.snapshot = t;
    return options;
}

/* Children of this process, of whatever thread: the template processes while no job runs. */
static size_t children(pid_t *pid, size_t max) {
    char path[300];
    size_t n = 0;
    struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && (entry = readdir(tasks))) {
        snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
        FILE *file = fopen(path, "re");
        while (file && n < max && fscanf(file, "%d", &pid[n]) == 1) n++;
        if (file) fclose(file);
    }
    if (tasks) closedir(tasks);
    return n;
}

static pid_t only_child(void) {
    pid_t pid[2] = {0};
    CHECK_INT(children(pid, 2), 1);
    return pid[0];
}

/* Never a number that is missing. */
static void signal_to(pid_t pid, int sig) {
    if (CHECK(pid > 1)) CHECK_INT(kill(pid, sig), 0);
}

/* Some work of each kind; all of it has to succeed. */
static void work(struct fsp_engine *e, struct fsp_template *t) {
    static struct heard heard[5];
    static char block[300000];
    struct fsp_job_options input = options_for(t), fed = options_for(t), gone = options_for(t);
    struct fsp_spec nowhere = SHELL("echo here");
    input.in = fed.in = FSP_IO_PIPE;
    input.input = block;
    input.input_len = sizeof block;
    fed.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    nowhere.cwd = "/no/such/directory";
    gone.err = FSP_IO_STDOUT;
    listen_submit(e, SHELL("echo out; echo err >&2; exit 3"), options_for(t), &heard[0]);
    listen_submit(e, SHELL("cat"), input, &heard[1]);
    listen_submit(e, SHELL("cat >&2; kill -9 $$"), fed, &heard[2]);
    listen_submit(e, nowhere, options_for(t), &heard[3]);
    listen_submit(e, COMMAND("/bin/sh", "-c", "echo $# $1 >&2", "sh", "a b"), gone, &heard[4]);
    CHECK(fsp_job_write(heard[2].job, block, 100000) >= 0);
    fsp_job_write_eof(heard[2].job);
    CHECK(listen_to_end(e, heard, 5));
    static const size_t size[5][2] = {
        {4,            4     },
        {sizeof block, 0     },
        {0,            100000},
        {0,            0     },
        {6,            0     }
    };
    static const int code[5] = {3, 0, -SIGKILL, 0, 0};
    for (int i = 0; i < 5; i++) {
        if (!heard[i].outcome) continue;
        CHECK_INT(heard[i].outcome->error.err, i == 3 ? ENOENT : 0);
        if (i != 3) CHECK_INT(heard[i].outcome->status.code, code[i]);
        for (int j = 0; j < 2; j++) CHECK_INT(heard[i].all[j].len, size[i][j]);
    }
    if (heard[3].outcome) {
        CHECK_INT(heard[3].outcome->error.stage, FSP_STAGE_CWD);
        CHECK_INT(heard[3].outcome->pid, 0);
    }
    CHECK_STR(heard[4].all[0].data, "1 a b\n");
    listen_free(heard, 5);
}

static void echo(struct fsp_engine *e, struct fsp_template *t, const char *script,
                 const char *answer, int code) {
    static struct heard one;
    listen_submit(e, SHELL(script), options_for(t), &one);
    CHECK(listen_to_end(e, &one, 1));
    if (one.outcome) {
        CHECK_INT(one.outcome->error.err, 0);
        CHECK_INT(one.outcome->status.code, code);
    }
    CHECK_STR(one.all[0].data, answer);
    listen_free(&one, 1);
}

/* ---- forks ---- */

static void jobs_of_each_kind(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    work(e, t);
    work(e, t);
    CHECK_INT(state_of(t).forked, 10);
    CHECK_INT(state_of(t).direct, 0);
    fsp_template_free(t);
    fsp_engine_free(e);
}

static void many_jobs_on_many_spawners(void) {
    enum { N = 200 };
    static struct heard heard[N];
    static char text[N][40];
    struct fsp_engine *e = listen_engine(3);
    struct fsp_template *t = open_shell(e);
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "echo %d; exit %d", i, i % 100);
        listen_submit(e, SHELL(text[i]), options_for(t), &heard[i]);
    }
    CHECK(listen_to_end(e, heard, N));
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "%d\n", i);
        CHECK_STR(heard[i].all[0].data, text[i]);
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->status.code, i % 100);
    }
    /* Their sockets may be full for a moment, or longer where the processes have to wait. */
    CHECK_INT(state_of(t).forked + state_of(t).direct, N);
    CHECK(state_of(t).forked > 3);
    listen_free(heard, N);
    fsp_template_free(t);
    fsp_engine_free(e);
}

static void limits_and_cancels(void) {
    static struct heard heard[3];
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    struct fsp_job_options late = options_for(t), kept = options_for(t);
    /* With more time until it is there in time: a process that does not answer is given up. */
    for (late.limits.timeout = SECOND / 20;; late.limits.timeout *= 2) {
        CHECK(WAIT_UNTIL(state_of(t).ready == 1));
        uint64_t forked = state_of(t).forked;
        listen_submit(e, SHELL("sleep 100"), late, &heard[0]);
        CHECK(listen_to_end(e, heard, 1));
        if (late.limits.timeout > 40 * SECOND || heard[0].outcome == NULL) break;
        if (heard[0].outcome->pid && state_of(t).forked == forked + 1) break;
        listen_free(heard, 1);
    }
    uint64_t forked = state_of(t).forked;
    kept.flags = FSP_JOB_STREAM;
    listen_submit(e, SHELL("trap '' TERM; echo here; sleep 100 & wait"), kept, &heard[1]);
    kept.limits.kill_grace = 60 * SECOND;
    listen_submit(e, SHELL("trap 'exit 6' TERM; echo here; sleep 100 & wait"), kept, &heard[2]);
    CHECK(LISTEN_UNTIL(e, heard[1].chunks && heard[2].chunks));
    fsp_job_cancel(heard[1].job);
    fsp_job_cancel(heard[2].job);
    CHECK(listen_to_end(e, heard, 3));
    static const int code[3] = {-SIGTERM, -SIGKILL, 6};
    for (int i = 0; i < 3; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->status.code, code[i]);
            CHECK_INT(heard[i].outcome->timed_out, i == 0);
            CHECK_INT(heard[i].outcome->cancelled, i != 0);
        }
    CHECK_INT(state_of(t).forked, forked + 2);
    listen_free(heard, 3);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* Its own /proc/self must be open to it, as after an exec. */
/* What is written there the engine believes (snapshot.h). */
static void forks_do_not_have_the_page(void) {
    static struct heard one;
    static const struct {
        const char *script;
        unsigned flags;
    } cases[] = {
        {"while read -r line; do echo \"$line\"; done </proc/self/maps", 0                  },
        {NULL,                                                           FSP_TEMPLATE_EFFECT},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct fsp_spec spec =
            cases[i].script ? SHELL(cases[i].script) : COMMAND("/bin/cat", "/proc/self/maps");
        struct fsp_engine *e = listen_engine(1);
        struct fsp_job_options options = listen_options();
        spec.flags |= FSP_FLAG_SETSID;
        struct fsp_plan *plan = support_plan(&spec);
        one = (struct heard){0};
        options.user = &one;
        CHECK_INT(fsp_template_new(e, plan, NULL, library, 20 * SECOND, cases[i].flags,
                                   &options.snapshot),
                  0);
        CHECK(WAIT_UNTIL(state_of(options.snapshot).ready));
        CHECK_INT(fsp_engine_submit(e, plan, &options, &one.job), 0);
        CHECK(listen_to_end(e, &one, 1));
        CHECK(one.all[0].len && strstr(one.all[0].data, "preload.so"));
        CHECK(one.all[0].len && !strstr(one.all[0].data, "memfd:"));
        listen_free(&one, 1);
        fsp_template_free(options.snapshot);
        fsp_plan_unref(plan);
        fsp_engine_free(e);
    }
}

static void another_user(void) {
    static struct heard one;
    if (geteuid() != 0) return;
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    struct fsp_spec spec = SHELL("id -u; id -g; : </proc/self/environ && cat");
    struct fsp_job_options options = options_for(t);
    spec.uid = 65534;
    spec.gid = 65533;
    spec.cwd = "/";
    options.in = FSP_IO_PIPE;
    options.input = "text";
    options.input_len = 4;
    listen_submit(e, spec, options, &one);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, "65534\n65533\ntext");
    CHECK_INT(state_of(t).forked, 1);
    listen_free(&one, 1);
    fsp_template_free(t);
    fsp_engine_free(e);
}

static void a_plan_that_fits_no_message(void) {
    enum { EACH = 100000 };
    static char big[3][EACH + 1];
    static struct heard one;
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    for (int i = 0; i < 3; i++) memset(big[i], 'a' + i, EACH);
    struct fsp_spec spec =
        COMMAND("/bin/sh", "-c", "echo ${#1} ${#2} ${#3}", "sh", big[0], big[1], big[2]);
    listen_submit(e, spec, options_for(t), &one);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, "100000 100000 100000\n");
    listen_free(&one, 1);
    CHECK_INT(state_of(t).direct, 1);
    work(e, t);
    CHECK_INT(state_of(t).direct, 1);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* One more job than a process has slots for. */
static void more_forks_than_slots(void *unused) {
    enum { N = FSP_SNAP_SLOTS + 3 };
    static struct heard heard[N];
    struct rlimit limit;
    (void)unused;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    struct fsp_job_options options = options_for(t);
    options.in = FSP_IO_PIPE;
    options.out = options.err = FSP_IO_NULL;
    options.flags = FSP_JOB_FEED | FSP_JOB_STARTED;
    for (int i = 0; i < N; i++) { /* a few at a time: their socket has limits too */
        listen_submit(e, SHELL("read x; exit $x"), options, &heard[i]);
        if (i >= 8) CHECK(LISTEN_UNTIL(e, heard[i - 8].started));
    }
    for (int i = N - 8; i < N; i++) CHECK(LISTEN_UNTIL(e, heard[i].started));
    CHECK_INT(state_of(t).forked, FSP_SNAP_SLOTS);
    CHECK_INT(state_of(t).direct, N - FSP_SNAP_SLOTS);
    for (int i = 0; i < N; i++) CHECK_INT(fsp_job_write(heard[i].job, "7\n", 2), 0);
    CHECK(listen_to_end(e, heard, N));
    for (int i = 0; i < N; i++)
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->status.code, 7);
    listen_free(heard, N);
    work(e, t);
    CHECK_INT(state_of(t).direct, N - FSP_SNAP_SLOTS);
    fsp_template_free(t);
    fsp_engine_free(e);
}

static void slots_run_out(void) {
    tap_fork(more_forks_than_slots, NULL);
}

/* ---- ends ---- */

static void the_engine_stops_first(void) {
    static struct heard heard[6];
    struct fsp_engine *e = listen_engine(2);
    struct fsp_template *t = open_shell(e), *late = NULL;
    for (int i = 0; i < 6; i++) listen_submit(e, SHELL("sleep 100"), options_for(t), &heard[i]);
    fsp_engine_stop(e);
    CHECK(listen_to_end(e, heard, 6));
    for (int i = 0; i < 6; i++)
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->cancelled, 1);
    listen_free(heard, 6);
    struct fsp_spec spec = SHELL(":");
    struct fsp_plan *plan = support_plan(&spec);
    CHECK_INT(fsp_template_new(e, plan, NULL, library, SECOND, 0, &late), -ESHUTDOWN);
    fsp_plan_unref(plan);
    fsp_engine_free(e);
    fsp_template_free(t);
}

static void it_stops_while_jobs_wait(void) {
    static struct heard heard[3];
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    signal_to(only_child(), SIGSTOP);
    for (int i = 0; i < 3; i++) listen_submit(e, SHELL("echo no"), options_for(t), &heard[i]);
    CHECK(LISTEN_UNTIL(e, state_of(t).forked == 3));
    fsp_engine_stop(e);
    CHECK(listen_to_end(e, heard, 3));
    for (int i = 0; i < 3; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->cancelled, 1);
            CHECK_INT(heard[i].outcome->pid, 0);
        }
    listen_free(heard, 3);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* Jobs that name it go on, and its processes end; the engine goes on with others. */
static void a_template_that_is_closed(void) {
    static struct heard one;
    pid_t pid[8];
    struct fsp_engine *e = listen_engine(2);
    struct fsp_template *t = open_shell(e);
    struct fsp_job_options options = options_for(t);
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    listen_submit(e, SHELL("echo here; read x; echo $x"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    fsp_template_free(t);
    CHECK(WAIT_UNTIL(children(pid, 8) == 1));
    CHECK_INT(fsp_job_write(one.job, "on\n", 3), 0);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, "here\non\n");
    listen_free(&one, 1);
    t = open_shell(e);
    work(e, t);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* It has stopped, so it does not hear that it is not wanted. */
static void a_stopped_process_is_not_kept(void) {
    pid_t pid[8];
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    signal_to(only_child(), SIGSTOP);
    fsp_template_free(t);
    CHECK(WAIT_UNTIL(children(pid, 8) == 0));
    fsp_engine_free(e);
}

/* ---- the process dies, or stands still ---- */

static void killed_while_jobs_wait(void) {
    static struct heard heard[3];
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    pid_t pid = only_child();
    struct fsp_job_options options = options_for(t);
    options.in = FSP_IO_PIPE;
    options.input = "input";
    options.input_len = 5;
    signal_to(pid, SIGSTOP);
    for (int i = 0; i < 3; i++) listen_submit(e, SHELL("cat"), options, &heard[i]);
    CHECK(LISTEN_UNTIL(e, state_of(t).forked == 3));
    signal_to(pid, SIGKILL);
    CHECK(listen_to_end(e, heard, 3));
    for (int i = 0; i < 3; i++) CHECK_STR(heard[i].all[0].data, "input");
    listen_free(heard, 3);
    CHECK(WAIT_UNTIL(state_of(t).ready == 1));
    CHECK_INT(state_of(t).restarted, 1);
    work(e, t);
    fsp_template_free(t);
    fsp_engine_free(e);
}

static void one_that_goes_on_answers_late(void) {
    static struct heard one;
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    pid_t pid = only_child();
    struct fsp_job_options options = options_for(t);
    signal_to(pid, SIGSTOP);
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED;
    listen_submit(e, SHELL("trap 'echo got; exit' USR1; kill -USR1 $$; sleep 100"), options, &one);
    CHECK(LISTEN_UNTIL(e, state_of(t).forked == 1));
    fsp_job_write(one.job, "x", 1);
    signal_to(pid, SIGCONT);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, "got\n");
    listen_free(&one, 1);
    CHECK_INT(state_of(t).restarted, 0);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* With nothing else to wake the spawner: the job is answered by exec in the end. */
static void stopped_for_good(void *unused) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    (void)unused;
    signal_to(only_child(), SIGSTOP);
    echo(e, t, "echo late", "late\n", 0);
    CHECK(WAIT_UNTIL(state_of(t).ready == 1));
    echo(e, t, "echo on", "on\n", 0);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* A deadline, or a cancel, does not wait for the process either. How long it took. */
static uint64_t stopped_with_limits(bool grace) {
    static struct heard heard[2];
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_shell(e);
    struct fsp_job_options late = options_for(t), cancelled = options_for(t);
    signal_to(only_child(), SIGSTOP);
    late.limits.timeout = SECOND / 20;
    late.limits.kill_grace = cancelled.limits.kill_grace = grace ? SECOND / 10 : 0;
    uint64_t start = sys_now();
    listen_submit(e, SHELL("echo no"), late, &heard[0]);
    listen_submit(e, SHELL("echo no"), cancelled, &heard[1]);
    CHECK(LISTEN_UNTIL(e, state_of(t).forked == 2));
    fsp_job_cancel(heard[1].job);
    CHECK(listen_to_end(e, heard, 2));
    uint64_t took = sys_now() - start;
    if (heard[0].outcome) CHECK_INT(heard[0].outcome->timed_out, 1);
    if (heard[1].outcome) CHECK_INT(heard[1].outcome->cancelled, 1);
    for (int i = 0; i < 2; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->status.code, -SIGKILL);
            CHECK_INT(heard[i].outcome->pid, 0);
        }
    listen_free(heard, 2);
    fsp_template_free(t);
    fsp_engine_free(e);
    return took;
}

/* It is given five seconds otherwise, each time. */
static void stopped_with_a_limit(void *grace) {
    for (int tries = 0; tries < 5; tries++)
        if (stopped_with_limits(grace != NULL) < 4 * SECOND) return;
    CHECK(!"in time");
}

static void processes_that_stand_still(void) {
    int good = tap_fork_start(stopped_for_good, NULL);
    tap_fork(stopped_with_a_limit, NULL);
    tap_fork(stopped_with_a_limit, "");
    tap_fork_end(good);
}

static void the_object_cannot_be_loaded(void) {
    struct fsp_engine *e = listen_engine(1);
    char right[PATH_MAX];
    memcpy(right, library, sizeof right);
    snprintf(library, sizeof library, "/no/such/object");
    struct fsp_template *t = open_template(e, SHELL(":"), SECOND, 0);
    memcpy(library, right, sizeof right);
    CHECK(WAIT_UNTIL(state_of(t).failures > 0));
    CHECK_INT(state_of(t).why, FSP_REFUSED_SPAWN);
    CHECK_INT(state_of(t).error.err, ENOENT);
    echo(e, t, "echo exec", "exec\n", 0);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* ---- puppets ---- */

static void start_that_fails(const char *mode, enum fsp_refusal why, int status) {
    struct fsp_engine *e = listen_engine(1);
    uint64_t timeout = strcmp(mode, "silent") == 0 ? SECOND / 10 : 20 * SECOND;
    struct fsp_template *t = open_puppet(e, mode, timeout);
    tap_with(mode);
    echo(e, t, "echo exec", "exec\n", 0);
    CHECK(WAIT_UNTIL(state_of(t).failures >= 2)); /* it is tried again */
    CHECK_INT(state_of(t).why, why);
    CHECK_INT(state_of(t).status, status);
    CHECK_INT(state_of(t).ready, 0);
    echo(e, t, "echo exec", "exec\n", 0);
    CHECK_INT(state_of(t).forked, 0);
    fsp_template_free(t);
    fsp_engine_free(e);
    tap_with(NULL);
}

static void starts_that_fail(void) {
    start_that_fails("silent", FSP_REFUSED_TIME, 0);
    start_that_fails("leave", FSP_REFUSED_EXIT, 3);
    start_that_fails("version", FSP_REFUSED_BUILD, 0);
    start_that_fails("refuse", FSP_REFUSED_THREADS, 0);
}

static void answer_of(const char *mode, const char *answer, int code) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_puppet(e, mode, 20 * SECOND);
    tap_with(mode);
    CHECK(WAIT_UNTIL(state_of(t).ready == 1));
    echo(e, t, "echo exec", answer, code);
    CHECK_INT(state_of(t).forked, 1);
    fsp_template_free(t);
    fsp_engine_free(e);
    tap_with(NULL);
}

static void mute_puppet(void *unused) {
    (void)unused;
    answer_of("mute", "exec\n", 0);
}

static void babbling_puppet(void *unused) {
    (void)unused;
    answer_of("babble", "exec\n", 0);
}

/* It is a job's process at that time, which is not to be killed for being slow. */
static void slow_puppet(void *unused) {
    (void)unused;
    answer_of("ask-slow", "on", 4);
}

static void requests_that_are_not_answered(void) {
    int babble = tap_fork_start(babbling_puppet, NULL), mute = tap_fork_start(mute_puppet, NULL);
    int slow = tap_fork_start(slow_puppet, NULL);
    answer_of("die", "exec\n", 0);
    answer_of("nofork", "exec\n", 0);
    answer_of("fork", "forked", 5);
    answer_of("fork-die", "forked", 5);
    tap_fork_end(slow);
    tap_fork_end(mute);
    tap_fork_end(babble);
}

static int open_in(const char *table, const char *name) {
    char found[PATH_MAX];
    struct dirent *fd;
    int n = 0;
    DIR *fds = opendir(table);
    while (fds && (fd = readdir(fds))) {
        ssize_t len = readlinkat(dirfd(fds), fd->d_name, found, sizeof found);
        n += len == (ssize_t)strlen(name) && memcmp(found, name, (size_t)len) == 0;
    }
    if (fds) closedir(fds);
    return n;
}

/* In the tables of all threads. */
static int open_as(const char *name) {
    char table[300];
    struct dirent *task;
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && (task = readdir(tasks))) {
        snprintf(table, sizeof table, "/proc/self/task/%s/fd", task->d_name);
        if (task->d_name[0] != '.') n += open_in(table, name);
    }
    if (tasks) closedir(tasks);
    return n;
}

static void descriptors_that_nobody_asked_for(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_template *t = open_puppet(e, "give", 20 * SECOND);
    CHECK(WAIT_UNTIL(state_of(t).ready == 1));
    for (int i = 0; i < 3; i++) echo(e, t, "echo exec", "forked", 5);
    CHECK_INT(state_of(t).forked, 3);
    fsp_template_free(t);
    t = open_puppet(e, "give-files", 20 * SECOND); /* as what it came from */
    CHECK(WAIT_UNTIL(state_of(t).why == FSP_REFUSED_INPUTS));
    CHECK_INT(open_as("/dev/full"), 0);
    fsp_template_free(t);
    fsp_engine_free(e);
}

/* A fork that was let become a template process is the job's again when it does not come to it:
 * the program has begun, so that nothing else can answer. */
static void checkpoints_that_fail(void) {
    answer_of("ask-die", "", 9);
    answer_of("ask-nofork", "on", 4);
    answer_of("ask-slot", "refused", 4);
    /* What it came from in no memfd, in one that can still be written, or is too large. */
    answer_of("ask-pipe", "refused", 4);
    answer_of("ask-open", "refused", 4);
    answer_of("ask-large", "refused", 4);
}

/* Of one that came from thousands, so that the first request after a pause waits for few looks. */
static void files_are_looked_at_without_a_request(void *unused) {
    (void)unused;
    struct fsp_engine *e = listen_engine(1);
    faults_arm("stat", 0, 0, FAULTS_NONE);
    struct fsp_template *t = open_puppet(e, "many", 20 * SECOND);
    CHECK(WAIT_UNTIL(state_of(t).ready == 1));
    CHECK(WAIT_UNTIL(faults_count_of("stat") > 1500)); /* more than once */
    echo(e, t, "echo exec", "forked", 5);
    fsp_template_free(t);
    fsp_engine_free(e);
}

static void many_files(void) {
    tap_fork(files_are_looked_at_without_a_request, NULL);
}

/* ---- calls that fail ---- */

struct fault {
    const char *name;
    int err;
    long first, count;
};

static void live_with_fault(void *arg) {
    const struct fault *fault = arg;
    fsp_engine_free(listen_engine(1)); /* what a first thread leaves behind */
    size_t before = support_heap_bytes();
    struct fsp_engine *e = listen_engine(1);
    faults_arm(fault->name, fault->err, fault->first, fault->count);
    faults_spare_this_thread();
    struct fsp_template *t = open_template(e, SHELL(":"), 20 * SECOND, 0);
    CHECK(WAIT_UNTIL(state_of(t).ready || state_of(t).failures));
    work(e, t);
    faults_off();
    CHECK(WAIT_UNTIL(state_of(t).ready));
    work(e, t);
    fsp_template_free(t);
    fsp_engine_free(e);
    CHECK_INT(support_heap_bytes(), before);
}

/* What only templates call, or what they can do without. */
static void calls_that_fail_once(void) {
    static const struct fault faults[] = {
        {"socketpair",   EMFILE,       1, 1},
        {"memfd_create", ENOSYS,       1, 1},
        {"ftruncate",    ENOSPC,       1, 1},
        {"sendmsg",      EAGAIN,       4, 1},
        {"sendmsg",      ENOBUFS,      2, 1},
        {"sendmsg",      ETOOMANYREFS, 2, 2},
        {"recvmsg",      EINTR,        4, 2},
        {"recvmsg",      ENOMEM,       4, 1},
        {"recvmsg",      ECONNRESET,   2, 1},
        {"pidfd_open",   EMFILE,       4, 1},
        {"pidfd_open",   ENOSYS,       1, 9},
        {"open",         EMFILE,       2, 1},
        {"stat",         EACCES,       3, 1},
        {"waitid",       EINTR,        6, 1},
    };
    for (size_t i = 0; i < LENGTH(faults); i++)
        for (long k = 0; k < faults[i].first; k++) {
            struct fault fault = faults[i];
            fault.first = k;
            tap_with(fault.name);
            tap_fork(live_with_fault, &fault);
        }
    tap_with(NULL);
}

static void calls_that_always_fail(void) {
    static const struct fault faults[] = {
        {"socketpair",   EMFILE,  0, FAULTS_ALL},
        {"memfd_create", ENOSYS,  0, FAULTS_ALL},
        {"ftruncate",    ENOSPC,  0, FAULTS_ALL},
        {"sendmsg",      ENOBUFS, 0, FAULTS_ALL},
        {"pidfd_open",   ENOSYS,  0, FAULTS_ALL},
    };
    for (size_t i = 0; i < LENGTH(faults); i++) {
        struct fault fault = faults[i];
        tap_with(fault.name);
        tap_fork(live_with_fault, &fault);
    }
    tap_with(NULL);
}

/* These fail for jobs that start by exec too, so an answer may be an error; but it comes. */
static void end_with_fault(void *arg) {
    static struct heard heard[3];
    const struct fault *fault = arg;
    fsp_engine_free(listen_engine(1));
    size_t before = support_heap_bytes();
    struct fsp_engine *e = listen_engine(1);
    faults_arm(fault->name, fault->err, fault->first, fault->count);
    faults_spare_this_thread();
    struct fsp_template *t = open_template(e, SHELL(":"), 20 * SECOND, 0);
    CHECK(WAIT_UNTIL(state_of(t).ready || state_of(t).failures));
    for (int i = 0; i < 3; i++) listen_submit(e, SHELL("echo out"), options_for(t), &heard[i]);
    CHECK(listen_to_end(e, heard, 3));
    faults_off();
    for (int i = 0; i < 3; i++)
        if (heard[i].outcome && !heard[i].outcome->error.err)
            CHECK_STR(heard[i].all[0].data, "out\n");
    listen_free(heard, 3);
    CHECK(WAIT_UNTIL(state_of(t).ready));
    work(e, t);
    fsp_template_free(t);
    fsp_engine_free(e);
    CHECK_INT(support_heap_bytes(), before);
}

static void calls_that_all_jobs_need(void) {
    static const struct fault faults[] = {
        {"malloc",    ENOMEM, 8, 1},
        {"mmap",      ENOMEM, 2, 1},
        {"epoll_ctl", ENOSPC, 6, 1},
        {"fcntl",     EMFILE, 4, 1},
        {"pipe2",     EMFILE, 4, 1},
        {"clone3",    EAGAIN, 2, 1},
    };
    for (size_t i = 0; i < LENGTH(faults); i++)
        for (long k = 0; k < faults[i].first; k++) {
            struct fault fault = faults[i];
            fault.first = k;
            tap_with(fault.name);
            tap_fork(end_with_fault, &fault);
        }
    tap_with(NULL);
}

static void no_memory_for_a_template(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_spec spec = SHELL(":");
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_template *t = NULL;
    for (long k = 0; k < 2; k++) {
        faults_arm("malloc", ENOMEM, k, 1);
        CHECK_INT(fsp_template_new(e, plan, NULL, library, SECOND, 0, &t), -ENOMEM);
        faults_off();
    }
    CHECK_INT(plan->refs, 1);
    fsp_plan_unref(plan);
    fsp_engine_free(e);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    find_library();
    /* Parts in forked processes first: TSan starts no threads after a fork from one with threads.
     */
    RUN(calls_that_fail_once);
    RUN(calls_that_always_fail);
    RUN(calls_that_all_jobs_need);
    RUN(slots_run_out);
    RUN(processes_that_stand_still);
    RUN(requests_that_are_not_answered);
    RUN(descriptors_that_nobody_asked_for);
    RUN(many_files);
    RUN(checkpoints_that_fail);
    RUN(jobs_of_each_kind);
    RUN(many_jobs_on_many_spawners);
    RUN(limits_and_cancels);
    RUN(forks_do_not_have_the_page);
    RUN(another_user);
    RUN(a_plan_that_fits_no_message);
    RUN(the_engine_stops_first);
    RUN(it_stops_while_jobs_wait);
    RUN(a_template_that_is_closed);
    RUN(a_stopped_process_is_not_kept);
    RUN(killed_while_jobs_wait);
    RUN(one_that_goes_on_answers_late);
    RUN(the_object_cannot_be_loaded);
    RUN(starts_that_fail);
    RUN(no_memory_for_a_template);
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
