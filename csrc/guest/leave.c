/*
 * leave.c - a resident becomes an ordinary process, in the middle of a job.
 *
 * Nothing is undone: it is what a fork that came here would be, and goes on as one, with the very
 * call that a resident could not make.  What was ours in it goes.
 */
#include "dispatch.h"
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#include <sys/prctl.h>

/* Each such handler blocks SIGSYS, as the program has asked for. */
static void give_masks(void) {
    const struct resident *r = resident;
    for (int sig = 1; sig <= NSIGNALS; sig++) {
        struct ksigaction action;
        if (!(r->masks_sigsys & SIGNAL_BIT(sig))) continue;
        raw(rt_sigaction, sig, NULL, &action, sizeof action.mask);
        action.mask |= SIGNAL_BIT(SIGSYS);
        raw(rt_sigaction, sig, &action, NULL, sizeof action.mask);
    }
    raw(rt_sigaction, SIGSYS, &r->own_sigsys, NULL, sizeof r->own_sigsys.mask);
}

static void unmap_all(bool nested) {
    struct resident *r = resident;
    reset_unmap(r->odd, r->pages * sizeof *r->odd);
    reset_unmap(r->is_hot, r->pages / 8 + 1);
    reset_unmap(r->copies, (r->pages + 1) * PAGE);
    reset_unmap(r->hot, (r->pages + 2) * sizeof *r->hot);
    reset_unmap(r->maps, r->maps_size);
    reset_unmap(r->in_image, r->image_pages);
    raw(munmap, r->image, r->image_pages * PAGE);
    word_drop_record(r->record);
    if (nested) return;
    resident = NULL;
    reset_unmap(r, sizeof *r);
}

void reset_leave(long before, ucontext_t *context, bool nested) {
    static const uint64_t all = ~(uint64_t)0;
    struct resident *r = resident;
    raw(rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all); /* until the handler returns */
    if (!r->lives) return;
    r->lives = false;
    r->record->left = r->number;
    reset_send(FSP_RESIDENT_LEFT, (int)before);
    for (int i = 0; i < r->nown; i++) raw(close, r->own[i]); /* with it, all protection of pages */
    for (size_t i = 0; i < r->nfrozen; i++) raw(close, r->frozen[i].saved);
    raw(prctl, PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_OFF, 0, 0, 0);
    give_masks();
    frozen_leave();
    if (r->blocks_sigsys) *(uint64_t *)&context->uc_sigmask |= SIGNAL_BIT(SIGSYS);
    unmap_all(nested);
}

#endif
