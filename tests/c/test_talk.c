/*
 * test_talk.c - one child on this thread with pipes: everything it writes comes, everything it
 * reads goes, and a wait that ends early loses nothing.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

#define NEVER UINT64_MAX
#define KIB   1024

static const enum fsp_io collected[3] = {FSP_IO_NULL, FSP_IO_PIPE, FSP_IO_PIPE};
static const enum fsp_io piped[3] = {FSP_IO_PIPE, FSP_IO_PIPE, FSP_IO_PIPE};
static const enum fsp_io inherited[3] = {FSP_IO_INHERIT, FSP_IO_INHERIT, FSP_IO_INHERIT};

static int start(struct fsp_spec spec, const enum fsp_io how[3], const void *input, size_t len,
                 struct fsp_talk *talk) {
    struct fsp_error error;
    struct fsp_plan *plan = support_plan(&spec);
    int r = fsp_talk_start(plan, how, input, len, talk, &error);
    fsp_plan_unref(plan);
    return r;
}

/* One that became the program. */
static int talk_on(struct fsp_talk *talk, uint64_t deadline) {
    struct fsp_error error;
    int r = fsp_talk(talk, deadline, &error);
    CHECK_INT(error.err, 0);
    return r;
}

static uint64_t in_ms(unsigned ms) {
    return sys_now() + ms * 1000000ull;
}

/* Without a pidfd: as where the kernel has none. */
static void drop_pidfd(struct fsp_talk *talk) {
    close(talk->child.pidfd);
    talk->child.pidfd = -1;
}

static void kill_child(const struct fsp_talk *talk) {
    CHECK_INT(fsp_kill(&talk->child, 0, SIGKILL), 0);
}

static void expect_end(struct fsp_talk *talk, int code) {
    CHECK_INT(talk_on(talk, NEVER), 1);
    CHECK_INT(talk->status.lost, 0);
    CHECK_INT(talk->status.code, code);
    CHECK_INT(talk->child.pidfd, -1);
    for (int i = 0; i < 3; i++) CHECK_INT(talk->fd[i], -1);
}

static void expect_output(const struct fsp_talk *talk, int stream, const char *text) {
    const struct fsp_buf *buf = &talk->output[stream];
    char copy[256] = "";
    REQUIRE(buf->len < sizeof copy);
    if (buf->len) memcpy(copy, buf->data, buf->len);
    CHECK_STR(copy, text);
}

/* ---- what it writes ---- */

static void both_outputs_and_the_code(void) {
    struct fsp_talk talk;
    REQUIRE(start(SHELL("echo out; echo err >&2; exit 3"), collected, NULL, 0, &talk) == 0);
    expect_end(&talk, 3);
    expect_output(&talk, 0, "out\n");
    expect_output(&talk, 1, "err\n");
    fsp_talk_end(&talk);
}

static void one_for_both(void) {
    struct fsp_talk talk;
    enum fsp_io how[3] = {FSP_IO_NULL, FSP_IO_PIPE, FSP_IO_STDOUT};
    REQUIRE(start(SHELL("echo out; echo err >&2"), how, NULL, 0, &talk) == 0);
    expect_end(&talk, 0);
    expect_output(&talk, 0, "out\nerr\n");
    CHECK_INT(talk.output[1].len, 0);
    fsp_talk_end(&talk);
}

static void stderr_to_a_stdout_that_is_not_ours(void) {
    struct fsp_talk talk;
    enum fsp_io how[3] = {FSP_IO_PIPE, FSP_IO_INHERIT, FSP_IO_STDOUT};
    CHECK_INT(start(SHELL("exit"), how, NULL, 0, &talk), -EINVAL);
}

static void no_pipes(void) {
    struct fsp_talk talk;
    enum fsp_io null[3] = {FSP_IO_NULL, FSP_IO_NULL, FSP_IO_NULL};
    REQUIRE(start(SHELL("read x || exit 5"), null, NULL, 0, &talk) == 0);
    expect_end(&talk, 5);
    fsp_talk_end(&talk);
    REQUIRE(start(SHELL("kill -TERM $$"), inherited, NULL, 0, &talk) == 0);
    expect_end(&talk, -SIGTERM);
    fsp_talk_end(&talk);
}

