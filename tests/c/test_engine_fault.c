/*
 * test_engine_fault.c - an engine under a system that refuses: each job still ends once, with a
 * result or an error, and nothing is left behind.
 *
 * What is learnt from a refusal is never unlearnt, so parts run in processes of their own (before
 * any engine has been made here: TSan starts no threads in a process forked from one with threads).
 */
#include "os/rawsys.h"

#include "listen.h"

#include <stdio.h>
#include <sys/resource.h>

static struct heard one;

static struct fsp_job_options streaming(void) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | FSP_JOB_STREAM;
    return options;
}

/* Some work of each kind.  With `must` it has to succeed. */
static void work(struct fsp_engine *e, bool must) {
    static struct heard heard[4];
    static char block[300000];
    struct fsp_job_options input = listen_options(), fed = streaming();
    input.in = FSP_IO_PIPE;
    input.input = block;
    input.input_len = sizeof block;
    listen_submit(e, SHELL("echo out; echo err >&2; exit 3"), listen_options(), &heard[0]);
    listen_submit(e, COMMAND("/bin/cat"), input, &heard[1]);
    listen_submit(e, COMMAND("/bin/cat"), fed, &heard[2]);
    listen_submit(e, COMMAND("/no/such/program"), listen_options(), &heard[3]);
    bool lost = fsp_job_write(heard[2].job, block, 100000) < 0;
    fsp_job_write_eof(heard[2].job);
    CHECK(listen_to_end(e, heard, 4));
    static const size_t size[4][2] = {
        {4,            4},
        {sizeof block, 0},
        {100000,       0},
        {0,            0}
    };
    for (int i = 0; i < 4; i++) {
        if (!heard[i].outcome) continue;
        int err = heard[i].outcome->error.err;
        if (must) CHECK_INT(err, i == 3 ? ENOENT : 0);
        if (err || (i == 2 && lost)) continue;
        CHECK(i < 3);
        CHECK_INT(heard[i].outcome->status.code, i == 0 ? 3 : 0);
        for (int j = 0; j < 2; j++) CHECK_INT(heard[i].all[j].len, size[i][j]);
    }
    listen_free(heard, 4);
}

struct fault {
    const char *name;
    int err;
    long first, count;
};

/* ---- an engine that cannot be made ---- */

static void make_with_fault(void *arg) {
    const struct fault *fault = arg;
    struct fsp_engine *e = NULL;
    fsp_engine_free(listen_engine(2)); /* what a first thread leaves behind */
    size_t before = support_heap_bytes();
    faults_arm(NULL, fault->err, fault->first, 1);
    int r = fsp_engine_new(2, NULL, &e);
    faults_off();
    if (r == 0)
        work(e, true);
    else
        CHECK(r == -fault->err || r == -ENOMEM);
    if (r == 0) fsp_engine_free(e);
    CHECK_INT(support_heap_bytes(), before);
}

static void count_calls_to_make_one(void *calls) {
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    fsp_engine_free(listen_engine(2));
    *(long *)calls = faults_seen();
    faults_off();
}

static void any_call_fails_while_it_is_made(void) {
    static const int errors[] = {EMFILE, EAGAIN, ENOMEM};
    long *calls =
        mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    tap_fork(count_calls_to_make_one, calls);
    CHECK(*calls > 10 && *calls < 100);
    for (long k = 0; k < *calls; k++) {
        struct fault fault = {NULL, errors[k % 3], k, 1};
        tap_fork(make_with_fault, &fault);
    }
    munmap(calls, sizeof *calls);
}

static void make_without_memory(void *unused) {
    struct fsp_engine *e = NULL;
    (void)unused;
    for (long k = 0; k < 3; k++) {
        faults_arm("malloc", ENOMEM, k, 1);
        CHECK_INT(fsp_engine_new(2, NULL, &e), -ENOMEM);
        CHECK_INT(faults_seen() > k, 1);
        faults_off();
    }
}

static void make_without_threads(void *unused) {
    struct fsp_engine *e = NULL;
    (void)unused;
    for (long k = 0; k < 3; k++) {
        faults_arm("thread", EAGAIN, k, 1);
        CHECK_INT(fsp_engine_new(3, NULL, &e), -EAGAIN);
        faults_off();
    }
}

static void no_memory_and_no_threads(void) {
    tap_fork(make_without_memory, NULL);
    tap_fork(make_without_threads, NULL);
}

/* ---- a call that fails once ---- */

