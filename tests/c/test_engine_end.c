/*
 * test_engine_end.c - how jobs end: by themselves, at a deadline, cancelled, or with pipes that
 * others hold; and that whatever belongs to them ends too.
 */
#include "listen.h"

#include <stdio.h>
#ifdef __linux__
#include <sys/ptrace.h>
#endif

#define MS 1000000ull

static struct heard one;

static struct fsp_job_options with_timeout(uint64_t timeout, uint64_t grace) {
    struct fsp_job_options options = listen_options();
    options.limits.timeout = timeout;
    options.limits.kill_grace = grace;
    return options;
}

/* stdin is fed, so that the child can be told to go on, and news come when it runs. */
static struct fsp_job_options talking(void) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    return options;
}

static void expect_end(int code, bool timed_out, bool cancelled, const char *out) {
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->error.err, 0);
        CHECK_INT(one.outcome->status.code, code);
        CHECK_INT(one.outcome->status.lost, 0);
        CHECK_INT(one.outcome->timed_out, timed_out);
        CHECK_INT(one.outcome->cancelled, cancelled);
        CHECK_STR(one.all[0].data, out);
    }
    listen_free(&one, 1);
}

/* A fifo that shows whether anyone still has it open for writing. */
struct holders {
    char *path;
    int fd;
};

