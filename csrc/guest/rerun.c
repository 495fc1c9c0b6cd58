/*
 * rerun.c - the system calls of a resident's program: which it makes, which are undone when its
 * job has ended, and before which it stops being a resident.
 *
 * Each comes as a signal (Syscall User Dispatch, see effect.c).  What it changes may be outside,
 * as meant; or in a descriptor or mapping that the run has made, which goes with it; or a setting
 * that is put back.  What is none of these, and all that is not known, makes it leave: then the
 * call is made natively.  So one that is missing here costs time, and is no error.
 *
 * The handler runs with the program's signals unblocked, as the call itself would: handlers of the
 * program run inside of it, and may never come back.  What has to be undone is noted before, and
 * never not at all.  SIGSYS is kept out of every mask that the kernel has, and the program
 * is told what it believes.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
#include <linux/audit.h>
#include <linux/futex.h>
#include <sys/prctl.h>

#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif
#ifndef SYS_statx
#define SYS_statx 332
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

/* ---- the table: a call, and what is done about it ---- */

enum how {
    LEAVES,    /* cannot be undone, or is not known */
    PASSES,    /* changes nothing of this process: asks, waits, or works on names, outside */
    OF_FD,     /* works on what a descriptor stands for: outside, or closed at the end */
    OF_FDS,    /* the same, of two: the first and the third argument */
    OF_SECOND, /* the second argument is one, too; and so on */
    ASKS_AT,   /* about a name below a directory, or about the descriptor itself */
    BELOW,     /* works on a name below a directory: the first argument */
    BELOW_TWO, /* the first and the third */
    BELOW_SECOND,
    MAKES,    /* a descriptor, which is closed */
    MAKES_OF, /* one of another */
    COPIES,
    MAKES_PIPE,
    MAKES_PAIR,
    OPENS,
    OPENS_AT,
    OPENS_2,
    CREATES,
    CLOSES,
    CLOSES_RANGE,
    PLACES, /* dup2 */
    CONTROLS,
    CONTROLS_DEVICE,
    SENDS,
    RECEIVES,
    LOCKS,
    MAPS,
    UNMAPS,
    REMAPS,
    PROTECTS,
    ADVISES,
    OF_MEMORY, /* asks about some that is there */
    MOVES_BRK,
    SETS_ACTION,
    SETS_MASK,
    SETS_STACK,
    POLLS,
    POLLS_MASKED, /* with a mask of signals */
    SELECTS,
    SELECTS_MASKED,
    MASKS_AT_4, /* waits with this mask: where it stands */
    MASKS_AT_0,
    SETS_UMASK,
    MOVES, /* to a directory */
    MOVES_TO,
    SETS_PROCESS,
    SETS_TIMER,
    SETS_LIMIT, /* or asks */
    ASKS_BARRIER,
    USES, /* says what the process has used: what it has since the job began */
    READS_CLOCK,
    SLEEPS, /* by a clock that may be of that kind */
    SAYS_TIMES,
    SIGNALS, /* asks whether a process is there; any signal may be its own */
    SETS_THREAD,
    WAKES, /* or waits: there is nobody else */
    RETURNS,
    ENDS
};

#define CALL(name, how) [SYS_##name] = how

