/*
 * keep.c - forks that are no job's: a template process is asked for one that serves many.
 *
 * Such a fork has a slot of the page as any other, and one of the page's records.
 */
#include "zygote.h"

#ifdef __linux__

#define RECORDS 64 /* bits of fsp_zygote.records, and no more than FSP_SNAP_RECORDS */

static int take_record(struct fsp_zygote *z) {
    for (int i = 0; i < RECORDS; i++) {
        if (z->records >> i & 1) continue;
        z->records |= (uint64_t)1 << i;
        memset((void *)&z->page->resident[i], 0, sizeof z->page->resident[i]);
        return i;
    }
    return -EAGAIN;
}

static void give_record(struct fsp_zygote *z, int record) {
    z->records &= ~((uint64_t)1 << record);
}

int fsp_fork_resident(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_fork *fork,
                      int socket) {
    int record = take_record(z), slot = record < 0 ? -1 : fsp_zygote_take_slot(z);
    if (record < 0) return record;
    if (slot < 0) {
        give_record(z, record);
        return -EAGAIN;
    }
    struct fsp_snap_request request = {
        .slot = (uint32_t)slot, .flags = FSP_SNAP_RESIDENT, .fd = {0, record, FSP_SNAP_OWN}
    };
    int r = fsp_zygote_request(s, z, &request, z->template->plan, &socket, 1);
    if (r < 0) {
        give_record(z, record);
        fsp_zygote_give_slot(z, (uint32_t)slot, true);
        return r;
    }
    fork->of = z;
    fork->slot = (uint32_t)slot;
    fork->waits = true;
    fork->next = z->forks;
    z->forks = fork;
    fsp_zygote_expect(s, z);
    return record;
}

struct fsp_resident_record *fsp_fork_record(const struct fsp_fork *fork, int record) {
    return &fork->of->page->resident[record];
}

struct fsp_fork *fsp_fork_answered(struct fsp_zygote *z, uint32_t slot) {
    struct fsp_fork **at = &z->forks, *fork;
    while (*at && (*at)->slot != slot) at = &(*at)->next;
    fork = *at;
    if (fork == NULL) return NULL;
    *at = fork->next;
    fork->waits = false;
    return fork;
}

void fsp_fork_leave(struct fsp_fork *fork, int record, bool reaped) {
    struct fsp_zygote *z = fork->of;
    fork->of = NULL;
    if (reaped) give_record(z, record);
    fsp_zygote_give_slot(z, fork->slot, reaped);
}

#endif
