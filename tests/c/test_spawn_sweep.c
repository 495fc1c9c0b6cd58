/*
 * test_spawn_sweep.c - a spawn, a talk, a wait where a call is refused: each place in csrc/spawn
 * that makes one, in parent and child, once and for good (sweep.h).
 *
 * Either all goes as it should, or what was refused is told; no child, descriptor or memory is left
 * behind, and the next spawn works.
 */
#include "kernel.h"
#include "sweep.h"
#include "tap.h"

#ifdef __linux__
#include <stdio.h>
#include <sys/resource.h>

#define EVER UINT64_MAX

/* The look-up of this one is remembered for good: so much memory is no loss. */
#define SEARCH "/no/such/directory:/bin"
#define FILE_  "sh"
static const size_t remembered = sizeof SEARCH + sizeof FILE_ + sizeof "/bin/" FILE_;

static const struct fsp_stdio inherit = {
    {-1, -1, -1}
};
static const char *procs; /* as good as a cgroup's: a file that can be written to */

/* ---- what is allowed ---- */

static int refused; /* with which errno; 0: nothing is */

/* Did it go as it should?  If not, it is what was refused. */
static bool went(int r) {
    if (r >= 0) return true;
    CHECK_INT(r, refused ? -refused : 0);
    return false;
}

static bool started(int r, const struct fsp_error *error) {
    if (went(r)) return true;
    CHECK_INT(error->err, -r);
    CHECK(error->stage != FSP_STAGE_NONE && error->stage != FSP_STAGE_TABLE);
    return false;
}

static struct fsp_plan *plan_of(struct fsp_spec spec) {
    struct fsp_plan *plan = NULL;
    return went(fsp_plan_new(&spec, &plan)) ? plan : NULL;
}

/* To its end, even if that cannot be waited for at first. */
static void ends(struct fsp_child *child, int code) {
    struct fsp_status status;
    int r = fsp_wait(child, 1, &status);
    if (!went(r)) {
        faults_off();
        r = fsp_wait(child, 1, &status);
    }
    CHECK_INT(r, 1);
    if (!status.lost) CHECK_INT(status.code, code);
}

static bool spawns(struct fsp_spec spec, struct fsp_stdio io, unsigned flags,
                   struct fsp_child *child) {
    struct fsp_error error;
    struct fsp_plan *plan = plan_of(spec);
    int r = plan ? fsp_spawn(plan, &io, flags, NULL, child, &error) : -ENOMEM;
    fsp_plan_unref(plan);
    return plan && started(r, &error);
}

static void runs(struct fsp_spec spec, struct fsp_stdio io, unsigned flags) {
    struct fsp_child child;
    if (spawns(spec, io, flags, &child)) ends(&child, 7);
}

static void fails(struct fsp_spec spec, int err) {
    struct fsp_child child;
    struct fsp_error error;
    struct fsp_plan *plan = plan_of(spec);
    int r = plan ? fsp_spawn(plan, &inherit, 0, NULL, &child, &error) : -err;
    fsp_plan_unref(plan);
    CHECK(r == -err || (refused && r == -refused));
}

#define SEVEN SHELL("exit 7")

/* ---- spawns ---- */

/* All that can be asked for without rights, with sources so high that they are fetched. */
static void everything(void) {
    static const struct fsp_rlimit limit = {
        RLIMIT_CORE, {0, 0}
    };
    static const int keep[] = {9};
    int fd[2];
    support_pipe(fd, 100);
    support_dup_to(0, 9);
    struct fsp_spec spec = COMMAND(FILE_, "-c", "[ -e /dev/fd/9 ] && exit 7");
    spec.search = SEARCH;
    spec.cwd = "/";
    spec.umask = 022;
    spec.keep_fds = keep;
    spec.nkeep_fds = LENGTH(keep);
    spec.rlimits = &limit;
    spec.nrlimits = 1;
    spec.cgroup = procs;
    spec.death_signal = SIGKILL;
    spec.flags |= FSP_FLAG_SETSID | FSP_FLAG_NO_NEW_PRIVS;
    runs(spec,
         (struct fsp_stdio){
             {-1, fd[1], -1}
    },
         0);
    close(fd[0]);
    close(fd[1]);
    close(9);
}

static void a_circle_of_descriptors(void) {
    runs(SEVEN,
         (struct fsp_stdio){
             {1, 0, -1}
    },
         0);
}

static void a_group(void) {
    struct fsp_spec spec = SEVEN;
    spec.flags |= FSP_FLAG_SETPGROUP;
    runs(spec, inherit, 0);
}

