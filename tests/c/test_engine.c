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
    run_capped("while echo yyyyyyy; do :; done", 100000);
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

/* ---- what children see ---- */

static void children_have_nothing_of_the_caller(void) {
    /* Not close-on-exec; below, between and above the numbers of the engine's own. */
    int pipes[3][2];
    CHECK(pipe(pipes[0]) == 0);
    int hole = dup(0);
    CHECK(pipe(pipes[1]) == 0);
    close(hole);
    struct fsp_engine *e = listen_engine(1);
    struct fsp_engine_stats stats;
    fsp_engine_stats(e, &stats);
    CHECK(pipe(pipes[2]) == 0);
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
    for (int i = 0; i < 3; i++) {
        close(pipes[i][1]);
#ifdef __linux__
        /* Nor does a spawner hold up what the caller closes. */
        struct pollfd ended = {pipes[i][0], POLLIN, 0};
        CHECK_INT(poll(&ended, 1, TAP_PATIENCE_MS), 1);
#endif
        close(pipes[i][0]);
    }
#ifdef __linux__
    CHECK_INT(stats.private_tables, 1);
#endif
    fsp_engine_free(e);
}

#ifdef __linux__
static void a_descriptor_that_a_spawner_does_not_have(void) {
    struct fsp_engine *e = listen_engine(1);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int keep = fcntl(fd, F_DUPFD_CLOEXEC, 300), crowd[40];
    /* Nor may its own numbers be taken for those of the process. */
    for (size_t i = 0; i < LENGTH(crowd); i++) crowd[i] = dup(fd);
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.keep_fds = &keep;
    spec.nkeep_fds = 1;
    for (int started = 0; started < 2; started++) {
        struct fsp_job_options options = listen_options();
        options.flags = started ? FSP_JOB_STARTED : 0;
        listen_submit(e, spec, options, &one);
        CHECK(listen_to_end(e, &one, 1));
        CHECK_INT(one.outcome->error.index, keep);
        expect_never_ran(EBADF, FSP_STAGE_FDS);
    }
    for (size_t i = 0; i < LENGTH(crowd); i++) close(crowd[i]);
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

/* But those with which libc makes every thread change its identity it must answer. */
static void change_identity(void *unused) {
    struct fsp_engine *e = listen_engine(2);
    (void)unused;
    CHECK_INT(setgid(getgid()), 0);
    CHECK_INT(setuid(getuid()), 0);
    run(SHELL("exit 0"));
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void spawners_follow_a_change_of_identity(void) {
    tap_fork(change_identity, NULL);
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

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(spawners_follow_a_change_of_identity); /* first: TSan starts no threads in later forks */
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
    RUN(children_have_nothing_of_the_caller);
#ifdef __linux__
    RUN(a_descriptor_that_a_spawner_does_not_have);
#endif
    RUN(children_have_the_mask_of_the_engine);
    RUN(spawners_take_no_signals);
    RUN(a_pipe_is_used_once);
    return tap_end();
}
