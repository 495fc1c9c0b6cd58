/*
 * signals.c - the calls of a resident's program that are about signals.
 *
 * SIGSYS is ours: it is kept out of every mask that the kernel has, and the program is told what it
 * believes.  The handler's frame holds the mask and the stack that the kernel will restore.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
#define KNOWN_FLAGS                                                                                \
    (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER |             \
     SA_RESETHAND | 0x800 /* SA_EXPOSE_TAGBITS */ | 0x04000000 /* SA_RESTORER */)

/* The program's own handler of SIGSYS is where it believes it to be, and comes to be there when it
 * leaves: one that somebody sends is such a moment (rerun.c). */
static bool set_sigsys(struct call *c, const struct ksigaction *to) {
    struct resident *r = resident;
    struct ksigaction *from = (void *)c->arg[2], before = r->own_sigsys;
    if (to && !call_can_read(to, sizeof *to)) return call_pass(c);
    if (to) {
        r->own_sigsys = *to;
        r->own_sigsys.flags &= KNOWN_FLAGS;
        r->own_sigsys.mask &= ~(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP));
    }
    c->arg[1] = 0;
    call_pass(c); /* the kernel writes to `from`, which may fail */
    c->arg[1] = (long)to;
    if (from && c->result == 0) *from = before;
    return true;
}

bool signals_set_action(struct call *c) {
    struct resident *r = resident;
    long sig = c->arg[0];
    const struct ksigaction *to = (const void *)c->arg[1];
    struct ksigaction *from = (void *)c->arg[2], own;
    if (sig < 1 || sig > NSIGNALS || c->arg[3] != sizeof own.mask) return call_pass(c);
    if (sig == SIGSYS) return set_sigsys(c, to);
    if (to && !call_can_read(to, sizeof *to)) return call_pass(c);
    bool was_masked = r->masks_sigsys & SIGNAL_BIT(sig);
    if (to) {
        own = *to;
        own.mask &= ~SYS_BIT;
        c->arg[1] = (long)&own;
    }
    call_pass(c);
    c->arg[1] = (long)to;
    if (c->result < 0) return true;
    if (from && was_masked) from->mask |= SYS_BIT;
    if (to == NULL) return true;
    r->actions_set |= SIGNAL_BIT(sig);
    r->masks_sigsys &= ~SIGNAL_BIT(sig);
    if (to->mask & SYS_BIT) r->masks_sigsys |= SIGNAL_BIT(sig);
    return true;
}

bool signals_set_mask(struct call *c) {
    uint64_t *mask = (uint64_t *)&c->context->uc_sigmask;
    uint64_t before = *mask | (resident->blocks_sigsys ? SYS_BIT : 0), after = before, set = 0;
    const uint64_t *to = (const void *)c->arg[1];
    uint64_t *old = (void *)c->arg[2];
    if (c->arg[3] != sizeof *mask || (to && !call_can_read(to, sizeof *to))) return call_pass(c);
    if (to) set = *to & ~(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP));
    if (to && c->arg[0] == SIG_BLOCK)
        after |= set;
    else if (to && c->arg[0] == SIG_UNBLOCK)
        after &= ~set;
    else if (to && c->arg[0] == SIG_SETMASK)
        after = set;
    else if (to)
        return call_answer(c, -EINVAL);
    resident->blocks_sigsys = after & SYS_BIT;
    *mask = after & ~SYS_BIT;
    /* The kernel writes, which may fail. */
    c->result = old ? raw(rt_sigprocmask, SIG_BLOCK, NULL, old, sizeof *old) : 0;
    if (old && c->result == 0) *old = before;
    return true;
}

/* From the handler's frame the kernel would set it again. */
bool signals_set_stack(struct call *c) {
    call_pass(c);
    const stack_t *stack = (const void *)c->arg[0];
    if (c->result == 0 && stack) c->context->uc_stack = *stack;
    return true;
}

bool signals_wait(struct call *c, int index) {
    const uint64_t *mask = (const void *)c->arg[index];
    if (mask == NULL || !call_can_read(mask, sizeof *mask)) return call_pass(c);
    uint64_t own = *mask & ~SYS_BIT;
    c->arg[index] = (long)&own;
    call_pass(c);
    c->arg[index] = (long)mask;
    return true;
}

struct mask_and_size {
    const uint64_t *mask;
    size_t size;
};

bool signals_wait_inner(struct call *c) {
    const struct mask_and_size *asked = (const void *)c->arg[5];
    if (asked == NULL || !call_can_read(asked, sizeof *asked) || asked->mask == NULL ||
        !call_can_read(asked->mask, sizeof *asked->mask))
        return call_pass(c);
    uint64_t mask = *asked->mask & ~SYS_BIT;
    struct mask_and_size own = {&mask, asked->size};
    c->arg[5] = (long)&own;
    call_pass(c);
    c->arg[5] = (long)asked;
    return true;
}

#endif
