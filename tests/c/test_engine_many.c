/*
 * test_engine_many.c - many commands, spawners and engines at once; how they end; and what is left
 * of them in a forked process.
 *
 * Under TSan there are fewer of them.
 */
#include "listen.h"

#include <stdio.h>

/* One command by itself, to be freed. */
static struct heard one;

/* ---- many commands ---- */

#define MANY 300

static void submit_numbered(struct fsp_engine *e, struct heard *heard, int n) {
    char script[64];
    for (int i = 0; i < n; i++) {
        snprintf(script, sizeof script, "echo %d; echo %d >&2; exit %d", i, i * 7, i % 100);
        listen_submit(e, SHELL(script), listen_options(), &heard[i]);
    }
}

static void expect_numbered(struct heard *heard, int n) {
    char out[16], err[16];
    for (int i = 0; i < n; i++) {
        snprintf(out, sizeof out, "%d\n", i);
        snprintf(err, sizeof err, "%d\n", i * 7);
        if (!CHECK(heard[i].outcome)) continue;
        CHECK_INT(heard[i].outcome->status.code, i % 100);
        CHECK_STR(heard[i].all[0].data, out);
        CHECK_STR(heard[i].all[1].data, err);
    }
    listen_free(heard, (size_t)n);
}

static void many_commands_on(unsigned spawners) {
    static struct heard heard[MANY];
    struct fsp_engine *e = listen_engine(spawners);
    struct fsp_engine_stats stats;
    int n = TIMES(MANY);
    submit_numbered(e, heard, n);
    CHECK(listen_to_end(e, heard, (size_t)n));
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.started, n);
    CHECK_INT(stats.finished, n);
    CHECK_INT(stats.running + stats.pending, 0);
    expect_numbered(heard, n);
    fsp_engine_free(e);
}

static void many_commands_on_one_spawner(void) {
    many_commands_on(1);
}

static void many_commands_on_three_spawners(void) {
    many_commands_on(3);
}

static void two_engines_at_once(void) {
    static struct heard a[MANY], b[MANY];
    struct fsp_engine *ea = listen_engine(2), *eb = listen_engine(1);
    int n = TIMES(MANY / 3);
    submit_numbered(ea, a, n);
    submit_numbered(eb, b, n);
    CHECK(listen_to_end(eb, b, (size_t)n));
    CHECK(listen_to_end(ea, a, (size_t)n));
    expect_numbered(a, n);
    expect_numbered(b, n);
    fsp_engine_free(ea);
    fsp_engine_free(eb);
}

struct submitter {
    struct fsp_engine *engine;
    struct heard *heard;
    int n;
};

static void *submit_all(void *arg) {
    struct submitter *s = arg;
    submit_numbered(s->engine, s->heard, s->n);
    return NULL;
}

static void several_threads_submit(void) {
    static struct heard heard[4][MANY];
    pthread_t threads[4];
    struct submitter s[4];
    struct fsp_engine *e = listen_engine(2);
    for (int i = 0; i < 4; i++) {
        s[i] = (struct submitter){e, heard[i], TIMES(50)};
        CHECK_INT(pthread_create(&threads[i], NULL, submit_all, &s[i]), 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++) {
        CHECK(listen_to_end(e, heard[i], (size_t)s[i].n));
        expect_numbered(heard[i], s[i].n);
    }
    fsp_engine_free(e);
}

#define SLEEPERS 500

/*
 * Many at once: their descriptors are all in the spawners' tables, but must not make the table of
 * the next child large (FDSize is what it has room for).
 */
static void many_commands_at_once(void) {
    static struct heard heard[SLEEPERS];
    struct fsp_job_options options = listen_options();
    struct fsp_engine *e = listen_engine(2);
    struct fsp_engine_stats stats;
    size_t n = TIMES(SLEEPERS);
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED;
    for (size_t i = 0; i < n; i++) listen_submit(e, COMMAND("/bin/cat"), options, &heard[i]);
    CHECK(LISTEN_UNTIL(e, (fsp_engine_stats(e, &stats), stats.running == n)));
#ifdef __linux__
    listen_submit(e,
                  SHELL("while read k v; do [ $k != FDSize: ] || echo $v; done </proc/self/status"),
                  listen_options(), &one);
    CHECK(listen_to_end(e, &one, 1));
    CHECK(atoi(one.all[0].data) > 0);
    CHECK(atoi(one.all[0].data) <= 256);
    listen_free(&one, 1);
#endif
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(fsp_job_write(heard[i].job, "x", 1), 0);
        fsp_job_write_eof(heard[i].job);
    }
    CHECK(listen_to_end(e, heard, n));
    for (size_t i = 0; i < n; i++) {
        CHECK_STR(heard[i].all[0].data, "x");
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->status.code, 0);
    }
    listen_free(heard, n);
    fsp_engine_free(e);
}