static void more_than_a_pipe_holds(void) {
    struct fsp_talk talk;
    const char *script = "head -c 300000 /dev/zero & head -c 400000 /dev/zero >&2; wait";
    REQUIRE(start(SHELL(script), collected, NULL, 0, &talk) == 0);
    expect_end(&talk, 0);
    CHECK_INT(talk.output[0].len, 300000);
    CHECK_INT(talk.output[1].len, 400000);
    fsp_talk_end(&talk);
}

/* Whoever holds the pipe: the end of the child is not the end of its output. */
static void what_a_grandchild_writes(void) {
    struct fsp_talk talk;
    REQUIRE(start(SHELL("(sleep 0.05; echo late) & echo first"), collected, NULL, 0, &talk) == 0);
    expect_end(&talk, 0);
    expect_output(&talk, 0, "first\nlate\n");
    fsp_talk_end(&talk);
}

static void a_child_that_closes_its_pipes_and_lives(void) {
    struct fsp_talk talk;
    REQUIRE(start(SHELL("echo out; exec >&- 2>&-; sleep 0.05; exit 4"), collected, NULL, 0,
                  &talk) == 0);
    expect_end(&talk, 4);
    expect_output(&talk, 0, "out\n");
    fsp_talk_end(&talk);
}

/* ---- what it reads ---- */

static void input_of_any_length(void) {
    static const size_t lengths[] = {0, 1, 4096, 64 * KIB, 64 * KIB + 1, 1024 * KIB};
    static char input[1024 * KIB];
    for (size_t i = 0; i < sizeof input; i++) input[i] = (char)(i * 31 + i / 256);
    for (size_t i = 0; i < LENGTH(lengths); i++) {
        struct fsp_talk talk;
        REQUIRE(start(SHELL("exec cat"), piped, input, lengths[i], &talk) == 0);
        expect_end(&talk, 0);
        CHECK_INT(talk.output[0].len, lengths[i]);
        if (lengths[i]) CHECK_INT(memcmp(talk.output[0].data, input, lengths[i]), 0);
        fsp_talk_end(&talk);
    }
}

/* EPIPE is no error, at once or after a part. */
static void a_child_that_does_not_read(void) {
    static const char input[1024 * KIB];
    static const char *const scripts[] = {"exec <&-; echo out", "head -c 1 >/dev/null; echo out"};
    for (size_t i = 0; i < LENGTH(scripts); i++) {
        struct fsp_talk talk;
        REQUIRE(start(SHELL(scripts[i]), piped, input, sizeof input, &talk) == 0);
        expect_end(&talk, 0);
        expect_output(&talk, 0, "out\n");
        fsp_talk_end(&talk);
    }
}

/* ---- the deadline ---- */

static void a_deadline_keeps_what_came(void) {
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        struct fsp_talk talk;
        REQUIRE(start(SHELL("echo out; exec sleep 100"), collected, NULL, 0, &talk) == 0);
        if (!pidfd) drop_pidfd(&talk);
        int looks = 0;
        do CHECK_INT(talk_on(&talk, in_ms(10)), 0);
        while (talk.output[0].len == 0 && ++looks < 1000);
        expect_output(&talk, 0, "out\n");
        CHECK_INT(talk_on(&talk, 0), 0); /* long past */
        CHECK(talk.fd[1] >= 0);
        kill_child(&talk);
        expect_end(&talk, -SIGKILL);
        expect_output(&talk, 0, "out\n");
        fsp_talk_end(&talk);
    }
}

static void a_deadline_without_pipes(void) {
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        struct fsp_talk talk;
        REQUIRE(start(SHELL("exec sleep 100"), inherited, NULL, 0, &talk) == 0);
        if (!pidfd) drop_pidfd(&talk);
        CHECK_INT(talk_on(&talk, in_ms(5)), 0);
        kill_child(&talk);
        expect_end(&talk, -SIGKILL);
        fsp_talk_end(&talk);
    }
}

static void a_deadline_for_a_child_that_never_stops_to_write(void) {
    struct fsp_talk talk;
    REQUIRE(start(SHELL("exec yes"), collected, NULL, 0, &talk) == 0);
    /* On a busy machine it begins when it does. */
    for (int tries = 0; tries < TAP_PATIENCE_MS / 20 && talk.output[0].len == 0; tries++)
        CHECK_INT(talk_on(&talk, in_ms(20)), 0);
    CHECK(talk.output[0].len > 0);
    kill_child(&talk);
    expect_end(&talk, -SIGKILL);
    fsp_talk_end(&talk);
}