static void an_identity(void) {
    struct fsp_spec spec = SEVEN;
    uint32_t none = 0;
    spec.gid = getgid();
    spec.uid = getuid();
    runs(spec, inherit, 0);
    spec.groups = &none; /* an empty list */
    if (geteuid() == 0)
        runs(spec, inherit, 0);
    else
        fails(spec, EPERM);
}

static void many_that_are_kept(void) {
    static const int keep[] = {0, 1, 2, 9, 10, 11, 12};
    for (int fd = 9; fd <= 12; fd++) support_dup_to(0, fd);
    struct fsp_spec spec = SEVEN;
    spec.keep_fds = keep;
    spec.nkeep_fds = LENGTH(keep);
    runs(spec, inherit, 0);
    for (int fd = 9; fd <= 12; fd++) close(fd);
}

/* As a spawner does it. */
static void with_a_table_of_its_own(void) {
    struct fsp_spec spec = COMMAND(FILE_, "-c", "exit 7");
    uint64_t all = ~(uint64_t)0, before;
    sys_sigmask(&all, &before);
    spec.search = SEARCH;
    runs(spec, inherit, FSP_SPAWN_PRIVATE | FSP_SPAWN_BATCH);
    sys_sigmask(&before, NULL);
}

static void by_clone(void) {
    fsp_backend_select("clone");
    runs(SEVEN, inherit, 0);
}

static void by_vfork(void) {
    fsp_backend_select("vfork");
    runs(SEVEN, inherit, 0);
}

static void by_posix_spawn(void) {
    fsp_backend_select("posix_spawn");
    struct fsp_spec spec = COMMAND(FILE_, "-c", "exit 7"), none = COMMAND("/no/such/program");
    spec.search = SEARCH;
    spec.flags = none.flags = 0; /* what a libc may not know */
    runs(spec, inherit, 0);
    runs(SEVEN, inherit, 0);
    none.cwd = "/";
    fails(none, ENOENT);
}

static void by_fork(void) {
    fsp_backend_select("fork");
    runs(SEVEN, inherit, 0);
}

/* The slow way to close leaves nothing open, either. */
static void close_slowly(void) {
    support_dup_to(0, 9);
    fcntl(9, F_SETFD, 0);
    runs(SHELL("[ -e /dev/fd/9 ] || exit 7"), inherit, 0);
    close(9);
}

static void without_close_range(void) {
    kernel_without(SYS_close_range, ENOSYS);
    close_slowly();
}

static void without_proc(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 2000;
    setrlimit(RLIMIT_NOFILE, &limit);
    kernel_without(SYS_close_range, ENOSYS);
    /* As opendir(3) does not have it: the test itself looks at its descriptors. */
    kernel_without_where(SYS_openat, ENOENT, 2, (uint32_t)~(O_CLOEXEC), O_RDONLY | O_DIRECTORY);
    close_slowly();
}

/* ---- starts ---- */

static void starts(struct fsp_spec spec, struct fsp_stdio io) {
    struct fsp_start start;
    struct fsp_error error;
    struct fsp_child child;
    struct fsp_plan *plan = plan_of(spec);
    if (plan == NULL) return;
    int r = fsp_start(plan, &io, &start, &error);
    fsp_plan_unref(plan);
    if (!started(r, &error)) return;
    if (r == 0)
        CHECK(refused);
    else if (started(fsp_start_end(&start, &child, &error), &error))
        ends(&child, 7);
}

static void a_start(void) {
    int fd[2];
    support_dup_to(0, 9); /* what tells is in the middle of what is closed */
    starts(SEVEN, inherit);
    support_pipe(fd, 100);
    starts(SEVEN, (struct fsp_stdio){
                      {-1, fd[1], -1}
    });
    close(fd[0]);
    close(fd[1]);
    close(9);
}

static char state_of(pid_t pid) {
    char path[40], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    const char *rest = file && fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
    if (file) fclose(file);
    return rest ? rest[2] : 0;
}

/* Someone who reads from this once the one that it belongs to waits. */
static pid_t late_reader(const char *fifo) {
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        while (state_of(parent) != 'S') tap_millisecond();
        if (open(fifo, O_RDONLY | O_NONBLOCK) < 0) _exit(1);
        for (;;) pause();
    }
    return pid;
}

/* Its end is waited for while the child is still on its way, held by a file that nobody reads. */
static void a_start_that_takes_long(void) {
    const char *fifo = support_path("fifo");
    pid_t reader = late_reader(fifo);
    struct fsp_spec spec = SEVEN;
    spec.cgroup = fifo;
    starts(spec, inherit);
    CHECK(support_kill(reader));
    CHECK_INT(waitpid(reader, NULL, 0), reader);
}

/* ---- talks ---- */

