/*
 * test_emulated.c - spawning where the kernel is an emulator's, which answers as QEMU's user mode
 * does: it knows no clone3, and makes a plain fork of each vfork, so that the child's memory is its
 * own and its parent goes on at once.
 *
 * A tracer rewrites the system calls.  It knows the registers of x86-64; elsewhere there is nothing
 * to see.
 */
#include "kernel.h"
#include "tap.h"

#ifdef KERNEL_CAN_TRACE

#include <sched.h>

/* glibc's posix_spawn rests on vfork, too; musl's has a pipe, and can be trusted. */
#ifdef __GLIBC__
#define CHOSEN "fork"
#else
#define CHOSEN "posix_spawn"
#endif

/* Newer versions take the flags of clone that older ones refuse. */
static bool refuse_flags;

/* After its first clone the parent, which could go on, does not get to run for a while: so it is
 * on a busy machine. */
static bool late;

static void none_at_all(struct user_regs_struct *regs) {
    regs->orig_rax = (unsigned long long)-1; /* ENOSYS */
}

static void rewrite(struct user_regs_struct *regs) {
    switch (regs->orig_rax) {
    case SYS_clone3:
        none_at_all(regs);
        break;
    case SYS_vfork:
        regs->orig_rax = SYS_fork;
        break;
    case SYS_clone:
        if (refuse_flags && regs->rdi & (CLONE_FILES | CLONE_PIDFD)) none_at_all(regs);
        if (regs->rdi & CLONE_VFORK)
            regs->rdi &= ~(unsigned long long)(CLONE_VM | CLONE_VFORK | CLONE_FILES);
    }
}

static void be_late(struct user_regs_struct *regs) {
    if (!late || regs->orig_rax != SYS_clone) return;
    usleep(100000);
    late = false;
}

static int emulate(pid_t pid) {
    return kernel_trace(pid, rewrite, be_late);
}

static void under_emulation(void (*part)(void *)) {
    for (int i = 0; i < 2; i++) {
        refuse_flags = i;
        CHECK_INT(emulate(tap_fork_start(part, NULL)), 0);
    }
}

static void expect_hi(struct fsp_spec spec) {
    struct run run;
    support_run(&spec, &run);
    CHECK_INT(run.result, 0);
    CHECK_INT(run.status.code, 3);
    CHECK_STR(run.out, "hi\n");
}

static void expect_failure(struct fsp_spec spec, int err, enum fsp_stage stage) {
    struct run run;
    support_run(&spec, &run);
    CHECK_INT(run.result, -err);
    CHECK_INT(run.error.err, err);
    CHECK_INT(run.error.stage, stage);
}

/* So many relative directories that it takes a while to fail: the last thing to be waited for. */
static void expect_a_late_failure(void) {
    static char list[40000];
    for (size_t i = 0; i + 1 < sizeof list; i++) list[i] = i % 2 ? ':' : 'x';
    struct fsp_spec spec = COMMAND("no-such-program");
    spec.search = list;
    expect_failure(spec, ENOENT, FSP_STAGE_EXEC);
}

static void spawn_by_choice(void *unused) {
    (void)unused;
    kernel_traced();
    expect_a_late_failure();
    for (int i = 0; i < 10; i++) {
        struct fsp_spec spec = COMMAND("/no/such/program");
        expect_failure(spec, ENOENT, FSP_STAGE_EXEC);
        spec.cwd = "/no/such/directory";
        expect_failure(spec, ENOENT, FSP_STAGE_CWD);
        expect_hi(SHELL("echo hi; exit 3"));
    }
    CHECK_STR(fsp_backend_name(), CHOSEN);
}

/* What tells the exec is neither closed too early nor kept, whatever is kept or missing. */
static void spawn_with_kept_numbers(void *unused) {
    static const int keep[] = {3, 5, 6};
    (void)unused;
    kernel_traced();
    struct fsp_spec spec = SHELL("for fd in 3 5 6; do [ -e /dev/fd/$fd ] || exit 1; done\n"
                                 "for fd in 4 7 8 9; do [ ! -e /dev/fd/$fd ] || exit 2; done\n"
                                 "echo hi; exit 3");
    spec.keep_fds = keep;
    spec.nkeep_fds = LENGTH(keep);
    expect_failure(spec, EBADF, FSP_STAGE_FDS);
    for (size_t i = 0; i < LENGTH(keep); i++) support_dup_to(0, keep[i]);
    expect_hi(spec);
    spec.file = "/no/such/program";
    expect_failure(spec, ENOENT, FSP_STAGE_EXEC);
    for (size_t i = 0; i < LENGTH(keep); i++) close(keep[i]);
}

static void spawn_as_chosen(void *unused) {
    static const char *const names[] = {"clone3", "clone", "vfork", "posix_spawn"};
    (void)unused;
    kernel_traced();
    for (size_t i = 0; i < LENGTH(names); i++) {
        if (strcmp(names[i], CHOSEN) == 0) continue;
        CHECK_INT(fsp_backend_select(names[i]), 0);
        for (int j = 0; j < 2; j++)
            expect_failure(SHELL("echo hi; exit 3"), ENOSYS, FSP_STAGE_CLONE);
    }
    CHECK_INT(fsp_backend_select("fork"), 0);
    expect_hi(SHELL("echo hi; exit 3"));
}

static void fail_by_fork(void *unused) {
    (void)unused;
    kernel_traced();
    CHECK_INT(fsp_backend_select("fork"), 0);
    expect_a_late_failure();
}

static void failures_are_told(void) {
    under_emulation(spawn_by_choice);
}

static void failures_are_told_to_one_who_is_late(void) {
    late = true;
    CHECK_INT(emulate(tap_fork_start(fail_by_fork, NULL)), 0);
    CHECK(!late); /* there was one */
}

static void kept_numbers_stay(void) {
    under_emulation(spawn_with_kept_numbers);
}

static void what_cannot_tell_is_refused(void) {
    under_emulation(spawn_as_chosen);
}

static void tests(void) {
    RUN(failures_are_told);
    RUN(failures_are_told_to_one_who_is_late);
    RUN(kept_numbers_stay);
    RUN(what_cannot_tell_is_refused);
}

#else

static void tests(void) {}

#endif

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    tests();
    return tap_end();
}
