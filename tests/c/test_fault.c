/*
 * test_fault.c - whichever call of a spawn fails, it works or says so, nothing is left behind, and
 * the next one works.
 *
 * Each case is a process of its own, because what is learnt from a refusal is never unlearnt.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

static const int errors[] = {EMFILE, EAGAIN, ENOMEM, ENOSYS, EPERM};

static struct fsp_plan *plan;

/* Everything that a plan can ask for without rights. */
static void make_plan(void) {
    static const struct fsp_rlimit limit = {
        RLIMIT_CORE, {0, 0}
    };
    struct fsp_spec spec = COMMAND("echo", "out");
    spec.search = "/no/such/directory:/bin:/usr/bin";
    spec.cwd = "/";
    spec.flags |= FSP_FLAG_SETSID;
    if (!support_is_posix_spawn()) { /* which leaves these to fork */
        spec.umask = 022;
        spec.rlimits = &limit;
        spec.nrlimits = 1;
    }
    fsp_plan_unref(plan);
    plan = support_plan(&spec);
}

/* With sources so high that they are fetched. */
static void spawn(struct run *run) {
    struct fsp_child child = {0, -1};
    int fd[2], r;
    support_pipe(fd, 100);
    memset(run, 0, sizeof *run);
    run->result = fsp_spawn(plan,
                            &(struct fsp_stdio){
                                {-1, fd[1], -1}
    },
                            0, NULL, &child, &run->error);
    close(fd[1]);
    if (run->result == 0) {
        run->len = support_read_all(fd[0], run->out, sizeof run->out);
        r = fsp_wait(&child, 1, &run->status);
        if (r < 0) r = fsp_wait(&child, 1, &run->status); /* the call that fails may be this */
        CHECK_INT(r, 1);
    }
    close(fd[0]);
}

static void expect_output(const struct run *run) {
    CHECK_INT(run->result, 0);
    CHECK_INT(run->status.code, 0);
    CHECK_STR(run->out, "out\n");
}

struct fault {
    const char *name; /* NULL: any */
    int err;
    long first, count;
    const char *call; /* that fails */
};

/* An allocation says only that it failed. */
static int error_of(const struct fault *fault) {
    bool memory = strcmp(fault->call, "malloc") == 0 || strcmp(fault->call, "mmap") == 0;
    return memory ? ENOMEM : fault->err;
}

static void spawn_with_fault(void *arg) {
    const struct fault *fault = arg;
    struct run run;
    size_t before = support_heap_bytes();
    faults_arm(fault->name, fault->err, fault->first, fault->count);
    spawn(&run);
    CHECK(faults_seen() > fault->first);
    faults_off();
    if (run.result == 0) {
        expect_output(&run);
    } else {
        CHECK_INT(run.result, -error_of(fault));
        CHECK_INT(run.error.err, error_of(fault));
        CHECK(run.error.stage != FSP_STAGE_NONE && run.error.stage != FSP_STAGE_TABLE);
    }
    spawn(&run);
    expect_output(&run);
    CHECK_INT(support_heap_bytes(), before);
}

/* Once a child has ended, waitid(2) cannot, nor can sigprocmask(2) with our arguments. */
static bool can_fail(const char *call) {
    return strcmp(call, "waitid") != 0 && strcmp(call, "sigprocmask") != 0;
}

/* The calls of a spawn that nothing disturbs; a forked process does not change what we know. */
static long list_calls(const char **names, long most) {
    struct run run;
    spawn(&run); /* what is searched and mapped once */
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    spawn(&run);
    expect_output(&run);
    long n = faults_seen();
    CHECK(n > 0 && n < most);
    for (long i = 0; i < n; i++) names[i] = faults_name(i);
    faults_off();
    return n;
}

static bool has_before(const char **names, long i) {
    for (long j = 0; j < i; j++)
        if (names[j] == names[i]) return true;
    return false;
}

#define MOST 1000

static void any_one_call_fails(void) {
    static const char *names[MOST];
    long n = list_calls(names, MOST);
    for (long k = 0; k < n; k++) {
        /* Of a row of the same call, as in a loop over all signals: the first and the last. */
        bool first = k == 0 || strcmp(names[k], names[k - 1]) != 0;
        bool last = k == n - 1 || strcmp(names[k], names[k + 1]) != 0;
        if (!can_fail(names[k]) || (!first && !last)) continue;
        for (size_t i = 0; i < LENGTH(errors); i++) {
            struct fault fault = {NULL, errors[i], k, 1, names[k]};
            tap_fork(spawn_with_fault, &fault);
        }
    }
}

static int spawn_bad(struct fsp_error *error) {
    struct fsp_spec spec = COMMAND("/no/such/program");
    struct fsp_plan *bad = support_plan(&spec); /* one call */
    struct fsp_child child;
    int r = fsp_spawn(bad,
                      &(struct fsp_stdio){
                          {-1, -1, -1}
    },
                      0, NULL, &child, error);
    fsp_plan_unref(bad);
    return r;
}

