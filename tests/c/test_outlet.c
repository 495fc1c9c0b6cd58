/*
 * test_outlet.c - lines through a thread: whole, in order, bounded, and never a wait for whoever
 * hands them over.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>
#include <sys/resource.h>

#define PATIENCE 20000000000u /* ns, for what does happen */

static size_t queued(struct fsp_outlet *o) {
    struct fsp_outlet_state state;
    fsp_outlet_get_state(o, &state);
    return state.queued;
}

static uint64_t dropped(struct fsp_outlet *o) {
    struct fsp_outlet_state state;
    fsp_outlet_get_state(o, &state);
    return state.dropped;
}

static int error_of(struct fsp_outlet *o) {
    struct fsp_outlet_state state;
    fsp_outlet_get_state(o, &state);
    return state.error;
}

static int put(struct fsp_outlet *o, const char *text) {
    return fsp_outlet_put(o, text, strlen(text));
}

/* "<letter> <number> xxxx\n" of `size` bytes. */
static void make_line(char *line, size_t size, char letter, int number) {
    memset(line, 'x', size);
    int n = snprintf(line, size, "%c %06d", letter, number);
    line[n] = ' ';
    line[size - 1] = '\n';
}

static void in_order(void) {
    struct fsp_outlet *o;
    char text[64];
    int fd[2];
    support_pipe(fd, 3);
    REQUIRE(fsp_outlet_new(fd[1], 1000, &o) == 0);
    CHECK_INT(put(o, "one\n"), 0);
    CHECK_INT(put(o, ""), 0);
    CHECK_INT(put(o, "two\nthree\n"), 0);
    CHECK_INT(fsp_outlet_free(o, PATIENCE), 1);
    close(fd[1]);
    support_read_all(fd[0], text, sizeof text);
    CHECK_STR(text, "one\ntwo\nthree\n");
    close(fd[0]);
}

/* A pipe that nobody reads: what has no room is dropped, and what was taken comes in the end. */
static void bounded(void) {
    enum { SIZE = 1000, CAPACITY = 100 * SIZE };
    static char text[2 * 1024 * 1024];
    struct fsp_outlet *o;
    char line[SIZE];
    int fd[2], taken = 0, refused = 0;
    support_pipe(fd, 3);
    REQUIRE(fsp_outlet_new(fd[1], CAPACITY, &o) == 0);
    while (refused < 50 && taken < 2000) { /* the pipe may still be filling */
        make_line(line, SIZE, 'a', taken);
        int r = fsp_outlet_put(o, line, SIZE);
        CHECK(r == 0 || r == -EAGAIN);
        CHECK(queued(o) <= CAPACITY);
        *(r == 0 ? &taken : &refused) += 1;
    }
    CHECK(taken * SIZE >= CAPACITY);
    CHECK_INT(dropped(o), refused);
    CHECK_INT(error_of(o), 0);
    size_t len = 0;
    while (len < (size_t)taken * SIZE) {
        ssize_t n = read(fd[0], text + len, sizeof text - len);
        REQUIRE(n > 0);
        len += (size_t)n;
    }
    CHECK(WAIT_UNTIL(queued(o) == 0));
    CHECK_INT(put(o, "more\n"), 0); /* it goes on */
    CHECK_INT(fsp_outlet_free(o, PATIENCE), 1);
    close(fd[1]);
    len += support_read_all(fd[0], text + len, sizeof text - len);
    CHECK_STR(text + len - 5, "more\n");
    for (int i = 0; i < taken; i++) {
        make_line(line, SIZE, 'a', i);
        REQUIRE(memcmp(text + i * SIZE, line, SIZE) == 0);
    }
    close(fd[0]);
}

/* Several that write to one pipe, which is read a little at a time: none cuts another's line. */
static void none_between(int flags) {
    enum { WRITERS = 3, EACH = 300, SIZE = 777 };
    static char text[WRITERS * EACH * SIZE + 1], batch[10 * SIZE];
    struct fsp_outlet *o[WRITERS];
    int fd[2], next[WRITERS] = {0};
    support_pipe(fd, 3);
    if (flags) fcntl(fd[1], F_SETFL, flags);
    for (int w = 0; w < WRITERS; w++) REQUIRE(fsp_outlet_new(fd[1], sizeof text, &o[w]) == 0);
    for (int i = 0; i < EACH; i += 10)
        for (int w = 0; w < WRITERS; w++) {
            for (int k = 0; k < 10; k++) make_line(batch + k * SIZE, SIZE, (char)('a' + w), i + k);
            CHECK_INT(fsp_outlet_put(o[w], batch, sizeof batch), 0);
        }
    size_t len = 0;
    while (len < sizeof text - 1) {
        ssize_t n = read(fd[0], text + len, 1234 < sizeof text - len ? 1234 : sizeof text - len);
        REQUIRE(n > 0);
        len += (size_t)n;
    }
    for (int w = 0; w < WRITERS; w++) CHECK_INT(fsp_outlet_free(o[w], PATIENCE), 1);
    for (char *at = text; at < text + len; at += SIZE) {
        int w = *at - 'a';
        REQUIRE(w >= 0 && w < WRITERS);
        make_line(batch, SIZE, (char)('a' + w), next[w]++);
        REQUIRE(memcmp(at, batch, SIZE) == 0);
    }
    close(fd[0]);
    close(fd[1]);
}

