/*
 * test_spawn_signals.c - a child starts with the right mask and dispositions, and no handler of its
 * parent ever runs in it.
 *
 * Each test runs with each backend.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

static struct run reported;

static void take_report(struct fsp_spec spec) {
    support_run(&spec, &reported);
    CHECK_INT(reported.result, 0);
    CHECK_INT(reported.status.code, 0);
}

/* Is the signal in a field of the report? */
static bool lists(const char *field, int sig) {
    char number[16], padded[4200];
    snprintf(number, sizeof number, " %d ", sig);
    snprintf(padded, sizeof padded, " %s", support_field(reported.out, field));
    return strstr(padded, number) != NULL;
}

static uint64_t bit(int sig) {
    return (uint64_t)1 << (sig - 1);
}

/* ---- the mask ---- */

static void the_callers_mask_by_default(void) {
    sigset_t set, before;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_SETMASK, &set, &before);
    take_report(HELPER("report"));
    for (int sig = 1; sig < 32; sig++) CHECK_INT(lists("blocked", sig), sigismember(&set, sig));
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void every_signal_blocked(void) {
    sigset_t set, before;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, &before);
    take_report(HELPER("report"));
    sigprocmask(SIG_SETMASK, &before, NULL);
    for (int sig = 1; sig < NSIG; sig++)
        if (sigismember(&set, sig) == 1 && sig != SIGKILL && sig != SIGSTOP)
            CHECK(lists("blocked", sig));
}

static void a_mask_of_its_own(void) {
    struct run run;
    uint64_t mask = bit(SIGUSR2) | bit(SIGHUP);
    char file[PATH_MAX];
    snprintf(file, sizeof file, "%s", support_path("report"));
    for (int i = 0; i < 2; i++, mask = 0) {
        int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        struct fsp_spec spec = HELPER("report");
        sigset_t set, before;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigprocmask(SIG_SETMASK, &set, &before);
        support_run_with(&spec,
                         &(struct fsp_stdio){
                             {-1, fd, -1}
        },
                         &mask, &run);
        sigprocmask(SIG_SETMASK, &before, NULL);
        ssize_t n = pread(fd, reported.out, sizeof reported.out - 1, 0);
        reported.out[n < 0 ? 0 : n] = '\0';
        CHECK(n > 0);
        for (int sig = 1; sig < 32; sig++)
            CHECK_INT(lists("blocked", sig), mask & bit(sig) ? 1 : 0);
        close(fd);
    }
}

static void the_parents_mask_after_a_failure(void) {
    sigset_t set, before, after;
    struct run run;
    struct fsp_spec spec = COMMAND("/no/such/program");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_SETMASK, &set, &before);
    support_run(&spec, &run);
    sigprocmask(SIG_SETMASK, &before, &after);
    CHECK_INT(run.result, -ENOENT);
    for (int sig = 1; sig < NSIG; sig++)
        CHECK_INT(sigismember(&after, sig), sigismember(&set, sig));
}

/* ---- dispositions ---- */