static void fail_with_fault(void *arg) {
    const struct fault *fault = arg;
    struct fsp_error error;
    faults_arm(NULL, fault->err, fault->first, fault->count);
    int r = spawn_bad(&error);
    faults_off();
    CHECK(r == -ENOENT || r == -error_of(fault));
    CHECK_INT(spawn_bad(&error), -ENOENT);
    CHECK_INT(error.stage, FSP_STAGE_EXEC);
}

/* What fails anyway is cleaned up also when something else fails. */
static void a_failing_spawn_fails(void) {
    static const char *names[MOST];
    struct fsp_error error;
    spawn_bad(&error);
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    CHECK_INT(spawn_bad(&error), -ENOENT);
    long n = faults_seen();
    CHECK(n > 1 && n < MOST);
    for (long i = 0; i < n; i++) names[i] = faults_name(i);
    faults_off();
    for (long k = 1; k < n; k++) {
        struct fault fault = {NULL, EPERM, k, 1, names[k]};
        if (!can_fail(names[k]) || strcmp(names[k], names[k - 1]) == 0) continue;
        tap_fork(fail_with_fault, &fault);
    }
}

/* As under a seccomp filter that refuses a call for good. */
static void any_call_is_refused(void) {
    static const char *names[MOST];
    long n = list_calls(names, MOST);
    for (long k = 0; k < n; k++) {
        if (!can_fail(names[k]) || has_before(names, k)) continue;
        struct fault refusal = {names[k], ENOSYS, 0, FAULTS_ALL, names[k]};
        tap_fork(spawn_with_fault, &refusal);
        refusal.err = EPERM;
        tap_fork(spawn_with_fault, &refusal);
    }
}

/* ---- no pidfds ---- */

static void spawn_without_pidfds(void *err) {
    struct run run;
    faults_arm("pidfd_open", *(int *)err, 0, FAULTS_ALL);
    spawn(&run);
    expect_output(&run);
    faults_off();
}

static void where_there_are_no_pidfds(void) {
    for (size_t i = 0; i < LENGTH(errors); i++) {
        int err = errors[i];
        tap_fork(spawn_without_pidfds, &err);
    }
}

/* ---- limits that are real ---- */

static void run_out_of_descriptors(void *unused) {
    struct rlimit limit, before;
    struct run run;
    int failed = 0, worked = 0;
    (void)unused;
    getrlimit(RLIMIT_NOFILE, &before);
    for (int room = 0; room <= 8; room++) {
        struct fsp_child child;
        int fd[2], lowest = dup(0);
        close(lowest);
        CHECK_INT(pipe(fd), 0); /* the two next */
        limit = before;
        limit.rlim_cur = (rlim_t)(lowest + 2 + room);
        setrlimit(RLIMIT_NOFILE, &limit);
        int r = fsp_spawn(plan,
                          &(struct fsp_stdio){
                              {-1, fd[1], -1}
        },
                          0, NULL, &child, &run.error);
        setrlimit(RLIMIT_NOFILE, &before);
        CHECK(r == 0 || r == -EMFILE);
        failed += r < 0;
        worked += r == 0;
        close(fd[1]);
        if (r == 0) {
            support_read_all(fd[0], run.out, sizeof run.out);
            CHECK_STR(run.out, "out\n");
            CHECK_INT(fsp_wait(&child, 1, &run.status), 1);
        }
        close(fd[0]);
    }
    CHECK(worked > 0);
    if (strncmp(fsp_backend_name(), "clone", 5) == 0) CHECK(failed > 0); /* no room for a pidfd */
    spawn(&run);
    expect_output(&run);
}

static void no_descriptors_left(void) {
    tap_fork(run_out_of_descriptors, NULL);
}

static void run_out_of_processes(void *unused) {
    struct rlimit limit, before;
    struct run run;
    (void)unused;
    if (geteuid() == 0) CHECK_INT(setuid(54321), 0); /* root has no such limit */
    getrlimit(RLIMIT_NPROC, &before);
    limit = before;
    limit.rlim_cur = 1;
    setrlimit(RLIMIT_NPROC, &limit);
    for (int i = 0, times = getenv("LONG") ? 10000 : 100; i < times; i++) {
        spawn(&run);
        CHECK_INT(run.result, -EAGAIN);
        CHECK_INT(run.error.stage, FSP_STAGE_CLONE);
    }
    setrlimit(RLIMIT_NPROC, &before);
    spawn(&run);
    expect_output(&run);
}

static void no_processes_left(void) {
    tap_fork(run_out_of_processes, NULL);
}

/* ---- memory ---- */

static int count_mappings(void) {
    char line[4096];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps)) n++;
    if (maps) fclose(maps);
    return n;
}

static void fail_to_map(void *call) {
    struct run run;
    int before = count_mappings();
    faults_arm(call, ENOMEM, 0, FAULTS_ALL);
    for (int i = 0; i < 50; i++) {
        spawn(&run);
        if (run.result == 0)
            expect_output(&run);
        else
            CHECK_INT(run.result, -ENOMEM);
    }
    faults_off();
    CHECK(count_mappings() < before + 25);
    spawn(&run);
    expect_output(&run);
}