static void work_with_fault(void *arg) {
    const struct fault *fault = arg;
    fsp_engine_free(listen_engine(1)); /* what a first thread leaves behind */
    size_t before = support_heap_bytes();
    struct fsp_engine *e = listen_engine(1);
    faults_arm(fault->name, fault->err, fault->first, fault->count);
    faults_spare_this_thread();
    work(e, false);
    faults_off();
    work(e, true);
    fsp_engine_free(e);
    CHECK_INT(support_heap_bytes(), before);
}

static void any_allocation_fails(void) {
    static const char *const names[] = {"malloc", "realloc", "mmap", "mprotect"};
    for (size_t i = 0; i < LENGTH(names); i++)
        for (long k = 0; k < TIMES(12); k++) {
            struct fault fault = {names[i], ENOMEM, k, 1};
            tap_fork(work_with_fault, &fault);
        }
}

static void any_resource_is_short_once(void) {
    static const struct fault faults[] = {
        {"pipe2",             EMFILE, 0, 1},
        {"fcntl",             EMFILE, 0, 1},
        {"dup3",              EMFILE, 0, 1},
        {"clone3",            EAGAIN, 0, 1},
        {"clone3",            ENOMEM, 0, 1},
        {"epoll_ctl",         ENOSPC, 0, 1},
        {"epoll_ctl",         ENOMEM, 0, 1},
        {"epoll_wait",        EINTR,  0, 3},
        {"read",              EINTR,  0, 3},
        {"write",             EINTR,  0, 3},
        {"waitid",            EINTR,  0, 1},
        {"pidfd_send_signal", EPERM,  0, 1},
    };
    for (size_t i = 0; i < LENGTH(faults); i++)
        for (long k = 0; k < 6; k++) {
            struct fault fault = faults[i];
            fault.first = k;
            tap_fork(work_with_fault, &fault);
        }
}

static void no_memory_for_a_job(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_job_options options = listen_options();
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_job *job = NULL;
    struct fsp_engine *e = listen_engine(1);
    faults_arm("malloc", ENOMEM, 0, 1);
    CHECK_INT(fsp_engine_submit(e, plan, &options, &job), -ENOMEM);
    faults_off();
    CHECK(job == NULL);
    CHECK_INT(plan->refs, 1);
    fsp_plan_unref(plan);
    fsp_engine_free(e);
}

/* ---- a call that is refused for good ---- */

static void work_under_refusal(void *arg) {
    const struct fault *fault = arg;
    faults_arm(fault->name, fault->err, 0, FAULTS_ALL);
    struct fsp_engine *e = listen_engine(2);
    work(e, true);
    work(e, true);
    CHECK(faults_seen() > 0);
    faults_off();
    fsp_engine_free(e);
}

static void refused_calls(void) {
    static const struct fault faults[] = {
        {"clone3",      ENOSYS, 0, 0},
        {"clone3",      EPERM,  0, 0},
        {"clone3",      EINVAL, 0, 0},
        {"close_range", ENOSYS, 0, 0},
        {"close_range", EPERM,  0, 0},
    };
    for (size_t i = 0; i < LENGTH(faults); i++) {
        struct fault fault = faults[i];
        tap_fork(work_under_refusal, &fault);
    }
}

/* No pidfd at all, or none that can be watched: children are looked after by the clock. */
static void work_without_pidfds(void *backend) {
    fsp_backend_select(backend);
    faults_arm("pidfd_open", ENOSYS, 0, FAULTS_ALL);
    struct fsp_engine *e = listen_engine(1);
    struct fsp_job_options options = streaming();
    work(e, true);
    listen_submit(e, SHELL("echo out; exec sleep 100"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, -SIGTERM);
    listen_free(&one, 1);
    options.limits.timeout = 50000000;
    listen_submit(e, SHELL("exec >&- 2>&-; sleep 100"), options, &one);
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->timed_out, 1);
    listen_free(&one, 1);
    CHECK(faults_seen() > 0);
    faults_off();
    fsp_engine_free(e);
}

/* The backends that ask for it by the child's number.  TSan makes a fork of vfork, which then is
 * refused: its child could not tell what fails. */
static void where_there_are_no_pidfds(void) {
    if (!UNDER_TSAN) tap_fork(work_without_pidfds, "vfork");
    tap_fork(work_without_pidfds, "posix_spawn");
}