static struct holders watch_holders(void) {
    struct holders h = {strdup(support_path("holders")), -1};
    CHECK_INT(mkfifo(h.path, 0600), 0);
    h.fd = open(h.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return h;
}

/* Does nobody hold it now?  seen: somebody did, who wrote to it. */
static bool nobody_holds(struct holders *h, bool *seen) {
    char byte;
    ssize_t n = read(h->fd, &byte, 1);
    if (n == 1) *seen = true;
    return n == 0;
}

/* Has it been written to, and closed by all who did? */
static bool are_gone(struct holders *h, bool *seen) {
    return nobody_holds(h, seen) && *seen;
}

static void forget_holders(struct holders h) {
    close(h.fd);
    unlink(h.path);
    free(h.path);
}

/* A command whose descendants hold the fifo: $F is it. */
static struct fsp_spec holding(const struct holders *h, const char *script) {
    static char text[2 * PATH_MAX];
    static const char *const argv[] = {"/bin/sh", "-c", text, NULL};
    snprintf(text, sizeof text, "F='%s'; %s", h->path, script);
    return support_spec(argv);
}

/* ---- deadlines ---- */

/* The deadline is to come after the first output: it is tried with more time until it does. */
static void run_past_output(struct fsp_spec spec, uint64_t grace) {
    for (uint64_t ms = 100; ms < TAP_PATIENCE_MS; ms *= 2) {
        listen_run(spec, with_timeout(ms * MS, grace), &one);
        if (one.all[0].len) return;
        listen_free(&one, 1);
    }
}

static void a_deadline(void) {
    run_past_output(SHELL("echo out; exec sleep 100"), 60000 * MS);
    expect_end(-SIGTERM, true, false, "out\n");
}

static void a_deadline_without_grace(void) {
    listen_run(SHELL("trap 'exit 1' TERM; while :; do sleep 1; done"), with_timeout(100 * MS, 0),
               &one);
    expect_end(-SIGKILL, true, false, "");
}

static void a_deadline_that_is_ignored(void) {
    run_past_output(SHELL("trap '' TERM; echo out; sleep 100 & sleep 100; wait"), 100 * MS);
    expect_end(-SIGKILL, true, false, "out\n");
}

static void a_deadline_that_is_heeded(void) {
    run_past_output(SHELL("trap 'echo bye; exit 7' TERM; sleep 100 & wait"), 60000 * MS);
    expect_end(7, true, false, "bye\n");
}

static void a_deadline_for_a_stopped_child(void) {
    listen_run(SHELL("kill -STOP $$"), with_timeout(100 * MS, 60000 * MS), &one);
    expect_end(-SIGTERM, true, false, "");
}

static void a_deadline_that_is_not_reached(void) {
    listen_run(SHELL("echo out"), with_timeout(60000 * MS, 0), &one);
    expect_end(0, false, false, "out\n");
    listen_run(SHELL("echo out"), with_timeout(UINT64_MAX, UINT64_MAX), &one);
    expect_end(0, false, false, "out\n");
}

/* The child exits at about its deadline: one end or the other, never both, never none. */
static void a_deadline_at_the_exit(void) {
    static struct heard heard[60];
    struct fsp_engine *e = listen_engine(1);
    size_t n = TIMES(60);
    for (size_t i = 0; i < n; i++)
        listen_submit(e, SHELL("sleep 0.05"), with_timeout(46 * MS + i * MS / 6, 60000 * MS),
                      &heard[i]);
    CHECK(listen_to_end(e, heard, n));
    for (size_t i = 0; i < n; i++) {
        const struct fsp_outcome *o = heard[i].outcome;
        CHECK(o && o->error.err == 0 && !o->status.lost);
        if (o) CHECK(o->status.code == 0 || (o->status.code == -SIGTERM && o->timed_out));
    }
    listen_free(heard, n);
    fsp_engine_free(e);
}

static void deadlines_in_any_order(void) {
    static struct heard heard[40];
    struct fsp_engine *e = listen_engine(1);
    for (size_t i = 0; i < 40; i++)
        listen_submit(e, COMMAND("/bin/sleep", "100"),
                      with_timeout(100 * MS + i * 7 % 40 * 5 * MS, 60000 * MS), &heard[i]);
    CHECK(listen_to_end(e, heard, 40));
    for (size_t i = 0; i < 40; i++)
        if (CHECK(heard[i].outcome)) {
            CHECK_INT(heard[i].outcome->status.code, -SIGTERM);
            CHECK_INT(heard[i].outcome->timed_out, 1);
            CHECK(heard[i].outcome->wall >= 100 * MS + i * 7 % 40 * 5 * MS);
        }
    listen_free(heard, 40);
    fsp_engine_free(e);
}

/* ---- the group ---- */

/* Who holds the fifo at the deadline, which is tried later until someone does, is gone then. */
static void run_holding(const char *script, uint64_t grace) {
    bool seen = false;
    for (uint64_t ms = 300; !seen && ms < TAP_PATIENCE_MS; ms *= 2) {
        struct holders h = watch_holders();
        listen_run(holding(&h, script), with_timeout(ms * MS, grace), &one);
        expect_end(-SIGTERM, true, false, "");
        CHECK(WAIT_UNTIL(nobody_holds(&h, &seen)));
        forget_holders(h);
    }
    CHECK(seen);
}

static void grandchildren_are_killed_too(void) {
    run_holding("(exec >$F 2>&1; echo; exec sleep 100) & sleep 100", 60000 * MS);
}

/* The leader goes at TERM; who ignores it goes at the end of the grace, or with the job. */
static void grandchildren_that_ignore_it(void) {
    /* It has the job's pipes. */
    run_holding("(trap '' TERM; exec 9>$F; echo >&9; sleep 100) & sleep 100", 2000 * MS);
    /* It does not. */
    run_holding("(trap '' TERM; exec >$F 2>&1; echo; sleep 100) & sleep 100", 60000 * MS);
}

/* One that was not killed leaves what it started alone. */
static void what_a_job_leaves_behind_lives_on(void) {
    struct holders h = watch_holders();
    bool seen = false;
    listen_run(holding(&h, "(exec >$F 2>&1; echo; exec sleep 100) & read x <$F; echo $!"),
               listen_options(), &one);
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, 0);
    pid_t left = atoi(one.all[0].data);
    listen_free(&one, 1);
    CHECK(!are_gone(&h, &seen));
    CHECK(support_kill(left));
    seen = true; /* its line was read by the job */
    CHECK(WAIT_UNTIL(are_gone(&h, &seen)));
    close(h.fd);
    unlink(h.path);
    free(h.path);
}

/* ---- pipes that others hold ---- */

/* The end does not wait for who still holds the pipes; all that the leader wrote is there. */
static void expect_drained(uint64_t drain, const char *script, const char *out) {
    struct fsp_job_options options = listen_options();
    options.limits.drain = drain;
    listen_run(SHELL(script), options, &one);
    if (!CHECK(one.outcome)) return;
    CHECK_INT(one.outcome->status.code, 0);
    char *rest = strchr(one.all[0].data, '\n');
    if (CHECK(rest)) CHECK_STR(rest + 1, out);
    CHECK(support_kill(atol(one.all[0].data))); /* the grandchild was left alone */
    listen_free(&one, 1);
}

