/*
 * test_engine_io.c - bytes in and out of running commands: complete, in order, and never more of
 * them in memory than the windows allow.
 */
#include "listen.h"

#include <stdio.h>

#define LARGE ((size_t)TIMES(10) << 20)

static struct heard one;

static struct fsp_job_options feeding(void) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    return options;
}

static struct fsp_job_options with_input(const char *input, size_t len) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.input = input;
    options.input_len = len;
    return options;
}

/* Bytes whose place can be told. */
static char *make_pattern(size_t len) {
    char *data = malloc(len);
    for (size_t i = 0; i < len; i++) data[i] = (char)(i * 2654435761u >> 13);
    return data;
}

static void expect_end(int code) {
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->error.err, 0);
        CHECK_INT(one.outcome->status.code, code);
        CHECK(!one.outcome->truncated && !one.outcome->timed_out && !one.outcome->cancelled);
    }
    listen_free(&one, 1);
}

/* ---- input that is there from the start ---- */

static void a_short_input(void) {
    listen_run(COMMAND("/bin/cat"), with_input("hello", 5), &one);
    CHECK_STR(one.all[0].data, "hello");
    expect_end(0);
}

static void no_input(void) {
    listen_run(SHELL("cat; echo end"), with_input(NULL, 0), &one);
    CHECK_STR(one.all[0].data, "end\n");
    expect_end(0);
    listen_run(SHELL("cat; echo end"), listen_options(), &one);
    CHECK_STR(one.all[0].data, "end\n");
    expect_end(0);
}

/* More than the pipes hold, both ways: whoever waits for one end blocks for ever. */
static void a_large_input_comes_back(void) {
    char *data = make_pattern(LARGE);
    for (int stream = 0; stream < 2; stream++) {
        struct fsp_job_options options = with_input(data, LARGE);
        if (stream) options.flags = FSP_JOB_STREAM;
        listen_run(COMMAND("/bin/cat"), options, &one);
        CHECK_INT(one.all[0].len, LARGE);
        if (one.all[0].len == LARGE) CHECK(memcmp(one.all[0].data, data, LARGE) == 0);
        CHECK_INT(one.chunks > 0, stream);
        expect_end(0);
    }
    free(data);
}

/* The child goes, the bytes are dropped, and no SIGPIPE comes to us. */
static void an_input_that_is_ignored(void) {
    char *data = make_pattern(LARGE);
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 10; i++) {
        listen_run(COMMAND("/bin/true"), with_input(data, LARGE), &one);
        expect_end(0);
        listen_run(SHELL("exec <&-; echo out; exit 4"), with_input(data, LARGE), &one);
        CHECK_STR(one.all[0].data, "out\n");
        expect_end(4);
        listen_run(COMMAND("/usr/bin/head", "-c", "10"), with_input(data, LARGE), &one);
        CHECK_INT(one.all[0].len, 10);
        expect_end(0);
    }
    signal(SIGPIPE, SIG_IGN);
    free(data);
}

/* ---- input that comes later ---- */

static void fed_and_streamed_in_turns(void) {
    struct fsp_engine *e = listen_engine(1);
    char line[24], all[400] = "";
    listen_submit(e, COMMAND("/bin/cat"), feeding(), &one);
    for (int i = 0; i < 20; i++) {
        snprintf(line, sizeof line, "line %d\n", i);
        strcat(all, line);
        CHECK_INT(fsp_job_write(one.job, line, strlen(line)), 0);
        CHECK(LISTEN_UNTIL(e, one.told[0] == strlen(all)));
    }
    CHECK_INT(one.ended, 0);
    fsp_job_write_eof(one.job);
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, all);
    CHECK_INT(fsp_job_write(one.job, "late", 4), 0); /* dropped */
    expect_end(0);
    fsp_engine_free(e);
}

static void writing_after_the_end_of_input(void) {
    struct fsp_engine *e = listen_engine(1);
    for (int feed = 0; feed < 2; feed++) {
        listen_submit(e, COMMAND("/bin/sleep", "100"), feed ? feeding() : listen_options(), &one);
        if (feed) {
            CHECK_INT(fsp_job_write(one.job, "early", 5), 0);
            fsp_job_write_eof(one.job);
        }
        CHECK_INT(fsp_job_write(one.job, "late", 4), -EPIPE);
        fsp_job_cancel(one.job);
        CHECK(listen_to_end(e, &one, 1));
        listen_free(&one, 1);
    }
    fsp_engine_free(e);
}

