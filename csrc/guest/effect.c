/*
 * effect.c - run a program on from its main to just before its first effect.
 *
 * Every system call raises SIGSYS (Syscall User Dispatch, Linux 5.11, x86-64).  The handler makes
 * those that are pure - they change nothing outside of this process, and answer the same to every
 * fork as long as no file changes that it knows of - and at the first other one the process
 * becomes a template.  A fork has no dispatch (it is not inherited): it returns to the very
 * instruction, which now does what it always did.
 *
 * Clocks are no system calls: the vDSO is made inaccessible and rdtsc trapped, and the fault is
 * where the process stops.  So is any other fault: the fork runs into it again, on its own.
 * Random numbers of the processor itself (rdrand.c) and of AT_RANDOM (fresh.c) end in faults, too.
 *
 * Descriptors that were opened on the way are files, read-only; each fork opens its own anew,
 * since what is shared by forks is the offset.
 *
 * A fork has another thread id, and some of libc's locks know their owner by it: those that are
 * held where the process stops are found and given to the fork.
 *
 * What is allowed is a list; what is not on it is an effect.  Handlers run between any two
 * instructions of the program, so nothing here calls libc but for its pure string functions.
 */
#include "internal.h"

#ifdef __linux__

#ifdef __x86_64__
#include <asm/prctl.h>
#include <dlfcn.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <ucontext.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define DISPATCH_ON    1
#define DISPATCH_ALLOW 0
#define DISPATCH_BLOCK 1

#define SA_KERNEL_RESTORER 0x04000000
#define SYSCALL_SIZE       2 /* of the instruction */

#define PAGE       4096
#define MAX_FD     128
#define MAX_OWNERS 32
#define MAX_SEARCH (64l * 1024 * 1024)