static void a_grandchild_holds_the_pipes(void) {
    expect_drained(0, "sleep 100 & echo $!; echo out", "out\n");
    expect_drained(1, "sleep 100 & echo $!; echo out", "out\n");
    expect_drained(50 * MS, "sleep 100 & echo $!; echo out", "out\n");
    expect_drained(50 * MS, "sleep 100 >/dev/null & echo $!; echo out", "out\n");
}

/* Nor for who goes on writing, whose pipe is full whenever its reader has taken some. */
static void a_grandchild_writes_without_end(void) {
    const char *scripts[] = {"echo out; exec 2>/dev/null; yes &", "exec >/dev/null; yes >&2 &",
                             "echo out; yes >&2 &"};
    for (size_t i = 0; i < 3; i++) {
        int stream = i > 0;
        struct fsp_engine *e = listen_engine(1);
        struct fsp_job_options options = listen_options();
        options.flags = FSP_JOB_STREAM;
        options.limits.drain = 50 * MS;
        listen_submit(e, SHELL(scripts[i]), options, &one);
        one.hold = true;
        uint64_t until = sys_now() + TAP_PATIENCE_MS * 1000000ull;
        while (!one.ended && sys_now() < until) {
            LISTEN_UNTIL(e, one.ended || one.held[stream] >= FSP_WINDOW);
            if (!one.ended) listen_consume(&one, stream);
            one.all[stream].len = 0;
        }
        if (!CHECK(one.ended)) return;
        CHECK_INT(one.outcome->status.code, 0);
        listen_free(&one, 1);
        fsp_engine_free(e); /* it has no reader now, and ends */
    }
}