static void fed_before_it_starts_and_after_its_input(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = feeding();
    options.input = "first ";
    options.input_len = 6;
    faults_arm("clone3", EAGAIN, 0, 1);
    listen_submit(e, COMMAND("/bin/cat"), options, &one);
    CHECK_INT(fsp_job_write(one.job, "second ", 7), 0);
    CHECK_INT(fsp_job_write(one.job, "", 0), 0);
    CHECK_INT(fsp_job_write(one.job, "third", 5), 0);
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    faults_off();
    CHECK_STR(one.all[0].data, "first second third");
    expect_end(0);
    fsp_engine_free(e);
}

/* Does nothing until told to go on, by a file: it must not read to hear of it. */
static struct fsp_spec when_told(const char *script) {
    static char text[2 * PATH_MAX];
    static const char *const argv[] = {"/bin/sh", "-c", text, NULL};
    unlink(support_path("go"));
    snprintf(text, sizeof text, "while [ ! -e '%s' ]; do sleep 0.01; done; %s", support_path("go"),
             script);
    return support_spec(argv);
}

static void tell(void) {
    support_write_file(support_path("go"), "", 0644);
}

#define PIECE ((size_t)10000)

/* Write pieces until told to wait; returns how much that was. */
static size_t write_until_full(const char *data, size_t len) {
    size_t at = 0;
    for (int r = 0; at < len && r == 0;) {
        size_t piece = len - at < PIECE ? len - at : PIECE;
        r = fsp_job_write(one.job, data + at, piece);
        CHECK(r >= 0);
        at += piece;
    }
    return at;
}

/* A writer that waits when told to holds no more than the high-water mark and one piece. */
static void a_writer_is_told_to_wait(void) {
    struct fsp_engine *e = listen_engine(1);
    char *data = make_pattern(LARGE);
    listen_submit(e, when_told("exec cat"), feeding(), &one);
    size_t at = write_until_full(data, LARGE);
    CHECK(at > FSP_FEED_HIGH && at < FSP_FEED_HIGH + FSP_SCRATCH + 2 * PIECE);
    tell();
    int waits = 0;
    for (; at < LARGE; waits++) {
        REQUIRE(LISTEN_UNTIL(e, one.drained));
        one.drained = 0;
        at += write_until_full(data + at, LARGE - at);
    }
    CHECK(waits > 2);
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(one.all[0].len, LARGE);
    if (one.all[0].len == LARGE) CHECK(memcmp(one.all[0].data, data, LARGE) == 0);
    expect_end(0);
    free(data);
    fsp_engine_free(e);
}

/* While nobody reads, nobody is told to go on; and the spawner sleeps. */
static void a_writer_of_a_child_that_does_not_read(void) {
    struct fsp_engine *e = listen_engine(1);
    static char block[FSP_FEED_HIGH + 70000];
    listen_submit(e, when_told("exec cat >/dev/null"), feeding(), &one);
    CHECK_INT(fsp_job_write(one.job, block, sizeof block), 1);
    faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
    for (int i = 0; i < 200; i++) listen_once(e, 1);
    CHECK(faults_seen() < 50);
    CHECK_INT(one.drained, 0);
    faults_off();
    tell();
    CHECK(LISTEN_UNTIL(e, one.drained));
    CHECK_INT(one.ended, 0);
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    expect_end(0);
    /* When it goes without having read, all is dropped. */
    listen_submit(e, when_told("exit 3"), feeding(), &one);
    CHECK_INT(fsp_job_write(one.job, block, sizeof block), 1);
    tell();
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(fsp_job_write(one.job, block, sizeof block), 0);
    expect_end(3);
    fsp_engine_free(e);
}

