/*
 * test_engine.c - commands handed to spawner threads run, and each ends once with all it wrote.
 *
 * Under TSan there are fewer of them.
 */
#include "listen.h"

#include <poll.h>
#include <stdio.h>

/* One command by itself, to be freed. */
static struct heard one;

static void run(struct fsp_spec spec) {
    listen_run(spec, listen_options(), &one);
}

static void expect_one(int code, const char *out, const char *err) {
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->error.err, 0);
        CHECK_INT(one.outcome->status.code, code);
        CHECK_INT(one.outcome->status.lost, 0);
        CHECK_STR(one.all[0].data, out);
        CHECK_STR(one.all[1].data, err);
    }
}

/* ---- one command ---- */

static void a_command_runs(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_engine_stats stats;
    listen_submit(e, SHELL("echo hi; exit 3"), listen_options(), &one);
    CHECK(listen_to_end(e, &one, 1));
    expect_one(3, "hi\n", "");
    CHECK(one.outcome->pid > 0 && one.outcome->wall > 0 && one.outcome->status.usage.ru_maxrss > 0);
    CHECK(!one.outcome->timed_out && !one.outcome->truncated && !one.outcome->cancelled);
    CHECK_INT(one.started, 0); /* not asked for */
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.started, 1);
    CHECK_INT(stats.finished, 1);
    CHECK_INT(stats.running, 0);
    CHECK_INT(stats.pending, 0);
    CHECK_INT(stats.spawners, 1);
    fsp_engine_free(e);
    listen_free(&one, 1);
}

static void its_streams_are_apart(void) {
    run(SHELL("echo out; echo err >&2"));
    expect_one(0, "out\n", "err\n");
    listen_free(&one, 1);
}

static void its_streams_may_be_one(void) {
    struct fsp_job_options options = listen_options();
    options.err = FSP_IO_STDOUT;
    listen_run(SHELL("echo 1; echo 2 >&2; echo 3"), options, &one);
    expect_one(0, "1\n2\n3\n", "");
    listen_free(&one, 1);
}

static void its_output_may_go_nowhere(void) {
    struct fsp_job_options options = listen_options();
    options.out = FSP_IO_NULL;
    options.err = FSP_IO_STDOUT;
    listen_run(SHELL("[ /dev/fd/1 -ef /dev/null ] && [ /dev/fd/2 -ef /dev/null ] && cat"), options,
               &one);
    expect_one(0, "", "");
    listen_free(&one, 1);
}

static void inherited_output_is_the_callers(void) {
    struct fsp_job_options options = listen_options();
    int saved = dup(1), fd[2];
    char out[64];
    support_pipe(fd, 3);
    support_dup_to(fd[1], 1);
    options.out = FSP_IO_INHERIT;
    options.err = FSP_IO_STDOUT;
    listen_run(SHELL("echo 1; echo 2 >&2"), options, &one);
    support_dup_to(saved, 1);
    close(saved);
    close(fd[1]);
    support_read_all(fd[0], out, sizeof out);
    close(fd[0]);
    CHECK_STR(out, "1\n2\n");
    expect_one(0, "", "");
    listen_free(&one, 1);
}

static void a_death_is_told(void) {
    run(SHELL("kill -9 $$"));
    expect_one(-SIGKILL, "", "");
    listen_free(&one, 1);
}

static void being_told_that_it_runs(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_STARTED | FSP_JOB_FEED;
    listen_submit(e, COMMAND("/bin/cat"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.started));
    CHECK_INT(one.ended, 0);
    CHECK(fsp_job_outcome(one.job)->pid > 0);
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(one.started, 1);
    fsp_engine_free(e);
    listen_free(&one, 1);
}

static void expect_never_ran(int err, enum fsp_stage stage) {
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->error.err, err);
        CHECK_INT(one.outcome->error.stage, stage);
        CHECK_INT(one.outcome->pid, 0);
        CHECK_INT(one.started, 0);
        CHECK_INT(one.all[0].len, 0);
    }
    listen_free(&one, 1);
}

/* Whether the spawner waits for the exec (it does to tell that it runs) or not. */
static void what_cannot_be_run_is_told(void) {
    for (int wait = 0; wait < 2; wait++) {
        struct fsp_job_options options = listen_options();
        options.in = FSP_IO_PIPE;
        options.input = "input";
        options.input_len = 5;
        options.flags = wait ? FSP_JOB_STARTED : 0;
        listen_run(COMMAND("/no/such/program"), options, &one);
        expect_never_ran(ENOENT, FSP_STAGE_EXEC);
        struct fsp_spec spec = COMMAND("/bin/true");
        spec.cwd = "/no/such/directory";
        listen_run(spec, options, &one);
        expect_never_ran(ENOENT, FSP_STAGE_CWD);
        spec = COMMAND("no-such-program");
        spec.search = "/bin:/usr/bin";
        listen_run(spec, options, &one);
        expect_never_ran(ENOENT, FSP_STAGE_EXEC);
    }
}

