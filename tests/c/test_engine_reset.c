/*
 * test_engine_reset.c - the engine's side of residents: whatever they do, or is done to them, each
 * job ends once, with its own answer and nobody else's.
 */
#include "house.h"

#ifdef __linux__
#include <stdio.h>

/* ---- jobs ---- */

static void one_after_another(void) {
    struct house h = open_house(1);
    pid_t pid = first_resident(&h);
    for (int i = 0; i < TIMES(300); i++) {
        char script[80], out[40];
        snprintf(script, sizeof script, "echo ${x-none} %d; x=spoilt; exit %d", i, i % 200);
        snprintf(out, sizeof out, "none %d\n", i);
        CHECK_INT(run(&h, script, options_for(&h), out, i % 200), pid);
    }
    CHECK_INT(state_of(&h).leaves, 0);
    CHECK_INT(state_of(&h).residents, 1);
    close_house(&h);
}

static void many_at_once(void) {
    enum { N = 400 };
    static struct heard heard[N];
    static char script[N][60], out[N][30];
    struct house h = open_house(2);
    /* Until there are residents, each is a fork; how long that is, is the machine's affair. */
    for (int round = 0; round < 4 || (round < 400 && state_of(&h).resets <= N); round++) {
        for (int i = 0; i < N; i++) {
            snprintf(script[i], sizeof script[i], "read a; echo $a %d; exit %d", i, i % 90);
            snprintf(out[i], sizeof out[i], "line %d\n", i);
            struct fsp_job_options options = options_for(&h);
            options.in = FSP_IO_PIPE;
            options.input = "line\nmore\n";
            options.input_len = 10;
            listen_submit(h.e, SHELL(script[i]), options, &heard[i]);
        }
        CHECK(listen_to_end(h.e, heard, N));
        for (int i = 0; i < N; i++) answers(&heard[i], out[i], i % 90);
        listen_free(heard, N);
    }
    CHECK(state_of(&h).resets > N);
    CHECK_INT(state_of(&h).leaves, 0);
    close_house(&h);
}

/* What is asked of one template is no reason for residents of another. */
static void as_many_as_are_asked(void) {
    enum { N = 8 };
    static struct heard heard[N];
    struct house h = open_house(1), other = {.e = h.e};
    first_resident(&h);
    for (int i = 0; i < N; i++) {
        struct fsp_job_options options = options_for(&h);
        options.in = FSP_IO_PIPE;
        options.flags = FSP_JOB_FEED;
        listen_submit(h.e, SHELL("read a; echo $a"), options, &heard[i]);
    }
    CHECK(WAIT_UNTIL(state_of(&h).residents == N));
    if (!CHECK_INT(furnish_house(&other), 0)) _exit(1);
    CHECK(WAIT_UNTIL(template_of(&other).ready == 1));
    first_resident(&other);
    for (int i = 0; i < 5; i++) run(&other, "echo b", options_for(&other), "b\n", 0);
    CHECK_INT(state_of(&other).made, 1);
    for (int i = 0; i < N; i++) {
        CHECK_INT(fsp_job_write(heard[i].job, "line\n", 5), 0);
        fsp_job_write_eof(heard[i].job);
    }
    CHECK(listen_to_end(h.e, heard, N));
    for (int i = 0; i < N; i++) answers(&heard[i], "line\n", 0);
    listen_free(heard, N);
    CHECK_INT(state_of(&h).made, N);
    fsp_reset_free(other.r);
    fsp_template_free(other.t);
    close_house(&h);
}

static void outputs_and_inputs(void) {
    static char block[300000];
    static struct heard heard[3];
    struct house h = open_house(1);
    first_resident(&h);
    memset(block, 'b', sizeof block);
    block[sizeof block - 1] = '\n';
    struct fsp_job_options given = options_for(&h), fed = options_for(&h), capped = options_for(&h);
    given.in = fed.in = FSP_IO_PIPE;
    given.input = block;
    given.input_len = sizeof block;
    fed.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    capped.limits.max_output = 1000;
    listen_submit(h.e, SHELL("read a; echo ${#a}; echo err >&2"), given, &heard[0]);
    CHECK(listen_to_end(h.e, heard, 1));
    answers(&heard[0], "299999\n", 0);
    CHECK_STR(heard[0].all[1].data, "err\n");
    /* It answers as it is asked. */
    listen_submit(h.e, SHELL("while read a; do echo got $a; done; exit 4"), fed, &heard[1]);
    CHECK_INT(fsp_job_write(heard[1].job, "one\n", 4), 0);
    CHECK(LISTEN_UNTIL(h.e, heard[1].told[0] >= 8));
    CHECK_INT(fsp_job_write(heard[1].job, "two\n", 4), 0);
    CHECK(LISTEN_UNTIL(h.e, heard[1].told[0] >= 16));
    fsp_job_write_eof(heard[1].job);
    CHECK(listen_to_end(h.e, heard, 2));
    answers(&heard[1], "got one\ngot two\n", 4);
    /* More than is let through: it is ended, and what did it serves nobody after. */
    listen_submit(h.e, SHELL("while :; do echo more; done"), capped, &heard[2]);
    CHECK(listen_to_end(h.e, heard, 3));
    if (heard[2].outcome) CHECK_INT(heard[2].outcome->truncated, 1);
    CHECK_INT(heard[2].all[0].len, 1000);
    CHECK_INT(state_of(&h).resets, 3);
    listen_free(heard, 3);
    first_resident(&h);
    close_house(&h);
}

