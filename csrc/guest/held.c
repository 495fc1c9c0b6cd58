/*
 * held.c - locks that the program holds where it stops.
 *
 * A fork has another thread id, and some of libc's locks know their owner by it: those that are
 * held are found, and given to the fork.
 */
#include "dispatch.h"

#if defined(__linux__) && defined(__x86_64__)
#include <stddef.h>

#define PAGE       4096
#define MAX_OWNERS 32
#define MAX_SEARCH (64l * 1024 * 1024)

static struct {
    int tid, *owner[MAX_OWNERS];
    size_t nowners;
    long searched;
    enum fsp_refusal why;
} held;

/* As glibc lays them out; its ABI. */
struct mutex {
    int lock;
    unsigned count;
    int owner;
    unsigned users;
    int kind;
};

struct rwlock {
    unsigned readers, writers, write_phase, writers_futex, pad[2];
    int writer, shared;
};

static bool is_mutex_owner(const char *at) {
    const struct mutex *m = (const void *)(at - offsetof(struct mutex, owner));
    return (m->lock == 1 || m->lock == 2) && m->users == 1 && m->kind >= 0 && m->kind < 4;
}

static bool is_rwlock_writer(const char *at) {
    const struct rwlock *l = (const void *)(at - offsetof(struct rwlock, writer));
    return l->write_phase & 1 && l->pad[0] == 0 && l->pad[1] == 0 && (unsigned)l->shared <= 1;
}

#define MARGIN sizeof(struct rwlock) /* so much around an owner is looked at */

static bool find_owners_in(char *start, char *end) {
    for (char *at = start + MARGIN; at < end - MARGIN; at += sizeof(int)) {
        if (*(int *)at != held.tid || !(is_mutex_owner(at) || is_rwlock_writer(at))) continue;
        if (held.nowners == MAX_OWNERS) {
            held.why = FSP_REFUSED_LOCKS;
            return false;
        }
        held.owner[held.nowners++] = (int *)at;
    }
    return true;
}

/* A run of pages that were touched, with so much around it that no owner is at its edge. */
static bool find_owners_near(char *from, char *to, char *start, char *end) {
    from = from - start < (long)MARGIN ? start : from - MARGIN;
    to = end - to < (long)MARGIN ? end : to + MARGIN;
    return find_owners_in(from, to);
}

/* Only what was ever touched: reading maps pages, if only the zero page, and forks copy what is
 * mapped. */
static bool find_owners(char *start, char *end) {
    const char *own = (const char *)&held;
    char there[256], *from = NULL;
    if (own >= start && own < end) return true;
    if (held.searched > MAX_SEARCH || end - start > MAX_SEARCH) {
        held.why = FSP_REFUSED_MEMORY;
        return false;
    }
    held.searched += end - start;
    for (char *at = start; at < end;) {
        size_t n = (size_t)(end - at) / PAGE;
        if (n > sizeof there) n = sizeof there;
        if (raw(mincore, at, n * PAGE, there) < 0) memset(there, 1, n);
        for (size_t i = 0; i < n; i++, at += PAGE) {
            if (there[i] & 1 && from == NULL) from = at;
            if (there[i] & 1 || from == NULL) continue;
            if (!find_owners_near(from, at, start, end)) return false;
            from = NULL;
        }
    }
    return from == NULL || find_owners_near(from, end, start, end);
}

enum fsp_refusal held_find(void) {
    held.tid = (int)raw(gettid, 0);
    if (maps_for_each_writable(find_owners)) return FSP_REFUSED_NOT;
    return held.why ? held.why : FSP_REFUSED_PROC;
}

void held_give(void) {
    int tid = held.nowners ? (int)raw(gettid, 0) : 0;
    for (size_t i = 0; i < held.nowners; i++) *held.owner[i] = tid;
}

#endif
