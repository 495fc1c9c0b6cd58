/*
 * mapped.c - memory that a run maps, and what it does within it, until it is unmapped.
 *
 * What the heap (brk(2)) grew by is the run's, too.  All else was there before: frozen.c.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
static bool is_heap(struct range asked) {
    uintptr_t end = range_round_up((uintptr_t)resident->brk_now);
    return asked.start >= range_round_up((uintptr_t)resident->brk) && asked.end <= end;
}

void mapped_freeze(void) {
    resident->brk = resident->brk_now = (char *)raw(brk, 0);
}

bool mapped_has(long at, long size) {
    struct range asked = range_of(at, size);
    if (asked.end <= asked.start || asked.start % PAGE) return false;
    return ranges_have(&resident->mapped, asked) || is_heap(asked);
}

void mapped_restore(void) {
    struct resident *r = resident;
    for (size_t i = 0; i < r->mapped.n; i++) {
        const struct range *m = &r->mapped.at[i];
        reset_must(raw(munmap, m->start, m->end - m->start));
    }
    r->mapped.n = 0;
    if (r->brk_moves) reset_must(raw(brk, r->brk) == (long)r->brk ? 0 : -ENOMEM);
    r->brk_moves = false;
    r->brk_now = r->brk;
}

/* ---- the calls ---- */

bool mapped_move_brk(struct call *c) {
    struct resident *r = resident;
    char *to = (char *)c->arg[0];
    if ((to && to < r->brk) || r->brk_now < r->brk) return frozen_move_brk(c);
    r->brk_moves |= to != 0;
    call_pass(c);
    r->brk_now = (char *)c->result;
    return true;
}

bool mapped_map(struct call *c) {
    struct ranges *mapped = &resident->mapped;
    long flags = c->arg[3], size = c->arg[1];
    if (flags & (MAP_GROWSDOWN | MAP_LOCKED | MAP_HUGETLB) || !ranges_have_room(mapped))
        return false;
    if (!(flags & MAP_ANONYMOUS) && reset_is_own((int)c->arg[4])) return call_answer(c, -EBADF);
    bool fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    if (fixed && frozen_has_hole(c->arg[0], size)) return false;
    fixed = (flags & MAP_FIXED) && !(flags & MAP_FIXED_NOREPLACE);
    if (fixed && !mapped_has(c->arg[0], size)) return false;
    call_pass(c);
    if (!is_error(c->result) && !mapped_has(c->result, size))
        ranges_add(mapped, range_of(c->result, size));
    return true;
}

bool mapped_unmap(struct call *c) {
    struct ranges *mapped = &resident->mapped;
    if (!mapped_has(c->arg[0], c->arg[1])) return frozen_unmap(c);
    if (!ranges_have_room(mapped)) return false;
    call_pass(c);
    if (c->result == 0) ranges_remove(mapped, range_of(c->arg[0], c->arg[1]));
    return true;
}

bool mapped_remap(struct call *c) {
    struct ranges *mapped = &resident->mapped;
    if (c->arg[3] & ~MREMAP_MAYMOVE || !ranges_have_room(mapped)) return false;
    if (!mapped_has(c->arg[0], c->arg[1])) return frozen_remap(c);
    call_pass(c);
    if (is_error(c->result)) return true;
    ranges_remove(mapped, range_of(c->arg[0], c->arg[1]));
    ranges_add(mapped, range_of(c->result, c->arg[2]));
    return true;
}

#endif