static void none_between_another_s_lines(void) {
    none_between(0);
}

static void nor_where_a_write_does_not_wait(void) {
    none_between(O_NONBLOCK);
}

/* Longer than a write that keeps it whole: written all the same. */
static void a_very_long_line(void) {
    static char line[3 * PIPE_BUF], text[4 * PIPE_BUF];
    struct fsp_outlet *o;
    int fd[2];
    support_pipe(fd, 3);
    REQUIRE(fsp_outlet_new(fd[1], 100, &o) == 0); /* more than has room, but nothing else waits */
    make_line(line, sizeof line, 'a', 1);
    CHECK_INT(fsp_outlet_put(o, line, sizeof line), 0);
    CHECK_INT(fsp_outlet_free(o, PATIENCE), 1);
    close(fd[1]);
    CHECK_INT(support_read_all(fd[0], text, sizeof text), sizeof line);
    CHECK(memcmp(text, line, sizeof line) == 0);
    close(fd[0]);
}

/* Nobody will ever read: neither the end nor the process waits for that. */
static void given_up(void) {
    enum { SIZE = 1000 };
    struct fsp_outlet *o;
    char line[SIZE];
    int fd[2], before = support_threads();
    support_pipe(fd, 3);
    REQUIRE(fsp_outlet_new(fd[1], 1000 * SIZE, &o) == 0);
    make_line(line, SIZE, 'a', 1);
    for (int i = 0; i < 500; i++) CHECK_INT(fsp_outlet_put(o, line, SIZE), 0);
    CHECK_INT(fsp_outlet_free(o, 1000000), 0);
    close(fd[0]);
    CHECK(WAIT_UNTIL(support_threads() == before)); /* it was let go by the broken pipe */
    close(fd[1]);
}

static void a_reader_that_has_gone(void) {
    struct fsp_outlet *o;
    int fd[2];
    support_pipe(fd, 3);
    close(fd[0]);
    REQUIRE(fsp_outlet_new(fd[1], 1000, &o) == 0);
    CHECK_INT(put(o, "one\ntwo\n"), 0);
    CHECK(WAIT_UNTIL(queued(o) == 0));
    CHECK_INT(dropped(o), 2);
    CHECK_INT(error_of(o), EPIPE);
    CHECK_INT(fsp_outlet_free(o, PATIENCE), 1);
    close(fd[1]);
}

/* A disk that is full in the midst of a line, and has room again: its rest comes before all else.
 */
static void fill_a_file(void *unused) {
    (void)unused;
    char text[64] = {0};
    struct fsp_outlet *o;
    struct rlimit limit;
    const char *path = support_path("full");
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    rlim_t most = limit.rlim_max;
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    limit.rlim_cur = 6;
    setrlimit(RLIMIT_FSIZE, &limit);
    REQUIRE(fsp_outlet_new(fd, 1000, &o) == 0);
    CHECK_INT(put(o, "one\ntwo\nthree\n"), 0);
    CHECK(WAIT_UNTIL(queued(o) == 0));
    CHECK_INT(dropped(o), 1); /* "three": the rest of "two" is still to come */
    CHECK_INT(error_of(o), EFBIG);
    CHECK_INT(put(o, "four\n"), 0);
    CHECK(WAIT_UNTIL(queued(o) == 0));
    CHECK_INT(dropped(o), 2);
    limit.rlim_cur = most;
    setrlimit(RLIMIT_FSIZE, &limit);
    CHECK_INT(put(o, "five\n"), 0);
    CHECK_INT(fsp_outlet_free(o, PATIENCE), 1);
    CHECK(pread(fd, text, sizeof text - 1, 0) > 0);
    CHECK_STR(text, "one\ntwo\nfive\n");
    close(fd);
}

static void a_line_that_was_begun(void) {
    tap_fork(fill_a_file, NULL);
}

static void what_is_refused(void) {
    struct fsp_outlet *o = NULL;
    faults_arm("malloc", ENOMEM, 0, 1);
    CHECK_INT(fsp_outlet_new(1, 1000, &o), -ENOMEM);
    faults_arm("thread", EAGAIN, 0, 1);
    CHECK_INT(fsp_outlet_new(1, 1000, &o), -EAGAIN);
    faults_off();
    REQUIRE(fsp_outlet_new(1, 1000, &o) == 0);
    faults_arm("malloc", ENOMEM, 0, 1);
    CHECK_INT(put(o, "lost\n"), -ENOMEM);
    faults_off();
    CHECK_INT(dropped(o), 1);
    CHECK_INT(fsp_outlet_free(o, PATIENCE), 1);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    signal(SIGPIPE, SIG_IGN);
    RUN(in_order);
    RUN(bounded);
    RUN(none_between_another_s_lines);
    RUN(nor_where_a_write_does_not_wait);
    RUN(a_very_long_line);
    RUN(given_up);
    RUN(a_reader_that_has_gone);
    RUN(a_line_that_was_begun);
    RUN(what_is_refused);
    return tap_end();
}