/* clang-format off */
static const uint8_t table[] = {
    /* Reading and writing: what it changes is outside, or is the offset of a frozen descriptor,
     * which goes back. */
    CALL(read, OF_FD), CALL(readv, OF_FD), CALL(pread64, OF_FD), CALL(preadv, OF_FD),
    CALL(preadv2, OF_FD), CALL(write, OF_FD), CALL(writev, OF_FD), CALL(pwrite64, OF_FD),
    CALL(pwritev, OF_FD), CALL(pwritev2, OF_FD), CALL(lseek, OF_FD), CALL(fstat, OF_FD),
    CALL(getdents, OF_FD), CALL(getdents64, OF_FD), CALL(fadvise64, OF_FD),
    CALL(readahead, OF_FD), CALL(ftruncate, OF_FD), CALL(fallocate, OF_FD), CALL(fsync, OF_FD),
    CALL(fdatasync, OF_FD), CALL(syncfs, OF_FD), CALL(fchmod, OF_FD), CALL(fchown, OF_FD),
    CALL(fstatfs, OF_FD), CALL(fgetxattr, OF_FD), CALL(fsetxattr, OF_FD),
    CALL(flistxattr, OF_FD), CALL(fremovexattr, OF_FD), CALL(sendfile, OF_SECOND),
    CALL(copy_file_range, OF_FDS), CALL(splice, OF_FDS), CALL(tee, OF_SECOND),

    /* Names: outside. */
    CALL(stat, PASSES), CALL(lstat, PASSES), CALL(access, PASSES), CALL(readlink, PASSES),
    CALL(readlinkat, BELOW), CALL(newfstatat, ASKS_AT), CALL(statx, ASKS_AT),
    CALL(faccessat, BELOW), CALL(faccessat2, BELOW), CALL(statfs, PASSES),
    CALL(getcwd, PASSES), CALL(mkdir, PASSES), CALL(mkdirat, BELOW), CALL(rmdir, PASSES),
    CALL(unlink, PASSES), CALL(unlinkat, BELOW), CALL(rename, PASSES), CALL(renameat, BELOW_TWO),
    CALL(renameat2, BELOW_TWO), CALL(link, PASSES), CALL(linkat, BELOW_TWO),
    CALL(symlink, PASSES), CALL(symlinkat, BELOW_SECOND), CALL(chmod, PASSES),
    CALL(fchmodat, BELOW), CALL(chown, PASSES), CALL(lchown, PASSES), CALL(fchownat, BELOW),
    CALL(truncate, PASSES), CALL(utime, PASSES), CALL(utimes, PASSES), CALL(futimesat, BELOW),
    CALL(utimensat, BELOW), CALL(mknod, PASSES), CALL(mknodat, BELOW), CALL(getxattr, PASSES), CALL(lgetxattr, PASSES),
    CALL(setxattr, PASSES), CALL(lsetxattr, PASSES), CALL(listxattr, PASSES),
    CALL(llistxattr, PASSES), CALL(removexattr, PASSES), CALL(lremovexattr, PASSES),
    CALL(sync, PASSES),

    /* Questions, and waiting. */
    CALL(poll, POLLS), CALL(select, SELECTS), CALL(nanosleep, PASSES),
    CALL(clock_nanosleep, SLEEPS), CALL(gettimeofday, PASSES), CALL(time, PASSES),
    CALL(clock_getres, PASSES), CALL(getrandom, PASSES), CALL(uname, PASSES),
    CALL(sysinfo, PASSES), CALL(sched_yield, PASSES), CALL(sched_getaffinity, PASSES),
    CALL(sched_getparam, PASSES), CALL(sched_getscheduler, PASSES),
    CALL(sched_get_priority_max, PASSES), CALL(sched_get_priority_min, PASSES),
    CALL(getcpu, PASSES), CALL(getpriority, PASSES), CALL(ioprio_get, PASSES),
    CALL(getpid, PASSES), CALL(gettid, PASSES), CALL(getppid, PASSES), CALL(getpgrp, PASSES),
    CALL(getpgid, PASSES), CALL(getsid, PASSES), CALL(getuid, PASSES), CALL(geteuid, PASSES),
    CALL(getgid, PASSES), CALL(getegid, PASSES), CALL(getresuid, PASSES),
    CALL(getresgid, PASSES), CALL(getgroups, PASSES), CALL(getrlimit, PASSES),
    CALL(getitimer, PASSES), CALL(mincore, OF_MEMORY), CALL(msync, OF_MEMORY), CALL(capget, PASSES),
    CALL(rt_sigpending, PASSES), CALL(rt_sigtimedwait, PASSES), CALL(pause, PASSES),
    CALL(wait4, PASSES), CALL(waitid, PASSES), /* for no child */
    CALL(timer_gettime, PASSES), CALL(membarrier, ASKS_BARRIER), CALL(get_mempolicy, PASSES),
    CALL(ppoll, POLLS_MASKED), CALL(epoll_pwait, MASKS_AT_4), CALL(epoll_pwait2, MASKS_AT_4),
    CALL(pselect6, SELECTS_MASKED), CALL(rt_sigsuspend, MASKS_AT_0),

    /* Sockets, and what else is made: closed. */
    CALL(socket, MAKES), CALL(accept, MAKES_OF), CALL(accept4, MAKES_OF), CALL(connect, OF_FD),
    CALL(bind, OF_FD), CALL(listen, OF_FD), CALL(shutdown, OF_FD), CALL(getsockname, OF_FD),
    CALL(getpeername, OF_FD), CALL(getsockopt, OF_FD), CALL(setsockopt, OF_FD),
    CALL(sendto, SENDS), CALL(sendmsg, SENDS), CALL(sendmmsg, SENDS), CALL(recvfrom, OF_FD),
    CALL(recvmsg, RECEIVES), CALL(epoll_create, MAKES), CALL(epoll_create1, MAKES),
    CALL(epoll_ctl, OF_FDS), CALL(epoll_wait, OF_FD), CALL(eventfd, MAKES),
    CALL(eventfd2, MAKES), CALL(timerfd_create, MAKES), CALL(timerfd_settime, OF_FD),
    CALL(timerfd_gettime, OF_FD), CALL(inotify_init, MAKES), CALL(inotify_init1, MAKES),
    CALL(inotify_add_watch, OF_FD), CALL(inotify_rm_watch, OF_FD), CALL(memfd_create, MAKES),
    CALL(pipe, MAKES_PIPE), CALL(pipe2, MAKES_PIPE), CALL(socketpair, MAKES_PAIR),
    CALL(dup, COPIES), CALL(open, OPENS), CALL(openat, OPENS_AT), CALL(openat2, OPENS_2),
    CALL(creat, CREATES), CALL(close, CLOSES), CALL(close_range, CLOSES_RANGE),
    CALL(dup2, PLACES), CALL(dup3, PLACES), CALL(fcntl, CONTROLS), CALL(ioctl, CONTROLS_DEVICE),
    CALL(flock, LOCKS),

    /* Memory that the run has mapped is unmapped, all other put back. */
    CALL(mmap, MAPS), CALL(munmap, UNMAPS), CALL(mremap, REMAPS),
    CALL(mprotect, PROTECTS), CALL(madvise, ADVISES), CALL(brk, MOVES_BRK),

    /* Settings that are put back. */
    CALL(rt_sigaction, SETS_ACTION), CALL(rt_sigprocmask, SETS_MASK),
    CALL(sigaltstack, SETS_STACK), CALL(umask, SETS_UMASK), CALL(chdir, MOVES),
    CALL(fchdir, MOVES_TO), CALL(prctl, SETS_PROCESS), CALL(arch_prctl, SETS_THREAD),
    CALL(alarm, SETS_TIMER), CALL(setitimer, SETS_TIMER), CALL(prlimit64, SETS_LIMIT),

    /* What it has used. */
    CALL(getrusage, USES), CALL(clock_gettime, READS_CLOCK), CALL(times, SAYS_TIMES),

    CALL(kill, SIGNALS), CALL(tgkill, SIGNALS), CALL(tkill, SIGNALS), CALL(futex, WAKES),
    CALL(rt_sigreturn, RETURNS), CALL(exit, ENDS), CALL(exit_group, ENDS),
};
/* clang-format on */