static void a_deadline_for_a_child_that_does_not_read(void) {
    static const char input[1024 * KIB];
    struct fsp_talk talk;
    REQUIRE(start(SHELL("exec sleep 100"), piped, input, sizeof input, &talk) == 0);
    CHECK_INT(talk_on(&talk, in_ms(5)), 0);
    CHECK(talk.input_len > 0 && talk.input_len < sizeof input);
    kill_child(&talk);
    expect_end(&talk, -SIGKILL);
    fsp_talk_end(&talk);
}

/* ---- signals ---- */

static void note(int sig) {
    (void)sig;
}

/* A child that signals us until we say, by a file, that a wait was interrupted. */
static void interrupt_one(const char *script, const enum fsp_io how[3], bool pidfd) {
    static const char input[1024 * KIB];
    static int n;
    struct fsp_talk talk;
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART}, before;
    char name[32], text[512];
    int r, interrupted = 0;
    snprintf(name, sizeof name, "seen-%d", n++);
    const char *seen = support_path(name);
    snprintf(text, sizeof text, script, seen);
    sigaction(SIGUSR1, &action, &before);
    if (CHECK_INT(start(SHELL(text), how, input, sizeof input, &talk), 0)) {
        if (!pidfd) drop_pidfd(&talk);
        while ((r = talk_on(&talk, NEVER)) == -EINTR)
            if (interrupted++ == 0) support_write_file(seen, "", 0644);
        CHECK_INT(r, 1);
        CHECK(interrupted > 0);
        CHECK_INT(talk.status.code, 0);
        if (how[1] == FSP_IO_PIPE) expect_output(&talk, 0, "out\n");
        fsp_talk_end(&talk);
    }
    sigaction(SIGUSR1, &before, NULL);
}

static void a_signal_interrupts_every_wait(void) {
    const char *script = "while test ! -e %s; do kill -USR1 $PPID; sleep 0.01; done; echo out";
    const char *closed =
        "echo out; exec <&- >&- 2>&-; while test ! -e %s; do kill -USR1 $PPID; sleep 0.01; done";
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        interrupt_one(script, collected, pidfd);
        interrupt_one(script, piped, pidfd);
        interrupt_one(closed, collected, pidfd);
    }
}

static void lose_the_status(void *unused) {
    struct fsp_talk talk;
    (void)unused;
    signal(SIGCHLD, SIG_IGN);
    REQUIRE(start(SHELL("echo out; exit 3"), collected, NULL, 0, &talk) == 0);
    CHECK_INT(talk_on(&talk, NEVER), 1);
    bool lost = !support_remembers();
    CHECK_INT(talk.status.lost, lost);
    CHECK_INT(talk.status.code, lost ? 0 : 3);
    expect_output(&talk, 0, "out\n");
    fsp_talk_end(&talk);
    REQUIRE(start(SHELL("kill -KILL $$"), collected, NULL, 0, &talk) == 0);
    CHECK_INT(talk_on(&talk, NEVER), 1);
    CHECK_INT(talk.status.code, lost ? 0 : -SIGKILL);
    fsp_talk_end(&talk);
}

static void a_status_that_the_kernel_took(void) {
    tap_fork(lose_the_status, NULL);
}

static void lose_the_status_for_good(void *unused) {
    struct fsp_talk talk;
    (void)unused;
    signal(SIGCHLD, SIG_IGN);
    faults_arm("pidfd_info", ENOTTY, 0, FAULTS_ALL);
    REQUIRE(start(SHELL("echo out; exit 3"), collected, NULL, 0, &talk) == 0);
    CHECK_INT(talk_on(&talk, NEVER), 1);
    faults_off();
    CHECK_INT(talk.status.lost, 1);
    CHECK_INT(talk.status.code, 0);
    expect_output(&talk, 0, "out\n");
    fsp_talk_end(&talk);
}

static void a_lost_status_is_told(void) {
    tap_fork(lose_the_status_for_good, NULL);
}

/* ---- descriptors and failures ---- */