static void no_engine_without_spawners(void) {
    struct fsp_engine *e = NULL;
    CHECK_INT(fsp_engine_new(0, NULL, &e), -EINVAL);
    CHECK(e == NULL);
    fsp_engine_free(NULL);
}

/* ---- much output ---- */

#define MUCH "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"

static bool is_much(const struct fsp_buf *buf) {
    const char *at = buf->data;
    char line[24];
    for (int i = 0; i < 20000; i++) {
        int n = snprintf(line, sizeof line, "line %d\n", i);
        if (strncmp(at, line, (size_t)n) != 0) return false;
        at += n;
    }
    return *at == '\0';
}

static void all_of_a_large_output(void) {
    run(SHELL("(" MUCH ") & (" MUCH ") >&2; wait"));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, 0);
    CHECK(is_much(&one.all[0]));
    CHECK(is_much(&one.all[1]));
    listen_free(&one, 1);
}

/* What was written just before the exit is in the pipe, and must be read before the end is told. */
static void all_that_was_written_last(void) {
    static char script[300];
    snprintf(script, sizeof script, "printf '%%060000d' 7; printf '%%05000d' 8 >&2");
    for (int i = 0; i < TIMES(50); i++) {
        run(SHELL(script));
        CHECK_INT(one.all[0].len, 60000);
        CHECK_INT(one.all[1].len, 5000);
        listen_free(&one, 1);
    }
}

static void run_capped(const char *script, uint64_t cap) {
    struct fsp_job_options options = listen_options();
    options.limits.max_output = cap;
    listen_run(SHELL(script), options, &one);
}

static void too_much_output_is_cut(void) {
    run_capped("while :; do echo yyyyyyy; done", 100000);
    CHECK_INT(one.all[0].len, 100000);
    CHECK_INT(strncmp(one.all[0].data, "yyyyyyy\nyyyyyyy\n", 16), 0);
    CHECK_INT(one.outcome->truncated, 1);
    CHECK_INT(one.outcome->status.code, -SIGTERM);
    CHECK_INT(one.outcome->timed_out, 0);
    CHECK_INT(one.outcome->cancelled, 0);
    listen_free(&one, 1);
}

static void the_cap_is_for_both_streams(void) {
    run_capped("printf 12345; printf 67890 >&2; exec sleep 100", 7);
    CHECK_INT(one.all[0].len + one.all[1].len, 7);
    CHECK_INT(one.outcome->truncated, 1);
    listen_free(&one, 1);
}

static void output_as_long_as_the_cap_is_whole(void) {
    run_capped("printf 12345; printf 67890 >&2", 10);
    CHECK_INT(one.outcome->truncated, 0);
    expect_one(0, "12345", "67890");
    listen_free(&one, 1);
}

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

/* ---- what children see ---- */

static void children_have_nothing_of_the_caller(void) {
    int before[2], after[2];
    CHECK(pipe(before) == 0); /* not close-on-exec */
    struct fsp_engine *e = listen_engine(1);
    struct fsp_engine_stats stats;
    fsp_engine_stats(e, &stats);
    CHECK(pipe(after) == 0);
    for (int started = 0; started < 2; started++) {
        struct fsp_job_options options = listen_options();
        options.flags = started ? FSP_JOB_STARTED : 0;
        listen_submit(e, HELPER("report"), options, &one);
        CHECK(listen_to_end(e, &one, 1));
        const char *fds = support_field(one.all[0].data, "fds");
        int n = 0;
        for (const char *at = fds; *at; at++) n += *at == ':';
        CHECK_INT(n, 3);
        CHECK(strncmp(fds, "0:", 2) == 0 && strstr(fds, " 1:") && strstr(fds, " 2:"));
        listen_free(&one, 1);
    }
#ifdef __linux__
    CHECK_INT(stats.private_tables, 1);
    /* Nor does a spawner hold up what the caller closes. */
    char byte;
    close(before[1]);
    CHECK_INT(read(before[0], &byte, 1), 0);
#else
    close(before[1]);
#endif
    close(before[0]);
    close(after[0]);
    close(after[1]);
    fsp_engine_free(e);
}

#ifdef __linux__
static void a_descriptor_that_a_spawner_does_not_have(void) {
    struct fsp_engine *e = listen_engine(1);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int keep = fcntl(fd, F_DUPFD_CLOEXEC, 300);
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.keep_fds = &keep;
    spec.nkeep_fds = 1;
    listen_submit(e, spec, listen_options(), &one);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(one.outcome->error.index, keep);
    expect_never_ran(EBADF, FSP_STAGE_FDS);
    close(fd);
    close(keep);
    fsp_engine_free(e);
}
#endif