static void usage_is_of_the_job(void) {
    static struct heard heard[2];
    struct house h = open_house(1);
    first_resident(&h);
    listen_submit(h.e, SHELL("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"), options_for(&h),
                  &heard[0]);
    CHECK(listen_to_end(h.e, heard, 1));
    /* One that leaves: its kernel's count is of both. */
    listen_submit(h.e, SHELL("exec true"), options_for(&h), &heard[1]);
    CHECK(listen_to_end(h.e, heard, 2));
    int64_t used[2] = {0};
    for (int i = 0; i < 2; i++) {
        if (!CHECK(heard[i].outcome != NULL)) continue;
        const struct rusage *u = &heard[i].outcome->status.usage;
        used[i] = (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000 + u->ru_utime.tv_usec +
                  u->ru_stime.tv_usec;
    }
    CHECK_INT(state_of(&h).leaves, 1);
    CHECK_INT(heard[0].outcome->pid, heard[1].outcome->pid);
    CHECK(used[0] > 20000);
    CHECK(used[1] < used[0] / 2);
    listen_free(heard, 2);
    close_house(&h);
}

/* ---- who leaves ---- */

static void some_leave(void) {
    struct house h = open_house(1);
    for (int i = 0; i < 5; i++) {
        pid_t pid = first_resident(&h);
        for (int j = 0; j < 3; j++) CHECK_INT(run(&h, "echo a", options_for(&h), "a\n", 0), pid);
        CHECK_INT(run(&h, "/bin/echo b; (exit 3); echo $?; exit 5", options_for(&h), "b\n3\n", 5),
                  pid);
        CHECK_INT(state_of(&h).leaves, i + 1);
    }
    CHECK_INT(state_of(&h).off, 0);
    CHECK(state_of(&h).left_by > 0);
    close_house(&h);
}

static void all_leave(void) {
    struct house h = open_house(1);
    for (int i = 0; i < 40; i++) run(&h, "/bin/echo b; exit 5", options_for(&h), "b\n", 5);
    CHECK(WAIT_UNTIL((run(&h, "/bin/echo b", options_for(&h), "b\n", 0), state_of(&h).off == 1)));
    struct fsp_reset_state state = state_of(&h);
    CHECK_INT(state.leaves, 2);
    CHECK_INT(state.resets, 0);
    run(&h, "echo c", options_for(&h), "c\n", 0);
    CHECK_INT(state_of(&h).resets, 0);
    CHECK(WAIT_UNTIL(state_of(&h).residents == 0));
    CHECK_INT(template_of(&h).direct, 0);
    close_house(&h);
}

/* Twice on one spawner, or once on each of two: it is the same plan. */
static void all_leave_wherever(void) {
    enum { N = 4 };
    static struct heard heard[N];
    struct house h = open_house(2);
    /* Both spawners are busy as long as these wait for their input. */
    for (int round = 0; !state_of(&h).off && round < 100; round++) {
        for (int i = 0; i < N; i++) {
            struct fsp_job_options options = options_for(&h);
            options.in = FSP_IO_PIPE;
            options.flags = FSP_JOB_FEED;
            listen_submit(h.e, SHELL("/bin/true; read a; echo $a"), options, &heard[i]);
        }
        for (int i = 0; i < N; i++) {
            CHECK_INT(fsp_job_write(heard[i].job, "line\n", 5), 0);
            fsp_job_write_eof(heard[i].job);
        }
        CHECK(listen_to_end(h.e, heard, N));
        for (int i = 0; i < N; i++) answers(&heard[i], "line\n", 0);
        listen_free(heard, N);
    }
    CHECK_INT(state_of(&h).off, 1);
    /* Those that are idle elsewhere, or were about to begin, are not kept. */
    CHECK(WAIT_UNTIL(state_of(&h).residents == 0));
    uint64_t resets = state_of(&h).resets, made = state_of(&h).made;
    for (int i = 0; i < 40; i++) run(&h, "echo c", options_for(&h), "c\n", 0);
    CHECK_INT(state_of(&h).resets, resets);
    CHECK_INT(state_of(&h).made, made);
    close_house(&h);
}

/* A program that leaves now and then keeps its residents, though two in a row do so at once. */
static void few_leave(void) {
    struct house h = open_house(1);
    first_resident(&h);
    for (int i = 0; i < 3; i++) run(&h, "echo a", options_for(&h), "a\n", 0);
    for (uint64_t leaves = 0; leaves < 5;) {
        run(&h, "/bin/true; echo b", options_for(&h), "b\n", 0);
        leaves = state_of(&h).leaves;
    }
    CHECK_INT(state_of(&h).off, 0);
    /* How often it was which call. */
    uint64_t told = 0;
    for (unsigned call = 0; call <= FSP_CALLS; call++) told += fsp_reset_left_by(h.r, call);
    CHECK_INT(told, state_of(&h).leaves);
    CHECK(fsp_reset_left_by(h.r, (unsigned)state_of(&h).left_by) >= 1);
    CHECK(WAIT_UNTIL(
        (run(&h, "/bin/true; echo b", options_for(&h), "b\n", 0), state_of(&h).off == 1)));
    CHECK_INT(state_of(&h).leaves, 1 + 8);
    close_house(&h);
}

/* ---- who is ended ---- */

static void deadlines_and_cancels(void) {
    static struct heard heard[3];
    struct house h = open_house(1);
    struct fsp_job_options late = options_for(&h), kept = options_for(&h);
    late.limits.timeout = SECOND / 20;
    kept.flags = FSP_JOB_STREAM;
    first_resident(&h);
    listen_submit(h.e, SHELL("while :; do :; done"), late, &heard[0]);
    CHECK(listen_to_end(h.e, heard, 1));
    first_resident(&h);
    listen_submit(h.e, SHELL("trap '' TERM; echo here; while :; do :; done"), kept, &heard[1]);
    CHECK(LISTEN_UNTIL(h.e, heard[1].chunks));
    fsp_job_cancel(heard[1].job);
    CHECK(listen_to_end(h.e, heard, 2));
    first_resident(&h);
    kept.limits.kill_grace = 60 * SECOND;
    listen_submit(h.e, SHELL("trap 'exit 6' TERM; echo here; while :; do :; done"), kept,
                  &heard[2]);
    CHECK(LISTEN_UNTIL(h.e, heard[2].chunks));
    fsp_job_cancel(heard[2].job);
    CHECK(listen_to_end(h.e, heard, 3));
    static const int code[3] = {-SIGTERM, -SIGKILL, 6};
    pid_t pid = heard[2].outcome ? heard[2].outcome->pid : 0;
    for (int i = 0; i < 3; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->status.code, code[i]);
            CHECK_INT(heard[i].outcome->timed_out, i == 0);
            CHECK_INT(heard[i].outcome->cancelled, i != 0);
        }
    CHECK(first_resident(&h) != pid); /* it was signalled */
    listen_free(heard, 3);
    close_house(&h);
}