static void talk_without_stdio(void *unused) {
    struct fsp_talk talk;
    (void)unused;
    for (int i = 0; i < 2; i++) { /* stderr tells what fails here */
        int kept[2] = {fcntl(0, F_DUPFD_CLOEXEC, 10), fcntl(1, F_DUPFD_CLOEXEC, 10)};
        close(0);
        if (i) close(1);
        int r = start(SHELL("cat; echo err >&2"), piped, "in\n", 3, &talk);
        int end = r == 0 ? talk_on(&talk, NEVER) : r;
        dup2(kept[0], 0);
        dup2(kept[1], 1);
        close(kept[0]);
        close(kept[1]);
        CHECK_INT(end, 1);
        expect_output(&talk, 0, "in\n");
        expect_output(&talk, 1, "err\n");
        fsp_talk_end(&talk);
    }
}

static void our_own_stdio_is_closed(void) {
    tap_fork(talk_without_stdio, NULL);
}

/* Told by the start or, of a detached child, by the first wait, be it for no time at all. */
static int fail(struct fsp_spec spec, uint64_t deadline, struct fsp_error *error) {
    struct fsp_talk talk;
    struct fsp_plan *plan = support_plan(&spec);
    int r = fsp_talk_start(plan, piped, "x", 1, &talk, error);
    fsp_plan_unref(plan); /* the talk has its own */
    if (r < 0) return r;
    CHECK_INT(fsp_talk(&talk, deadline, error), 1);
    CHECK_INT(talk.child.pid, -1);
    fsp_talk_end(&talk);
    return -error->err;
}

static void a_program_that_is_missing(void) {
    struct fsp_error error;
    for (int late = 0; late < 2; late++) {
        CHECK_INT(fail(COMMAND("/no/such/program"), late ? NEVER : 0, &error), -ENOENT);
        CHECK_INT(error.stage, FSP_STAGE_EXEC);
    }
}

static void a_directory_that_is_missing(void) {
    struct fsp_error error;
    struct fsp_spec spec = SHELL("exit");
    spec.cwd = "/no/such/directory";
    CHECK_INT(fail(spec, NEVER, &error), -ENOENT);
    CHECK_INT(error.stage, FSP_STAGE_CWD);
}

/* With a table that is worth no copy, it waits for the exec. */
static void many_descriptors(void) {
    struct fsp_talk talk;
    int high[80];
    for (size_t i = 0; i < LENGTH(high); i++) high[i] = dup(0);
    CHECK_INT(start(COMMAND("/no/such/program"), piped, "x", 1, &talk), -ENOENT);
    REQUIRE(start(SHELL("exec cat"), piped, "in\n", 3, &talk) == 0);
    expect_end(&talk, 0);
    expect_output(&talk, 0, "in\n");
    fsp_talk_end(&talk);
    for (size_t i = 0; i < LENGTH(high); i++) close(high[i]);
}

/* After many that were short one is expected to be: it may write what it likes, and stay. */
static void much_after_many_that_said_a_little(void) {
    static const char *const others[] = {
        "head -c 400000 /dev/zero", "sleep 0.02; head -c 400000 /dev/zero",
        "head -c 400000 /dev/zero; exec sleep 0.02", "exec >&- 2>&-; exec sleep 0.02"};
    for (size_t i = 0; i < LENGTH(others); i++) {
        struct fsp_talk talk;
        for (int n = 0; n < 10; n++) {
            REQUIRE(start(SHELL("echo out"), collected, NULL, 0, &talk) == 0);
            expect_end(&talk, 0);
            expect_output(&talk, 0, "out\n");
            fsp_talk_end(&talk);
        }
        REQUIRE(start(SHELL(others[i]), collected, NULL, 0, &talk) == 0);
        expect_end(&talk, 0);
        CHECK_INT(talk.output[0].len, i < 3 ? 400000 : 0);
        fsp_talk_end(&talk);
    }
}

/* A little first, then more than a pipe holds: it is waited for its exit only for so long. */
static void a_little_and_then_much(void) {
    struct fsp_talk talk;
    const char *script = "echo; sleep 0.02; head -c 400000 /dev/zero";
    REQUIRE(start(SHELL(script), collected, NULL, 0, &talk) == 0);
    expect_end(&talk, 0);
    CHECK_INT(talk.output[0].len, 400001);
    fsp_talk_end(&talk);
    REQUIRE(start(SHELL("echo; exec head -c 400000 /dev/zero"), collected, NULL, 0, &talk) == 0);
    expect_end(&talk, 0);
    CHECK_INT(talk.output[0].len, 400001);
    fsp_talk_end(&talk);
}

