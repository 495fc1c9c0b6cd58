/*
 * state.c - what the kernel keeps of a resident besides its memory, put back after each run:
 * descriptors, directory, umask, name, handlers and alternate stack of signals, segment bases.
 *
 * Descriptors that a run has made are closed.  Those that were there stand by a copy, out of the
 * program's way, for when it closes them.  Their offset goes back if nobody else has it; one that
 * forks of the template share they would have moved, too.
 */
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#include <elf.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/time.h>

#define FSGSBASE 2 /* of AT_HWCAP2: the program may set them without a call */

/* ---- descriptors ---- */

struct entry { /* getdents64(2) */
    uint64_t ino, off;
    unsigned short size;
    unsigned char type;
    char name[];
};

struct frozen *state_frozen(long fd) {
    struct resident *r = resident;
    for (size_t i = 0; i < r->nfrozen; i++)
        if (r->frozen[i].fd == fd) return &r->frozen[i];
    return NULL;
}

/* The kernel lists them in ascending order, which close_made() relies on. */
static int add_frozen(int fd) {
    struct resident *r = resident;
    if (r->nfrozen == MAX_FDS || fd >= r->high) return -EMFILE;
    if (r->nfrozen && fd < r->frozen[r->nfrozen - 1].fd) return -EIO;
    int type = sockets_type(fd), copy = type ? -1 : (int)raw(fcntl, fd, F_DUPFD_CLOEXEC, r->high);
    if (copy < 0 && !type) return copy;
    bool own = r->here.is_reopened && r->here.is_reopened(fd);
    r->frozen[r->nfrozen++] = (struct frozen){
        .fd = fd,
        .saved = copy,
        .type = type,
        .flags = raw(fcntl, fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0,
        .follows = r->here.is_followed(fd),
        .own = own,
        .at = own ? raw(lseek, fd, 0, SEEK_CUR) : 0,
    };
    return 0;
}

static int read_number(const char *name) {
    int n = 0;
    for (; *name >= '0' && *name <= '9'; name++) n = n * 10 + (*name - '0');
    return *name ? -1 : n;
}

/* The list is read to its end before any is copied: copies would appear on it. */
static int freeze_fds(void) {
    _Alignas(struct entry) char list[16384];
    int fds = (int)raw(openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fds < 0) return fds;
    long size = raw(getdents64, fds, list, sizeof list), rest[4];
    bool all = size >= 0 && raw(getdents64, fds, rest, sizeof rest) == 0;
    raw(close, fds);
    int error = all ? 0 : -EMFILE;
    for (long at = 0; error == 0 && at < size;) {
        const struct entry *e = (const void *)(list + at);
        int fd = read_number(e->name);
        at += e->size;
        if (fd > 2 && fd != fds && !reset_is_own(fd)) error = add_frozen(fd);
    }
    return error;
}

static void put_back(const struct frozen *f) {
    reset_must(f->type ? sockets_renew(f->fd, f->type, f->flags)
                       : reset_dup(f->saved, f->fd, f->flags));
}

static void restore_offsets(void) {
    const struct resident *r = resident;
    for (const struct frozen *f = r->frozen; f < r->frozen + r->nfrozen; f++)
        if (f->own) reset_must(raw(lseek, f->fd, f->at, SEEK_SET));
}

/* All between two that are frozen: those that a handler has jumped away from, untold, too.  The
 * kernel looks at each number, so it is asked only where there may be one. */
static void close_made(void) {
    struct resident *r = resident;
    int from = 3;
    if (!r->makes) return;
    for (size_t i = 0; i <= r->nfrozen; i++) {
        int to = i < r->nfrozen ? r->frozen[i].fd : r->high;
        if (from < to) reset_must(raw(close_range, from, to - 1, 0));
        from = to + 1;
    }
    for (int fd = 0; fd < r->made_end; fd++) r->made[fd] = false;
    for (size_t i = 0; i < r->nfrozen; i++) r->whose[r->frozen[i].fd] = WHOSE_SHARED;
    r->made_end = 0;
    r->makes = false;
}

void state_let_go(void) {
    struct resident *r = resident;
    limits_restore();
    for (int i = 0; i < 3; i++)
        if (r->touched[i]) reset_must(reset_dup(r->rest[i], i, 0));
    for (struct frozen *f = r->frozen; f < r->frozen + r->nfrozen; f++) {
        /* What is there may be a copy of the job's, or connected. */
        if (f->follows || f->gone || f->type) put_back(f);
        f->gone = false;
    }
    close_made();
    if (r->nulls_set) reset_must(raw(fcntl, r->null, F_SETFL, r->nulls_flags));
    r->nulls_set = false;
}

/* ---- the rest ---- */

static int freeze_fds_of_ours(void) {
    struct resident *r = resident;
    int null = (int)raw(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
    int cwd = (int)raw(openat, AT_FDCWD, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    r->null = null < 0 ? null : reset_keep(null);
    r->cwd = cwd < 0 ? cwd : reset_keep(cwd);
    if (r->null < 0 || r->cwd < 0) return r->null < 0 ? r->null : r->cwd;
    r->nulls_flags = raw(fcntl, r->null, F_GETFL);
    for (int i = 0; i < 3; i++) {
        /* Never closed between jobs: what comes next would get their numbers. */
        if (raw(fcntl, i, F_GETFD) < 0) raw(dup3, r->null, i, 0);
        r->rest[i] = reset_keep((int)raw(fcntl, i, F_DUPFD_CLOEXEC, 3));
        if (r->rest[i] < 0) return r->rest[i];
    }
    return 0;
}

static void freeze_signals(void) {
    struct resident *r = resident;
    for (int sig = 1; sig <= NSIGNALS; sig++) {
        raw(rt_sigaction, sig, NULL, &r->action[sig], sizeof r->action[sig].mask);
        if (r->action[sig].flags & SA_RESETHAND) r->actions_once |= SIGNAL_BIT(sig);
    }
    raw(sigaltstack, NULL, &r->stack);
}

static void restore_signals(void) {
    struct resident *r = resident;
    uint64_t changed = r->actions_set | r->actions_once;
    for (int sig = 1; changed; sig++, changed >>= 1)
        if (changed & 1) raw(rt_sigaction, sig, &r->action[sig], NULL, sizeof r->action[sig].mask);
    r->actions_set = 0;
    r->blocks_sigsys = r->blocked_sigsys;
    r->masks_sigsys = r->masked_sigsys;
    r->own_sigsys = r->frozen_sigsys;
    /* A handler that the program ended in may have taken it away (SS_AUTODISARM). */
    reset_must(raw(sigaltstack, &r->stack, NULL));
}

/* A fork has none. */
static void stop_timers(void) {
    static const struct itimerval none;
    for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++)
        reset_must(raw(setitimer, which, &none, NULL));
}

int state_freeze(void) {
    struct resident *r = resident;
    int error = (int)raw(close_range, UINT_MAX, UINT_MAX, 0); /* a filter may refuse it */
    if (error == 0) error = freeze_fds_of_ours();
    if (error == 0) error = freeze_fds();
    if (error < 0) return error;
    freeze_signals();
    raw(prctl, PR_GET_NAME, r->name, 0, 0, 0);
    r->umask = (int)raw(umask, 0);
    raw(umask, r->umask);
    raw(arch_prctl, ARCH_GET_FS, &r->fs);
    raw(arch_prctl, ARCH_GET_GS, &r->gs);
    r->has_fsgsbase = getauxval(AT_HWCAP2) & FSGSBASE;
    r->leads_session = raw(getsid, 0) == raw(getpid, 0);
    return 0;
}

void state_restore(void) {
    struct resident *r = resident;
    restore_offsets();
    if (r->moved) reset_must(raw(fchdir, r->cwd)); /* it may be closed to us by now */
    if (r->masked) raw(umask, r->umask);
    if (r->named) reset_must(raw(prctl, PR_SET_NAME, r->name, 0, 0, 0));
    if (r->timed) stop_timers();
    r->moved = r->masked = r->named = r->timed = false;
    restore_signals();
    if (!r->has_fsgsbase) return;
    __asm__ volatile("wrfsbase %0" : : "r"(r->fs) : "memory");
    __asm__ volatile("wrgsbase %0" : : "r"(r->gs) : "memory");
}

#endif
