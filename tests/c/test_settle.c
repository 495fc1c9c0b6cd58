/*
 * test_settle.c - what Linux alone lets a child be: without new rights, in a cgroup, and dead as
 * soon as its parent is.
 *
 * Each test runs with each backend.
 */
#include "support.h"
#include "tap.h"

#ifdef __linux__
#include <poll.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const struct fsp_stdio plain = {
    {-1, -1, -1}
};

static void expect(const struct fsp_spec *spec, const char *output) {
    struct run run;
    support_run(spec, &run);
    CHECK_INT(run.result, 0);
    CHECK_INT(run.status.code, 0);
    CHECK_STR(run.out, output);
}

static void expect_failure(const struct fsp_spec *spec, int err, enum fsp_stage stage) {
    struct run run;
    support_run(spec, &run);
    CHECK_INT(run.result, -err);
    CHECK_INT(run.error.err, err);
    CHECK_INT(run.error.stage, stage);
}

/* ---- no new rights ---- */

static void no_new_privileges(void) {
    struct fsp_spec spec = SHELL("grep NoNewPrivs /proc/self/status");
    int before = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    expect(&spec, before ? "NoNewPrivs:\t1\n" : "NoNewPrivs:\t0\n");
    spec.flags |= FSP_FLAG_NO_NEW_PRIVS;
    expect(&spec, "NoNewPrivs:\t1\n");
    CHECK_INT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), before);
}

/* ---- a cgroup, played by a file ---- */

static void the_child_writes_itself_into_its_cgroup(void) {
    char text[8] = "";
    const char *procs = support_path("cgroup.procs");
    support_write_file(procs, "", 0600);
    struct fsp_spec spec = SHELL("ls /proc/self/fd | wc -l");
    struct run plain_run;
    support_run(&spec, &plain_run);
    spec.cgroup = procs;
    expect(&spec, plain_run.out);
    int fd = open(procs, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    CHECK_INT(read(fd, text, sizeof text - 1), 1);
    close(fd);
    CHECK_STR(text, "0");
}

static void a_cgroup_that_is_not_there(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.cgroup = "/no/such/cgroup.procs";
    expect_failure(&spec, ENOENT, FSP_STAGE_CGROUP);
}

/* Outside its cgroup, or with rights to gain, or to outlive its parent: then not at all. */
static void run_with_refused_steps(void *unused) {
    struct fsp_spec spec = COMMAND("/bin/true");
    (void)unused;
    spec.flags |= FSP_FLAG_NO_NEW_PRIVS;
    faults_arm("prctl", EINVAL, 0, 1);
    expect_failure(&spec, EINVAL, FSP_STAGE_PRIVS);
    spec.flags &= ~FSP_FLAG_NO_NEW_PRIVS;
    spec.death_signal = SIGKILL;
    faults_arm("prctl", EINVAL, 0, 1);
    expect_failure(&spec, EINVAL, FSP_STAGE_DEATH);
    spec.death_signal = 0;
    spec.cgroup = support_path("cgroup.procs");
    support_write_file(spec.cgroup, "", 0600);
    faults_arm("write", EBUSY, 0, 1);
    expect_failure(&spec, EBUSY, FSP_STAGE_CGROUP);
    faults_off();
}

static void a_refused_step_is_told(void) {
    tap_fork(run_with_refused_steps, NULL);
}

/* ---- the death of the parent ---- */

struct lineage {
    int death_signal;
    int held[2]; /* the child has the end to write to: it is closed when that has ended */
    int told[2]; /* its pid */
};

static void parent(void *arg) {
    struct lineage *l = arg;
    struct fsp_spec spec = COMMAND("/bin/sleep", "1000");
    struct fsp_child child;
    struct fsp_error error;
    spec.death_signal = l->death_signal;
    spec.keep_fds = &l->held[1];
    spec.nkeep_fds = 1;
    if (support_spawn(&spec, &plain, &child, &error) < 0) _exit(1);
    if (write(l->told[1], &child.pid, sizeof child.pid) < 0) _exit(1);
    for (;;) pause();
}

static void open_lineage(struct lineage *l, int death_signal) {
    l->death_signal = death_signal;
    support_pipe(l->held, 3);
    support_pipe(l->told, 3);
}

static void close_lineage(struct lineage *l) {
    close(l->held[0]);
    close(l->told[0]);
}

static pid_t begin(struct lineage *l) {
    pid_t pid = fork();
    if (pid == 0) {
        close(l->held[0]);
        close(l->told[0]);
        parent(l);
    }
    close(l->held[1]);
    close(l->told[1]);
    return pid;
}

static void kill_parent(pid_t pid) {
    if (support_kill(pid)) CHECK_INT(waitpid(pid, NULL, 0), pid);
}

static bool is_at_end(int fd, int ms) {
    struct pollfd p = {fd, POLLIN, 0};
    char c;
    return poll(&p, 1, ms) == 1 && read(fd, &c, 1) == 0;
}

static void the_child_dies_with_its_parent(void) {
    struct lineage l;
    pid_t child;
    open_lineage(&l, SIGKILL);
    pid_t pid = begin(&l);
    CHECK_INT(read(l.told[0], &child, sizeof child), sizeof child);
    CHECK(!is_at_end(l.held[0], 0));
    kill_parent(pid);
    CHECK(is_at_end(l.held[0], TAP_PATIENCE_MS));
    close_lineage(&l);
}

static void without_a_signal_it_lives_on(void) {
    struct lineage l;
    pid_t child;
    open_lineage(&l, 0);
    pid_t pid = begin(&l);
    if (CHECK_INT(read(l.told[0], &child, sizeof child), sizeof child)) {
        kill_parent(pid);
        CHECK(!is_at_end(l.held[0], 20));
        support_kill(child);
        CHECK(is_at_end(l.held[0], TAP_PATIENCE_MS));
    }
    close_lineage(&l);
}

/* Between the clone and the child's asking for a signal: it will never hear of it. */
static void a_parent_that_is_gone_already(void) {
    struct lineage l;
    pid_t child;
    open_lineage(&l, SIGKILL);
    faults_hold("prctl");
    pid_t pid = begin(&l);
    CHECK(WAIT_UNTIL(faults_held() == 1));
    kill_parent(pid);
    faults_release();
    CHECK(is_at_end(l.held[0], TAP_PATIENCE_MS));
    CHECK_INT(read(l.told[0], &child, sizeof child), 0);
    close_lineage(&l);
}

static struct fsp_child of_thread;

static void *spawn_and_end(void *unused) {
    struct fsp_spec spec = COMMAND("/bin/sleep", "1000");
    struct fsp_error error;
    (void)unused;
    spec.death_signal = SIGTERM;
    CHECK_INT(support_spawn(&spec, &plain, &of_thread, &error), 0);
    return NULL;
}

/* As the header says: it is the thread that counts. */
static void the_thread_is_the_parent(void) {
    struct fsp_status status = {0};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, spawn_and_end, NULL), 0);
    pthread_join(thread, NULL);
    CHECK_INT(fsp_wait(&of_thread, 1, &status), 1);
    CHECK_INT(status.code, -SIGTERM);
}

