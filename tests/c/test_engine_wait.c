/*
 * test_engine_wait.c - jobs that wait for a resident that is busy: served in their turn, and none
 * of them forgotten, whatever becomes of those that they wait for.
 */
#include "house.h"

#ifdef __linux__
#include "reset/reset.h"

#define EVER 3600000000000u

/* One spawner with one resident and no more, that is done with its first job, and however long ago
 * that was, others wait for it. */
static struct house patient_house(void) {
    struct house h = open_house(1);
    first_resident(&h);
    h.r->brisk = h.r->patience = EVER;
    h.r->at[0].failures = 1; /* no more of them are made */
    h.r->at[0].not_before = UINT64_MAX;
    return h;
}

static struct fsp_job_options streamed(const struct house *h) {
    struct fsp_job_options options = options_for(h);
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_STREAM | FSP_JOB_FEED;
    return options;
}

/* It waits until it is ended, for what it is not given: one that turned would take its share of a
 * busy machine, which is that of a whole session where the kernel groups tasks by those. */
static void make_busy(const struct house *h, struct heard *heard) {
    listen_submit(h->e, SHELL("echo on; read a"), streamed(h), heard);
    CHECK(LISTEN_UNTIL(h->e, heard->chunks));
}

static bool is_taken(const struct house *h) {
    struct fsp_engine_stats stats;
    fsp_engine_stats(h->e, &stats);
    return stats.pending == 0;
}

static void submit_waiting(const struct house *h, const char *script,
                           struct fsp_job_options options, struct heard *heard) {
    listen_submit(h->e, SHELL(script), options, heard);
    CHECK(WAIT_UNTIL(is_taken(h)));
}

static void one_serves_them_all(void) {
    enum { N = 100 };
    static struct heard heard[N];
    struct house h = patient_house();
    for (int i = 0; i < N; i++) listen_submit(h.e, SHELL("echo x"), options_for(&h), &heard[i]);
    CHECK(listen_to_end(h.e, heard, N));
    for (int i = 0; i < N; i++) answers(&heard[i], "x\n", 0);
    CHECK_INT(state_of(&h).resets, 1 + N);
    listen_free(heard, N);
    close_house(&h);
}

/* As it comes, they do not wait for one that does not get done. */
static void not_for_a_slow_one(void) {
    static struct heard heard[2];
    struct house h = open_house(1);
    first_resident(&h);
    make_busy(&h, &heard[0]);
    listen_submit(h.e, SHELL("echo forked"), options_for(&h), &heard[1]);
    CHECK(listen_to_end(h.e, &heard[1], 1));
    answers(&heard[1], "forked\n", 0);
    CHECK(heard[0].outcome == NULL);
    fsp_job_cancel(heard[0].job);
    CHECK(listen_to_end(h.e, heard, 2));
    listen_free(heard, 2);
    close_house(&h);
}

static void the_one_they_wait_for_is_killed(void) {
    enum { N = 4 };
    static struct heard heard[N];
    struct house h = patient_house();
    make_busy(&h, &heard[0]);
    for (int i = 1; i < N; i++) submit_waiting(&h, "echo x", options_for(&h), &heard[i]);
    fsp_job_cancel(heard[0].job);
    CHECK(listen_to_end(h.e, heard, N));
    for (int i = 1; i < N; i++) answers(&heard[i], "x\n", 0);
    listen_free(heard, N);
    close_house(&h);
}

static void ended_while_they_wait(void) {
    enum { N = 4 };
    static struct heard heard[N];
    struct house h = patient_house();
    struct fsp_job_options timed = options_for(&h), gentle = options_for(&h);
    timed.limits.timeout = SECOND / 100;
    gentle.limits.kill_grace = SECOND / 100;
    make_busy(&h, &heard[0]);
    submit_waiting(&h, "echo cancelled", options_for(&h), &heard[1]);
    submit_waiting(&h, "echo late", timed, &heard[2]);
    submit_waiting(&h, "echo asked", gentle, &heard[3]);
    fsp_job_cancel(heard[1].job);
    fsp_job_cancel(heard[3].job);
    CHECK(listen_to_end(h.e, &heard[1], 3));
    for (int i = 1; i < N; i++) {
        if (!CHECK(heard[i].outcome != NULL)) continue;
        CHECK(heard[i].outcome->status.code < 0);
        CHECK_INT(heard[i].all[0].len, 0);
        CHECK_INT(heard[i].outcome->timed_out, i == 2);
        CHECK_INT(heard[i].outcome->cancelled, i != 2);
    }
    CHECK(heard[0].outcome == NULL);
    fsp_job_cancel(heard[0].job);
    CHECK(listen_to_end(h.e, heard, 1));
    listen_free(heard, N);
    close_house(&h);
}

/* What they are given meanwhile is theirs. */
static void fed_while_they_wait(void) {
    static struct heard heard[2];
    struct house h = patient_house();
    struct fsp_job_options fed = streamed(&h);
    listen_submit(h.e, SHELL("echo on; read a; echo $a"), fed, &heard[0]);
    CHECK(LISTEN_UNTIL(h.e, heard[0].chunks));
    listen_submit(h.e, SHELL("read a; echo second $a"), fed, &heard[1]);
    CHECK_INT(fsp_job_write(heard[1].job, "early\n", 6), 0);
    fsp_job_write_eof(heard[1].job);
    CHECK_INT(fsp_job_write(heard[0].job, "line\n", 5), 0);
    fsp_job_write_eof(heard[0].job);
    CHECK(listen_to_end(h.e, heard, 2));
    answers(&heard[0], "on\nline\n", 0);
    answers(&heard[1], "second early\n", 0);
    CHECK_INT(state_of(&h).resets, 3);
    listen_free(heard, 2);
    close_house(&h);
}

static void their_origin_is_closed(void) {
    static struct heard heard[2];
    struct house h = patient_house();
    make_busy(&h, &heard[0]);
    submit_waiting(&h, "echo x", options_for(&h), &heard[1]);
    fsp_reset_free(h.r);
    CHECK(listen_to_end(h.e, &heard[1], 1));
    answers(&heard[1], "x\n", 0);
    fsp_job_cancel(heard[0].job);
    CHECK(listen_to_end(h.e, heard, 1));
    listen_free(heard, 2);
    fsp_template_free(h.t);
    fsp_engine_free(h.e);
}

static void the_engine_ends(void) {
    enum { N = 5 };
    static struct heard heard[N];
    struct house h = patient_house();
    make_busy(&h, &heard[0]);
    for (int i = 1; i < N; i++) submit_waiting(&h, "echo x", options_for(&h), &heard[i]);
    fsp_engine_stop(h.e);
    CHECK(listen_to_end(h.e, heard, N));
    for (int i = 0; i < N; i++)
        if (CHECK(heard[i].outcome != NULL)) CHECK_INT(heard[i].outcome->cancelled, 1);
    listen_free(heard, N);
    fsp_reset_free(h.r);
    fsp_template_free(h.t);
    fsp_engine_free(h.e);
}
int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(one_serves_them_all);
    RUN(not_for_a_slow_one);
    RUN(the_one_they_wait_for_is_killed);
    RUN(ended_while_they_wait);
    RUN(fed_while_they_wait);
    RUN(their_origin_is_closed);
    RUN(the_engine_ends);
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