/* Until then the spawner sleeps, though the leader is dead and stays so. */
static void waiting_for_a_grandchild_costs_nothing(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = listen_options();
    options.flags = FSP_JOB_STREAM | FSP_JOB_STARTED;
    listen_submit(e, SHELL("sleep 100 & echo $!; sleep 0.03; echo out"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    siginfo_t info = {0};
    pid_t pid = fsp_job_outcome(one.job)->pid;
    CHECK(LISTEN_UNTIL(e, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
                              info.si_pid == pid));
    faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
    for (int i = 0; i < 200; i++) listen_once(e, 1);
    CHECK(faults_seen() < 50);
    faults_off();
    CHECK_INT(one.ended, 0);
    CHECK(support_kill(atol(one.all[0].data)));
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, 0);
    CHECK(strstr(one.all[0].data, "\nout\n"));
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void a_grandchild_writes_while_there_is_time(void) {
    listen_run(SHELL("(sleep 0.1; echo late) & echo out"), listen_options(), &one);
    expect_end(0, false, false, "out\nlate\n");
}

/* ---- a child that closes its pipes and lives on ---- */

static void closed_pipes_are_no_end(void) {
    struct heard other = {0};
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("exec >&- 2>&-; read x; exit 5"), talking(), &one);
    listen_submit(e, SHELL("echo here; exec >&- 2>&-; read x; exit 6"), talking(), &other);
    CHECK(LISTEN_UNTIL(e, other.chunks));
    /* The spawner has other work, and does it. */
    for (int i = 0; i < 5; i++) {
        struct heard more = {0};
        listen_submit(e, SHELL("echo more"), listen_options(), &more);
        CHECK(listen_to_end(e, &more, 1));
        CHECK_STR(more.all[0].data, "more\n");
        listen_free(&more, 1);
    }
    /* And it sleeps when there is none. */
    faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
    for (int i = 0; i < 300; i++) tap_millisecond();
    CHECK(faults_seen() < 20);
    faults_off();
    CHECK_INT(one.ended + other.ended, 0);
    fsp_job_write(one.job, "\n", 1);
    fsp_job_write(other.job, "\n", 1);
    CHECK(listen_to_end(e, &other, 1));
    CHECK(listen_to_end(e, &one, 1));
    CHECK_STR(other.all[0].data, "here\n");
    if (other.outcome) CHECK_INT(other.outcome->status.code, 6);
    listen_free(&other, 1);
    expect_end(5, false, false, "");
    fsp_engine_free(e);
}

/* ---- cancelling ---- */

static void cancelling_what_runs(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("echo out; exec sleep 100"), talking(), &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    fsp_job_cancel(one.job);
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    fsp_job_cancel(one.job); /* nothing is left to cancel */
    listen_once(e, 10);
    expect_end(-SIGTERM, false, true, "out\n");
    fsp_engine_free(e);
}

/* At any moment of a spawn. */
static void cancelling_what_starts(void) {
    struct fsp_engine *e = listen_engine(2);
    for (int i = 0; i < TIMES(100); i++) {
        struct fsp_job_options options = listen_options();
        options.flags = i % 3 == 0 ? FSP_JOB_STARTED : 0;
        listen_submit(e, SHELL("exec sleep 100"), options, &one);
        if (i % 4) nanosleep(&(struct timespec){0, i * 20000}, NULL);
        fsp_job_cancel(one.job);
        CHECK(listen_to_end(e, &one, 1));
        if (!CHECK(one.outcome)) return;
        CHECK_INT(one.outcome->cancelled, 1);
        CHECK_INT(one.outcome->error.err, 0);
        CHECK(one.outcome->pid == 0 || one.outcome->status.code == -SIGTERM);
        listen_free(&one, 1);
    }
    fsp_engine_free(e);
}

static struct fsp_job_options waiting_for_exec(void) {
    struct fsp_job_options options = listen_options();
    options.flags = FSP_JOB_STARTED;
    return options;
}

#define WAITING 1000

/* Every third from the middle of the queue, the others in order. */
static void *cancel_all(void *heard) {
    for (size_t i = 1; i < WAITING; i += 3) fsp_job_cancel(((struct heard *)heard)[i].job);
    for (size_t i = 0; i < WAITING; i++) fsp_job_cancel(((struct heard *)heard)[i].job);
    return NULL;
}

/* The only spawner is held by another child, and need not be asked.  Three cancel at once. */
static void cancelling_what_waits(void) {
    static struct heard heard[WAITING];
    struct fsp_engine *e = listen_engine(1);
    struct fsp_engine_stats stats;
    pthread_t threads[3];
    faults_hold("execve");
    listen_submit(e, SHELL("echo held"), waiting_for_exec(), &one);
    CHECK(WAIT_UNTIL(faults_held() == 1));
    for (size_t i = 0; i < WAITING; i++)
        listen_submit(e, SHELL("echo never"), listen_options(), &heard[i]);
    for (size_t i = 0; i < LENGTH(threads); i++)
        CHECK_INT(pthread_create(&threads[i], NULL, cancel_all, heard), 0);
    for (size_t i = 0; i < LENGTH(threads); i++) pthread_join(threads[i], NULL);
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.pending, 0);
    CHECK_INT(stats.finished, WAITING);
    CHECK(listen_to_end(e, heard, WAITING));
    CHECK_INT(one.ended, 0);
    for (size_t i = 0; i < WAITING; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->cancelled, 1);
            CHECK_INT(heard[i].outcome->pid, 0);
        }
    listen_free(heard, WAITING);
    faults_release();
    CHECK(listen_to_end(e, &one, 1));
    faults_off();
    expect_end(0, false, false, "held\n");
    fsp_engine_free(e);
}

static void signals_reach_the_child(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e,
                  SHELL("trap 'echo one' USR1; trap 'echo two; exit 2' USR2; echo ready;"
                        "while :; do sleep 0.01; done"),
                  talking(), &one);
    CHECK(LISTEN_UNTIL(e, one.all[0].len == 6));
    fsp_job_signal(one.job, 0, 0); /* none, and none that there is */
    fsp_job_signal(one.job, 0, 65);
    fsp_job_signal(one.job, 0, SIGUSR1);
    CHECK(LISTEN_UNTIL(e, one.all[0].len == 10));
    fsp_job_signal(one.job, 0, SIGUSR2);
    CHECK(listen_to_end(e, &one, 1));
    fsp_job_signal(one.job, 1, SIGKILL); /* there is no one any more */
    expect_end(2, false, false, "ready\none\ntwo\n");
    fsp_engine_free(e);
}

static void signals_reach_the_group(void) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("sleep 100 & echo ready; wait; echo no"), talking(), &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    fsp_job_signal(one.job, 1, SIGTERM); /* or the shell's child would keep the pipe open */
    CHECK(listen_to_end(e, &one, 1));
    expect_end(-SIGTERM, false, false, "ready\n");
    fsp_engine_free(e);
}

/* ---- who else waits for our children ---- */

