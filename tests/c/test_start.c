/*
 * test_start.c - a spawn that does not wait for the exec: told of by a descriptor that is readable
 * when the child executes or has failed to, and not before.
 */
#include "support.h"
#include "tap.h"

#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>

static const struct fsp_stdio inherit = {
    {-1, -1, -1}
};

static int start(const struct fsp_spec *spec, const struct fsp_stdio *io, struct fsp_start *s,
                 struct fsp_error *error) {
    struct fsp_plan *plan = support_plan(spec);
    int r = fsp_start(plan, io, s, error);
    fsp_plan_unref(plan); /* it is kept as long as it is needed */
    return r;
}

static void detached(const struct fsp_spec *spec, const struct fsp_stdio *io, struct fsp_start *s) {
    struct fsp_error error;
    REQUIRE(start(spec, io, s, &error) == 1);
    REQUIRE(s->fd >= 0);
    struct pollfd watched = {s->fd, POLLIN, 0};
    CHECK_INT(poll(&watched, 1, TAP_PATIENCE_MS), 1);
}

static void expect_code(struct fsp_start *s, int code) {
    struct fsp_child child;
    struct fsp_error error;
    struct fsp_status status;
    REQUIRE(fsp_start_end(s, &child, &error) == 0);
    CHECK_INT(fsp_wait(&child, 1, &status), 1);
    CHECK_INT(status.code, code);
}

static void a_program_runs(void) {
    struct fsp_start s;
    struct fsp_spec spec = SHELL("exit 3");
    detached(&spec, &inherit, &s);
    int fd = s.fd;
    expect_code(&s, 3);
    CHECK_INT(fcntl(fd, F_GETFD), -1);
}

static void an_end_that_comes_early_waits(void) {
    struct fsp_start s;
    struct fsp_error error;
    struct fsp_spec spec = SHELL("exit 4");
    REQUIRE(start(&spec, &inherit, &s, &error) == 1);
    expect_code(&s, 4);
}

static void expect_failure(const struct fsp_spec *spec, const struct fsp_stdio *io, int err,
                           enum fsp_stage stage) {
    struct fsp_start s;
    struct fsp_child child;
    struct fsp_error error;
    detached(spec, io, &s);
    CHECK_INT(fsp_start_end(&s, &child, &error), -err);
    CHECK_INT(error.err, err);
    CHECK_INT(error.stage, stage);
}

static void a_failure_is_told(void) {
    struct fsp_spec missing = COMMAND("/no/such/program"), nowhere = COMMAND("/bin/true");
    nowhere.cwd = "/no/such/directory";
    expect_failure(&missing, &inherit, ENOENT, FSP_STAGE_EXEC);
    expect_failure(&nowhere, &inherit, ENOENT, FSP_STAGE_CWD);
    expect_failure(&nowhere,
                   &(struct fsp_stdio){
                       {-1, 900, -1}
    },
                   EBADF, FSP_STAGE_FDS);
}

/* The pipe's own ends are then among the numbers that the child is told to replace. */
static void our_own_stdio_is_closed(void) {
    struct fsp_start s;
    struct fsp_spec spec = HELPER("report");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), saved[3];
    for (int i = 0; i < 3; i++) {
        saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
        close(i);
    }
    struct fsp_error error;
    int r = start(&spec,
                  &(struct fsp_stdio){
                      {null, null, null}
    },
                  &s, &error);
    for (int i = 0; i < 3; i++) {
        if (s.fd == i) s.fd = fcntl(i, F_DUPFD_CLOEXEC, 100);
        if (s.child.pidfd == i) s.child.pidfd = fcntl(i, F_DUPFD_CLOEXEC, 100);
        dup2(saved[i], i);
        close(saved[i]);
    }
    close(null);
    REQUIRE(r == 1);
    expect_code(&s, 0);
}

static void a_drop_kills_and_reaps(void) {
    struct fsp_start s;
    struct fsp_error error;
    struct fsp_spec spec = COMMAND("/bin/sleep", "600");
    REQUIRE(start(&spec, &inherit, &s, &error) == 1);
    pid_t pid = s.child.pid;
    fsp_start_drop(&s);
    CHECK_INT(kill(pid, 0), -1);
    detached(&spec, &inherit, &s);
    pid = s.child.pid;
    fsp_start_drop(&s);
    CHECK_INT(kill(pid, 0), -1);
}