static void no_memory_for_a_stack(void) {
    tap_fork(fail_to_map, "mmap");
    tap_fork(fail_to_map, "mprotect");
}

/* Below the child's stack there is nothing: an overflow is a fault and no corruption. */
static void a_stack_has_an_end(void) {
    struct fsp_pad *pad = fsp_pad_get();
    int fd[2];
    REQUIRE(pad);
    support_pipe(fd, 3);
    const char *lowest = fsp_pad_stack(pad);
    CHECK_INT(write(fd[1], lowest, 1), 1);
    CHECK(write(fd[1], lowest - 1, 1) == -1 && errno == EFAULT);
    CHECK(write(fd[1], lowest - 4096, 1) == -1 && errno == EFAULT);
    close(fd[0]);
    close(fd[1]);
    fsp_pad_put(pad);
}

/* A child may still be on it, though its spawn has returned: it serves no other until then. */
static void a_stack_in_use_is_not_given_out(void) {
    struct fsp_pad *pad = fsp_pad_get(), *others[100];
    REQUIRE(pad);
    pad->child = 1;
    fsp_pad_put(pad);
    for (size_t i = 0; i < LENGTH(others); i++) CHECK((others[i] = fsp_pad_get()) != pad);
    for (size_t i = 0; i < LENGTH(others); i++) fsp_pad_put(others[i]);
    pad->child = 0;
    fsp_pad_put(pad);
}

static void with_each_backend(void) {
    make_plan();
    RUN(any_one_call_fails);
    RUN(a_failing_spawn_fails);
    RUN(any_call_is_refused);
    RUN(where_there_are_no_pidfds);
    RUN(no_descriptors_left);
    RUN(no_processes_left);
    RUN(no_memory_for_a_stack);
}

/* ---- the choice of a backend ---- */

static void names_are_known(void) {
    CHECK_INT(fsp_backend_select("no such backend"), -EINVAL);
    CHECK_INT(fsp_backend_select("clone"), 0);
    CHECK_STR(fsp_backend_name(), "clone");
    CHECK_INT(fsp_backend_select("no such backend"), -EINVAL);
    CHECK_STR(fsp_backend_name(), "clone"); /* still */
    CHECK_INT(fsp_backend_select(""), 0);
    CHECK_STR(fsp_backend_name(), fsp_backend_list(0));
    CHECK_INT(fsp_backend_select(NULL), 0);
    CHECK_STR(fsp_backend_name(), fsp_backend_list(0));
}

/* A refused backend is passed over from then on: also EINVAL, as in a time namespace. */
static void refuse_one_after_the_other(void *err) {
    static const char *const calls[] = {"clone3", "clone", "vfork", "posix_spawn"};
    struct run run;
    fsp_backend_select(NULL);
    for (size_t i = 0; i < 3; i++) {
        CHECK_STR(fsp_backend_name(), calls[i]);
        faults_arm(calls[i], *(int *)err, 0, FAULTS_ALL);
        spawn(&run);
        expect_output(&run);
        faults_off();
        CHECK_STR(fsp_backend_name(), calls[i + 1]);
        faults_arm(calls[i], 0, 0, FAULTS_NONE);
        spawn(&run);
        expect_output(&run);
        CHECK_INT(faults_seen(), 0);
        faults_off();
    }
}

static void a_refused_backend_is_passed_over(void) {
    int refusals[] = {ENOSYS, EPERM, EINVAL};
    for (size_t i = 0; i < LENGTH(refusals); i++)
        tap_fork(refuse_one_after_the_other, &refusals[i]);
}

/* A lack of resources says nothing about the backend. */
static void a_lack_is_no_refusal(void) {
    struct run run;
    int lacks[] = {EAGAIN, ENOMEM};
    fsp_backend_select(NULL);
    for (size_t i = 0; i < LENGTH(lacks); i++) {
        faults_arm("clone3", lacks[i], 0, 1);
        spawn(&run);
        faults_off();
        CHECK_INT(run.result, -lacks[i]);
        CHECK_INT(run.error.stage, FSP_STAGE_CLONE);
        CHECK_STR(fsp_backend_name(), "clone3");
    }
    spawn(&run);
    expect_output(&run);
}

static void a_chosen_backend_is_kept(void) {
    struct run run;
    CHECK_INT(fsp_backend_select("clone"), 0);
    faults_arm("clone", ENOSYS, 0, 1);
    spawn(&run);
    CHECK_INT(run.result, -ENOSYS);
    CHECK_INT(run.error.stage, FSP_STAGE_CLONE);
    faults_off();
    spawn(&run);
    expect_output(&run);
    CHECK_STR(fsp_backend_name(), "clone");
    fsp_backend_select(NULL);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_each_backend(with_each_backend);
    make_plan();
    RUN(a_stack_has_an_end);
    RUN(a_stack_in_use_is_not_given_out);
    RUN(names_are_known);
    RUN(a_refused_backend_is_passed_over);
    RUN(a_lack_is_no_refusal);
    RUN(a_chosen_backend_is_kept);
    fsp_plan_unref(plan);
    return tap_end();
}