static void killed_while_idle(void) {
    struct house h = open_house(1);
    for (int i = 0; i < 20; i++) {
        pid_t pid = first_resident(&h);
        CHECK(support_kill(pid));
        /* At once: it may be given the job, or not. */
        struct fsp_job_options options = options_for(&h);
        options.in = FSP_IO_PIPE;
        options.input = "text\n";
        options.input_len = 5;
        CHECK(run(&h, "read a; echo $a", options, "text\n", 0) != pid);
    }
    close_house(&h);
}

/* It does not begin what it is given, and the next one is given all of it. */
static void stopped_and_killed_with_a_job(void) {
    struct house h = open_house(1);
    for (int i = 0; i < 5; i++) {
        static struct heard one;
        struct fsp_job_options options = options_for(&h);
        options.in = FSP_IO_PIPE;
        options.input = "first ";
        options.input_len = 6;
        options.flags = FSP_JOB_FEED;
        pid_t pid = first_resident(&h);
        CHECK_INT(kill(pid, SIGSTOP), 0);
        CHECK(WAIT_UNTIL(support_stopped(pid)));
        uint64_t begun = template_of(&h).forked;
        listen_submit(h.e, SHELL("read a; echo $a"), options, &one);
        CHECK_INT(fsp_job_write(one.job, "then\n", 5), 0);
        fsp_job_write_eof(one.job);
        struct fsp_engine_stats stats;
        CHECK(WAIT_UNTIL((fsp_engine_stats(h.e, &stats), stats.running == 1)));
        CHECK(support_kill(pid));
        CHECK(listen_to_end(h.e, &one, 1));
        answers(&one, "first then\n", 0);
        if (one.outcome) CHECK(one.outcome->pid != pid);
        CHECK(template_of(&h).forked > begun);
        listen_free(&one, 1);
    }
    close_house(&h);
}