/* Nothing can be watched for a while: output and input go on all the same. */
static void work_without_watching(void *unused) {
    static char block[2000000];
    struct fsp_job_options options = listen_options();
    (void)unused;
    struct fsp_engine *e = listen_engine(1);
    options.in = FSP_IO_PIPE;
    options.input = block;
    options.input_len = sizeof block;
    faults_arm("epoll_ctl", ENOSPC, 0, FAULTS_ALL);
    work(e, true);
    listen_submit(e, SHELL("sleep 0.05; exec cat"), options, &one);
    CHECK(listen_to_end(e, &one, 1));
    faults_off();
    CHECK_INT(one.all[0].len, sizeof block);
    listen_free(&one, 1);
    work(e, true);
    fsp_engine_free(e);
}

static void where_nothing_can_be_watched(void) {
    tap_fork(work_without_watching, NULL);
}

/* ---- the table cannot be made private ---- */

/*
 * Someone else has copies of all descriptors, as a sibling has between clone and exec: what we
 * closed stays open there, and would stay watched if it had not been taken out of the poller.
 */
static void work_with_a_shared_table(void *unused) {
    struct fsp_engine_stats stats;
    int hold[2];
    char byte;
    (void)unused;
    CHECK_INT(pipe(hold), 0);
    faults_arm("close_range", ENOSYS, 0, FAULTS_ALL);
    struct fsp_engine *e = listen_engine(1);
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.private_tables, 0);
    static struct heard heard[10];
    for (int i = 0; i < 10; i++) {
        struct fsp_job_options options = streaming();
        listen_submit(e, SHELL("echo out; echo err >&2; read x; exec >&- 2>&-; read x; exit 5"),
                      options, &heard[i]);
        CHECK(LISTEN_UNTIL(e, heard[i].told[0] && heard[i].told[1])); /* its pipes are watched */
    }
    pid_t sibling = fork();
    if (sibling == 0) {
        close(hold[1]);
        _exit((int)read(hold[0], &byte, 1)); /* until we let go */
    }
    CHECK(sibling > 0);
    faults_arm("epoll_wait", 0, 0, FAULTS_NONE);
    for (int i = 0; i < 10; i++) fsp_job_write(heard[i].job, "\n", 1);
    for (int i = 0; i < 200; i++) listen_once(e, 1);
    CHECK(faults_seen() < 200);
    for (int i = 0; i < 10; i++) fsp_job_write(heard[i].job, "\n", 1);
    CHECK(listen_to_end(e, heard, 10));
    long seen = faults_seen();
    for (int i = 0; i < 200; i++) listen_once(e, 1);
    CHECK(faults_seen() < seen + 20);
    faults_off();
    for (int i = 0; i < 10; i++)
        if (heard[i].outcome) CHECK_INT(heard[i].outcome->status.code, 5);
    listen_free(heard, 10);
    close(hold[0]);
    close(hold[1]);
    CHECK_INT(waitpid(sibling, NULL, 0), sibling);
    work(e, true);
    fsp_engine_free(e);
}

static void copies_of_what_is_watched(void) {
    tap_fork(work_with_a_shared_table, NULL);
}

/* ---- resources that are short for a while ---- */

static struct fsp_engine_stats stats_of(struct fsp_engine *e) {
    struct fsp_engine_stats stats;
    fsp_engine_stats(e, &stats);
    return stats;
}

static void lack_for_a_while(void *arg) {
    const struct fault *fault = arg;
    static struct heard heard[5];
    faults_arm(fault->name, fault->err, 0, FAULTS_ALL);
    struct fsp_engine *e = listen_engine(1);
    for (int i = 0; i < 5; i++) listen_submit(e, SHELL("echo out"), listen_options(), &heard[i]);
    CHECK(LISTEN_UNTIL(e, stats_of(e).retried >= 3));
    CHECK_INT(stats_of(e).started, 0);
    faults_off();
    CHECK(listen_to_end(e, heard, 5));
    for (int i = 0; i < 5; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->error.err, 0);
            CHECK_STR(heard[i].all[0].data, "out\n");
        }
    listen_free(heard, 5);
    fsp_engine_free(e);
}

static const struct fault lacks[] = {
    {"clone3", EAGAIN, 0, 0},
    {"clone3", ENOMEM, 0, 0},
    {"pipe2",  EMFILE, 0, 0},
    {"pipe2",  ENFILE, 0, 0},
    {"mmap",   ENOMEM, 0, 0},
};

