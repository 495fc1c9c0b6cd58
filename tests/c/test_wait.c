/*
 * test_wait.c - how a child ended is told once and truly, and signals reach it until then, never
 * anyone else.
 *
 * Each test runs with each backend.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

static const struct fsp_stdio inherit = {
    {-1, -1, -1}
};

static bool start(struct fsp_spec spec, struct fsp_child *child) {
    struct fsp_error error;
    return CHECK_INT(support_spawn(&spec, &inherit, child, &error), 0);
}

/* As where the kernel has no pidfds. */
static void drop_pidfd(struct fsp_child *child) {
    close(child->pidfd);
    child->pidfd = -1;
}

static bool ended(pid_t pid) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static void expect_end(struct fsp_child *child, int code) {
    struct fsp_status status;
    memset(&status, 0xff, sizeof status);
    CHECK_INT(fsp_wait(child, 1, &status), 1);
    CHECK_INT(status.lost, 0);
    CHECK_INT(status.code, code);
    CHECK_INT(child->pidfd, -1);
    CHECK(child->pid <= 0);
}

static void expect_code(const char *script, int code) {
    struct fsp_child child;
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(start(SHELL(script), &child));
        if (!pidfd) drop_pidfd(&child);
        expect_end(&child, code);
    }
}

/* ---- status ---- */

static void exit_codes(void) {
    expect_code("exit 0", 0);
    expect_code("exit 1", 1);
    expect_code("exit 127", 127);
    expect_code("exit 128", 128);
    expect_code("exit 255", 255);
}

static void deaths_by_signal(void) {
    expect_code("kill -TERM $$", -SIGTERM);
    expect_code("kill -KILL $$", -SIGKILL);
    expect_code("ulimit -c 0; kill -SEGV $$", -SIGSEGV);
#ifdef SIGRTMAX
    char script[32];
    snprintf(script, sizeof script, "kill -%d $$", SIGRTMAX);
    expect_code(script, -SIGRTMAX);
#endif
}

static void a_death_with_a_core(void) {
    struct fsp_child child;
    struct fsp_spec spec = SHELL("ulimit -c unlimited 2>/dev/null; kill -ABRT $$");
    spec.cwd = support_dir();
    REQUIRE(start(spec, &child));
    expect_end(&child, -SIGABRT);
}

static void not_yet(void) {
    struct fsp_child child;
    struct fsp_status status;
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(start(COMMAND("/bin/sleep", "100"), &child));
        if (!pidfd) drop_pidfd(&child);
        for (int i = 0; i < 3; i++) CHECK_INT(fsp_wait(&child, 0, &status), 0);
        CHECK(child.pid > 0);
        CHECK_INT(fsp_kill(&child, 0, SIGTERM), 0);
        CHECK(WAIT_UNTIL(ended(child.pid)));
        CHECK_INT(fsp_wait(&child, 0, &status), 1);
        CHECK_INT(status.code, -SIGTERM);
    }
}

static void stopped_and_continued_is_not_ended(void) {
    struct fsp_child child;
    struct fsp_status status;
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(start(SHELL("kill -STOP $$; exit 5"), &child));
        if (!pidfd) drop_pidfd(&child);
        CHECK(WAIT_UNTIL(support_stopped(child.pid)));
        CHECK_INT(fsp_wait(&child, 0, &status), 0);
        CHECK(!fsp_has_exited(&child));
        CHECK_INT(fsp_kill(&child, 0, SIGCONT), 0);
        expect_end(&child, 5);
    }
}

static void a_stopped_child_can_be_killed(void) {
    struct fsp_child child;
    REQUIRE(start(SHELL("kill -STOP $$"), &child));
    CHECK(WAIT_UNTIL(support_stopped(child.pid)));
    CHECK_INT(fsp_kill(&child, 0, SIGKILL), 0);
    expect_end(&child, -SIGKILL);
}

static long long microseconds(struct timeval tv) {
    return tv.tv_sec * 1000000ll + tv.tv_usec;
}

static void resources_are_the_childs(void) {
    struct fsp_child child;
    struct fsp_status idle, busy;
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(start(COMMAND("/bin/true"), &child));
        if (!pidfd) drop_pidfd(&child);
        CHECK_INT(fsp_wait(&child, 1, &idle), 1);
        REQUIRE(start(HELPER("burn"), &child));
        if (!pidfd) drop_pidfd(&child);
        CHECK_INT(fsp_wait(&child, 1, &busy), 1);
        CHECK(microseconds(busy.usage.ru_utime) >= 20000);
        CHECK(microseconds(idle.usage.ru_utime) < microseconds(busy.usage.ru_utime));
        CHECK(idle.usage.ru_maxrss > 0 && busy.usage.ru_maxrss > 0);
    }
}