/* What tells of a system call, of the vDSO or rdtsc, and of a program's own faults. */
static const int watched_signals[] = {SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
#define NWATCHED (sizeof watched_signals / sizeof *watched_signals)

static struct {
    volatile char selector;
    char *vdso;
    size_t vdso_size;
    bool opened[MAX_FD];
    int nfds;                        /* one more than the highest that was ever opened */
    struct ksigaction own[NWATCHED]; /* what the program believes them to be */
    uint64_t blocked;                /* those of them that it believes it has blocked */
    const char *random;              /* getrandom in the vDSO */
    int tid, *owner[MAX_OWNERS];
    size_t nowners;
    long searched;
    enum fsp_refusal why; /* it cannot be a template here */
    unsigned calls;
} watch;

/* ---- what a call touches ---- */

static bool is_opened(long fd) {
    return fd >= 0 && fd < MAX_FD && watch.opened[fd];
}

/* ---- the calls that are pure: each takes the registers and says whether it was one ---- */

struct call {
    long nr, arg[6];
    ucontext_t *context;
    long result;
};

static bool pass(struct call *c) {
    const long *a = c->arg;
    c->result = raw6(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    return true;
}

static bool pass_if(struct call *c, bool pure) {
    return pure && pass(c);
}

/* A file to be read (or a directory, but not its entries): noted, with its absence if it is not
 * there. */
static bool open_file(struct call *c, int dir, const char *path, long flags) {
    const long harmless = O_RDONLY | O_CLOEXEC | O_NOCTTY | 0100000 /* O_LARGEFILE */;
    char buf[PATH_MAX];
    const char *name = flags & ~harmless ? NULL : plain_name(path, true, buf, sizeof buf);
    if (name == NULL || (dir != AT_FDCWD && *path != '/')) return false;
    if (!inputs_add(name, FSP_SNAP_FOLLOW)) return false;
    pass(c);
    if (c->result < 0) return true;
    if (c->result >= MAX_FD || c->result < 3) {
        raw(close, c->result);
        return false;
    }
    if (c->result >= watch.nfds) watch.nfds = (int)c->result + 1;
    return watch.opened[c->result] = true;
}

static bool close_file(struct call *c) {
    if (!is_opened(c->arg[0])) return false;
    watch.opened[c->arg[0]] = false;
    return pass(c);
}

/* What is said of a name: noted, access time and all. */
static bool look_at(struct call *c, long dir, const char *path, bool follow) {
    char buf[PATH_MAX];
    const char *name = plain_name(path, follow, buf, sizeof buf);
    if (name == NULL || ((int)dir != AT_FDCWD && *path != '/')) return false;
    return inputs_add(name, FSP_SNAP_STAT | (follow ? FSP_SNAP_FOLLOW : 0)) && pass(c);
}

/* Of the program's own, which is mapped and so an input already, a fork reads the same. */
static bool read_link(struct call *c, long dir, const char *path) {
    char buf[PATH_MAX];
    return look_at(c, dir, path, false) || (plain_program(path, buf, sizeof buf) && pass(c));
}

static bool look_at_with(struct call *c, long dir, const char *path, long flags) {
    if (flags & AT_EMPTY_PATH) return pass_if(c, is_opened(dir) && path && *path == '\0');
    return path && look_at(c, dir, path, !(flags & AT_SYMLINK_NOFOLLOW));
}

#ifndef MAP_DROPPABLE /* Linux 6.11 */
#define MAP_DROPPABLE 8
#endif

static char *page_after(long end) {
    return (char *)((end + PAGE - 1) & -PAGE);
}

/* What is there now.  False: it is code that cannot be watched; it is not run yet. */
static bool note_memory(long start, long size, long prot) {
    char *end = page_after(start + size);
    rdrand_forget((char *)start, end);
    return !(prot & PROT_EXEC) || rdrand_hide((char *)start, end, (int)prot);
}

/* Memory of its own, or of a file that it may read; not memory that forks would share.  What may
 * be dropped at any time is zeros in a fork, as it may be here. */
static bool map_memory(struct call *c) {
    long prot = c->arg[2], flags = c->arg[3];
    bool mine = flags & MAP_PRIVATE || !(prot & PROT_WRITE);
    bool pure = flags & MAP_ANONYMOUS ? flags & MAP_PRIVATE || (flags & MAP_TYPE) == MAP_DROPPABLE
                                      : mine && is_opened((int)c->arg[4]);
    if (!pass_if(c, pure)) return false;
    bool made = c->result >= 0 || c->result < -4095;
    if (made && !note_memory(c->result, c->arg[1], prot)) serve_refuse(FSP_REFUSED_DRAWN);
    return true;
}

static bool protect_memory(struct call *c) {
    pass(c);
    if (c->result == 0 && !note_memory(c->arg[0], c->arg[1], c->arg[2]))
        serve_refuse(FSP_REFUSED_DRAWN);
    return true;
}

static bool unmap_memory(struct call *c) {
    pass(c);
    if (c->result == 0) rdrand_forget((char *)c->arg[0], page_after(c->arg[0] + c->arg[1]));
    return true;
}

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLD /* 5.4 */
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_GUARD_INSTALL /* 6.13 */
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

/* Not what keeps memory, or its content, from a fork (MADV_DONTFORK, MADV_WIPEONFORK). */
static bool advise(struct call *c) {
    switch (c->arg[2]) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_DOFORK:
    case MADV_KEEPONFORK:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
    case MADV_GUARD_INSTALL:
    case MADV_GUARD_REMOVE:
        return pass(c);
    default:
        return false;
    }
}

static bool query_descriptor(struct call *c) {
    long command = c->arg[1];
    if (streams_ask_flags(c->arg[0], command, &c->result)) return true;
    bool pure = command == F_GETFD || command == F_SETFD || command == F_GETFL;
    return pass_if(c, pure && is_opened(c->arg[0]));
}

static bool poll_streams(struct call *c) {
    return (int)c->arg[2] == 0 &&
           streams_ask_closed((struct pollfd *)c->arg[0], c->arg[1], &c->result);
}

/* ---- where it runs ---- */

/* By the name that the kernel has for it, which others may change. */
static bool say_where(struct call *c) {
    const char *name = (const char *)c->arg[0];
    return pass(c) && c->result > 0 && *name == '/' && inputs_add_here(name);
}

static bool say_processors(struct call *c) {
    if (c->arg[0] != 0 && c->arg[0] != raw(gettid, 0)) return false;
    return pass(c) && c->result > 0 &&
           inputs_add_processors((const void *)c->arg[2], (size_t)c->result);
}

/* ---- signals: the handler's frame holds what the kernel will restore after it ---- */

static bool set_action(struct call *c) {
    struct ksigaction *to = (void *)c->arg[1], *from = (void *)c->arg[2];
    for (size_t i = 0; i < NWATCHED; i++) {
        if (watched_signals[i] != c->arg[0]) continue;
        struct ksigaction before = watch.own[i];
        if (to) watch.own[i] = *to;
        if (from) *from = before;
        c->result = 0;
        return true;
    }
    return pass(c);
}

static uint64_t watched_bits(void) {
    uint64_t bits = 0;
    for (size_t i = 0; i < NWATCHED; i++) bits |= (uint64_t)1 << (watched_signals[i] - 1);
    return bits;
}

/* Signals that would then not be seen are blocked in the fork only. */
static bool set_mask(struct call *c) {
    uint64_t *mask = (uint64_t *)&c->context->uc_sigmask;
    uint64_t before = *mask | watch.blocked, after = before;
    const uint64_t *set = (const void *)c->arg[1];
    uint64_t *old = (void *)c->arg[2];
    if (c->arg[3] != sizeof *mask) return false;
    if (set && c->arg[0] == SIG_BLOCK)
        after |= *set;
    else if (set && c->arg[0] == SIG_UNBLOCK)
        after &= ~*set;
    else if (set && c->arg[0] == SIG_SETMASK)
        after = *set;
    else if (set)
        return false;
    if (old) *old = before;
    watch.blocked = after & watched_bits();
    *mask = after & ~watch.blocked;
    c->result = 0;
    return true;
}

static bool set_stack(struct call *c) {
    pass(c);
    const stack_t *stack = (const void *)c->arg[0];
    if (c->result == 0 && stack) c->context->uc_stack = *stack;
    return true;
}

static bool is_pure(struct call *c) {
    const long *a = c->arg;
    switch (c->nr) {
    /* Its own memory. */
    case SYS_brk:
    case SYS_mremap:
        return pass(c);
    case SYS_madvise:
        return advise(c);
    case SYS_mmap:
        return map_memory(c);
    case SYS_mprotect:
        return protect_memory(c);
    case SYS_munmap:
        return unmap_memory(c);

    /* Files that it opens to read. */
    case SYS_open:
        return open_file(c, AT_FDCWD, (const char *)a[0], a[1]);
    case SYS_openat:
        return open_file(c, (int)a[0], (const char *)a[1], a[2]);
    case SYS_close:
        return close_file(c);
    case SYS_read:
    case SYS_readv:
    case SYS_pread64:
    case SYS_lseek:
    case SYS_fstat:
    case SYS_fadvise64:
        return pass_if(c, is_opened(a[0]));
    case SYS_fcntl:
        return query_descriptor(c);

    /* What its standard streams are not. */
    case SYS_ioctl:
        return streams_ask_device(a[0], is_opened(a[0]), (unsigned)a[1], a[2], &c->result);
    case SYS_poll:
        return poll_streams(c);

    /* What names say. */
    case SYS_stat:
        return look_at(c, AT_FDCWD, (const char *)a[0], true);
    case SYS_lstat:
        return look_at(c, AT_FDCWD, (const char *)a[0], false);
    case SYS_access:
        return look_at(c, AT_FDCWD, (const char *)a[0], true);
    case SYS_readlink:
        return read_link(c, AT_FDCWD, (const char *)a[0]);
    case SYS_readlinkat:
        return read_link(c, a[0], (const char *)a[1]);
    case SYS_newfstatat:
        return look_at_with(c, a[0], (const char *)a[1], a[3]);
    case SYS_statx:
        return look_at_with(c, a[0], (const char *)a[1], a[2]);
    case SYS_faccessat:
        return look_at(c, a[0], (const char *)a[1], true);
    case SYS_faccessat2:
        return look_at_with(c, a[0], (const char *)a[1], a[3]);

    /* Where it runs: noted. */
    case SYS_getcwd:
        return say_where(c);
    case SYS_sched_getaffinity:
        return say_processors(c);

    /* What cannot change from outside: whose it is, and its limits. */
    case SYS_getuid:
    case SYS_geteuid:
    case SYS_getgid:
    case SYS_getegid:
    case SYS_getresuid:
    case SYS_getresgid:
    case SYS_getgroups:
    case SYS_getrlimit:
        return pass(c);
    case SYS_prlimit64:
        return pass_if(c, a[0] == 0 && a[2] == 0);

    /* What will happen at a signal: a fork has the same. */
    case SYS_rt_sigaction:
        return set_action(c);
    case SYS_rt_sigprocmask:
        return set_mask(c);
    case SYS_sigaltstack:
        return set_stack(c);

    /* What libc tells the kernel of its thread: fork.c tells it of the fork's. */
    case SYS_set_tid_address:
    case SYS_set_robust_list:
        return pass(c);
    case SYS_arch_prctl:
        return pass_if(c, a[0] == ARCH_SET_FS || a[0] == ARCH_GET_FS);

    /* There is no one to be woken. */
    case SYS_futex:
        return pass_if(c, (a[1] & ~FUTEX_PRIVATE_FLAG) == FUTEX_WAKE);

    default:
        return false;
    }
}

/* ---- locks that are held ---- */

/* As glibc lays them out; its ABI. */
struct mutex {
    int lock;
    unsigned count;
    int owner;
    unsigned users;
    int kind;
};

struct rwlock {
    unsigned readers, writers, write_phase, writers_futex, pad[2];
    int writer, shared;
};

static bool is_mutex_owner(const char *at) {
    const struct mutex *m = (const void *)(at - offsetof(struct mutex, owner));
    return (m->lock == 1 || m->lock == 2) && m->users == 1 && m->kind >= 0 && m->kind < 4;
}

static bool is_rwlock_writer(const char *at) {
    const struct rwlock *l = (const void *)(at - offsetof(struct rwlock, writer));
    return l->write_phase & 1 && l->pad[0] == 0 && l->pad[1] == 0 && (unsigned)l->shared <= 1;
}

#define MARGIN sizeof(struct rwlock) /* so much around an owner is looked at */

static bool find_owners_in(char *start, char *end) {
    for (char *at = start + MARGIN; at < end - MARGIN; at += sizeof(int)) {
        if (*(int *)at != watch.tid || !(is_mutex_owner(at) || is_rwlock_writer(at))) continue;
        if (watch.nowners == MAX_OWNERS) {
            watch.why = FSP_REFUSED_LOCKS;
            return false;
        }
        watch.owner[watch.nowners++] = (int *)at;
    }
    return true;
}

/* A run of pages that were touched, with so much around it that no owner is at its edge. */
static bool find_owners_near(char *from, char *to, char *start, char *end) {
    from = from - start < (long)MARGIN ? start : from - MARGIN;
    to = end - to < (long)MARGIN ? end : to + MARGIN;
    return find_owners_in(from, to);
}

/* Only what was ever touched: reading maps pages, if only the zero page, and forks copy what is
 * mapped. */
static bool find_owners(char *start, char *end) {
    const char *own = (const char *)&watch;
    char there[256], *from = NULL;
    if (own >= start && own < end) return true;
    if (watch.searched > MAX_SEARCH || end - start > MAX_SEARCH) {
        watch.why = FSP_REFUSED_MEMORY;
        return false;
    }
    watch.searched += end - start;
    for (char *at = start; at < end;) {
        size_t n = (size_t)(end - at) / PAGE;
        if (n > sizeof there) n = sizeof there;
        if (raw(mincore, at, n * PAGE, there) < 0) memset(there, 1, n);
        for (size_t i = 0; i < n; i++, at += PAGE) {
            if (there[i] & 1 && from == NULL) from = at;
            if (there[i] & 1 || from == NULL) continue;
            if (!find_owners_near(from, at, start, end)) return false;
            from = NULL;
        }
    }
    return from == NULL || find_owners_near(from, end, start, end);
}

/* ---- the fork ---- */

static void reopen(int fd, uint32_t slot) {
    char path[] = "/proc/self/fd/\0\0\0";
    char *digit = path + sizeof "/proc/self/fd/" - 1;
    if (fd >= 100) *digit++ = (char)('0' + fd / 100);
    if (fd >= 10) *digit++ = (char)('0' + fd / 10 % 10);
    *digit = (char)('0' + fd % 10);
    long cloexec = raw(fcntl, fd, F_GETFD), at = raw(lseek, fd, 0, SEEK_CUR);
    long own = raw(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (own < 0) word_fail(slot, own, fd);
    raw(lseek, own, at, SEEK_SET);
    raw(dup3, own, fd, cloexec & FD_CLOEXEC ? O_CLOEXEC : 0);
    raw(close, own);
}

static bool has_opened(int fd) {
    return is_opened(fd);
}

static void reopen_all(uint32_t slot) {
    for (int fd = 0; fd < watch.nfds; fd++)
        if (watch.opened[fd]) reopen(fd, slot);
}

static void release(uint32_t slot) {
    int tid = watch.nowners ? (int)raw(gettid, 0) : 0;
    for (size_t i = 0; i < watch.nowners; i++) *watch.owner[i] = tid;
    if (!resident_is()) reopen_all(slot); /* which has done so, once */
}

/* ---- the handlers ---- */

/* The program does not run on in this process, so it need not be watched any more; what runs here
 * are the handlers that libraries have for forks. */
static void unwatch(void) {
    watch.selector = DISPATCH_ALLOW;
    for (size_t i = 0; i < NWATCHED; i++)
        raw(rt_sigaction, watched_signals[i], &watch.own[i], NULL, sizeof watch.own[i].mask);
    raw(prctl, PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
    if (!fresh_show()) serve_refuse(FSP_REFUSED_MEMORY); /* forks write there */
    if (watch.vdso) raw(mprotect, watch.vdso, watch.vdso_size, PROT_READ | PROT_EXEC);
}

static void stop(int before, ucontext_t *context) {
    int error = errno; /* handlers of forks may set it, between any two instructions */
    watch.tid = (int)raw(gettid, 0);
    if (!maps_for_each_writable(find_owners))
        serve_refuse(watch.why ? watch.why : FSP_REFUSED_PROC);
    unwatch();
    rdrand_show(context);
    merge_locale();
    self.reopen = reopen_all;
    self.has_opened = has_opened;
    release(serve_requests(before, watch.calls));
    word_drop_page();
    fresh_renew_random();
    atfork_child();
    errno = error;
    *(uint64_t *)&context->uc_sigmask |= resident_mask(watch.blocked);
}

static void on_call(int sig, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct call call = {
        info->si_syscall,
        {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]},
        context,
        0
    };
    (void)sig;
    if (info->si_arch == AUDIT_ARCH_X86_64 && is_pure(&call)) {
        r[REG_RAX] = call.result;
        watch.calls++;
        return;
    }
    memcpy(self.page->stop_arg, call.arg, sizeof call.arg);
    stop(info->si_syscall, context);
    r[REG_RIP] -= SYSCALL_SIZE;
}

/* rdtsc and rdtscp.  What the kernel raises by itself has no address, and its code can be read. */
static bool reads_counter(const siginfo_t *info, const ucontext_t *context) {
    const unsigned char *code = (const void *)context->uc_mcontext.gregs[REG_RIP];
    if (info->si_signo != SIGSEGV || info->si_code != SI_KERNEL || code[0] != 0x0f) return false;
    return code[1] == 0x31 || (code[1] == 0x01 && code[2] == 0xf9);
}

static bool is_clock(const siginfo_t *info, const ucontext_t *context) {
    uintptr_t at = (uintptr_t)info->si_addr - (uintptr_t)watch.vdso;
    return info->si_code != SI_KERNEL && watch.vdso && at < watch.vdso_size
               ? info->si_signo == SIGSEGV
               : reads_counter(info, context);
}

/* As snapshot.h has it. */
static int number_of(int sig, const siginfo_t *info, const ucontext_t *context) {
    if (watch.random && info->si_addr == watch.random) return SYS_getrandom;
    if (is_clock(info, context)) return -sig - FSP_SNAP_KINDS * FSP_SNAP_CLOCK;
    bool random = sig == SIGSEGV && info->si_code != SI_KERNEL && fresh_is_hidden(info->si_addr);
    if (random || rdrand_is_met(sig, info, context)) return -sig - FSP_SNAP_KINDS * FSP_SNAP_RANDOM;
    return -sig;
}

static void on_fault(int sig, siginfo_t *info, void *context) {
    if (!rdrand_is_passed(sig, info, context)) stop(number_of(sig, info, context), context);
}

/* The return from a handler is a system call too, and libc's own would be watched. */
__asm__(".pushsection .text\n"
        ".type effect_restorer, @function\n"
        "effect_restorer:\n\t"
        "mov $15, %eax\n\t" /* rt_sigreturn */
        "syscall\n\t"
        ".popsection");
__attribute__((visibility("hidden"))) void effect_restorer(void);

static long install_handlers(void) {
    long r = 0;
    for (size_t i = 0; i < NWATCHED && r == 0; i++) {
        bool calls = watched_signals[i] == SIGSYS;
        struct ksigaction action = {
            .handler = (void (*)(int))(void (*)(void))(calls ? on_call : on_fault),
            .flags = SA_SIGINFO | SA_NODEFER | SA_KERNEL_RESTORER,
            .restorer = effect_restorer,
        };
        r = raw(rt_sigaction, watched_signals[i], &action, &watch.own[i], sizeof action.mask);
    }
    return r;
}

/* Linux 6.11; what a program stops before there is no clock. */
static void find_random(void) {
    void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (vdso == NULL) return;
    watch.random = dlsym(vdso, "__vdso_getrandom");
    dlclose(vdso);
    dlerror(); /* of what was not found */
}

/* This object's code: its own calls are not watched. */
__attribute__((visibility("hidden"))) extern const char __ehdr_start[], etext[];

enum fsp_refusal effect_watch(void) {
    if (dlsym(RTLD_DEFAULT, "gnu_get_libc_version") == NULL) return FSP_REFUSED_LIBC;
    if (!plain_can()) return FSP_REFUSED_DISPATCH;
    find_random();
    if (maps_find_vdso(&watch.vdso, &watch.vdso_size) &&
        raw(mprotect, watch.vdso, watch.vdso_size, PROT_NONE) < 0)
        return FSP_REFUSED_VDSO;
    if (!rdrand_hide_mapped()) return FSP_REFUSED_DRAWN;
    if (install_handlers() < 0) return FSP_REFUSED_DISPATCH;
    if (raw(prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) < 0) return FSP_REFUSED_TSC;
    watch.selector = DISPATCH_BLOCK;
    long r = raw(prctl, PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_ON, __ehdr_start,
                 etext - __ehdr_start, &watch.selector);
    return r < 0 ? FSP_REFUSED_DISPATCH : FSP_REFUSED_NOT;
}

#else

enum fsp_refusal effect_watch(void) {
    return FSP_REFUSED_EFFECT;
}

#endif
#endif