static void an_end_before_the_end(void) {
    struct fsp_talk talk;
    struct fsp_status status;
    REQUIRE(start(SHELL("echo out; exec sleep 100"), piped, "x", 1, &talk) == 0);
    CHECK_INT(talk_on(&talk, in_ms(5)), 0);
    fsp_talk_end(&talk);
    kill_child(&talk);
    CHECK_INT(fsp_wait(&talk.child, 1, &status), 1);
    CHECK_INT(status.code, -SIGKILL);
}

#define MOST 1000

struct fault {
    struct fsp_plan *plan;
    const char *name;
    int err;
    long at;
};

static const char text[] = "in\n";

/* To its end, whatever happens on the way; 0 or the first error. */
static int talk_to_the_end(struct fsp_plan *plan) {
    struct fsp_talk talk;
    struct fsp_error error;
    int first = fsp_talk_start(plan, piped, text, sizeof text - 1, &talk, &error), r;
    if (first < 0) return first;
    for (int i = 0; (r = fsp_talk(&talk, NEVER, &error)) != 1 && i < 10; i++)
        if (first == 0) first = r;
    CHECK_INT(r, 1);
    if (first == 0) first = -error.err;
    if (first == 0 && talk.input_len == 0) expect_output(&talk, 0, text);
    fsp_talk_end(&talk);
    return first;
}

static void talk_with_fault(void *arg) {
    const struct fault *fault = arg;
    size_t before = support_heap_bytes();
    faults_arm(fault->name, fault->err, fault->at, 1);
    int r = talk_to_the_end(fault->plan);
    faults_off();
    CHECK(r == 0 || r == -fault->err || r == -ENOMEM);
    CHECK_INT(support_heap_bytes(), before);
    CHECK_INT(talk_to_the_end(fault->plan), 0);
}

static bool has_before(const char **names, long k) {
    for (long i = 0; i < k; i++)
        if (strcmp(names[i], names[k]) == 0) return true;
    return false;
}

/* Memory is back, descriptors and children are gone (tap.c looks), and the next one works. */
static void any_one_call_fails(void) {
    static const int errors[] = {EMFILE, ENOMEM, EIO};
    static const char *names[MOST];
    struct fsp_spec spec = SHELL("exec cat");
    struct fsp_plan *plan = support_plan(&spec);
    CHECK_INT(talk_to_the_end(plan), 0);
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    CHECK_INT(talk_to_the_end(plan), 0);
    long calls = faults_seen();
    CHECK(calls < MOST);
    for (long at = 0; at < calls; at++) names[at] = faults_name(at);
    CHECK(faults_count_of("poll") > 0);
    CHECK(faults_count_of("realloc") > 0);
    CHECK(faults_count_of("read") > 0);
    CHECK(faults_count_of("write") > 0);
    faults_off();
    for (long k = 0; k < calls; k++) {
        /* By name and not by place: how often it waits is not the same each time. */
        if (strcmp(names[k], "sigprocmask") == 0 || has_before(names, k)) continue;
        for (size_t e = 0; e < LENGTH(errors); e++)
            for (long at = 0; at < 3; at++)
                tap_fork(talk_with_fault, &(struct fault){plan, names[k], errors[e], at});
    }
    fsp_plan_unref(plan);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    signal(SIGPIPE, SIG_IGN);
    RUN(both_outputs_and_the_code);
    RUN(one_for_both);
    RUN(stderr_to_a_stdout_that_is_not_ours);
    RUN(no_pipes);
    RUN(more_than_a_pipe_holds);
    RUN(what_a_grandchild_writes);
    RUN(a_child_that_closes_its_pipes_and_lives);
    RUN(input_of_any_length);
    RUN(a_child_that_does_not_read);
    RUN(a_deadline_keeps_what_came);
    RUN(a_deadline_without_pipes);
    RUN(a_deadline_for_a_child_that_never_stops_to_write);
    RUN(a_deadline_for_a_child_that_does_not_read);
    RUN(a_signal_interrupts_every_wait);
    RUN(a_status_that_the_kernel_took);
    RUN(a_lost_status_is_told);
    RUN(our_own_stdio_is_closed);
    RUN(a_program_that_is_missing);
    RUN(a_directory_that_is_missing);
    RUN(many_descriptors);
    RUN(a_little_and_then_much);
    RUN(much_after_many_that_said_a_little);
    RUN(an_end_before_the_end);
    RUN(any_one_call_fails);
    return tap_end();
}