/* In a table that all share, what each try leaves open would stay. */
static void lack_with_a_shared_table(void *unused) {
    struct fsp_job_options options = streaming();
    (void)unused;
    listen_shared_tables = true;
    struct fsp_engine *e = listen_engine(1);
    faults_arm("clone3", EAGAIN, 0, FAULTS_ALL);
    listen_submit(e, COMMAND("/bin/cat"), options, &one);
    CHECK(LISTEN_UNTIL(e, stats_of(e).retried >= 3));
    faults_off();
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, 0);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

/* What one that has not begun is sent, it is sent when it has. */
static void signal_what_waits(void *unused) {
    (void)unused;
    struct fsp_engine *e = listen_engine(1);
    faults_arm("pipe2", EMFILE, 0, FAULTS_ALL);
    listen_submit(e, COMMAND("/bin/cat"), streaming(), &one);
    CHECK(LISTEN_UNTIL(e, stats_of(e).retried >= 1));
    fsp_job_signal(one.job, 0, SIGUSR2);
    uint64_t before = stats_of(e).retried;
    CHECK(LISTEN_UNTIL(e, stats_of(e).retried >= before + 2));
    faults_off();
    CHECK(listen_to_end(e, &one, 1));
    if (CHECK(one.outcome)) CHECK_INT(one.outcome->status.code, -SIGUSR2);
    listen_free(&one, 1);
    fsp_engine_free(e);
}

static void a_signal_before_it_begins(void) {
    tap_fork(signal_what_waits, NULL);
}

static void a_lack_that_ends(void) {
    tap_fork(lack_with_a_shared_table, NULL);
    for (size_t i = 0; i < LENGTH(lacks); i++) {
        struct fault fault = lacks[i];
        tap_fork(lack_for_a_while, &fault);
    }
}

/* Then the error is told, after the bound and not before; others are given up with it. */
static void lack_for_ever(void *unused) {
    static struct heard heard[30];
    struct fsp_engine *e = listen_engine(1);
    (void)unused;
    faults_arm("clone3", EAGAIN, 0, FAULTS_ALL);
    uint64_t start = sys_now();
    for (int i = 0; i < 30; i++) listen_submit(e, SHELL("echo out"), listen_options(), &heard[i]);
    CHECK(listen_to_end(e, heard, 30));
    CHECK(sys_now() - start >= FSP_RETRY_NS);
    CHECK(sys_now() - start < 20ull * FSP_RETRY_NS); /* in turn it takes 30 times as long */
    CHECK(stats_of(e).retried > 0);
    CHECK_INT(stats_of(e).started, 0);
    faults_off();
    for (int i = 0; i < 30; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->error.err, EAGAIN);
            CHECK_INT(heard[i].outcome->error.stage, FSP_STAGE_CLONE);
            CHECK_INT(heard[i].outcome->pid, 0);
        }
    listen_free(heard, 30);
    work(e, true);
    fsp_engine_free(e);
}

/* While it waits it can be cancelled, and the engine can be stopped. */
static void give_up_waiting(void *unused) {
    struct heard other = {0};
    struct fsp_engine *e = listen_engine(1);
    (void)unused;
    faults_arm("clone3", EAGAIN, 0, FAULTS_ALL);
    struct fsp_job_options options = streaming();
    options.input = "input";
    options.input_len = 5;
    listen_submit(e, COMMAND("/bin/cat"), options, &one);
    listen_submit(e, COMMAND("/bin/cat"), options, &other);
    CHECK_INT(fsp_job_write(one.job, "fed", 3), 0);
    CHECK(LISTEN_UNTIL(e, stats_of(e).retried >= 2));
    CHECK_INT(fsp_job_write(one.job, "fed", 3), 0);
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(e, &one, 1));
    CHECK_INT(other.ended, 0);
    fsp_engine_stop(e);
    CHECK(listen_to_end(e, &other, 1));
    faults_off();
    if (one.outcome && other.outcome) {
        CHECK(one.outcome->cancelled && other.outcome->cancelled);
        CHECK_INT(one.outcome->error.err + other.outcome->error.err, 0);
    }
    listen_free(&one, 1);
    listen_free(&other, 1);
    fsp_engine_free(e);
}

static void giving_up_what_waits(void) {
    tap_fork(give_up_waiting, NULL);
}

