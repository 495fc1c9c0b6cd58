/*
 * dispatch.h - a system call that comes as a signal (Syscall User Dispatch, Linux 5.11, x86-64),
 * and the files that carry some out for a program that is watched on its way to its first effect.
 *
 *   effect.c    the watch: its signals come here, and it ends before the first effect
 *   pure.c      the calls that are none: made, and what they make of the process noted
 *   sockets.c   those that ask for a service, and find that it is not there
 *   watched.c   the signals by which it is watched, and what the program believes of them
 *   held.c      locks that the program holds where it stops
 *
 * Those of a resident are in call.h.
 */
#ifndef FSP_GUEST_DISPATCH_H
#define FSP_GUEST_DISPATCH_H

#include "internal.h"

#if defined(__linux__) && defined(__x86_64__)
#include <sys/prctl.h>
#include <ucontext.h>

#ifndef PR_SET_VMA /* Linux 5.17, where it has names for memory */
#define PR_SET_VMA           0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define DISPATCH_OFF   0
#define DISPATCH_ON    1
#define DISPATCH_ALLOW 0 /* of the selector */
#define DISPATCH_BLOCK 1

#define SA_KERNEL_RESTORER 0x04000000
#define SYSCALL_SIZE       2 /* of the instruction */

struct call {
    long nr, arg[6];
    ucontext_t *context;
    long result;
};

/* Of which this signal tells. */
static inline struct call call_of(const siginfo_t *info, ucontext_t *context) {
    const greg_t *r = context->uc_mcontext.gregs;
    return (struct call){
        .nr = info->si_syscall,
        .arg = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]},
        .context = context,
    };
}

static inline bool call_pass(struct call *c) {
    const long *a = c->arg;
    c->result = raw6(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    return true;
}

static inline bool call_answer(struct call *c, long result) {
    c->result = result;
    return true;
}

static inline bool call_pass_if(struct call *c, bool allowed) {
    return allowed && call_pass(c);
}

/* May so many bytes be read?  The kernel looks, and does nothing: there is no such way. */
static inline bool call_can_read(const void *at, size_t size) {
    const uint64_t *first = at;
    const uint64_t *last = (const void *)((const char *)at + size - sizeof *last);
    return raw(rt_sigprocmask, -1, first, NULL, sizeof *first) == -EINVAL &&
           raw(rt_sigprocmask, -1, last, NULL, sizeof *last) == -EINVAL;
}

/* ---- pure.c ---- */

/* False: it is an effect, and was not made. */
bool pure_make(struct call *c);
/* It tells of this process's mappings. */
bool pure_reads_maps(const struct call *c);
/* What was opened so, and is open. */
bool pure_has_opened(int fd);
void pure_reopen(uint32_t slot); /* in a fork */

/* ---- sockets.c ---- */

/* These make the call if it is none that others could notice. */
bool sockets_make(struct call *c);
bool sockets_connect(struct call *c);
bool sockets_close(struct call *c);
/* One that was made so, and is open. */
bool sockets_has(long fd);
void sockets_renew_all(uint32_t slot); /* in a fork */

/* ---- watched.c ---- */

typedef void signal_handler(int sig, siginfo_t *info, void *context);

long watched_install(signal_handler *on_call, signal_handler *on_fault);
void watched_restore(void);
/* What the program believes it has blocked of them. */
uint64_t watched_blocked(void);
/* Calls of the program that are about signals. */
bool watched_set_action(struct call *c);
bool watched_set_mask(struct call *c);
bool watched_set_stack(struct call *c);

/* ---- held.c ---- */

/* Once; not FSP_REFUSED_NOT: there are too many, or they cannot be looked for. */
enum fsp_refusal held_find(void);
void held_give(void); /* in a fork: they are this thread's */

#endif
#endif
