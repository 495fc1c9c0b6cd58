/*
 * test_spawn.c - what is run, where, as whom, within which limits; and how it is told when not.
 *
 * Each test runs with each backend.
 */
#include "support.h"
#include "tap.h"

#include <grp.h>
#include <stdio.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#define NOBODY 65534

/* posix_spawn knows two kinds of failure. */
static enum fsp_stage told(const struct fsp_spec *spec, enum fsp_stage stage) {
    return !support_by_posix_spawn(spec) || stage == FSP_STAGE_CWD ? stage : FSP_STAGE_EXEC;
}

static void expect_failure_at(const struct fsp_spec *spec, int err, enum fsp_stage stage,
                              int index) {
    struct run run;
    support_run(spec, &run);
    CHECK_INT(run.result, -err);
    CHECK_INT(run.error.err, err);
    CHECK_INT(run.error.stage, stage);
    CHECK_INT(run.error.index, index);
}

static void expect_failure(struct fsp_spec spec, int err) {
    expect_failure_at(&spec, err, FSP_STAGE_EXEC, -1);
}

static void expect_output(struct fsp_spec spec, const char *output) {
    struct run run;
    support_run(&spec, &run);
    CHECK_INT(run.result, 0);
    CHECK_INT(run.error.err, 0);
    CHECK_INT(run.status.code, 0);
    CHECK_STR(run.out, output);
}

static struct run reported;

static void take_report(struct fsp_spec spec) {
    support_run(&spec, &reported);
    CHECK_INT(reported.result, 0);
    CHECK_INT(reported.status.code, 0);
}

/* ---- the program ---- */

static void it_runs(void) {
    expect_output(SHELL("echo hi"), "hi\n");
}

static void arguments_and_environment_arrive(void) {
    struct fsp_spec spec = COMMAND(support_self, "--helper", "report", "last one");
    spec.envp = ARGV("A=1", "EMPTY=", "NOVALUE");
    spec.argv = ARGV("other name", "--helper", "report", "last one");
    spec.file = support_self;
    take_report(spec);
    CHECK_STR(support_field(reported.out, "argc"), "4");
    CHECK_STR(support_field(reported.out, "argv0"), "other name");
    CHECK_STR(support_field(reported.out, "last"), "last one");
    CHECK_STR(support_field(reported.out, "environ"), "A=1;EMPTY=;NOVALUE;");
}

static void the_environment_may_be_empty(void) {
    struct fsp_spec spec = HELPER("report");
    spec.envp = ARGV(NULL);
    take_report(spec);
    CHECK_STR(support_field(reported.out, "environ"), "");
}

static void large_arguments_arrive(void) {
    static char large[100000];
    memset(large, 'x', sizeof large - 1);
    struct fsp_spec spec =
        COMMAND("/bin/sh", "-c", "echo ${#1} ${#2} ${#3}", "sh", large, "", large);
    expect_output(spec, "99999 0 99999\n");
}

/* ---- what exec refuses ---- */

static void a_missing_program(void) {
    expect_failure(COMMAND("/no/such/program"), ENOENT);
    struct fsp_spec spec = COMMAND("no-such-program");
    spec.search = "/bin:/usr/bin:/no/such/directory";
    expect_failure(spec, ENOENT);
    spec.search = ":bin";
    expect_failure(spec, ENOENT);
}

static void a_file_that_may_not_be_executed(void) {
    const char *path = support_path("data");
    support_write_file(path, "#!/bin/sh\n", 0644);
    expect_failure(COMMAND(path), EACCES);
    expect_failure(COMMAND("/"), EACCES);
    struct fsp_spec spec = COMMAND("data");
    spec.search = support_dir();
    expect_failure(spec, EACCES);
    unlink(path);
}

static void a_file_of_no_known_format(void) {
    const char *path = support_path("no-format");
    support_write_file(path, "echo not run by a shell\n", 0755);
    expect_failure(COMMAND(path), ENOEXEC);
    struct fsp_spec spec = COMMAND("no-format");
    spec.search = support_dir();
    expect_failure(spec, ENOEXEC);
    unlink(path);
}