/* With room for a few children only, many commands all have their turn. */
static void run_short_of_descriptors(void *unused) {
    static struct heard heard[40];
    struct rlimit limit;
    (void)unused;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 60;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct fsp_engine *e = listen_engine(2);
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.input = "in";
    options.input_len = 2;
    for (int i = 0; i < 40; i++)
        listen_submit(e, SHELL("sleep 0.1; cat; echo out"), options, &heard[i]);
    CHECK(listen_to_end(e, heard, 40));
    CHECK(stats_of(e).retried > 0);
    for (int i = 0; i < 40; i++)
        if (heard[i].outcome) {
            CHECK_INT(heard[i].outcome->error.err, 0);
            CHECK_STR(heard[i].all[0].data, "inout\n");
        }
    listen_free(heard, 40);
    fsp_engine_free(e);
}

static void few_descriptors(void) {
    tap_fork(run_short_of_descriptors, NULL);
}

/* ---- a child that cannot be killed ---- */

static int no_signals(const char *call) {
    return strcmp(call, "pidfd_send_signal") == 0 || strcmp(call, "kill") == 0 ? EPERM : 0;
}

/* After KILL it has a while; then the job ends without it. */
static void give_up_a_child(void *unused) {
    struct fsp_job_options options = streaming();
    (void)unused;
    options.limits.kill_grace = 0;
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, SHELL("echo out; exec sleep 100"), options, &one);
    CHECK(LISTEN_UNTIL(e, one.chunks));
    pid_t pid = fsp_job_outcome(one.job)->pid;
    fsp_fault_set(no_signals);
    fsp_job_cancel(one.job);
    work(e, true);
    CHECK(listen_to_end(e, &one, 1));
    fsp_fault_set(NULL);
    if (CHECK(one.outcome)) {
        CHECK_INT(one.outcome->status.lost, 1);
        CHECK_INT(one.outcome->cancelled, 1);
    }
    listen_free(&one, 1);
    fsp_engine_free(e);
    CHECK(support_kill(pid));
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}

#ifdef __linux__

/* On our memory, like the child that reads and writes them. */
static int on_its_way, go_on;
static pid_t self;

static FSP_UNINSTRUMENTED int no_signals_and_no_exec(const char *call) {
    struct timespec ms = {0, 1000000};
    if (raw6(SYS_getpid, 0, 0, 0, 0, 0, 0) == self) return no_signals(call);
    __atomic_store_n(&on_its_way, 1, __ATOMIC_RELAXED);
    while (!__atomic_load_n(&go_on, __ATOMIC_RELAXED))
        raw6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
    return 0;
}

/* One that is given up before its exec still reads its plan. */
static void give_up_a_child_on_its_way(void *unused) {
    struct fsp_spec spec = COMMAND("/bin/true");
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_job_options options = listen_options();
    struct heard heard = {0};
    (void)unused;
    self = getpid();
    options.user = &heard;
    options.limits.kill_grace = 0;
    struct fsp_engine *e = listen_engine(1);
    fsp_fault_set(no_signals_and_no_exec);
    CHECK_INT(fsp_engine_submit(e, plan, &options, &heard.job), 0);
    CHECK(LISTEN_UNTIL(e, __atomic_load_n(&on_its_way, __ATOMIC_RELAXED)));
    fsp_job_cancel(heard.job);
    CHECK(listen_to_end(e, &heard, 1));
    CHECK_INT(heard.outcome->status.lost, 1);
    pid_t pid = heard.outcome->pid;
    listen_free(&heard, 1);
    fsp_engine_free(e);
    CHECK_INT(plan->refs, 2); /* ours, and its own for ever */
    __atomic_store_n(&go_on, 1, __ATOMIC_RELAXED);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}

#endif

/* Side by side, because they take as long as they must. */
static void what_does_not_end_is_given_up(void) {
    int lack = tap_fork_start(lack_for_ever, NULL);
#ifdef __linux__
    int child = tap_fork_start(give_up_a_child_on_its_way, NULL);
#endif
    tap_fork(give_up_a_child, NULL);
#ifdef __linux__
    tap_fork_end(child);
#endif
    tap_fork_end(lack);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    RUN(any_call_fails_while_it_is_made);
    RUN(no_memory_and_no_threads);
    RUN(any_allocation_fails);
    RUN(any_resource_is_short_once);
    RUN(refused_calls);
    RUN(where_there_are_no_pidfds);
    RUN(where_nothing_can_be_watched);
    RUN(copies_of_what_is_watched);
    RUN(a_lack_that_ends);
    RUN(a_signal_before_it_begins);
    RUN(giving_up_what_waits);
    RUN(few_descriptors);
    RUN(what_does_not_end_is_given_up);
    RUN(no_memory_for_a_job);
    return tap_end();
}