static void after_a_change_of_user(void) {
    struct fsp_spec spec = SHELL("exit 0");
    struct run run;
    if (geteuid() != 0) return;
    spec.uid = spec.gid = 65534;
    spec.death_signal = SIGKILL;
    support_run(&spec, &run);
    CHECK_INT(run.result, 0);
    CHECK_INT(run.status.code, 0);
}

static void with_each_backend(void) {
    RUN(no_new_privileges);
    RUN(the_child_writes_itself_into_its_cgroup);
    RUN(a_cgroup_that_is_not_there);
    RUN(a_refused_step_is_told);
    RUN(the_child_dies_with_its_parent);
    RUN(without_a_signal_it_lives_on);
    RUN(a_parent_that_is_gone_already);
    RUN(the_thread_is_the_parent);
    RUN(after_a_change_of_user);
}
#else
static void elsewhere_it_is_refused(void) {
    struct fsp_plan *plan;
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.flags |= FSP_FLAG_NO_NEW_PRIVS;
    CHECK_INT(fsp_plan_new(&spec, &plan), -ENOTSUP);
    spec.flags &= ~FSP_FLAG_NO_NEW_PRIVS;
    spec.death_signal = SIGKILL;
    CHECK_INT(fsp_plan_new(&spec, &plan), -ENOTSUP);
    spec.death_signal = 0;
    spec.cgroup = "/cgroup.procs";
    CHECK_INT(fsp_plan_new(&spec, &plan), -ENOTSUP);
}

static void with_each_backend(void) {
    RUN(elsewhere_it_is_refused);
}
#endif

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    support_each_backend(with_each_backend);
    return tap_end();
}