/* ---- backends ---- */

static void with_a_backend(void) {
    static struct heard heard[20];
    struct fsp_engine *e = listen_engine(2);
    submit_numbered(e, heard, 20);
    CHECK(listen_to_end(e, heard, 20));
    expect_numbered(heard, 20);
    listen_submit(e, COMMAND("/no/such/program"), listen_options(), &one);
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->error.err, ENOENT);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

/* TSan makes a fork of vfork, whose child cannot tell what fails. */
static void backends(void) {
    if (!UNDER_TSAN || strcmp(fsp_backend_name(), "vfork") != 0) RUN(with_a_backend);
}

/* ---- on the way to exec ---- */

/*
 * Children that a spawner does not wait for start from memory of ours, at the same time; what one
 * uses must not serve another before it has left, however long that takes.
 */
static void children_that_are_slow_to_execute(void) {
    static struct heard heard[FSP_ON_THEIR_WAY];
    struct fsp_engine *e = listen_engine(1);
    char script[64];
    faults_hold("execve");
    for (int i = 0; i < FSP_ON_THEIR_WAY; i++) {
        snprintf(script, sizeof script, "echo %d; exit %d", i, i);
        listen_submit(e, SHELL(script), listen_options(), &heard[i]);
        CHECK(LISTEN_UNTIL(e, faults_held() == i + 1));
    }
    /* The next one has to be waited for, so that there are never too many. */
    listen_submit(e, SHELL("echo last"), listen_options(), &one);
    CHECK(LISTEN_UNTIL(e, faults_held() == FSP_ON_THEIR_WAY + 1));
    faults_release();
    CHECK(listen_to_end(e, heard, FSP_ON_THEIR_WAY));
    CHECK(listen_to_end(e, &one, 1));
    faults_off();
    for (int i = 0; i < FSP_ON_THEIR_WAY; i++) {
        char out[16];
        snprintf(out, sizeof out, "%d\n", i);
        CHECK_STR(heard[i].all[0].data, out);
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->status.code, i);
    }
    CHECK_STR(one.all[0].data, "last\n");
    listen_free(heard, FSP_ON_THEIR_WAY);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

/* The spawner goes on meanwhile, and can end them; they lead no group yet. */
static void children_that_never_execute(void) {
    static struct heard heard[FSP_ON_THEIR_WAY];
    struct fsp_job_options options = listen_options();
    struct fsp_engine *e = listen_engine(1);
    options.limits.timeout = 50000000;
    faults_hold("setsid");
    listen_submit(e, SHELL("echo never"), options, &heard[0]);
    listen_submit(e, SHELL("echo never"), listen_options(), &heard[1]);
    CHECK(LISTEN_UNTIL(e, faults_held() == 2));
    fsp_job_cancel(heard[1].job);
    CHECK(listen_to_end(e, heard, 2));
    for (int i = 0; i < 2; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->error.err, 0);
            CHECK_INT(heard[i].outcome->status.code, -SIGKILL); /* TERM is still blocked there */
            CHECK_INT(heard[i].all[0].len, 0);
        }
    listen_free(heard, 2);
    listen_submit(e, SHELL("echo never"), listen_options(), &heard[0]);
    CHECK(LISTEN_UNTIL(e, faults_held() == 3)); /* two of them dead */
    fsp_engine_stop(e);
    CHECK(listen_to_end(e, heard, 1));
    faults_release();
    faults_off();
    if (heard[0].outcome) CHECK_INT(heard[0].outcome->cancelled, 1);
    listen_free(heard, 1);
    fsp_engine_free(e);
}

/* ---- the end of an engine ---- */