static void killed_at_random(void) {
    enum { N = 60 };
    static struct heard heard[N];
    static char script[N][80], out[N][30];
    struct house h = open_house(2);
    unsigned seed = 1;
    int killed = 0, own = 0;
    for (int round = 0; round < TIMES(30); round++) {
        for (int i = 0; i < N; i++) {
            snprintf(script[i], sizeof script[i], "echo %d-%d; exit 7", round, i);
            snprintf(out[i], sizeof out[i], "%d-%d\n", round, i);
            listen_submit(h.e, SHELL(script[i]), options_for(&h), &heard[i]);
            if (i % 8) continue;
            pid_t pid[64];
            size_t n = children(pid, 64);
            pid_t victim = n ? pid[rand_r(&seed) % n] : 0;
            if (victim > 1 && kill(victim, SIGKILL) == 0) killed++;
        }
        CHECK(listen_to_end(h.e, heard, N));
        for (int i = 0; i < N; i++) {
            if (!heard[i].outcome) continue;
            if (heard[i].outcome->status.code == -SIGKILL) /* in the middle of it */
                own++;
            else
                answers(&heard[i], out[i], 7);
        }
        listen_free(heard, N);
    }
    CHECK(killed > 0 && own <= killed);
    /* Or all of them were killed before they had begun, and no more are made. */
    CHECK(state_of(&h).resets > 0 || state_of(&h).off);
    close_house(&h);
}

static void the_engine_stops_first(void) {
    static struct heard heard[6];
    struct house h = open_house(2);
    first_resident(&h);
    for (int i = 0; i < 6; i++)
        listen_submit(h.e, SHELL("while :; do :; done"), options_for(&h), &heard[i]);
    fsp_engine_stop(h.e);
    CHECK(listen_to_end(h.e, heard, 6));
    for (int i = 0; i < 6; i++)
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->cancelled, 1);
    listen_free(heard, 6);
    fsp_engine_free(h.e);
    fsp_reset_free(h.r);
    fsp_template_free(h.t);
    pid_t pid[1];
    CHECK_INT(children(pid, 1), 0);
}

/* ---- who does not qualify ---- */

static void jobs_that_are_not_for_residents(void) {
    static struct heard heard[4];
    struct house h = open_house(1);
    first_resident(&h);
    struct fsp_rlimit limit = {
        RLIMIT_CPU, {100, 100}
    };
    struct fsp_spec cpu = SHELL("echo x"), moved = SHELL("echo x"), masked = SHELL("umask");
    struct fsp_job_options told = options_for(&h);
    cpu.rlimits = &limit;
    cpu.nrlimits = 1;
    moved.cwd = "/tmp";
    masked.umask = 0123;
    told.flags = FSP_JOB_STARTED;
    uint64_t forked = template_of(&h).forked, resets = state_of(&h).resets;
    listen_submit(h.e, cpu, options_for(&h), &heard[0]);
    listen_submit(h.e, moved, options_for(&h), &heard[1]);
    listen_submit(h.e, masked, options_for(&h), &heard[2]);
    listen_submit(h.e, SHELL("echo x"), told, &heard[3]);
    CHECK(listen_to_end(h.e, heard, 4));
    for (int i = 0; i < 4; i++) answers(&heard[i], i == 2 ? "0123\n" : "x\n", 0);
    CHECK_INT(template_of(&h).forked, forked + 4);
    CHECK_INT(state_of(&h).resets, resets);
    listen_free(heard, 4);
    close_house(&h);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(one_after_another);
    RUN(many_at_once);
    RUN(as_many_as_are_asked);
    RUN(outputs_and_inputs);
    RUN(usage_is_of_the_job);
    RUN(some_leave);
    RUN(all_leave);
    RUN(all_leave_wherever);
    RUN(few_leave);
    RUN(deadlines_and_cancels);
    RUN(killed_while_idle);
    RUN(stopped_and_killed_with_a_job);
    RUN(killed_at_random);
    RUN(the_engine_stops_first);
    RUN(jobs_that_are_not_for_residents);
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
