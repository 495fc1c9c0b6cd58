/*
 * test_terminal.c - children on a terminal of their own: what they are told of it, and that nothing
 * of their session outlives them.
 */
#include "listen.h"

#include <stdio.h>

#ifdef __linux__

#define MS 1000000ull

static struct heard one;

/* ---- the spawn ---- */

/* Run on a new terminal; what it showed, up to its end. */
static void show(struct fsp_spec spec, char *text, size_t size) {
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_child child;
    struct fsp_error error;
    struct fsp_status status;
    int fd[2];
    size_t len = 0;
    text[0] = '\0';
    REQUIRE(fsp_terminal_open((struct fsp_size){80, 24}, fd) == 0);
    struct fsp_stdio io = {
        {fd[1], fd[1], fd[1]}
    };
    int r = fsp_spawn(plan, &io, FSP_SPAWN_TERMINAL, NULL, &child, &error);
    fsp_plan_unref(plan);
    sys_close(fd[1]);
    if (CHECK_INT(r, 0)) {
        ssize_t n = -EAGAIN;
        while (len + 1 < size && (n > 0 || n == -EAGAIN)) {
            n = sys_read(fd[0], text + len, size - 1 - len);
            if (n == -EAGAIN) tap_millisecond();
            if (n > 0) len += (size_t)n;
        }
        CHECK_INT(n, -EIO);
        text[len] = '\0';
        CHECK_INT(fsp_wait(&child, 1, &status), 1);
        CHECK_INT(status.code, 0);
    }
    sys_close(fd[0]);
}

static void it_leads_a_session(void) {
    char text[256];
    int pid = 0, group = 0, session = 0, terminal = 0, foreground = 0;
    struct fsp_spec spec = SHELL("read p c s pp g s t f r </proc/$$/stat; echo $p $g $s $t $f");
    for (int i = 0; i < 2; i++) {
        if (i) spec.flags |= FSP_FLAG_SETPGROUP; /* it is the session's leader instead */
        show(spec, text, sizeof text);
        CHECK_INT(sscanf(text, "%d %d %d %d %d", &pid, &group, &session, &terminal, &foreground),
                  5);
        CHECK_INT(group, pid);
        CHECK_INT(session, pid);
        CHECK_INT(foreground, pid);
        CHECK(terminal != 0);
    }
}

static void nothing_else_is_open(void) {
    char text[256];
    show(SHELL("echo /dev/fd/*; test -t 0 && test -t 1 && test -t 2 && echo all"), text,
         sizeof text);
    /* 3: of the shell that lists them. */
    CHECK_STR(text, "/dev/fd/0 /dev/fd/1 /dev/fd/2 /dev/fd/3\r\nall\r\n");
}

static void with_ignored_signals(void *unused) {
    char text[256];
    (void)unused;
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTSTP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    fsp_ignore_signals(1u << (SIGQUIT - 1) | 1u << (SIGUSR2 - 1));
    show(SHELL("while read name value; do test $name != SigIgn: || echo $value; done "
               "</proc/self/status"),
         text, sizeof text);
    CHECK_INT(strtoull(text, NULL, 16) & 0x7fffffff, 1u << (SIGUSR1 - 1) | 1u << (SIGUSR2 - 1));
}

static void its_signals_are_not_ignored(void) {
    tap_fork(with_ignored_signals, NULL);
}

static void no_terminal(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_child child;
    struct fsp_error error;
    int fd[2];
    support_pipe(fd, 3);
    struct fsp_stdio io = {
        {fd[0], -1, -1}
    };
    CHECK_INT(fsp_spawn(plan, &io, FSP_SPAWN_TERMINAL, NULL, &child, &error), -ENOTTY);
    CHECK_INT(error.stage, FSP_STAGE_SESSION);
    fsp_plan_unref(plan);
    sys_close(fd[0]);
    sys_close(fd[1]);
}

static void the_spawn(void) {
    RUN(it_leads_a_session);
    RUN(nothing_else_is_open);
    RUN(its_signals_are_not_ignored);
    RUN(no_terminal);
}

static void no_terminal_is_left(void) {
    static const char *const calls[] = {"open", "ioctl"};
    int fd[2];
    for (size_t i = 0; i < LENGTH(calls); i++)
        for (long at = 0;; at++) {
            faults_arm(calls[i], EMFILE, at, 1);
            int r = fsp_terminal_open((struct fsp_size){80, 24}, fd);
            long seen = faults_seen();
            faults_off();
            CHECK_INT(r, seen > at ? -EMFILE : 0);
            CHECK(r == 0 || (fd[0] < 0 && fd[1] < 0));
            if (r == 0) {
                sys_close(fd[0]);
                sys_close(fd[1]);
            }
            if (seen <= at) break;
        }
}

/* ---- jobs ---- */

