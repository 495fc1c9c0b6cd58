/*
 * watched.c - the signals by which a program is watched, and what it believes of them.
 *
 * They tell of a system call, of the vDSO or rdtsc, and of a program's own faults.  The program may
 * set them as it likes: it is told what it has set, and it holds once the watch is over.
 */
#include "dispatch.h"

#if defined(__linux__) && defined(__x86_64__)

static const int watched[] = {SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
#define NWATCHED (sizeof watched / sizeof *watched)

static struct ksigaction own[NWATCHED]; /* what the program believes them to be */
static uint64_t blocked;                /* those of them that it believes it has blocked */

/* The return from a handler is a system call too, and libc's own would be watched. */
__asm__(".pushsection .text\n"
        ".type watched_restorer, @function\n"
        "watched_restorer:\n\t"
        "mov $15, %eax\n\t" /* rt_sigreturn */
        "syscall\n\t"
        ".popsection");
__attribute__((visibility("hidden"))) void watched_restorer(void);

long watched_install(signal_handler *on_call, signal_handler *on_fault) {
    long r = 0;
    for (size_t i = 0; i < NWATCHED && r == 0; i++) {
        signal_handler *handler = watched[i] == SIGSYS ? on_call : on_fault;
        struct ksigaction action = {
            .handler = (void (*)(int))(void (*)(void))handler,
            .flags = SA_SIGINFO | SA_NODEFER | SA_KERNEL_RESTORER,
            .restorer = watched_restorer,
        };
        r = raw(rt_sigaction, watched[i], &action, &own[i], sizeof action.mask);
    }
    return r;
}

void watched_restore(void) {
    for (size_t i = 0; i < NWATCHED; i++)
        raw(rt_sigaction, watched[i], &own[i], NULL, sizeof own[i].mask);
}

uint64_t watched_blocked(void) {
    return blocked;
}

/* ---- the handler's frame holds what the kernel will restore after it ---- */

bool watched_set_action(struct call *c) {
    struct ksigaction *to = (void *)c->arg[1], *from = (void *)c->arg[2];
    for (size_t i = 0; i < NWATCHED; i++) {
        if (watched[i] != c->arg[0]) continue;
        struct ksigaction before = own[i];
        if (to) own[i] = *to;
        if (from) *from = before;
        c->result = 0;
        return true;
    }
    return call_pass(c);
}

static uint64_t all_bits(void) {
    uint64_t bits = 0;
    for (size_t i = 0; i < NWATCHED; i++) bits |= (uint64_t)1 << (watched[i] - 1);
    return bits;
}

/* Signals that would then not be seen are blocked in the fork only. */
bool watched_set_mask(struct call *c) {
    uint64_t *mask = (uint64_t *)&c->context->uc_sigmask;
    uint64_t before = *mask | blocked, after = before;
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
    blocked = after & all_bits();
    *mask = after & ~blocked;
    c->result = 0;
    return true;
}

bool watched_set_stack(struct call *c) {
    call_pass(c);
    const stack_t *stack = (const void *)c->arg[0];
    if (c->result == 0 && stack) c->context->uc_stack = *stack;
    return true;
}

#endif