static void in_any_order(void) {
    struct fsp_child child[20];
    struct fsp_status status;
    char script[20][24];
    for (int i = 0; i < 20; i++) {
        snprintf(script[i], sizeof script[i], "exit %d", i);
        REQUIRE(start(SHELL(script[i]), &child[i]));
    }
    for (int i = 19; i >= 0; i -= 2) {
        CHECK_INT(fsp_wait(&child[i], 1, &status), 1);
        CHECK_INT(status.code, i);
    }
    for (int i = 0; i < 20; i += 2) {
        CHECK_INT(fsp_wait(&child[i], 1, &status), 1);
        CHECK_INT(status.code, i);
    }
}

/* ---- who else waits ---- */

/* A loop may have made the pidfd non-blocking: waitid then answers EAGAIN. */
static void a_pidfd_that_does_not_block(void) {
    struct fsp_child child;
    struct fsp_status status;
    REQUIRE(start(SHELL("kill -STOP $$; exit 6"), &child));
    CHECK_INT(fcntl(child.pidfd, F_SETFL, O_NONBLOCK), 0);
    CHECK(WAIT_UNTIL(support_stopped(child.pid)));
    CHECK_INT(fsp_wait(&child, 0, &status), 0);
    CHECK_INT(fsp_kill(&child, 0, SIGCONT), 0);
    expect_end(&child, 6);
}

/* For sure asked before the child ends. */
static void *continue_when_waited_for(void *arg) {
    struct fsp_child *child = arg;
    WAIT_UNTIL(faults_seen() > 2);
    support_kill(child->pid);
    return NULL;
}

static void waiting_on_a_pidfd_that_does_not_block(void) {
    pthread_t thread;
    struct fsp_child child, copy;
    REQUIRE(start(COMMAND("/bin/sleep", "100"), &child));
    CHECK_INT(fcntl(child.pidfd, F_SETFL, O_NONBLOCK), 0);
    copy = child;
    /* The first answers are made up, so that someone is in fsp_wait when the child dies. */
    faults_arm("waitid", EINTR, 0, 3);
    CHECK_INT(pthread_create(&thread, NULL, continue_when_waited_for, &copy), 0);
    expect_end(&child, -SIGKILL);
    pthread_join(thread, NULL);
    CHECK(faults_seen() < 10); /* it sleeps until then */
    faults_off();
}

static void ignore(int sig) {
    (void)sig;
}

static void interrupted_waits(void) {
    struct fsp_child child;
    struct sigaction sa = {.sa_handler = ignore}; /* no SA_RESTART */
    sigaction(SIGUSR1, &sa, NULL);
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(
            start(SHELL("for i in 1 2 3 4 5 6 7 8 9; do kill -USR1 $PPID; done; exit 4"), &child));
        if (!pidfd) drop_pidfd(&child);
        expect_end(&child, 4);
    }
    signal(SIGUSR1, SIG_DFL);
}

static void expect_told_once(struct fsp_child *child, const struct fsp_status *status) {
    CHECK_INT(status->usage.ru_maxrss, 0); /* nobody knows */
    CHECK_INT(child->pidfd, -1);
    faults_arm(NULL, EPERM, 0, FAULTS_ALL);
    CHECK_INT(fsp_kill(child, 0, SIGTERM), -ESRCH);
    CHECK_INT(faults_seen(), 0);
    faults_off();
}

static void expect_lost(struct fsp_child *child) {
    struct fsp_status status = {.lost = 0};
    CHECK_INT(fsp_wait(child, 1, &status), 1);
    CHECK_INT(status.lost, 1);
    CHECK_INT(status.code, 0);
    expect_told_once(child, &status);
}

/* What someone else was told, where the kernel remembers it; lost where it does not. */
static void expect_recalled(struct fsp_child *child, int code) {
    struct fsp_status status = {.lost = 1};
    if (child->pidfd < 0 || !support_remembers()) {
        expect_lost(child);
        return;
    }
    CHECK_INT(fsp_wait(child, 1, &status), 1);
    CHECK_INT(status.lost, 0);
    CHECK_INT(status.code, code);
    expect_told_once(child, &status);
}

