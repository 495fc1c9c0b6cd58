/*
 * limits.c - soft limits that a resident's program sets are put back (prlimit(2)).
 *
 * A hard one cannot be raised again by whoever may not.  Below which number descriptors are is
 * what ours rely on, and CPU time counts from the begin of the process, not of the job: a program
 * that sets one of these leaves.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS

static bool is_undone(unsigned which, const struct rlimit *now, const struct rlimit *to) {
    if (to->rlim_max != now->rlim_max) return false;
    return to->rlim_cur == now->rlim_cur || (which != RLIMIT_NOFILE && which != RLIMIT_CPU);
}

bool limits_set(struct call *c) {
    struct resident *r = resident;
    unsigned which = (unsigned)c->arg[1];
    const struct rlimit *to = (const void *)c->arg[2];
    struct rlimit now;
    if (c->arg[0] != 0 && c->arg[0] != raw(getpid, 0)) return false;
    if (!call_can_read(to, sizeof *to) || raw(prlimit64, 0, which, NULL, &now) < 0) return false;
    if (!is_undone(which, &now, to)) return false;
    if (!(r->limits_changed & 1u << which)) r->limit[which] = now;
    r->limits_changed |= 1u << which;
    return call_pass(c);
}

/* Before all else is: what is mapped then counts. */
void limits_restore(void) {
    struct resident *r = resident;
    for (unsigned which = 0; r->limits_changed; which++, r->limits_changed >>= 1)
        if (r->limits_changed & 1) reset_must(raw(prlimit64, 0, which, &r->limit[which], NULL));
}

#endif