/* ---- settings ---- */

static bool set_process(struct call *c) {
    switch ((int)c->arg[0]) {
    case PR_SET_NAME:
        resident->named = true;
        return call_pass(c);
    case PR_GET_NAME:
    case PR_GET_DUMPABLE:
    case PR_GET_PDEATHSIG:
    case PR_GET_KEEPCAPS:
    case PR_GET_SECUREBITS:
    case PR_GET_NO_NEW_PRIVS:
    case PR_GET_TIMERSLACK:
    case PR_CAPBSET_READ:
        return call_pass(c);
    case PR_SET_VMA: /* a name of memory; what was there answers as a kernel that has no names */
        return mapped_has(c->arg[2], c->arg[3]) ? call_pass(c) : call_answer(c, -EINVAL);
    default:
        return false;
    }
}

static bool is_alone(long operation) {
    switch (operation & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)) {
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
        return true;
    default:
        return false;
    }
}

/* ---- the handler ---- */

/* What is taken note of is so with the call itself: no handler of the program comes in between,
 * which may make such calls, too.  None of these waits. */
static bool whole(struct call *c, bool (*carry)(struct call *)) {
    static const uint64_t all = ~(uint64_t)0;
    uint64_t mask;
    raw(rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof mask);
    bool undone = resident->lives && carry(c);
    raw(rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    return undone;
}

static enum how how_of(long nr) {
    return nr >= 0 && nr < (long)(sizeof table / sizeof *table) ? (enum how)table[nr] : LEAVES;
}

static bool pass_of_two(struct call *c, long other) {
    return reset_is_own((int)other) ? call_answer(c, -EBADF) : call_pass_of(c, (int)c->arg[0]);
}

/* fstat(3) is this of an empty name (glibc 2.33).  Other names below one of ours are rare: it
 * leaves, and then there is none. */
static bool ask_at(struct call *c) {
    const char *name = (const char *)c->arg[1];
    long flags = c->arg[c->nr == SYS_statx ? 2 : 3];
    if (!reset_is_own(c->arg[0])) return call_pass(c);
    if (!(flags & AT_EMPTY_PATH)) return false;
    if (name && (!call_can_read(name, sizeof(uint64_t)) || *name)) return false;
    return call_answer(c, -EBADF);
}

/* False: it cannot be undone, and was not made. */
static bool carry_out(struct call *c) {
    struct resident *r = resident;
    const long *a = c->arg;
    switch (how_of(c->nr)) {
    case PASSES:
        return call_pass(c);
    case OF_FD:
        return call_pass_of(c, (int)a[0]);
    case OF_FDS:
        return pass_of_two(c, a[2]);
    case OF_SECOND:
        return pass_of_two(c, a[1]);
    case ASKS_AT:
        return ask_at(c);
    case BELOW:
        return call_pass_if(c, !reset_is_own(a[0]));
    case BELOW_TWO:
        return call_pass_if(c, !reset_is_own(a[0]) && !reset_is_own(a[2]));
    case BELOW_SECOND:
        return call_pass_if(c, !reset_is_own(a[1]));
    case MAKES:
        return fds_make(c);
    case MAKES_OF:
        return reset_is_own((int)a[0]) ? call_answer(c, -EBADF) : fds_make(c);
    case COPIES:
        return reset_is_own((int)a[0]) ? call_answer(c, -EBADF) : fds_copy(c);
    case MAKES_PIPE:
        return fds_make_two(c, (const int *)a[0]);
    case MAKES_PAIR:
        return fds_make_two(c, (const int *)a[3]);
    case OPENS:
        return fds_open(c, &c->arg[1]);
    case OPENS_AT:
        return !reset_is_own(a[0]) && fds_open(c, &c->arg[2]);
    case OPENS_2:
        return !reset_is_own(a[0]) && fds_open_2(c);
    case CREATES:
        return fds_open(c, NULL);
    case CLOSES:
        return fds_close(c);
    case CLOSES_RANGE:
        return fds_close_range(c);
    case PLACES:
        return fds_place(c);
    case CONTROLS:
        return fds_control(c);
    case CONTROLS_DEVICE:
        return fds_control_device(c);
    case SENDS:
        return fds_send(c);
    case RECEIVES:
        return fds_receive(c);
    case LOCKS:
        return fds_lock(c);
    case MAPS:
        return whole(c, mapped_map);
    case UNMAPS:
        return whole(c, mapped_unmap);
    case REMAPS:
        return whole(c, mapped_remap);
    case PROTECTS:
        return mapped_has(a[0], a[1]) ? call_pass(c) : whole(c, frozen_protect);
    case ADVISES:
        return mapped_has(a[0], a[1]) ? call_pass(c) : whole(c, frozen_advise);
    case OF_MEMORY:
        return call_pass_if(c, !frozen_has_hole(a[0], a[1]));
    case MOVES_BRK:
        return whole(c, mapped_move_brk);
    case SETS_ACTION:
        return whole(c, signals_set_action);
    case SETS_MASK:
        return signals_set_mask(c);
    case SETS_STACK:
        return signals_set_stack(c);
    case POLLS:
        return call_pass_if(c, fds_may_poll(c));
    case POLLS_MASKED:
        return fds_may_poll(c) && signals_wait(c, 3);
    case SELECTS:
        return call_pass_if(c, fds_may_select(c));
    case SELECTS_MASKED:
        return fds_may_select(c) && signals_wait_inner(c);
    case MASKS_AT_0:
        return signals_wait(c, 0);
    case MASKS_AT_4:
        return signals_wait(c, 4);
    case SETS_UMASK:
        r->masked = true;
        return call_pass(c);
    case MOVES:
        r->moved = true;
        return call_pass(c);
    case MOVES_TO:
        r->moved = true;
        return call_pass_of(c, a[0]);
    case SETS_PROCESS:
        return set_process(c);
    case SETS_TIMER: /* one that fires when the job has ended ends the resident, too */
        r->timed = true;
        return call_pass(c);
    case SETS_LIMIT:
        return a[2] == 0 ? call_pass(c) : whole(c, limits_set);
    case ASKS_BARRIER: /* the query has all zeros */
        return call_pass_if(c, a[2] == 0 && a[0] == 0);
    case USES:
        return used_by_it(c);
    case READS_CLOCK:
        return used_clock(c);
    case SLEEPS:
        return used_sleep(c);
    case SAYS_TIMES:
        return used_times(c);
    case SIGNALS:
        return call_pass_if(c, a[c->nr == SYS_tgkill ? 2 : 1] == 0);
    case SETS_THREAD:
        return call_pass_if(c, a[0] == ARCH_GET_FS || a[0] == ARCH_GET_GS);
    case WAKES:
        return call_pass_if(c, is_alone(a[1]));
    default:
        return false;
    }
}

/* A handler's return is a system call, too, and libc's own would come here. */
__asm__(".pushsection .text\n"
        ".type rerun_restorer, @function\n"
        "rerun_restorer:\n\t"
        "mov $15, %eax\n\t" /* rt_sigreturn */
        "syscall\n\t"
        ".popsection");
HIDDEN void rerun_restorer(void);

/*
 * How many handlers of ours are under way: one in another, where a handler of the program came
 * before the first instruction of one, or at any later one, and made a call.  One that it never
 * came back to is counted, too, until the run ends; the count is in memory that is put back.
 */
static volatile int inside;

static void leave_now(long before, ucontext_t *context) {
    reset_leave(before, context, inside > 1);
}

/* What the kernel does about locks in shared memory whose owner has ended (robust_list(2)) it does
 * not for one that goes on.  True for one that was just being taken, too. */
static bool holds_robust(void) {
    const struct robust_list_head *head = (const void *)self.robust_list;
    return head && (head->list.next != &head->list || head->list_op_pending);
}

static void on_call(struct call *c, greg_t *r) {
    enum how how = c->nr >= 0 ? how_of(c->nr) : LEAVES;
    if (how == ENDS && !resident->leaves_next && !holds_robust())
        resident->again((int)c->arg[0] & 0xff);
    resident->calls++;
    if (how == RETURNS) /* from its frame, by an instruction of ours */
        r[REG_RIP] = (greg_t)(uintptr_t)rerun_restorer;
    else if (!resident->leaves_next && carry_out(c))
        r[REG_RAX] = c->result;
    else {
        leave_now(c->nr, c->context);
        r[REG_RIP] -= SYSCALL_SIZE;
    }
}

/* Somebody has sent it to the program, whose it is then. */
static void on_signal(ucontext_t *context) {
    leave_now(-SIGSYS, context);
    raw(tgkill, raw(getpid, 0), raw(gettid, 0), SIGSYS);
}

/* A handler that came in between has left: the call is native. */
static void on_sigsys_of_nobody(const siginfo_t *info, greg_t *r) {
    if (info->si_code == SYS_USER_DISPATCH)
        r[REG_RIP] -= SYSCALL_SIZE;
    else
        raw(tgkill, raw(getpid, 0), raw(gettid, 0), SIGSYS);
}

static void on_sigsys_of_resident(const siginfo_t *info, ucontext_t *context) {
    struct call call = call_of(info, context);
    if (info->si_code != SYS_USER_DISPATCH)
        on_signal(context);
    else {
        if (info->si_arch != AUDIT_ARCH_X86_64) call.nr = -1;
        on_call(&call, context->uc_mcontext.gregs);
    }
}

static void on_sigsys(int sig, siginfo_t *info, void *context) {
    (void)sig;
    inside++;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (resident == NULL || !resident->lives)
        on_sigsys_of_nobody(info, ((ucontext_t *)context)->uc_mcontext.gregs);
    else if (resident->frame == NULL) {
        inside = 0; /* as each run begins */
        resident->born(context);
    } else
        on_sigsys_of_resident(info, context);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    inside--;
}

/* This object's code: its own calls are not watched. */
HIDDEN extern const char __ehdr_start[], etext[];

int rerun_watch(void) {
    struct resident *r = resident;
    struct ksigaction action = {
        .handler = (void (*)(int))(void (*)(void))on_sigsys,
        .flags = SA_SIGINFO | SA_NODEFER | SA_KERNEL_RESTORER,
        .restorer = rerun_restorer,
    };
    long error = raw(rt_sigaction, SIGSYS, &action, &r->own_sigsys, sizeof action.mask);
    if (error < 0) return (int)error;
    r->frozen_sigsys = r->own_sigsys;
    for (int sig = 1; sig <= NSIGNALS; sig++) {
        struct ksigaction frozen;
        if (sig == SIGSYS || raw(rt_sigaction, sig, NULL, &frozen, sizeof frozen.mask) < 0)
            continue;
        if (!(frozen.mask & SYS_BIT)) continue;
        r->masked_sigsys |= SIGNAL_BIT(sig);
        frozen.mask &= ~SYS_BIT;
        raw(rt_sigaction, sig, &frozen, NULL, sizeof frozen.mask);
    }
    r->masks_sigsys = r->masked_sigsys;
    r->selector = DISPATCH_BLOCK;
    return (int)raw(prctl, PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_ON, __ehdr_start,
                    etext - __ehdr_start, &r->selector);
}

#endif