static void what_runs_is_killed(void) {
    static struct heard heard[20];
    struct fsp_engine *e = listen_engine(2);
    struct fsp_engine_stats stats;
    for (int i = 0; i < 20; i++)
        listen_submit(e, SHELL("trap '' TERM; sleep 100 & sleep 100"), listen_options(), &heard[i]);
    CHECK(LISTEN_UNTIL(e, (fsp_engine_stats(e, &stats), stats.running == 20)));
    fsp_engine_stop(e);
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_job_options options = listen_options();
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_job *job;
    CHECK_INT(fsp_engine_submit(e, plan, &options, &job), -ESHUTDOWN);
    fsp_plan_unref(plan);
    CHECK(listen_to_end(e, heard, 20));
    for (int i = 0; i < 20; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->cancelled, 1);
            CHECK_INT(heard[i].outcome->status.code, -SIGKILL);
        }
    listen_free(heard, 20);
    fsp_engine_free(e);
}

/* Nobody listens any more; the jobs are the caller's still. */
static void an_engine_freed_while_commands_run(void) {
    static struct heard heard[100];
    for (int round = 0; round < 3; round++) {
        struct fsp_engine *e = listen_engine(2);
        for (int i = 0; i < 100; i++)
            listen_submit(e, SHELL("echo out; sleep 100"), listen_options(), &heard[i]);
        fsp_engine_free(e);
        for (int i = 0; i < 100; i++) {
            CHECK_INT(fsp_job_outcome(heard[i].job)->cancelled, 1);
            fsp_job_free(heard[i].job);
        }
    }
}

static void use_in_a_fork(void *arg) {
    struct fsp_engine *e = arg;
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_job_options options = listen_options();
    struct fsp_engine_stats stats;
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_job *job;
    CHECK_INT(fsp_engine_forked(e), 1);
    CHECK_INT(fsp_engine_submit(e, plan, &options, &job), -ECHILD);
    fsp_plan_unref(plan);
    CHECK(fsp_engine_take(e) == NULL);
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.spawners, 0);
    fsp_job_cancel(one.job);
    fsp_job_signal(one.job, 1, SIGKILL);
    fsp_job_write(one.job, "theirs", 6);
    fsp_job_write_eof(one.job);
    fsp_job_consumed(one.job, 0, 1);
    fsp_engine_stop(e);
    fsp_engine_free(e);
    /* But it can spawn, and have an engine of its own. */
    struct heard mine = {0};
    e = listen_engine(1);
    CHECK_INT(fsp_engine_forked(e), 0);
    listen_submit(e, SHELL("echo forked"), listen_options(), &mine);
    CHECK(listen_to_end(e, &mine, 1));
    CHECK_STR(mine.all[0].data, "forked\n");
    listen_free(&mine, 1);
    fsp_engine_free(e);
}

static void a_forked_process_has_no_engine(void) {
    struct fsp_engine *e = listen_engine(2);
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | FSP_JOB_STARTED;
    listen_submit(e, COMMAND("/bin/cat"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.started));
    CHECK_INT(fsp_engine_forked(e), 0);
#if !UNDER_TSAN /* which starts no threads in a process forked from one with threads */
    tap_fork(use_in_a_fork, e);
#else
    (void)use_in_a_fork;
#endif
    CHECK_INT(fsp_job_write(one.job, "ours", 4), 0);
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, "ours");
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->status.code, 0);
        CHECK_INT(one.outcome->cancelled, 0);
    }
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void tables_are_shared(void) {
    struct fsp_engine *e = listen_engine(2);
    struct fsp_engine_stats stats;
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.private_tables, 0);
    fsp_engine_free(e);
}

/* The same where tables cannot be private; it is also what TSan understands best. */
static void with_shared_tables(void) {
    listen_shared_tables = true;
    tap_with("shared tables");
    RUN(tables_are_shared);
    RUN(with_a_backend);
    RUN(many_commands_on_three_spawners);
    RUN(two_engines_at_once);
    RUN(several_threads_submit);
    RUN(what_runs_is_killed);
    RUN(an_engine_freed_while_commands_run);
    RUN(a_forked_process_has_no_engine);
    tap_with(NULL);
    listen_shared_tables = false;
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(many_commands_on_one_spawner);
    RUN(many_commands_on_three_spawners);
    RUN(two_engines_at_once);
    RUN(several_threads_submit);
    RUN(many_commands_at_once);
    support_each_backend(backends);
    RUN(children_that_are_slow_to_execute);
    RUN(children_that_never_execute);
    RUN(what_runs_is_killed);
    RUN(an_engine_freed_while_commands_run);
    RUN(a_forked_process_has_no_engine);
    with_shared_tables();
    return tap_end();
}