static void someone_else_reaps(void) {
    struct fsp_engine *e = listen_engine(1);
    int status;
    pid_t pid;
    listen_submit(e, SHELL("echo out; read x; exit 3"), talking(), &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    fsp_job_write(one.job, "\n", 1);
    /* One of the two is first. */
    while ((pid = waitpid(-1, &status, 0)) < 0 && errno == EINTR) continue;
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->status.lost, pid > 0 && !support_remembers());
        CHECK_INT(one.outcome->error.err, 0);
        if (!one.outcome->status.lost) CHECK_INT(one.outcome->status.code, 3);
        CHECK_STR(one.all[0].data, "out\n");
    }
    listen_free(&one, 1);
    fsp_engine_free(e);
}

#ifdef __linux__

struct tracing {
    pid_t pid;
    int ready, hold; /* to write to once it traces, to read from until it may let go */
};

static void trace(void *arg) {
    const struct tracing *t = arg;
    char byte = 0;
    CHECK_INT(ptrace(PTRACE_SEIZE, t->pid, NULL, NULL), 0);
    CHECK_INT(write(t->ready, &byte, 1), 1);
    CHECK_INT(read(t->hold, &byte, 1), 1);
    CHECK_INT(waitpid(t->pid, NULL, 0), t->pid);
}

static bool is_zombie(pid_t pid) {
    char path[32], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    bool ok = fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
    fclose(file);
    return ok && state == 'Z';
}

/* A child that has ended and cannot be waited for yet: its tracer is told first. */
static void ended_but_not_waitable(void) {
    struct fsp_engine *e = listen_engine(1);
    struct tracing t;
    int ready[2], hold[2];
    char byte = 0;
    support_pipe(ready, 3);
    support_pipe(hold, 3);
    listen_submit(e, HELPER("linger"), talking(), &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    t = (struct tracing){fsp_job_outcome(one.job)->pid, ready[1], hold[0]};
    int tracer = tap_fork_start(trace, &t);
    close(ready[1]);
    CHECK_INT(read(ready[0], &byte, 1), 1);
    fsp_job_write_eof(one.job);
    CHECK(WAIT_UNTIL(is_zombie(t.pid)));
    /* The spawner has other work, and does it. */
    for (int i = 0; i < 5; i++) {
        struct heard more = {0};
        listen_submit(e, SHELL("echo more"), listen_options(), &more);
        CHECK(listen_to_end(e, &more, 1));
        listen_free(&more, 1);
    }
    CHECK_INT(one.ended, 0);
    CHECK_INT(write(hold[1], &byte, 1), 1);
    CHECK(listen_to_end(e, &one, 1));
    tap_fork_end(tracer);
    close(ready[0]);
    close(hold[0]);
    close(hold[1]);
    expect_end(0, false, false, "here\n");
    fsp_engine_free(e);
}

/* Until the reap its pid could be taken by a foreign waitpid and given away; its pidfd cannot. */
static void a_leader_that_is_gone_is_named_by_its_pidfd(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = talking();
    siginfo_t info = {0};
    options.flags |= FSP_JOB_STARTED;
    listen_submit(e, SHELL("sleep 100 & echo out"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.started));
    id_t pid = (id_t)fsp_job_outcome(one.job)->pid;
    CHECK_INT(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
    faults_arm("pidfd_send_signal", 0, 0, FAULTS_NONE);
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK(faults_seen() > 0);
    faults_off();
    expect_end(0, false, true, "out\n");
    fsp_engine_free(e);
}

#endif

static void children_are_ignored(void) {
    struct sigaction before;
    struct fsp_engine *e = listen_engine(1);
    sigaction(SIGCHLD, NULL, &before);
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 20; i++) {
        listen_submit(e, SHELL("echo out; exit 3"), listen_options(), &one);
        CHECK(listen_to_end(e, &one, 1));
        if (CHECK(one.outcome)) {
            CHECK_INT(one.outcome->error.err, 0);
            CHECK_STR(one.all[0].data, "out\n");
            CHECK_INT(one.outcome->status.lost, !support_remembers());
            CHECK_INT(one.outcome->status.code, support_remembers() ? 3 : 0);
        }
        listen_free(&one, 1);
    }
    listen_submit(e, SHELL("sleep 100"), with_timeout(50 * MS, 0), &one);
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->timed_out, 1);
    listen_free(&one, 1);
    sigaction(SIGCHLD, &before, NULL);
    fsp_engine_free(e);
}

/* ---- the end of the engine ---- */