static void expect_blocked(const uint64_t *mask, const char *blocked) {
    struct fsp_engine *e = NULL;
    REQUIRE(CHECK_INT(fsp_engine_new(1, mask, &e), 0));
    listen_submit(e, HELPER("report"), listen_options(), &one);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(support_field(one.all[0].data, "blocked"), blocked);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void children_have_the_mask_of_the_engine(void) {
    sigset_t set, before;
    char blocked[32];
    const uint64_t mask = (uint64_t)1 << (SIGHUP - 1);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_SETMASK, &set, &before);
    snprintf(blocked, sizeof blocked, "%d ", SIGUSR1);
    expect_blocked(NULL, blocked);
    snprintf(blocked, sizeof blocked, "%d ", SIGHUP);
    expect_blocked(&mask, blocked);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* A signal for the process must not be taken by a thread that nobody knows. */
static void spawners_take_no_signals(void) {
    struct fsp_engine *e = listen_engine(3);
    sigset_t set, before, pending;
    int sig = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, &before);
    kill(getpid(), SIGUSR1);
    run(SHELL("exit 0"));
    listen_free(&one, 1);
    sigpending(&pending);
    CHECK_INT(sigismember(&pending, SIGUSR1), 1);
    CHECK_INT(sigwait(&set, &sig), 0);
    CHECK_INT(sig, SIGUSR1);
    sigprocmask(SIG_SETMASK, &before, NULL);
    fsp_engine_free(e);
}

static void a_pipe_is_used_once(void) {
    struct heard late;
    memset(&late, 0, sizeof late);
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = listen_options();
    options.limits.drain = 1;
    char *fifo = strdup(support_path("late"));
    char script[2 * PATH_MAX];
    CHECK_INT(mkfifo(fifo, 0600), 0);
    /* A grandchild waits for the fifo and writes then, where its pipe went. */
    snprintf(script, sizeof script,
             "trap '' PIPE; { read x <'%s'; echo late; echo late >&2; } & :", fifo);
    for (int i = 0; i < FSP_PIPES_AHEAD * 2; i++) {
        listen_submit(e, SHELL(script), options, &late);
        CHECK(listen_to_end(e, &late, 1));
        options.in = FSP_IO_PIPE;
        options.flags = FSP_JOB_FEED;
        options.limits.drain = 60000000000;
        listen_submit(e, COMMAND("/bin/cat"), options, &one);
        int fd = open(fifo, O_WRONLY | O_CLOEXEC); /* once the grandchild is there */
        CHECK(fd >= 0);
        close(fd);
        CHECK_INT(fsp_job_write(one.job, "mine", 4), 0);
        fsp_job_write_eof(one.job);
        CHECK(listen_to_end(e, &one, 1));
        expect_one(0, "mine", "");
        listen_free(&one, 1);
        listen_free(&late, 1);
        options = listen_options();
        options.limits.drain = 1;
    }
    unlink(fifo);
    free(fifo);
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
    expect_never_ran(ENOENT, FSP_STAGE_EXEC);
    fsp_engine_free(e);
}

/* TSan makes a fork of vfork, whose child cannot tell what fails. */
static void backends(void) {
    if (!UNDER_TSAN || strcmp(fsp_backend_name(), "vfork") != 0) RUN(with_a_backend);
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
    expect_one(0, "ours", "");
    CHECK_INT(one.outcome->cancelled, 0);
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
    RUN(a_command_runs);
    RUN(what_cannot_be_run_is_told);
    RUN(all_of_a_large_output);
    RUN(too_much_output_is_cut);
    RUN(many_commands_on_three_spawners);
    RUN(two_engines_at_once);
    RUN(several_threads_submit);
    RUN(a_pipe_is_used_once);
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
    RUN(a_command_runs);
    RUN(its_streams_are_apart);
    RUN(its_streams_may_be_one);
    RUN(its_output_may_go_nowhere);
    RUN(inherited_output_is_the_callers);
    RUN(a_death_is_told);
    RUN(being_told_that_it_runs);
    RUN(what_cannot_be_run_is_told);
    RUN(no_engine_without_spawners);
    RUN(all_of_a_large_output);
    RUN(all_that_was_written_last);
    RUN(too_much_output_is_cut);
    RUN(the_cap_is_for_both_streams);
    RUN(output_as_long_as_the_cap_is_whole);
    RUN(many_commands_on_one_spawner);
    RUN(many_commands_on_three_spawners);
    RUN(two_engines_at_once);
    RUN(several_threads_submit);
    RUN(many_commands_at_once);
    RUN(children_have_nothing_of_the_caller);
#ifdef __linux__
    RUN(a_descriptor_that_a_spawner_does_not_have);
#endif
    RUN(children_have_the_mask_of_the_engine);
    RUN(spawners_take_no_signals);
    RUN(a_pipe_is_used_once);
    support_each_backend(backends);
    RUN(what_runs_is_killed);
    RUN(an_engine_freed_while_commands_run);
    RUN(a_forked_process_has_no_engine);
    with_shared_tables();
    return tap_end();
}