static void a_missing_interpreter(void) {
    const char *path = support_path("no-interpreter");
    support_write_file(path, "#!/no/such/interpreter\n", 0755);
    expect_failure(COMMAND(path), ENOENT);
    unlink(path);
}

static void a_file_as_a_directory(void) {
    expect_failure(COMMAND("/bin/sh/program"), ENOTDIR);
}

static void links_in_a_circle(void) {
    const char *path = support_path("circle");
    CHECK(symlink("circle", path) == 0);
    expect_failure(COMMAND(path), ELOOP);
    unlink(path);
}

static void an_argument_too_long(void) {
    static char large[4 << 20];
    memset(large, 'x', sizeof large - 1);
    expect_failure(COMMAND("/bin/true", large), E2BIG);
}

static void a_name_too_long(void) {
    static char name[PATH_MAX + 100];
    memset(name, 'x', sizeof name - 1);
    name[0] = '/';
    expect_failure(COMMAND(name), ENAMETOOLONG);
    struct fsp_spec spec = COMMAND(name + 1);
    spec.search = "/bin";
    expect_failure(spec, ENAMETOOLONG);
}

/* What a plain fork and exec get: some kernels let a file that is being written run. */
static int plain_exec(const char *path) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        execl(path, path, (char *)NULL);
        _exit(errno);
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

static void a_file_that_is_being_written(void) {
    char copy[2 * PATH_MAX];
    const char *path = support_path("busy");
    snprintf(copy, sizeof copy, "cp /bin/true %s", path);
    CHECK(system(copy) == 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC), err = plain_exec(path);
    struct fsp_spec spec = COMMAND(path);
    if (err)
        expect_failure(spec, err);
    else
        expect_output(spec, "");
    close(fd);
    expect_output(spec, "");
    unlink(path);
}

static void many_failures(void) {
    struct fsp_spec spec = COMMAND("/no/such/program");
    for (int i = 0; i < 300; i++) expect_failure(spec, ENOENT);
}

/* ---- the search ---- */

static void a_program_is_searched_for(void) {
    struct fsp_spec spec = COMMAND("sh", "-c", "echo found");
    spec.search = "/no/such/directory:/bin";
    expect_output(spec, "found\n");
}

static void make_program(const char *dir, const char *text, unsigned mode) {
    char relative[64];
    mkdir(support_path(dir), 0755);
    snprintf(relative, sizeof relative, "%s/program", dir);
    support_write_file(support_path(relative), text, mode);
}

/* What was found first may not be what exec takes: the child goes on, and tells the first error
 * that says more than "not there". */
static void the_child_goes_on_where_exec_refuses(void) {
    char list[2 * PATH_MAX];
    snprintf(list, sizeof list, "%s:%s", support_path("bad"), support_path("good"));
    make_program("bad", "no format\n", 0755);
    make_program("good", "#!/bin/sh\necho second\n", 0755);
    struct fsp_spec spec = COMMAND("program");
    spec.search = list;
    expect_output(spec, "second\n");
    CHECK(chmod(support_path("good/program"), 0644) == 0);
    expect_failure(spec, ENOEXEC);
    CHECK(chmod(support_path("bad/program"), 0644) == 0);
    expect_failure(spec, EACCES);
}

static void a_relative_list_is_searched_where_it_runs(void) {
    make_program("work", "#!/bin/sh\necho in work\n", 0755);
    struct fsp_spec spec = COMMAND("program");
    spec.cwd = support_path("work");
    spec.search = "/no/such/directory::/bin";
    expect_output(spec, "in work\n");
    spec.cwd = support_dir();
    spec.search = "nothing:work";
    expect_output(spec, "in work\n");
    spec.cwd = "/";
    expect_failure(spec, ENOENT);
}

/* ---- the directory ---- */

static void it_runs_in_its_directory(void) {
    struct fsp_spec spec = HELPER("report");
    spec.cwd = support_dir();
    take_report(spec);
    CHECK_STR(support_field(reported.out, "cwd"), support_dir());
}

static void a_relative_program_is_found_from_there(void) {
    make_program("here", "#!/bin/sh\necho here\n", 0755);
    struct fsp_spec spec = COMMAND("./program");
    spec.cwd = support_path("here");
    expect_output(spec, "here\n");
    spec = COMMAND("here/program");
    spec.cwd = support_dir();
    expect_output(spec, "here\n");
}