/* It closes its stdin and lives on: what is written is dropped, and that is cheap. */
static void a_writer_of_a_child_that_closed_its_stdin(void) {
    struct fsp_engine *e = listen_engine(1);
    static char block[FSP_FEED_HIGH];
    listen_submit(e, SHELL("exec <&-; echo closed; exec sleep 100"), feeding(), &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
    for (int i = 0; i < 20; i++) {
        int drained = one.drained;
        if (fsp_job_write(one.job, block, sizeof block) == 0) continue;
        CHECK(LISTEN_UNTIL(e, one.drained > drained));
    }
    for (int i = 0; i < 200; i++) listen_once(e, 1);
    CHECK(faults_seen() < 100);
    faults_off();
    CHECK_INT(one.ended, 0);
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void no_memory_to_queue(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, COMMAND("/bin/cat"), feeding(), &one);
    CHECK_INT(fsp_job_write(one.job, "a", 1), 0);
    CHECK(LISTEN_UNTIL(e, one.told[0] == 1));
    faults_arm("malloc", ENOMEM, 0, 1);
    CHECK_INT(fsp_job_write(one.job, "b", 1), -ENOMEM);
    CHECK_INT(fsp_job_write(one.job, "c", 1), 0);
    faults_off();
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(one.all[0].data, "ac");
    expect_end(0);
    fsp_engine_free(e);
}

/* ---- output that comes while it runs ---- */

static void short_output_comes_in_one_piece(void) {
    struct fsp_job_options options = listen_options();
    options.flags = FSP_JOB_STREAM;
    int whole = 0;
    for (int i = 0; i < 20; i++) {
        listen_run(SHELL("echo out; echo err >&2"), options, &one);
        CHECK_STR(one.all[0].data, "out\n");
        CHECK_STR(one.all[1].data, "err\n");
        whole += one.chunks == 0;
        expect_end(0);
    }
    CHECK(whole > 0); /* unless it was slow to end, each of the twenty times */
}

static void without_being_asked_nothing_is_streamed(void) {
    listen_run(SHELL("echo out; sleep 0.1; head -c 300000 /dev/zero"), listen_options(), &one);
    CHECK_INT(one.chunks, 0);
    CHECK_INT(one.all[0].len, 300004);
    expect_end(0);
}

static bool is_counted(const struct fsp_buf *buf, int n) {
    const char *at = buf->data;
    char line[24];
    for (int i = 0; i < n; i++) {
        int len = snprintf(line, sizeof line, "%d\n", i);
        if (strncmp(at, line, (size_t)len) != 0) return false;
        at += len;
    }
    return *at == '\0';
}

#define COUNT(n) "i=0; while [ $i -lt " #n " ]; do echo $i; i=$((i+1)); done"

static void streams_keep_their_order(void) {
    struct fsp_job_options options = listen_options();
    options.flags = FSP_JOB_STREAM;
    listen_run(SHELL("sleep 0.03; (" COUNT(30000) ") & (" COUNT(30000) ") >&2; wait"), options,
               &one);
    CHECK(is_counted(&one.all[0], 30000));
    CHECK(is_counted(&one.all[1], 30000));
    CHECK(one.chunks > 2);
    expect_end(0);
}

/* Told and not given back: one window, and the read that filled it. */
static void a_reader_that_does_not_take(void) {
    struct fsp_engine *e = listen_engine(1);
    one.hold = true;
    listen_submit(e, SHELL("exec cat /dev/zero"), feeding(), &one);
    for (int round = 0; round < 20; round++) {
        size_t before = one.told[0];
        CHECK(LISTEN_UNTIL(e, one.held[0] >= FSP_WINDOW));
        CHECK(one.told[0] > before);
        if (round % 5 == 0) { /* it stays so, and costs nothing */
            faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
            for (int i = 0; i < 50; i++) listen_once(e, 1);
            CHECK(faults_seen() < 20);
            faults_off();
        }
        CHECK(one.held[0] <= FSP_WINDOW + FSP_SCRATCH);
        listen_consume(&one, 0);
    }
    CHECK_INT(one.ended, 0);
    one.hold = false;
    fsp_job_cancel(one.job);
    CHECK(LISTEN_UNTIL(e, (listen_consume(&one, 0), one.ended)));
    listen_free(&one, 1);
    fsp_engine_free(e);
}

/* Little by little: nothing is told again before half the window is free. */
static void a_reader_that_takes_little(void) {
    struct fsp_engine *e = listen_engine(1);
    one.hold = true;
    listen_submit(e, SHELL("exec cat /dev/zero"), feeding(), &one);
    CHECK(LISTEN_UNTIL(e, one.held[0] >= FSP_WINDOW));
    for (int i = 0; i < 50; i++) listen_once(e, 1);
    size_t told = one.told[0];
    while (one.held[0] > FSP_WINDOW / 2 + 4096) {
        fsp_job_consumed(one.job, 0, 4096);
        one.held[0] -= 4096;
        listen_once(e, 0);
    }
    CHECK_INT(one.told[0], told);
    listen_consume(&one, 0);
    CHECK(LISTEN_UNTIL(e, one.told[0] > told));
    one.hold = false;
    fsp_job_cancel(one.job);
    CHECK(LISTEN_UNTIL(e, (listen_consume(&one, 0), one.ended)));
    listen_free(&one, 1);
    fsp_engine_free(e);
}

/* What a child wrote is told, however slow its reader and long after its own end. */
static void a_reader_slower_than_the_child(void) {
    static const uint64_t drains[] = {0, 1, 20000000, 60000000000};
    char script[100];
    siginfo_t info = {0};
    snprintf(script, sizeof script, "head -c %d /dev/zero; read x; head -c %d /dev/zero; exit 9",
             FSP_WINDOW, FSP_SCRATCH / 2);
    for (size_t i = 0; i < LENGTH(drains); i++) {
        struct fsp_engine *e = listen_engine(1);
        struct fsp_job_options options = feeding();
        options.limits.drain = drains[i];
        one.hold = true;
        listen_submit(e, SHELL(script), options, &one);
        CHECK(LISTEN_UNTIL(e, one.held[0] == FSP_WINDOW));
        fsp_job_write(one.job, "\n", 1);
        pid_t pid = fsp_job_outcome(one.job)->pid;
        CHECK(LISTEN_UNTIL(e, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
                                  info.si_pid == pid));
        for (int j = 0; j < 60; j++) listen_once(e, 1);
        CHECK_INT(one.ended, 0);
        one.hold = false;
        if (!one.ended) listen_consume(&one, 0);
        CHECK(listen_to_end(e, &one, 1));
        CHECK_INT(one.all[0].len, FSP_WINDOW + FSP_SCRATCH / 2);
        expect_end(9);
        fsp_engine_free(e);
    }
}

/* One stream that is not taken does not hold up the other. */
static void streams_are_taken_apart(void) {
    struct fsp_engine *e = listen_engine(1);
    one.hold = true;
    listen_submit(e, SHELL("cat /dev/zero >&2 & while read x; do echo $x; done; kill $!"),
                  feeding(), &one);
    CHECK(LISTEN_UNTIL(e, one.held[1] >= FSP_WINDOW));
    for (int i = 1; i <= 20; i++) {
        CHECK_INT(fsp_job_write(one.job, "x\n", 2), 0);
        CHECK(LISTEN_UNTIL(e, one.told[0] == 2u * (unsigned)i));
    }
    CHECK(one.held[1] <= FSP_WINDOW + FSP_SCRATCH);
    fsp_job_write_eof(one.job);
    one.hold = false;
    listen_consume(&one, 0);
    listen_consume(&one, 1);
    CHECK(listen_to_end(e, &one, 1));
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void a_stream_beyond_its_cap(void) {
    struct fsp_job_options options = feeding();
    options.limits.max_output = 1000000;
    listen_run(SHELL("exec cat /dev/zero"), options, &one);
    CHECK_INT(one.all[0].len, 1000000);
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->truncated, 1);
    listen_free(&one, 1);
}

/* Many at once, each with more than a pipe holds. */
static void many_streams(void) {
    static struct heard heard[30];
    struct fsp_engine *e = listen_engine(2);
    size_t len = 500000, n = TIMES(30);
    char *data = make_pattern(len);
    for (size_t i = 0; i < n; i++) {
        struct fsp_job_options options = with_input(data, len);
        if (i % 2) options.flags = FSP_JOB_STREAM;
        listen_submit(e, COMMAND("/bin/cat"), options, &heard[i]);
    }
    CHECK(listen_to_end(e, heard, n));
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(heard[i].all[0].len, len);
        if (heard[i].all[0].len == len) CHECK(memcmp(heard[i].all[0].data, data, len) == 0);
    }
    listen_free(heard, n);
    free(data);
    fsp_engine_free(e);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(a_short_input);
    RUN(no_input);
    RUN(a_large_input_comes_back);
    RUN(an_input_that_is_ignored);
    RUN(fed_and_streamed_in_turns);
    RUN(writing_after_the_end_of_input);
    RUN(fed_before_it_starts_and_after_its_input);
    RUN(a_writer_is_told_to_wait);
    RUN(a_writer_of_a_child_that_does_not_read);
    RUN(a_writer_of_a_child_that_closed_its_stdin);
    RUN(no_memory_to_queue);
    RUN(short_output_comes_in_one_piece);
    RUN(without_being_asked_nothing_is_streamed);
    RUN(streams_keep_their_order);
    RUN(a_reader_that_does_not_take);
    RUN(a_reader_that_takes_little);
    RUN(a_reader_slower_than_the_child);
    RUN(streams_are_taken_apart);
    RUN(a_stream_beyond_its_cap);
    RUN(many_streams);
    return tap_end();
}