static void a_talk(void) {
    static const enum fsp_io how[] = {FSP_IO_PIPE, FSP_IO_PIPE, FSP_IO_NULL};
    struct fsp_talk talk;
    struct fsp_error error;
    struct fsp_plan *plan = plan_of(SHELL("trap '' PIPE; read a; echo $a; exit 7"));
    if (plan == NULL) return;
    int first = 0, r = fsp_talk_start(plan, how, "in\n", 3, &talk, &error);
    fsp_plan_unref(plan);
    if (!started(r, &error)) return;
    while ((r = fsp_talk(&talk, EVER, &error)) != 1) {
        CHECK(refused && r == -refused);
        if (first++ > 10) faults_off();
    }
    if (error.err) CHECK_INT(error.err, refused);
    if (error.err == 0) CHECK_INT(talk.status.code, 7);
    if (!refused) CHECK_STR(talk.output[0].len == 3 ? "in\n" : "", "in\n");
    fsp_talk_end(&talk);
}

/* ---- terminals ---- */

static void a_terminal(void) {
    int fd[2];
    if (!went(fsp_terminal_open((struct fsp_size){80, 24}, fd))) return;
    runs(SEVEN,
         (struct fsp_stdio){
             {fd[1], fd[1], fd[1]}
    },
         FSP_SPAWN_TERMINAL);
    sys_close(fd[0]);
    sys_close(fd[1]);
}

static void a_terminal_by_its_name(void) {
    kernel_without_where(SYS_ioctl, ENOTTY, 1, ~0u, 0x5441 /* TIOCGPTPEER */);
    a_terminal();
}

/* ---- ends ---- */

static void is_killed(bool group) {
    struct fsp_child child;
    struct fsp_spec spec = COMMAND("/bin/sleep", "600");
    spec.flags |= FSP_FLAG_SETSID;
    if (!spawns(spec, inherit, 0, &child)) return;
    if (!went(fsp_kill(&child, group, SIGKILL))) {
        faults_off();
        CHECK_INT(fsp_kill(&child, group, SIGKILL), 0);
    }
    ends(&child, -SIGKILL);
}

static void kills(void) {
    is_killed(false);
    is_killed(true);
}

static void kills_without_pidfds(void) {
    kernel_without(SYS_pidfd_send_signal, ENOSYS);
    kills();
}

/* Its status is another's; not told before Linux 6.15. */
static void a_status_that_is_taken(void) {
    struct fsp_child child;
    struct fsp_status status;
    if (!spawns(SEVEN, inherit, 0, &child)) return;
    CHECK_INT(waitpid(child.pid, NULL, 0), child.pid);
    int r = fsp_look(&child, &status);
    CHECK(r == 1 || (refused && r == 0));
    ends(&child, 7);
}

/* waitid(2) does not wait then, so that it takes another call.  The child waits for that; not for
 * ever where it may be refused. */
static void a_pidfd_that_does_not_block(void) {
    struct fsp_child child;
    char script[200];
    snprintf(script, sizeof script,
             "n=0; while [ $n -lt %d ] && read pid name state rest </proc/$PPID/stat && "
             "[ $state != S ]; do n=$((n+1)); done; exit 7",
             refused ? 2000 : INT_MAX);
    if (!spawns(SHELL(script), inherit, 0, &child)) return;
    if (child.pidfd >= 0) fcntl(child.pidfd, F_SETFL, O_NONBLOCK);
    ends(&child, 7);
}

static void questions(void) {
    struct fsp_child child;
    struct fsp_child self = {getpid(), -1};
    (void)fsp_lacks_pidfd(&self);
    if (!spawns(SEVEN, inherit, 0, &child)) return;
    CHECK(WAIT_UNTIL(fsp_has_exited(&child)));
    ends(&child, 7);
}

/* A leader with another one beside it, who is looked for. */
static void is_ended(void) {
    struct fsp_child leader;
    struct fsp_spec spec = SHELL("sleep 600 <&- >&- 2>&- & echo; exec sleep 600");
    char byte;
    int fd[2];
    support_pipe(fd, 3);
    spec.flags |= FSP_FLAG_SETSID;
    bool ok = spawns(spec,
                     (struct fsp_stdio){
                         {-1, fd[1], -1}
    },
                     0, &leader);
    close(fd[1]);
    if (ok) {
        CHECK_INT(read(fd[0], &byte, 1), 1);
        int n = fsp_kill_session(&leader, 0);
        CHECK(n == 1 || (refused && n == 0));
        n = fsp_kill_session(&leader, SIGKILL);
        CHECK(n == 1 || (refused && n == 0));
        faults_off();
        CHECK(WAIT_UNTIL(fsp_kill_session(&leader, SIGKILL) == 0));
        ends(&leader, -SIGKILL);
    }
    close(fd[0]);
}