static struct fsp_job_options on_terminal(void) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_TERMINAL;
    options.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    options.size = (struct fsp_size){100, 40};
    options.limits.kill_grace = 60000 * MS;
    return options;
}

static bool has(const char *text) {
    return one.all[0].data && strstr(one.all[0].data, text);
}

#define SAID(e, text) CHECK(LISTEN_UNTIL(e, has(text) || one.ended) && has(text))

static void type(const char *text) {
    CHECK_INT(fsp_job_write(one.job, text, strlen(text)), 0);
}

static void expect_end(int code) {
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->error.err, 0);
        CHECK_INT(one.outcome->status.lost, 0);
        CHECK_INT(one.outcome->status.code, code);
    }
    listen_free(&one, 1);
}

/* The number after this in what was shown. */
static pid_t pid_after(const char *text) {
    const char *found = one.all[0].data ? strstr(one.all[0].data, text) : NULL;
    return found ? (pid_t)strtol(found + strlen(text), NULL, 10) : -1;
}

/* As far as can be seen: it may not have been reaped by whoever is to. */
static bool is_gone(pid_t pid) {
    char path[32], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = sys_open(path, O_RDONLY);
    if (fd < 0) return true;
    ssize_t n = sys_read(fd, text, sizeof text - 1);
    sys_close(fd);
    if (n <= 0) return true;
    text[n] = '\0';
    return strstr(text, ") Z") != NULL;
}

static void it_is_typed_at(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("stty size; read line; echo \"<$line>\"; exit 3"), on_terminal(), &one);
    SAID(e, "40 100\r\n");
    type("a\xc3\xa9\x7f\x7f"
         "bc\r"); /* a letter of two bytes is erased as one */
    SAID(e, "<bc>\r\n");
    CHECK(listen_to_end(e, &one, 1));
    expect_end(3);
    fsp_engine_free(e);
}

static void it_is_told_of_its_size(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("trap 'stty size; exit 0' WINCH; echo ready; while :; do read x; done"),
                  on_terminal(), &one);
    SAID(e, "ready");
    fsp_job_resize(one.job, (struct fsp_size){132, 50});
    SAID(e, "50 132\r\n");
    CHECK(listen_to_end(e, &one, 1));
    expect_end(0);
    fsp_engine_free(e);
}

/* The size that a job was given before it began is the one that it begins with. */
static void a_size_before_it_begins(void) {
    struct fsp_engine *e = listen_engine(1);
    faults_arm("clone3", EAGAIN, 0, 2);
    listen_submit(e, SHELL("stty size"), on_terminal(), &one);
    fsp_job_resize(one.job, (struct fsp_size){33, 22});
    faults_off();
    CHECK(listen_to_end(e, &one, 1));
    CHECK(has("22 33\r\n") || has("40 100\r\n"));
    expect_end(0);
    fsp_engine_free(e);
}

static void keys_are_signals(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("echo ready; exec sleep 100"), on_terminal(), &one);
    SAID(e, "ready");
    type("\x03");
    CHECK(listen_to_end(e, &one, 1));
    expect_end(-SIGINT);
    fsp_engine_free(e);
}

static void the_end_of_input_hangs_up(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("echo ready; exec sleep 100"), on_terminal(), &one);
    SAID(e, "ready");
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    expect_end(-SIGHUP);
    fsp_engine_free(e);
}

static void the_end_of_output_hangs_up(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("exec sleep 100 <&- >&- 2>&-"), on_terminal(), &one);
    CHECK(listen_to_end(e, &one, 1));
    expect_end(-SIGHUP);
    fsp_engine_free(e);
}

/* Output that nobody has read when the child ends is not lost. */
static void all_of_the_output(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i + 1)); done"),
                  on_terminal(), &one);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(one.all[0].len, 10 * 3 + 90 * 4 + 900 * 5 + 9000 * 6 + 20000 * 7);
    CHECK(has("29998\r\n29999\r\n"));
    expect_end(0);
    fsp_engine_free(e);
}

/* ---- the session ---- */

/* In groups of their own, as an interactive shell's are. */
#define JOBS "set -m; sleep 100 & echo one $!.; (trap '' HUP; exec sleep 100) & echo two $!.; "

static void begin_jobs(struct fsp_engine *e, const char *script, struct fsp_job_options options,
                       pid_t pids[2]) {
    listen_submit(e, COMMAND("/bin/sh", "-c", script), options, &one);
    SAID(e, "ready");
    pids[0] = pid_after("one ");
    pids[1] = pid_after("two ");
    CHECK(getpgid(pids[0]) == pids[0] && getpgid(pids[1]) == pids[1]);
}

static void expect_gone(const pid_t pids[2]) {
    for (int i = 0; i < 2; i++) CHECK(is_gone(pids[i]));
}

