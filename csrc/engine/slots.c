/*
 * slots.c - names for jobs in the poller.
 *
 * A poller answers with whatever it was given, and it may answer late: events of one batch come
 * after the job has ended, and a descriptor that a child still holds between clone and exec stays
 * watched after we closed ours.  So it is given a slot number and a generation, never a pointer,
 * and an answer from an earlier generation is no one's.
 */
#include "engine.h"

#define NONE UINT32_MAX

int fsp_slots_reserve(struct fsp_slots *slots) {
    if (slots->cap && slots->first_free != NONE) return 0;
    uint32_t cap = slots->cap ? slots->cap * 2 : 64;
    struct fsp_slot *slot = sys_realloc(slots->slot, cap * sizeof *slot);
    if (slot == NULL) return -ENOMEM;
    for (uint32_t i = slots->cap; i < cap; i++)
        slot[i] = (struct fsp_slot){NULL, 1, i + 1 < cap ? i + 1 : NONE};
    slots->first_free = slots->cap;
    slots->slot = slot;
    slots->cap = cap;
    return 0;
}

void fsp_slots_add(struct fsp_slots *slots, struct fsp_job *job) {
    job->slot = slots->first_free;
    slots->first_free = slots->slot[job->slot].next_free;
    slots->slot[job->slot].job = job;
}

void fsp_slots_remove(struct fsp_slots *slots, struct fsp_job *job) {
    struct fsp_slot *slot = &slots->slot[job->slot];
    slot->job = NULL;
    if (++slot->generation == 0) slot->generation = 1; /* 0 is a helper's (origin.h) */
    slot->next_free = slots->first_free;
    slots->first_free = job->slot;
}

uint64_t fsp_slots_token(const struct fsp_slots *slots, const struct fsp_job *job,
                         enum fsp_source source) {
    return (uint64_t)slots->slot[job->slot].generation << 32 | (uint64_t)job->slot << 2 | source;
}

struct fsp_job *fsp_slots_find(const struct fsp_slots *slots, uint64_t token,
                               enum fsp_source *source) {
    uint32_t i = (uint32_t)token >> 2;
    *source = (enum fsp_source)(token & 3);
    if (i >= slots->cap || slots->slot[i].generation != token >> 32) return NULL;
    return slots->slot[i].job;
}
