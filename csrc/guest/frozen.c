/*
 * frozen.c - memory that was there before a run, and that the run unmaps, moves, drops or protects.
 *
 * What is unmapped is so for the program alone.  Mapped anew it would not be what it was: the
 * kernel makes no one mapping of it and of what lies beside it in a fork, and its pages would be
 * gone, with their protection (pages.c).  So it is a hole, which nobody can use: until the run
 * ends, or the process leaves, when it is unmapped indeed.  A call that would notice leaves.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
static const struct region *region_at(uintptr_t at) {
    const struct resident *r = resident;
    for (const struct region *g = r->region; g < r->region + r->nregions; g++)
        if (at < (uintptr_t)g->end) return at >= (uintptr_t)g->start ? g : NULL;
    return NULL;
}

/* Written and shared with no one, all of it, but for the stack, which grows. */
static bool was_there(struct range asked) {
    const struct region *g = NULL;
    if (asked.end <= asked.start || asked.start % PAGE) return false;
    for (uintptr_t at = asked.start; at < asked.end; at = (uintptr_t)g->end) {
        g = region_at(at);
        if (g == NULL || g->stack) return false;
    }
    return true;
}

static bool is_there(struct range asked) {
    return was_there(asked) && !ranges_meet(&resident->holes, asked);
}

bool frozen_has_hole(long at, long size) {
    return ranges_meet(&resident->holes, range_of(at, size));
}

static size_t size_of(struct range range) {
    return range.end - range.start;
}

/* Where this fails in the middle, the process leaves, and unmaps all of it. */
static bool dig(struct range gone) {
    struct ranges *holes = &resident->holes;
    if (!ranges_have_room(holes)) return false;
    if (raw(mprotect, gone.start, size_of(gone), PROT_NONE) < 0) return false;
    ranges_add(holes, gone);
    return true;
}

/* ---- at the end ---- */

/* Returns 0 or -errno. */
static long give_back(struct range range) {
    const struct resident *r = resident;
    long done = 0;
    for (const struct region *g = r->region; g < r->region + r->nregions && done == 0; g++) {
        uintptr_t start = (uintptr_t)g->start, end = (uintptr_t)g->end;
        if (start < range.start) start = range.start;
        if (end > range.end) end = range.end;
        if (start < end) done = raw(mprotect, start, end - start, g->prot);
    }
    return done;
}

static void give_all_back(struct ranges *set) {
    for (size_t i = 0; i < set->n; i++) reset_must(give_back(set->at[i]));
    set->n = 0;
}

void frozen_restore(void) {
    give_all_back(&resident->holes);
    give_all_back(&resident->altered);
}

/* The heap first: the kernel cuts off nothing of one that has a hole at its end. */
void frozen_leave(void) {
    const struct resident *r = resident;
    if (r->brk_now < r->brk) raw(brk, r->brk_now);
    for (size_t i = 0; i < r->holes.n; i++)
        raw(munmap, r->holes.at[i].start, size_of(r->holes.at[i]));
}

/* ---- the calls ---- */

bool frozen_unmap(struct call *c) {
    struct range asked = range_of(c->arg[0], c->arg[1]);
    return was_there(asked) && dig(asked) && call_answer(c, 0);
}

bool frozen_protect(struct call *c) {
    struct range asked = range_of(c->arg[0], c->arg[1]);
    struct ranges *altered = &resident->altered;
    if (c->arg[2] & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) return false;
    if (!is_there(asked) || !ranges_have_room(altered)) return false;
    ranges_add(altered, asked);
    return call_pass(c);
}

/* The kernel may take what is free (MADV_FREE), and need not.  What is dropped is copied back:
 * there may be no fault that tells. */
bool frozen_advise(struct call *c) {
    struct range asked = range_of(c->arg[0], c->arg[1]);
    if (!is_there(asked)) return false;
    if (c->arg[2] == MADV_FREE) return call_answer(c, 0);
    if (c->arg[2] != MADV_DONTNEED) return false;
    pages_note((char *)asked.start, (char *)asked.end);
    return call_pass(c);
}

static bool copy(struct call *c, const struct region *g, struct range old) {
    long size = c->arg[2];
    long to = raw(mmap, NULL, size, g->prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (is_error(to)) return false;
    if (image_read((void *)to, (void *)old.start, size_of(old)) && dig(old)) {
        ranges_add(&resident->mapped, range_of(to, size));
        return call_answer(c, to);
    }
    raw(munmap, to, size);
    return false;
}

/* It is not moved, but copied. */
bool frozen_remap(struct call *c) {
    struct range old = range_of(c->arg[0], c->arg[1]), new = range_of(c->arg[0], c->arg[2]);
    const struct region *g = region_at(old.start);
    if (!is_there(old) || new.end <= new.start || old.end > (uintptr_t)g->end || g->file)
        return false;
    if (ranges_meet(&resident->altered, old)) return false;
    if (new.end > old.end) return c->arg[3] & MREMAP_MAYMOVE && copy(c, g, old);
    struct range gone = {new.end, old.end};
    return (gone.start == gone.end || dig(gone)) && call_answer(c, c->arg[0]);
}

/* ---- the heap, below where it ended ---- */

static bool shrink(char *to) {
    struct resident *r = resident;
    struct range gone = {range_round_up((uintptr_t)to), range_round_up((uintptr_t)r->brk)};
    const struct region *g = region_at(gone.start);
    if (gone.start < gone.end && (!was_there(gone) || gone.end > (uintptr_t)g->end)) return false;
    if (gone.start < gone.end && !dig(gone)) return false;
    if (r->brk_now > r->brk) raw(brk, r->brk);
    r->brk_now = to;
    return true;
}

/* It is zeros, as what is new there.  False: there is no memory, and it is a hole as before. */
static bool fill(struct range more) {
    if (more.start >= more.end) return true;
    pages_note((char *)more.start, (char *)more.end);
    if (give_back(more) == 0 && raw(madvise, more.start, size_of(more), MADV_DONTNEED) == 0) {
        ranges_remove(&resident->holes, more);
        return true;
    }
    raw(mprotect, more.start, size_of(more), PROT_NONE);
    return false;
}

/* Or not, as the kernel has it: the program sees that it is where it was. */
static void grow(char *to) {
    struct resident *r = resident;
    char *end = to < r->brk ? to : r->brk;
    struct range more = {range_round_up((uintptr_t)r->brk_now), range_round_up((uintptr_t)end)};
    if (to > r->brk && raw(brk, to) != (long)to) return;
    if (fill(more))
        r->brk_now = to;
    else if (to > r->brk)
        raw(brk, r->brk);
}

bool frozen_move_brk(struct call *c) {
    struct resident *r = resident;
    char *to = (char *)c->arg[0];
    r->brk_moves = true;
    if (to && to < r->brk_now) {
        if (!shrink(to)) return false;
    } else if (to)
        grow(to);
    return call_answer(c, (long)r->brk_now);
}

#endif