static void broken_pipes_kill_again(void) {
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    struct fsp_spec spec = HELPER("report");
    take_report(spec);
    CHECK(!lists("ignored", SIGPIPE)); /* ignored here, see tap.c */
    CHECK(!lists("ignored", SIGXFSZ));
    CHECK(lists("ignored", SIGUSR2)); /* what else is ignored stays so */
    spec.flags &= ~FSP_FLAG_RESTORE_SIGNALS;
    take_report(spec);
    CHECK(lists("ignored", SIGPIPE));
    CHECK(lists("ignored", SIGXFSZ));
    CHECK(lists("ignored", SIGUSR2));
    signal(SIGXFSZ, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
}

static void on_signal(int sig) {
    (void)sig;
}

/* What this process was told to ignore, and has a handler for. */
static void ignored_whatever_is_done_here(void) {
    signal(SIGHUP, on_signal);
    struct fsp_spec spec = HELPER("report");
    take_report(spec);
    CHECK(!lists("ignored", SIGHUP));
    fsp_ignore_signals(1u << (SIGHUP - 1) | 1u << (SIGSYS - 1));
    take_report(spec);
    CHECK(lists("ignored", SIGHUP));
    CHECK(lists("ignored", SIGSYS)); /* the last that fits */
    CHECK(!lists("ignored", SIGTERM));
    CHECK(!lists("ignored", SIGPIPE));
    fsp_ignore_signals(0);
    take_report(spec);
    CHECK(!lists("ignored", SIGHUP));
    signal(SIGHUP, SIG_DFL);
}

static void a_writer_without_a_reader_dies(void) {
    struct fsp_child child;
    struct fsp_error error;
    struct fsp_status status;
    int fd[2];
    struct fsp_spec spec = SHELL("while echo y; do :; done; exit 9");
    support_pipe(fd, 3);
    REQUIRE(support_spawn(&spec,
                          &(struct fsp_stdio){
                              {-1, fd[1], -1}
    },
                          &child, &error) == 0);
    close(fd[1]);
    close(fd[0]);
    CHECK_INT(fsp_wait(&child, 1, &status), 1);
    CHECK_INT(status.code, -SIGPIPE);
}

/* ---- handlers ---- */

/* Shared with children that have memory of their own. */
static struct {
    pid_t parent;
    int here, elsewhere;
} *ran;

static FSP_UNINSTRUMENTED void handler(int sig) {
    (void)sig;
#ifdef __linux__
    pid_t pid = (pid_t)syscall(SYS_getpid);
#else
    pid_t pid = getpid();
#endif
    __atomic_add_fetch(pid == ran->parent ? &ran->here : &ran->elsewhere, 1, __ATOMIC_RELAXED);
}

static void install_handler(int sig) {
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
    ran->parent = getpid();
    ran->here = ran->elsewhere = 0;
    CHECK_INT(sigaction(sig, &sa, NULL), 0);
}

/* The signal comes while the child is at some step: it may die of it, and that is all. */
static void expect_no_handler(const char *step, int sig) {
    struct run run;
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.cwd = "/";
    spec.flags |= FSP_FLAG_SETSID;
    install_handler(sig);
    faults_raise(step, sig);
    support_run(&spec, &run);
    faults_off();
    signal(sig, SIG_DFL);
    CHECK_INT(run.result, 0);
    CHECK_INT(run.status.code, support_by_posix_spawn(&spec) ? 0 : -sig); /* no seam in libc's */
    CHECK_INT(ran->elsewhere, 0);
    CHECK_INT(ran->here, 0);
}

static void no_handler_runs_in_the_child(void) {
    static const char *const steps[] = {"dup3",        "chdir",          "rt_sigaction", "setsid",
                                        "close_range", "rt_sigprocmask", "execve"};
    for (size_t i = 0; i < LENGTH(steps); i++) expect_no_handler(steps[i], SIGUSR1);
    expect_no_handler("execve", SIGINT);
#ifdef SIGRTMAX
    expect_no_handler("execve", SIGRTMIN);
    expect_no_handler("execve", SIGRTMAX);
#endif
}

/* As above, wherever it may come: someone signals the whole group, a thousand times a second. */
static void spawn_under_fire(void *unused) {
    struct fsp_spec spec = COMMAND("/bin/true");
    struct run run;
    (void)unused;
    REQUIRE(setpgid(0, 0) == 0);
    pid_t group = getpid();
    install_handler(SIGUSR1);
    pid_t shooter = fork();
    if (shooter == 0) {
        signal(SIGUSR1, SIG_IGN);
        setpgid(0, 0);
        while (kill(-group, SIGUSR1) == 0) nanosleep(&(struct timespec){0, 200000}, NULL);
        _exit(0);
    }
    for (int i = 0; i < 200 || ran->here < 50; i++) {
        support_run(&spec, &run);
        CHECK_INT(run.result, 0);
        CHECK(run.status.code == 0 || run.status.code == -SIGUSR1);
    }
    CHECK(support_kill(shooter));
    CHECK_INT(waitpid(shooter, NULL, 0), shooter);
    CHECK_INT(ran->elsewhere, 0);
    signal(SIGUSR1, SIG_DFL);
}

static void no_handler_runs_in_children_under_fire(void) {
    tap_fork(spawn_under_fire, NULL);
}

static void with_each_backend(void) {
    RUN(the_callers_mask_by_default);
    RUN(every_signal_blocked);
    RUN(a_mask_of_its_own);
    RUN(the_parents_mask_after_a_failure);
    RUN(broken_pipes_kill_again);
    RUN(ignored_whatever_is_done_here);
    RUN(a_writer_without_a_reader_dies);
    RUN(no_handler_runs_in_the_child);
    RUN(no_handler_runs_in_children_under_fire);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    ran = mmap(NULL, sizeof *ran, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    support_each_backend(with_each_backend);
    return tap_end();
}