static void someone_else_reaped_it(void) {
    struct fsp_child child;
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(start(SHELL("exit 3"), &child));
        if (!pidfd) drop_pidfd(&child);
        CHECK_INT(waitpid(-1, NULL, 0), child.pid);
        CHECK(fsp_has_exited(&child));
        if (pidfd) { /* the pid may be someone else's by now: it is not even tried */
            faults_arm("kill", EPERM, 0, FAULTS_ALL);
            CHECK_INT(fsp_kill(&child, 0, SIGTERM), -ESRCH);
            CHECK_INT(fsp_kill(&child, 1, SIGTERM), -ESRCH);
            CHECK_INT(faults_seen(), 0);
            /* Nor where a group cannot be signalled through a pidfd. */
            faults_arm(NULL, EINVAL, 0, 1);
            CHECK_INT(fsp_kill(&child, 1, SIGTERM), -ESRCH);
            CHECK_INT(faults_count_of("kill"), 0);
            faults_off();
        }
        expect_recalled(&child, 3);
    }
}

/* Script and code. */
static const struct {
    const char *script;
    int code;
} ends[] = {
    {"exit 0",                                         0       },
    {"exit 42",                                        42      },
    {"exit 255",                                       255     },
    {"kill -TERM $$",                                  -SIGTERM},
    {"kill -KILL $$",                                  -SIGKILL},
    {"ulimit -c unlimited 2>/dev/null; kill -ABRT $$", -SIGABRT}, /* with a core */
};

static void what_someone_else_was_told(void) {
    struct fsp_child child;
    struct fsp_status status;
    for (size_t i = 0; i < LENGTH(ends); i++)
        for (int block = 0; block < 2; block++) {
            struct fsp_spec spec = SHELL(ends[i].script);
            spec.cwd = support_dir();
            REQUIRE(start(spec, &child));
            CHECK_INT(waitpid(child.pid, NULL, 0), child.pid);
            if (!block && support_remembers()) {
                CHECK_INT(fsp_wait(&child, 0, &status), 1);
                CHECK_INT(status.lost, 0);
                CHECK_INT(status.code, ends[i].code);
            } else {
                expect_recalled(&child, ends[i].code);
            }
        }
}

/* Without the call, without the flag, and where a sandbox refuses it: as it always was. */
static void kernels_that_do_not_remember(void) {
    static const int errors[] = {ENOTTY, EINVAL, ESRCH, EPERM, ENOSYS};
    struct fsp_child child;
    struct fsp_status status = {.lost = 0};
    for (size_t i = 0; i < LENGTH(errors); i++) {
        REQUIRE(start(SHELL("exit 3"), &child));
        CHECK_INT(waitpid(child.pid, NULL, 0), child.pid);
        faults_arm("pidfd_info", errors[i], 0, FAULTS_ALL);
        CHECK_INT(fsp_wait(&child, i & 1, &status), 1);
        faults_off();
        CHECK_INT(status.lost, 1);
        CHECK_INT(status.code, 0);
        CHECK_INT(child.pidfd, -1);
    }
}

/* The descriptor is asked again until the one who reaps has let go of the process. */
static void asked_too_early(void) {
    struct fsp_child child;
    if (!support_remembers()) return;
    REQUIRE(start(SHELL("exit 5"), &child));
    CHECK(WAIT_UNTIL(ended(child.pid)));
    /* As if a reaper had it in hand: not ours to wait for, and not gone. */
    faults_arm("waitid", ECHILD, 0, 1);
    struct fsp_status status;
    CHECK_INT(fsp_wait(&child, 0, &status), 0);
    faults_off();
    CHECK(child.pidfd >= 0);
    pthread_t thread;
    faults_arm("waitid", ECHILD, 0, 1);
    CHECK_INT(pthread_create(&thread, NULL, support_reap_any, NULL), 0);
    expect_recalled(&child, 5);
    faults_off();
    pthread_join(thread, NULL);
}

static void looking_takes_nothing(void) {
    struct fsp_child child;
    struct fsp_status status;
    REQUIRE(start(SHELL("kill -STOP $$; exit 8"), &child));
    CHECK(WAIT_UNTIL(support_stopped(child.pid)));
    CHECK_INT(fsp_look(&child, &status), 0);
    CHECK_INT(fsp_kill(&child, 0, SIGCONT), 0);
    CHECK(WAIT_UNTIL(ended(child.pid)));
    CHECK_INT(fsp_look(&child, &status), 0);
    CHECK_INT(waitpid(child.pid, NULL, 0), child.pid);
    CHECK_INT(fsp_look(&child, &status), 1);
    CHECK_INT(status.lost, !support_remembers());
    CHECK_INT(status.code, support_remembers() ? 8 : 0);
    CHECK(child.pidfd >= 0);
    drop_pidfd(&child);
    CHECK_INT(fsp_look(&child, &status), 0);
}