/* Those who heed HUP have the grace to go in; the others are killed after it. */
static void the_leader_ends(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = on_terminal();
    pid_t pids[2];
    options.limits.kill_grace = 100 * MS;
    options.limits.drain = 0;
    begin_jobs(e, JOBS "echo ready; read line; exit 4", options, pids);
    type("\r");
    CHECK(listen_to_end(e, &one, 1));
    expect_gone(pids);
    expect_end(4);
    fsp_engine_free(e);
}

static void a_job_that_heeds_it_has_time(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = on_terminal();
    options.limits.drain = 0;
    const char *file = support_path("heeded");
    char script[PATH_MAX + 200];
    snprintf(
        script, sizeof script,
        "set -m; (trap 'sleep 0.2; echo yes >%s; exit' HUP; echo ready; while :; do sleep 0.1; "
        "done) & read line",
        file);
    listen_submit(e, SHELL(script), options, &one);
    SAID(e, "ready");
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK(access(file, F_OK) == 0);
    CHECK(one.outcome && one.outcome->wall < 60000 * MS);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void the_deadline(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = on_terminal();
    pid_t pids[2];
    options.limits.timeout = 3000 * MS;
    options.limits.drain = 0;
    begin_jobs(e, "trap '' TERM; " JOBS "echo ready; wait", options, pids);
    CHECK(listen_to_end(e, &one, 1));
    expect_gone(pids);
    CHECK(one.outcome && one.outcome->timed_out);
    expect_end(-SIGHUP);
    fsp_engine_free(e);
}

static void the_leader_is_killed(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = on_terminal();
    pid_t pids[2];
    options.limits.kill_grace = 50 * MS;
    options.limits.drain = 0;
    begin_jobs(e, JOBS "echo ready; read line; kill -KILL $$", options, pids);
    type("\r");
    CHECK(listen_to_end(e, &one, 1));
    expect_gone(pids);
    expect_end(-SIGKILL);
    fsp_engine_free(e);
}

static void the_engine_stops(void) {
    struct fsp_engine *e = listen_engine(1);
    pid_t pids[2];
    begin_jobs(e, JOBS "echo ready; read line", on_terminal(), pids);
    fsp_engine_stop(e);
    CHECK(listen_to_end(e, &one, 1));
    expect_gone(pids);
    expect_end(-SIGKILL);
    fsp_engine_free(e);
}

static void cancelling(void) {
    struct fsp_engine *e = listen_engine(1);
    pid_t pids[2];
    begin_jobs(e, JOBS "echo ready; read line", on_terminal(), pids);
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    expect_gone(pids);
    CHECK(one.outcome && one.outcome->cancelled);
    expect_end(-SIGHUP);
    fsp_engine_free(e);
}

/* A process that is not in the session is none of it, whoever's child it is. */
static void whoever_has_left_is_spared(void) {
    struct fsp_child leader;
    struct fsp_error error;
    struct fsp_status status;
    int fd[2];
    char text[64] = "";
    struct fsp_spec spec = SHELL("setsid sh -c 'echo $$; exec sleep 100' & exec sleep 100");
    support_pipe(fd, 3);
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_stdio io = {
        {-1, fd[1], -1}
    };
    REQUIRE(support_spawn(&spec, &io, &leader, &error) == 0);
    CHECK(sys_read(fd[0], text, sizeof text - 1) > 0);
    pid_t left = (pid_t)strtol(text, NULL, 10);
    CHECK_INT(fsp_kill_session(&leader, 0), 0);
    fsp_kill_session(&leader, SIGKILL);
    CHECK_INT(fsp_wait(&leader, 1, &status), 1);
    CHECK_INT(status.code, -SIGKILL);
    CHECK(!is_gone(left));
    CHECK(support_kill(left));
    CHECK_INT(fsp_kill_session(&leader, SIGKILL), 0); /* nobody's any more */
    sys_close(fd[0]);
    sys_close(fd[1]);
}

static void what_cannot_be(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_job_options options = on_terminal();
    struct fsp_job *job;
    options.flags = FSP_JOB_STREAM;
    CHECK_INT(fsp_engine_submit(e, plan, &options, &job), -EINVAL);
    fsp_plan_unref(plan);
    fsp_engine_free(e);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    support_each_backend(the_spawn);
    RUN(no_terminal_is_left);
    RUN(it_is_typed_at);
    RUN(it_is_told_of_its_size);
    RUN(a_size_before_it_begins);
    RUN(keys_are_signals);
    RUN(the_end_of_input_hangs_up);
    RUN(the_end_of_output_hangs_up);
    RUN(all_of_the_output);
    RUN(the_leader_ends);
    RUN(a_job_that_heeds_it_has_time);
    RUN(the_deadline);
    RUN(the_leader_is_killed);
    RUN(the_engine_stops);
    RUN(cancelling);
    RUN(whoever_has_left_is_spared);
    RUN(what_cannot_be);
    return tap_end();
}

#else

int main(void) {
    tap_begin();
    return tap_end();
}

#endif