static void a_directory_that_cannot_be_entered_is_blamed(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.cwd = "/no/such/directory";
    expect_failure_at(&spec, ENOENT, FSP_STAGE_CWD, -1);
    spec.cwd = "/bin/sh";
    expect_failure_at(&spec, ENOTDIR, FSP_STAGE_CWD, -1);
    spec = COMMAND("/no/such/program");
    spec.cwd = "/no/such/directory";
    expect_failure_at(&spec, ENOENT, FSP_STAGE_CWD, -1);
    spec.cwd = "/";
    expect_failure(spec, ENOENT);
}

/* ---- session and group ---- */

static long number(const char *name) {
    return strtol(support_field(reported.out, name), NULL, 10);
}

static void a_session_of_its_own(void) {
    struct fsp_spec spec = HELPER("report");
    spec.flags |= FSP_FLAG_SETSID;
    take_report(spec);
    CHECK_INT(number("sid"), number("pid"));
    CHECK_INT(number("pgid"), number("pid"));
    CHECK_INT(number("ppid"), getpid());
}

static void a_group_of_its_own(void) {
    struct fsp_spec spec = HELPER("report");
    spec.flags |= FSP_FLAG_SETPGROUP;
    take_report(spec);
    CHECK_INT(number("sid"), getsid(0));
    CHECK_INT(number("pgid"), number("pid"));
}

static void the_callers_group(void) {
    take_report(HELPER("report"));
    CHECK_INT(number("sid"), getsid(0));
    CHECK_INT(number("pgid"), getpgrp());
}

/* The group exists once the spawn returns: a group kill cannot come too early. */
static void a_group_that_exists_at_once(void) {
    struct fsp_child child;
    struct fsp_error error;
    struct fsp_status status;
    for (int i = 0; i < 2; i++) {
        struct fsp_spec spec = SHELL("sleep 100 & sleep 100");
        spec.flags |= i ? FSP_FLAG_SETSID : FSP_FLAG_SETPGROUP;
        REQUIRE(support_spawn(&spec,
                              &(struct fsp_stdio){
                                  {-1, -1, -1}
        },
                              &child, &error) == 0);
        CHECK_INT(getpgid(child.pid), child.pid);
        CHECK_INT(fsp_kill(&child, 1, SIGKILL), 0);
        CHECK_INT(fsp_wait(&child, 1, &status), 1);
        CHECK_INT(status.code, -SIGKILL);
    }
}

static void another_childs_group(void) {
    struct fsp_child leader;
    struct fsp_error error;
    struct fsp_status status;
    struct fsp_spec spec = COMMAND("/bin/sleep", "100");
    spec.flags |= FSP_FLAG_SETPGROUP;
    REQUIRE(support_spawn(&spec,
                          &(struct fsp_stdio){
                              {-1, -1, -1}
    },
                          &leader, &error) == 0);
    pid_t group = leader.pid;
    spec = HELPER("report");
    spec.flags |= FSP_FLAG_SETPGROUP;
    spec.pgroup = group;
    take_report(spec);
    CHECK_INT(number("pgid"), group);
    fsp_kill(&leader, 0, SIGKILL);
    CHECK_INT(fsp_wait(&leader, 1, &status), 1);
    expect_failure_at(&spec, EPERM, told(&spec, FSP_STAGE_PGROUP),
                      -1); /* nor is it there any more */
}

/* ---- umask and limits ---- */

static void a_umask(void) {
    mode_t before = umask(022);
    struct fsp_spec spec = HELPER("report");
    take_report(spec);
    CHECK_STR(support_field(reported.out, "umask"), "22");
    spec.umask = 0137;
    take_report(spec);
    CHECK_STR(support_field(reported.out, "umask"), "137");
    spec.umask = 0;
    take_report(spec);
    CHECK_STR(support_field(reported.out, "umask"), "0");
    CHECK_INT(umask(before), 022);
}