/* What a fork of ours does with its copy is nothing to the child. */
static void a_fork_of_ours_drops_it(void) {
    struct fsp_start s;
    int fd[2];
    support_pipe(fd, 3);
    struct fsp_spec spec = SHELL("read x; exit 6");
    detached(&spec,
             &(struct fsp_stdio){
                 {fd[0], -1, -1}
    },
             &s);
    pid_t fork_of_ours = fork();
    REQUIRE(fork_of_ours >= 0);
    if (fork_of_ours == 0) {
        fsp_start_drop(&s);
        _exit(0);
    }
    int status;
    CHECK_INT(waitpid(fork_of_ours, &status, 0), fork_of_ours);
    CHECK_INT(status, 0);
    close(fd[1]);
    close(fd[0]);
    expect_code(&s, 6);
}

static void a_large_table_is_not_copied(void) {
    struct fsp_start s;
    struct fsp_error error;
    struct fsp_spec spec = COMMAND("/bin/true");
    int fd[2];
    support_pipe(fd, 2000);
    CHECK_INT(start(&spec,
                    &(struct fsp_stdio){
                        {fd[0], -1, -1}
    },
                    &s, &error),
              0);
    CHECK_INT(s.child.pid, -1);
    close(fd[0]);
    close(fd[1]);
}

static void more_than_may_be_on_their_way(void) {
    enum { N = 70 };
    static struct fsp_start s[N];
    struct fsp_error error;
    struct fsp_spec spec = COMMAND("/bin/true");
    int refused = 0;
    for (int i = 0; i < N; i++) {
        int r = start(&spec, &inherit, &s[i], &error);
        REQUIRE(r >= 0);
        refused += r == 0;
    }
    CHECK_INT(refused, N - 64);
    for (int i = 0; i < 64; i++) expect_code(&s[i], 0);
    REQUIRE(start(&spec, &inherit, &s[0], &error) == 1);
    expect_code(&s[0], 0);
}

/* ---- faults ---- */

static void start_with_fault(void *arg) {
    const char *name = arg;
    struct fsp_start s;
    struct fsp_error error;
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_plan *plan = support_plan(&spec);
    faults_arm(name, EMFILE, 0, 1);
    int r = fsp_start(plan, &inherit, &s, &error);
    faults_off();
    if (r < 0) CHECK_INT(error.err, -r);
    if (r > 0) expect_code(&s, 0);
    CHECK_INT(fsp_start(plan, &inherit, &s, &error), 1);
    expect_code(&s, 0);
    fsp_plan_unref(plan);
}

static void any_one_call_fails(void) {
    static const char *const names[] = {"pipe2", "pipe", "clone3", "clone", "mmap", "fcntl"};
    for (size_t i = 0; i < LENGTH(names); i++) tap_fork(start_with_fault, (void *)names[i]);
}

/* Where the backend cannot. */
static void nothing_is_started(void) {
    struct fsp_start s;
    struct fsp_error error;
    struct fsp_spec spec = COMMAND("/bin/true");
    CHECK_INT(fsp_backend_select("posix_spawn"), 0);
    CHECK_INT(start(&spec, &inherit, &s, &error), 0);
    CHECK_INT(s.fd, -1);
    fsp_start_drop(&s);
    fsp_backend_select(NULL);
}

static bool detaches(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_plan *plan = support_plan(&spec);
    bool does = fsp_detaches(plan);
    fsp_plan_unref(plan);
    return does;
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    RUN(nothing_is_started);
    if (detaches()) {
        RUN(a_program_runs);
        RUN(an_end_that_comes_early_waits);
        RUN(a_failure_is_told);
        RUN(our_own_stdio_is_closed);
        RUN(a_drop_kills_and_reaps);
        RUN(a_fork_of_ours_drops_it);
        RUN(a_large_table_is_not_copied);
        RUN(more_than_may_be_on_their_way);
        RUN(any_one_call_fails);
    }
    return tap_end();
}
