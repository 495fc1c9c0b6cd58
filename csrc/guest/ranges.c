/*
 * ranges.c - sets of addresses: ranges that do not touch.  Whoever takes out a part, or all of
 * several at once, finds them.
 */
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
uintptr_t range_round_up(uintptr_t n) {
    return (n + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
}

struct range range_of(long at, long size) {
    return (struct range){(uintptr_t)at, (uintptr_t)at + range_round_up((uintptr_t)size)};
}

bool ranges_have(const struct ranges *set, struct range asked) {
    for (size_t i = 0; i < set->n; i++)
        if (asked.start >= set->at[i].start && asked.end <= set->at[i].end) return true;
    return false;
}

bool ranges_meet(const struct ranges *set, struct range asked) {
    for (size_t i = 0; i < set->n; i++)
        if (asked.start < set->at[i].end && asked.end > set->at[i].start) return true;
    return false;
}

bool ranges_have_room(const struct ranges *set) {
    return set->n + 2 < MAX_RANGES;
}

void ranges_remove(struct ranges *set, struct range gone) {
    for (size_t i = 0; i < set->n; i++) {
        struct range *r = &set->at[i], old = *r;
        if (gone.end <= old.start || gone.start >= old.end) continue;
        struct range below = {old.start, gone.start}, above = {gone.end, old.end};
        bool has_below = below.start < below.end, has_above = above.start < above.end;
        if (has_below && has_above) set->at[set->n++] = above;
        if (has_below || has_above)
            *r = has_below ? below : above;
        else
            set->at[i--] = set->at[--set->n];
    }
}

void ranges_add(struct ranges *set, struct range added) {
    for (size_t i = 0; i < set->n;) {
        const struct range *r = &set->at[i];
        if (added.end < r->start || added.start > r->end) {
            i++;
            continue;
        }
        if (r->start < added.start) added.start = r->start;
        if (r->end > added.end) added.end = r->end;
        set->at[i] = set->at[--set->n];
        i = 0;
    }
    set->at[set->n++] = added;
}

#endif