static void limits(void) {
    struct rlimit mine, after;
    getrlimit(RLIMIT_NOFILE, &mine);
    const struct fsp_rlimit rlimits[] = {
        {RLIMIT_CORE,   {0, 0}             },
        {RLIMIT_NOFILE, {50, mine.rlim_max}},
    };
    struct fsp_spec spec = HELPER("report");
    spec.rlimits = rlimits;
    spec.nrlimits = LENGTH(rlimits);
    take_report(spec);
    CHECK_STR(support_field(reported.out, "core"), "0:0");
    CHECK_INT(number("nofile"), 50);
    getrlimit(RLIMIT_NOFILE, &after);
    CHECK_INT(after.rlim_cur, mine.rlim_cur);
}

static void a_limit_that_cannot_be_is_named(void) {
    const struct fsp_rlimit rlimits[] = {
        {RLIMIT_CORE, {0, 0}},
        {RLIMIT_CORE, {0, 0}},
        {9999,        {0, 0}},
        {9998,        {0, 0}},
    };
    struct fsp_spec spec = HELPER("report");
    spec.rlimits = rlimits;
    spec.nrlimits = LENGTH(rlimits);
    expect_failure_at(&spec, EINVAL, FSP_STAGE_RLIMIT, 2);
}

/* ---- identity ---- */

#define WHO "echo $(id -u) $(id -ru) $(id -g) $(id -rg) $(id -G)"

/* What root may do; anyone else gets the kernel's answer. */
static void another_identity(void) {
    const uint32_t groups[] = {7, 8};
    struct fsp_spec spec = SHELL(WHO);
    spec.uid = spec.gid = NOBODY;
    spec.groups = groups;
    spec.ngroups = 2;
    if (geteuid() == 0)
        expect_output(spec, "65534 65534 65534 65534 65534 7 8\n");
    else
        expect_failure_at(&spec, EPERM, FSP_STAGE_GROUPS, -1);
}

static void no_groups_at_all(void) {
    const uint32_t none = 0;
    struct fsp_spec spec = SHELL(WHO);
    spec.gid = NOBODY;
    spec.groups = &none;
    if (geteuid() == 0)
        expect_output(spec, "0 0 65534 65534 65534\n");
    else
        expect_failure_at(&spec, EPERM, FSP_STAGE_GROUPS, -1);
}

