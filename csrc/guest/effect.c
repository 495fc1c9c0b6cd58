/*
 * effect.c - run a program on from its main to just before its first effect.
 *
 * Every system call raises SIGSYS (Syscall User Dispatch).  The handler makes those that are pure
 * (pure.c), and at the first other one the process becomes a template.  A fork has no dispatch (it
 * is not inherited): it returns to the very instruction, which now does what it always did.
 *
 * Clocks are no system calls: the vDSO is made inaccessible and rdtsc trapped, and the fault is
 * where the process stops.  So is any other fault: the fork runs into it again, on its own.
 * Random numbers of the processor itself (rdrand.c) and of AT_RANDOM (fresh.c) end in faults, too.
 *
 * Handlers run between any two instructions of the program, so nothing here, nor in the files of
 * dispatch.h, calls libc but for its pure string functions.
 */
#include "dispatch.h"

#ifdef __linux__

#ifdef __x86_64__
#include <dlfcn.h>
#include <linux/audit.h>
#include <sys/prctl.h>

static struct {
    volatile char selector;
    char *vdso;
    size_t vdso_size;
    const char *random; /* getrandom in the vDSO */
    unsigned calls;
} watch;

static void show_clock(void) {
    if (watch.vdso) raw(mprotect, watch.vdso, watch.vdso_size, PROT_READ | PROT_EXEC);
}

static bool hide_clock(void) {
    return watch.vdso == NULL || raw(mprotect, watch.vdso, watch.vdso_size, PROT_NONE) == 0;
}

/* The program does not run on in this process, so it need not be watched any more; what runs here
 * are the handlers that libraries have for forks. */
static void unwatch(void) {
    watch.selector = DISPATCH_ALLOW;
    watched_restore();
    raw(prctl, PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
    if (!fresh_show()) serve_refuse(FSP_REFUSED_MEMORY); /* forks write there */
    show_clock();
}

static void stop(int before, ucontext_t *context) {
    int error = errno; /* handlers of forks may set it, between any two instructions */
    enum fsp_refusal why = held_find();
    if (why != FSP_REFUSED_NOT) serve_refuse(why);
    unwatch();
    rdrand_show(context);
    merge_locale();
    self.reopen = pure_reopen;
    self.has_opened = pure_has_opened;
    uint32_t slot = serve_requests(before, watch.calls);
    held_give();
    if (!resident_is()) pure_reopen(slot); /* which has done so, once */
    word_drop_page();
    fresh_renew_random();
    atfork_child();
    errno = error;
    *(uint64_t *)&context->uc_sigmask |= resident_mask(watched_blocked());
}

/* What the program is told of its mappings is as in a fork, where nothing is hidden. */
static bool make(struct call *c) {
    if (!pure_reads_maps(c)) return pure_make(c);
    show_clock();
    rdrand_uncover();
    pure_make(c);
    if (!hide_clock()) serve_refuse(FSP_REFUSED_VDSO);
    if (!rdrand_cover()) serve_refuse(FSP_REFUSED_DRAWN);
    return true;
}

static void on_call(int sig, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct call call = call_of(info, context);
    (void)sig;
    if (info->si_arch == AUDIT_ARCH_X86_64 && make(&call)) {
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
    maps_find_vdso(&watch.vdso, &watch.vdso_size);
    if (!hide_clock()) return FSP_REFUSED_VDSO;
    if (!rdrand_hide_mapped()) return FSP_REFUSED_DRAWN;
    if (watched_install(on_call, on_fault) < 0) return FSP_REFUSED_DISPATCH;
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
