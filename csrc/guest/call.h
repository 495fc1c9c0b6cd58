/*
 * call.h - a system call of a resident's program, and the files that carry some out.
 *
 * Each of these functions makes the call, and has noted what has to be undone; or answers false: it
 * cannot be undone, and nothing was done.
 */
#ifndef FSP_CALL_H
#define FSP_CALL_H

#include "dispatch.h"
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#define SYS_BIT SIGNAL_BIT(SIGSYS)

/* For the program there is none of ours. */
static inline bool call_pass_of(struct call *c, long fd) {
    return reset_is_own(fd) ? call_answer(c, -EBADF) : call_pass(c);
}

/* ---- descriptors.c ---- */

bool fds_make(struct call *c);
bool fds_copy(struct call *c);
bool fds_make_two(struct call *c, const int *pair);
bool fds_open(struct call *c, long *flags);
bool fds_open_2(struct call *c);
bool fds_close(struct call *c);
bool fds_close_range(struct call *c);
bool fds_place(struct call *c);
bool fds_control(struct call *c);
bool fds_control_device(struct call *c);
bool fds_lock(struct call *c);
bool fds_send(struct call *c);
bool fds_receive(struct call *c);
/* These make no call. */
bool fds_may_poll(const struct call *c);
bool fds_may_select(const struct call *c);

/* ---- mapped.c ---- */

bool mapped_map(struct call *c);
bool mapped_unmap(struct call *c);
bool mapped_remap(struct call *c);
bool mapped_move_brk(struct call *c);

/* ---- frozen.c ---- */

bool frozen_unmap(struct call *c);
bool frozen_remap(struct call *c);
bool frozen_protect(struct call *c);
bool frozen_advise(struct call *c);
bool frozen_move_brk(struct call *c);

/* ---- signals.c ---- */

bool signals_set_action(struct call *c);
bool signals_set_mask(struct call *c);
bool signals_set_stack(struct call *c);
bool signals_wait(struct call *c, int index);
bool signals_wait_inner(struct call *c);

/* ---- limits.c ---- */

bool limits_set(struct call *c);

/* ---- used.c ---- */

bool used_by_it(struct call *c);
bool used_clock(struct call *c);
bool used_sleep(struct call *c);
bool used_times(struct call *c);

#endif
#endif