/* Its parent's child is none of a fork's, though the fork has the descriptor: no wait for its
 * end, and no status. */
static void not_our_child(void) {
    struct fsp_child child;
    struct fsp_status status = {.lost = 0};
    for (int dead = 0; dead < 2; dead++) {
        REQUIRE(start(SHELL(dead ? "exit 3" : "kill -STOP $$; exit 3"), &child));
        CHECK(WAIT_UNTIL(dead ? ended(child.pid) : support_stopped(child.pid)));
        pid_t fork_pid = fork();
        if (fork_pid == 0) {
            struct fsp_child copy = child;
            _exit(fsp_wait(&copy, 1, &status) == 1 && status.lost ? 0 : 1);
        }
        int code;
        CHECK_INT(waitpid(fork_pid, &code, 0), fork_pid);
        CHECK_INT(code, 0);
        CHECK_INT(fsp_kill(&child, 0, SIGCONT), 0);
        expect_end(&child, 3);
    }
}

static void children_are_ignored(void) {
    struct fsp_child child;
    struct fsp_error error;
    struct fsp_spec bad = COMMAND("/no/such/program");
    struct sigaction sa = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT}, before;
    sigaction(SIGCHLD, NULL, &before);
    for (int how = 0; how < 2; how++) {
        if (how)
            signal(SIGCHLD, SIG_IGN);
        else
            sigaction(SIGCHLD, &sa, NULL);
        for (int pidfd = 0; pidfd < 2; pidfd++) {
            REQUIRE(start(SHELL("exit 3"), &child));
            if (!pidfd) drop_pidfd(&child);
            expect_recalled(&child, 3);
            REQUIRE(start(SHELL("kill -KILL $$"), &child));
            if (!pidfd) drop_pidfd(&child);
            expect_recalled(&child, -SIGKILL);
        }
        CHECK_INT(support_spawn(&bad, &inherit, &child, &error), -ENOENT);
    }
    sigaction(SIGCHLD, &before, NULL);
}

/* Whoever comes first: the status is never lost, and never another's. */
static void a_race_for_the_status(void) {
    struct fsp_child child;
    struct fsp_status status;
    if (!support_remembers()) return;
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        REQUIRE(start(SHELL("exit 42"), &child));
        CHECK_INT(pthread_create(&thread, NULL, support_reap_any, NULL), 0);
        CHECK_INT(fsp_wait(&child, 1, &status), 1);
        CHECK_INT(status.lost, 0);
        CHECK_INT(status.code, 42);
        pthread_join(thread, NULL);
    }
}

/* ---- signals ---- */

static void none_after_the_end(void) {
    struct fsp_child child;
    struct fsp_status status;
    REQUIRE(start(COMMAND("/bin/true"), &child));
    CHECK_INT(fsp_wait(&child, 1, &status), 1);
    faults_arm(NULL, EPERM, 0, FAULTS_ALL); /* or a mistake would be a signal to everyone */
    CHECK_INT(fsp_kill(&child, 0, SIGTERM), -ESRCH);
    CHECK_INT(fsp_kill(&child, 1, SIGTERM), -ESRCH);
    CHECK_INT(faults_seen(), 0); /* no call at all */
    faults_off();
    CHECK(fsp_wait(&child, 1, &status) < 0);
}

static void has_exited_does_not_reap(void) {
    struct fsp_child child;
    REQUIRE(start(SHELL("kill -STOP $$; exit 9"), &child));
    CHECK(WAIT_UNTIL(support_stopped(child.pid)));
    CHECK(!fsp_has_exited(&child));
    CHECK_INT(fsp_kill(&child, 0, SIGCONT), 0);
    CHECK(WAIT_UNTIL(fsp_has_exited(&child)));
    CHECK(fsp_has_exited(&child));
    expect_end(&child, 9);
}