static void become_nobody(void) {
    if (geteuid() != 0) return;
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

static void ask_for_more(void *unused) {
    const uint32_t groups[] = {0};
    (void)unused;
    become_nobody();
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.uid = 0;
    expect_failure_at(&spec, EPERM, FSP_STAGE_UID, -1);
    spec = COMMAND("/bin/true");
    spec.gid = 0;
    expect_failure_at(&spec, EPERM, FSP_STAGE_GID, -1);
    spec = COMMAND("/bin/true");
    spec.groups = groups;
    spec.ngroups = 1;
    expect_failure_at(&spec, EPERM, FSP_STAGE_GROUPS, -1);
    const struct fsp_rlimit up = {
        RLIMIT_NOFILE, {RLIM_INFINITY, RLIM_INFINITY}
    };
    spec = COMMAND("/bin/true");
    spec.rlimits = &up;
    spec.nrlimits = 1;
    expect_failure_at(&spec, EPERM, FSP_STAGE_RLIMIT, 0);
    expect_output(SHELL("echo still"), "still\n");
}

static void what_is_not_allowed_is_an_error(void) {
    tap_fork(ask_for_more, NULL);
}

/* Each step that fails must keep the program from running as someone else. */
static void run_with_refused_steps(void *unused) {
    static const struct {
        const char *call;
        enum fsp_stage stage;
    } steps[] = {
        {"fsp_setgroups", FSP_STAGE_GROUPS},
        {"fsp_setresgid", FSP_STAGE_GID   },
        {"fsp_setresuid", FSP_STAGE_UID   },
    };
    uint32_t group = getgid();
    (void)unused;
    for (size_t i = 0; i < LENGTH(steps); i++) {
        struct fsp_spec spec = COMMAND("/bin/true");
        if (i == 0) spec.groups = &group;
        if (i == 0) spec.ngroups = 1;
        spec.uid = getuid();
        spec.gid = getgid();
        faults_arm(steps[i].call, EAGAIN, 0, 1);
        expect_failure_at(&spec, EAGAIN, steps[i].stage, -1);
        CHECK_INT(faults_seen(), 1);
        faults_off();
    }
}

static void a_refused_identity_never_runs(void) {
    tap_fork(run_with_refused_steps, NULL);
}

/* An identity changed on shared memory takes the parent's dumpability with it. */
static int handlers_run;

static void count_handler(void) {
    handlers_run++;
}

/* What the program, or the interpreter, does at a fork is not for a child that will execute. */
static void fork_handlers_do_not_run(void) {
    static bool registered;
    struct run run;
    struct fsp_spec spec = SHELL("exit 3");
    if (!registered) CHECK_INT(pthread_atfork(count_handler, count_handler, count_handler), 0);
    registered = true;
    int before = handlers_run;
    support_run(&spec, &run);
    CHECK_INT(run.status.code, 3);
    CHECK_INT(handlers_run, before);
}

static void the_parent_stays_as_it_is(void) {
    struct run run;
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.uid = spec.gid = geteuid() == 0 ? NOBODY : getuid();
#ifdef __linux__
    int before = prctl(PR_GET_DUMPABLE);
#endif
    support_run(&spec, &run);
    CHECK_INT(run.result, 0);
#ifdef __linux__
    CHECK_INT(prctl(PR_GET_DUMPABLE), before);
    CHECK_INT(before, 1);
#endif
}

/* ---- many at once ---- */

static void *spawn_often(void *wrong) {
    for (int i = 0; i < 40; i++) {
        struct fsp_spec good = SHELL("exit 3"), bad = COMMAND("/no/such/program");
        struct fsp_child child;
        struct fsp_error error;
        struct fsp_status status = {0};
        const struct fsp_stdio io = {
            {-1, -1, -1}
        };
        bool ok = support_spawn(&good, &io, &child, &error) == 0 &&
                  fsp_wait(&child, 1, &status) == 1 && status.code == 3 &&
                  support_spawn(&bad, &io, &child, &error) == -ENOENT;
        if (!ok) __atomic_add_fetch((int *)wrong, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void many_threads_spawn(void) {
    pthread_t threads[4];
    int wrong = 0;
    for (size_t i = 0; i < LENGTH(threads); i++)
        CHECK_INT(pthread_create(&threads[i], NULL, spawn_often, &wrong), 0);
    for (size_t i = 0; i < LENGTH(threads); i++) pthread_join(threads[i], NULL);
    CHECK_INT(wrong, 0);
}

static void with_each_backend(void) {
    RUN(it_runs);
    RUN(arguments_and_environment_arrive);
    RUN(the_environment_may_be_empty);
    RUN(large_arguments_arrive);
    RUN(a_missing_program);
    RUN(a_file_that_may_not_be_executed);
    RUN(a_file_of_no_known_format);
    RUN(a_missing_interpreter);
    RUN(a_file_as_a_directory);
    RUN(links_in_a_circle);
    RUN(an_argument_too_long);
    RUN(a_name_too_long);
    RUN(a_file_that_is_being_written);
    RUN(many_failures);
    RUN(a_program_is_searched_for);
    RUN(the_child_goes_on_where_exec_refuses);
    RUN(a_relative_list_is_searched_where_it_runs);
    RUN(it_runs_in_its_directory);
    RUN(a_relative_program_is_found_from_there);
    RUN(a_directory_that_cannot_be_entered_is_blamed);
    RUN(a_session_of_its_own);
    RUN(a_group_of_its_own);
    RUN(the_callers_group);
    RUN(a_group_that_exists_at_once);
    RUN(another_childs_group);
    RUN(a_umask);
    RUN(limits);
    RUN(a_limit_that_cannot_be_is_named);
    RUN(another_identity);
    RUN(no_groups_at_all);
    RUN(what_is_not_allowed_is_an_error);
    RUN(a_refused_identity_never_runs);
    RUN(fork_handlers_do_not_run);
    RUN(the_parent_stays_as_it_is);
    RUN(many_threads_spawn);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    support_each_backend(with_each_backend);
    return tap_end();
}