static void a_session(void) {
    is_ended();
}

static void a_session_without_pidfds(void) {
    kernel_without(SYS_pidfd_open, ENOSYS);
    is_ended();
}

/* ---- where a program is ---- */

static void a_search(void) {
    char path[PATH_MAX];
    struct fsp_spec spec = COMMAND(FILE_);
    spec.search = SEARCH;
    struct fsp_plan *plan = plan_of(spec);
    for (int i = 0; plan && i < 3; i++)
        if (went(fsp_plan_resolve(plan, 0, path, sizeof path))) CHECK_STR(path, "/bin/" FILE_);
    fsp_plan_unref(plan);
}

/* ---- other kernels ---- */

#ifdef KERNEL_CAN_TRACE
#include <sched.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* Before Linux 5.2 there is no pidfd of a clone; an emulator's suspends nobody. */
static bool suspends;

static void rewrite(struct user_regs_struct *regs) {
    if (regs->orig_rax != SYS_clone) return;
    regs->rdi &= ~(unsigned long long)CLONE_PIDFD;
    if (!suspends) regs->rdi &= ~(unsigned long long)(CLONE_VM | CLONE_VFORK | CLONE_FILES);
}

/* The lowest numbers are free, so that what tells has to be moved. */
static void spawn_traced(void *backend) {
    kernel_traced();
    fsp_backend_select(backend);
    int saved = fcntl(0, F_DUPFD_CLOEXEC, 10);
    close(0);
    runs(SEVEN, inherit, 0);
    support_dup_to(saved, 0);
    close(saved);
}

static void on_an_old_kernel(void) {
    suspends = true;
    CHECK_INT(kernel_trace(tap_fork_start(spawn_traced, "clone"), rewrite, NULL), 0);
}

static void on_an_emulator(void) {
    suspends = false;
    CHECK_INT(kernel_trace(tap_fork_start(spawn_traced, "fork"), rewrite, NULL), 0);
}
#endif

/* ---- all of them ---- */

static void live(const struct refusal *refusal, void (*scene)(void)) {
    size_t before = support_heap_bytes();
    refused = refusal->site ? refusal->err : 0;
    sweep_arm(refusal);
    scene();
    faults_off();
    refused = 0;
    runs(SEVEN, inherit, 0);
    size_t after = support_heap_bytes();
    if (after != before + remembered) CHECK_INT(after, before);
}

#define SCENE(name)                                                                                \
    static void name##_scene(const struct refusal *refusal) {                                      \
        live(refusal, name);                                                                       \
    }
#define SCENES(X)                                                                                  \
    X(everything)                                                                                  \
    X(a_circle_of_descriptors)                                                                     \
    X(a_group)                                                                                     \
    X(an_identity)                                                                                 \
    X(many_that_are_kept)                                                                          \
    X(with_a_table_of_its_own)                                                                     \
    X(by_clone)                                                                                    \
    X(by_vfork)                                                                                    \
    X(by_posix_spawn)                                                                              \
    X(by_fork)                                                                                     \
    X(without_close_range)                                                                         \
    X(without_proc)                                                                                \
    X(a_start)                                                                                     \
    X(a_start_that_takes_long)                                                                     \
    X(a_talk)                                                                                      \
    X(a_terminal)                                                                                  \
    X(a_terminal_by_its_name)                                                                      \
    X(kills)                                                                                       \
    X(kills_without_pidfds)                                                                        \
    X(a_status_that_is_taken)                                                                      \
    X(a_pidfd_that_does_not_block)                                                                 \
    X(questions)                                                                                   \
    X(a_session)                                                                                   \
    X(a_session_without_pidfds)                                                                    \
    X(a_search)
SCENES(SCENE)
#ifdef KERNEL_CAN_TRACE
SCENE(on_an_old_kernel)
SCENE(on_an_emulator)
#endif

static const struct scene scenes[] = {
#define ENTRY(name) {#name, name##_scene},
    SCENES(ENTRY)
#ifdef KERNEL_CAN_TRACE
        ENTRY(on_an_old_kernel) ENTRY(on_an_emulator)
#endif
};

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    procs = support_path("procs");
    support_write_file(procs, "", 0600);
    if (mkfifo(support_path("fifo"), 0600) < 0) return 1;
    RUN(each_place_is_in_a_room_that_is_swept);
    sweep_look(scenes, LENGTH(scenes));
#ifndef KERNEL_CAN_TRACE
    sweep_may_leave_out("csrc/spawn/backend_clone.c");
    sweep_may_leave_out("csrc/spawn/backend_fork.c");
#endif
    sweep_places("csrc/spawn/", true);
    sweep_tell();
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
