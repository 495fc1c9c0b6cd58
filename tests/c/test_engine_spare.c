/*
 * test_engine_spare.c - jobs that run ahead of their request, and are adopted by one.
 */
#include "listen.h"

#include <errno.h>

#define MS 1000000ull

static struct heard one;

static struct fsp_job_options spare(uint64_t timeout) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | FSP_JOB_STREAM | FSP_JOB_STARTED | FSP_JOB_SPARE;
    options.limits.timeout = timeout;
    return options;
}

static void give(struct heard *heard, const char *input) {
    fsp_job_adopt(heard->job, 1);
    CHECK_INT(fsp_job_write(heard->job, input, strlen(input)), 0);
    fsp_job_write_eof(heard->job);
}

static void expect(int code, bool is_spare, bool timed_out, const char *out) {
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->error.err, 0);
        CHECK_INT(one.outcome->status.code, code);
        CHECK_INT(one.outcome->spare, is_spare);
        CHECK_INT(one.outcome->timed_out, timed_out);
        CHECK_STR(one.all[0].data, out);
    }
    listen_free(&one, 1);
}

static void it_waits_for_its_request(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("echo early; cat"), spare(0), &one);
    CHECK(LISTEN_UNTIL(e, one.started == 1));
    /* Far longer than output is held back for. */
    for (int i = 0; i < 5; i++) listen_once(e, 20);
    CHECK_INT(one.chunks, 0);
    give(&one, "late\n");
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(one.started, 2); /* it runs; it was adopted */
    expect(0, false, false, "early\nlate\n");
    fsp_engine_free(e);
}

static void it_is_adopted_before_it_runs(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("cat"), spare(0), &one);
    give(&one, "at once\n");
    CHECK(listen_to_end(e, &one, 1));
    expect(0, false, false, "at once\n");
    fsp_engine_free(e);
}

static void its_deadline_counts_from_then(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("read x; sleep 100"), spare(100 * MS), &one);
    CHECK(LISTEN_UNTIL(e, one.started == 1));
    for (int i = 0; i < 10; i++) listen_once(e, 20);
    CHECK_INT(one.ended, 0);
    give(&one, "\n");
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK(one.outcome->wall >= 100 * MS);
    expect(-SIGTERM, false, true, "");
    fsp_engine_free(e);
}

/* It is not told of, and no more of it read than a bound; then all of it comes. */
static void what_it_writes_before_is_held(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("head -c 1000000 /dev/zero; cat"), spare(0), &one);
    CHECK(LISTEN_UNTIL(e, one.started == 1));
    for (int i = 0; i < 5; i++) listen_once(e, 20);
    CHECK_INT(one.chunks, 0);
    CHECK_INT(one.ended, 0);
    give(&one, "end");
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK_INT(one.all[0].len, 1000003)) CHECK_STR(one.all[0].data + 1000000, "end");
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->spare, 0);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

/* What it leaves behind may write without end: none of that is told, nor kept without bound. */
static void it_has_ended_and_others_write(void) {
    struct fsp_job_options options = spare(0);
    options.limits.drain = 50 * MS;
    listen_run(SHELL("echo out; yes &"), options, &one);
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->spare, 1);
    CHECK_INT(one.chunks, 0);
    CHECK(one.all[0].len <= FSP_LEFT + 2 * FSP_SCRATCH);
    listen_free(&one, 1);
}

static void it_ends_unwanted(void) {
    listen_run(SHELL("exit 3"), spare(0), &one);
    expect(3, true, false, "");
}

/* Whoever adopts one that has died, noticed or not, learns that it got nothing. */
static void it_dies_before(void) {
    struct fsp_engine *e = listen_engine(1);
    for (int i = 0; i < (int)TIMES(30); i++) {
        listen_submit(e, COMMAND("/bin/cat"), spare(0), &one);
        CHECK(LISTEN_UNTIL(e, one.started == 1));
        pid_t pid = fsp_job_outcome(one.job)->pid;
        siginfo_t info;
        kill(pid, SIGKILL);
        /* Dead, if not reaped already. */
        while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) continue;
        give(&one, "lost");
        CHECK(listen_to_end(e, &one, 1));
        CHECK_INT(one.started, 1);
        expect(-SIGKILL, true, false, "");
    }
    fsp_engine_free(e);
}

static void it_is_cancelled(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("cat; echo read"), spare(0), &one);
    CHECK(LISTEN_UNTIL(e, one.started == 1));
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    expect(-SIGTERM, true, false, "");
    fsp_engine_free(e);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(it_waits_for_its_request);
    RUN(it_is_adopted_before_it_runs);
    RUN(its_deadline_counts_from_then);
    RUN(what_it_writes_before_is_held);
    RUN(it_ends_unwanted);
    RUN(it_dies_before);
    RUN(it_has_ended_and_others_write);
    RUN(it_is_cancelled);
    return tap_end();
}