/* Long before the drain is over, and no one had to be given up. */
static void expect_prompt_end(struct fsp_engine *e, struct heard *heard) {
    CHECK(listen_to_end(e, heard, 1));
    if (CHECK(heard->outcome)) CHECK_INT(heard->outcome->status.lost, 0);
}

/* Someone who is in another group, and so was not killed, holds the pipes of a killed job. */
static void stopping_does_not_wait_for_a_drain(void) {
    struct heard killed = {0};
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = talking();
    static const char script[] = /* heard of when it has left the group */
        "setsid sh -c 'echo $$; exec sleep 100' & read x; exec sleep 100";
    options.limits.kill_grace = 0;
    listen_submit(e, SHELL(script), options, &one);
    listen_submit(e, SHELL(script), options, &killed);
    CHECK(LISTEN_UNTIL(e, one.chunks && killed.chunks));
    fsp_job_cancel(killed.job);
    siginfo_t info = {0};
    pid_t pid = fsp_job_outcome(killed.job)->pid;
    CHECK(WAIT_UNTIL(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
                     info.si_pid == pid));
    fsp_engine_stop(e);
    expect_prompt_end(e, &one);
    expect_prompt_end(e, &killed);
    CHECK(support_kill(atol(one.all[0].data)));
    CHECK(support_kill(atol(killed.all[0].data)));
    listen_free(&one, 1);
    listen_free(&killed, 1);
    fsp_engine_free(e);
}

/* Nobody will take what a job has told, nor what is still in its pipe. */
static void stopping_does_not_wait_for_a_reader(void) {
    static struct heard heard[3];
    for (int how = 0; how < 3; how++) {
        struct fsp_engine *e = listen_engine(1);
        struct fsp_job_options options = talking();
        options.limits.kill_grace = 0;
        options.limits.drain = how == 2 ? 0 : options.limits.drain;
        heard[how].hold = true;
        listen_submit(e, SHELL("exec yes"), options, &heard[how]);
        CHECK(LISTEN_UNTIL(e, heard[how].told[0] >= FSP_WINDOW));
        if (how == 1) fsp_job_cancel(heard[how].job);
        if (how == 2) fsp_job_signal(heard[how].job, 0, SIGKILL);
        if (how) listen_once(e, 50);
        fsp_engine_stop(e);
        expect_prompt_end(e, &heard[how]);
        fsp_engine_free(e);
    }
    listen_free(heard, 3);
}

/* A reader that is slow when its job is over does not keep the spawner busy. */
static void a_slow_reader_costs_nothing(void) {
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = talking();
    options.limits.drain = 0;
    one.hold = true;
    listen_submit(e, SHELL("exec yes"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.told[0] >= FSP_WINDOW));
    fsp_job_signal(one.job, 0, SIGKILL);
    listen_once(e, 50);
    faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
    for (int i = 0; i < 300; i++) tap_millisecond();
    CHECK(faults_seen() < 100);
    faults_off();
    one.hold = false;
    listen_consume(&one, 0);
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, -SIGKILL);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(a_deadline);
    RUN(a_deadline_without_grace);
    RUN(a_deadline_that_is_ignored);
    RUN(a_deadline_that_is_heeded);
    RUN(a_deadline_for_a_stopped_child);
    RUN(a_deadline_that_is_not_reached);
    RUN(a_deadline_at_the_exit);
    RUN(deadlines_in_any_order);
    RUN(grandchildren_are_killed_too);
    RUN(grandchildren_that_ignore_it);
    RUN(what_a_job_leaves_behind_lives_on);
    RUN(a_grandchild_holds_the_pipes);
    RUN(a_grandchild_writes_without_end);
    RUN(waiting_for_a_grandchild_costs_nothing);
    RUN(a_grandchild_writes_while_there_is_time);
    RUN(closed_pipes_are_no_end);
    RUN(cancelling_what_runs);
    RUN(cancelling_what_starts);
    RUN(cancelling_what_waits);
    RUN(signals_reach_the_child);
    RUN(signals_reach_the_group);
    RUN(someone_else_reaps);
#ifdef __linux__
    RUN(ended_but_not_waitable);
    RUN(a_leader_that_is_gone_is_named_by_its_pidfd);
#endif
    RUN(children_are_ignored);
    RUN(stopping_does_not_wait_for_a_drain);
    RUN(stopping_does_not_wait_for_a_reader);
    RUN(a_slow_reader_costs_nothing);
    return tap_end();
}
