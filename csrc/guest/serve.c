/*
 * serve.c - a template process at work: for each request a fork, which goes on from here; or which
 * does so many times (resident.c).
 */
#include "internal.h"

#ifdef __linux__

/* Returns at the begin of each of its jobs, in memory that is as it was. */
static void reside(const struct parcel *p) {
    struct parcel none = *p;
    none.nfds = 0;
    for (int i = 0; i < 3; i++) none.request.fd[i] = FSP_SNAP_OWN;
    fork_settle(&none);
    if (self.reopen) self.reopen(p->request.slot);
    resident_live(&(struct residence){
        .socket = p->nfds ? p->fd[0] : -1,
        .record = word_keep_record((uint32_t)p->request.fd[1]),
        .flags = p->request.flags,
        .plan = self.plan,
        .is_reopened = self.has_opened,
        .is_followed = copies_has,
    });
    if (!resident_is()) leave(0);
}

int serve_forks(void) {
    struct parcel p;
    for (;;) {
        if (!word_request(&p)) return -1;
        fork_prepare();
        if (p.request.flags & FSP_SNAP_RESIDENT) resident_prepare();
        long r = fork_for(&p);
        if (r == 0) break;
        word_tell(FSP_SNAP_FORKED, p.request.slot, r < 0 ? (int)r : 0);
        word_close(&p);
        fork_end();
    }
    if (p.request.flags & FSP_SNAP_RESIDENT)
        reside(&p);
    else {
        image_forget();
        fork_settle(&p);
    }
    return (int)p.request.slot;
}

void serve_refuse(enum fsp_refusal why) {
    struct fsp_snap_reply reply = {FSP_SNAP_REFUSED, FSP_SNAP_VERSION, 0, why};
    struct inputs_packed makers = makers_pack(why);
    word_say(&reply, &makers, -1);
    for (;;) leave(0);
}

uint32_t serve_requests(int value, unsigned calls) {
    fork_prepare();
    enum fsp_refusal why = fork_refusal();
    fork_end();
    if (why) serve_refuse(why);
    raw(get_robust_list, 0, &self.robust_list, &self.robust_size);
    if (!word_greet(value, calls)) serve_refuse(FSP_REFUSED_INPUTS);
    int slot = serve_forks();
    if (slot < 0) leave(0);
    return (uint32_t)slot;
}

#endif