/* Leader and grandchild hold a pipe: its end of file is the end of both. */
static void kill_a_group(unsigned flag, bool pidfd) {
    struct fsp_child child;
    struct fsp_error error;
    char out[16];
    int fd[2];
    struct fsp_spec spec = SHELL("sleep 100 & echo; wait");
    spec.flags |= flag;
    support_pipe(fd, 3);
    REQUIRE(support_spawn(&spec,
                          &(struct fsp_stdio){
                              {-1, fd[1], -1}
    },
                          &child, &error) == 0);
    close(fd[1]);
    if (!pidfd) drop_pidfd(&child);
    CHECK_INT(read(fd[0], out, 1), 1);
    CHECK_INT(fsp_kill(&child, 1, SIGTERM), 0);
    CHECK_INT(support_read_all(fd[0], out, sizeof out), 0);
    close(fd[0]);
    expect_end(&child, -SIGTERM);
}

static void a_whole_group(void) {
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        kill_a_group(FSP_FLAG_SETSID, pidfd);
        kill_a_group(FSP_FLAG_SETPGROUP, pidfd);
    }
}

/* Kernels before 6.9 cannot signal a group through a pidfd, old ones not even a process. */
static void a_whole_group_on_older_kernels(void) {
    static const int errors[] = {EINVAL, ENOSYS, EPERM};
    for (size_t i = 0; i < LENGTH(errors); i++) {
        faults_arm("pidfd_send_signal", errors[i], 0, 1);
        kill_a_group(FSP_FLAG_SETSID, true);
        faults_arm("pidfd_send_signal", errors[i], 0, FAULTS_ALL);
        kill_a_group(FSP_FLAG_SETSID, true);
        faults_off();
    }
}

static void a_group_that_outlives_its_leader(void) {
    struct fsp_child child;
    struct fsp_error error;
    char out[16];
    int fd[2];
    struct fsp_spec spec = SHELL("sleep 100 &");
    spec.flags |= FSP_FLAG_SETSID;
    support_pipe(fd, 3);
    REQUIRE(support_spawn(&spec,
                          &(struct fsp_stdio){
                              {-1, fd[1], -1}
    },
                          &child, &error) == 0);
    close(fd[1]);
    CHECK(WAIT_UNTIL(ended(child.pid)));
    CHECK_INT(fsp_kill(&child, 1, SIGKILL), 0); /* before the reap the group is still ours */
    CHECK_INT(support_read_all(fd[0], out, sizeof out), 0);
    close(fd[0]);
    expect_end(&child, 0);
}

/* One that leads no group is all there is to kill; our own group is not meant. */
static void a_child_without_a_group(void) {
    struct fsp_child child;
    for (int pidfd = 0; pidfd < 2; pidfd++) {
        REQUIRE(start(COMMAND("/bin/sleep", "100"), &child));
        if (!pidfd) drop_pidfd(&child);
        CHECK_INT(fsp_kill(&child, 1, SIGTERM), 0);
        expect_end(&child, -SIGTERM);
    }
}

static void signal_zero_asks(void) {
    struct fsp_child child;
    REQUIRE(start(COMMAND("/bin/sleep", "100"), &child));
    CHECK_INT(fsp_kill(&child, 0, 0), 0);
    CHECK_INT(fsp_kill(&child, 0, 9999), -EINVAL);
    CHECK_INT(fsp_kill(&child, 0, SIGKILL), 0);
    expect_end(&child, -SIGKILL);
}

static void with_each_backend(void) {
    RUN(exit_codes);
    RUN(deaths_by_signal);
    RUN(a_death_with_a_core);
    RUN(not_yet);
    RUN(stopped_and_continued_is_not_ended);
    RUN(a_stopped_child_can_be_killed);
    RUN(resources_are_the_childs);
    RUN(in_any_order);
    RUN(a_pidfd_that_does_not_block);
    RUN(waiting_on_a_pidfd_that_does_not_block);
    RUN(interrupted_waits);
    RUN(someone_else_reaped_it);
    RUN(what_someone_else_was_told);
    RUN(kernels_that_do_not_remember);
    RUN(asked_too_early);
    RUN(looking_takes_nothing);
    RUN(not_our_child);
    RUN(children_are_ignored);
    RUN(a_race_for_the_status);
    RUN(none_after_the_end);
    RUN(has_exited_does_not_reap);
    RUN(a_whole_group);
    RUN(a_whole_group_on_older_kernels);
    RUN(a_group_that_outlives_its_leader);
    RUN(a_child_without_a_group);
    RUN(signal_zero_asks);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    support_each_backend(with_each_backend);
    return tap_end();
}
