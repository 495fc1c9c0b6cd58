/*
 * own.c - what a resident has for itself: memory and descriptors that are not the program's, and
 * its word to the spawner.
 */
#include "reset.h"

#ifdef __linux__
#ifdef FSP_HAVE_RESIDENTS
#include <sys/socket.h>

struct resident *resident;

static size_t whole_pages(size_t size) {
    return (size + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* Guards keep the kernel from making one mapping of it and of what lies beside it. */
void *reset_map(size_t size) {
    size = whole_pages(size);
    long at = raw(mmap, NULL, size + 2 * PAGE, PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (is_error(at)) return NULL;
    if (raw(mprotect, at + PAGE, size, PROT_READ | PROT_WRITE) == 0) return (char *)at + PAGE;
    raw(munmap, at, size + 2 * PAGE);
    return NULL;
}

void reset_unmap(void *at, size_t size) {
    if (at) raw(munmap, (char *)at - PAGE, whole_pages(size) + 2 * PAGE);
}

int reset_keep(int fd) {
    struct resident *r = resident;
    if (fd < 0) return fd;
    int own = r->nown < MAX_OWN ? (int)raw(fcntl, fd, F_DUPFD_CLOEXEC, r->high) : -EMFILE;
    raw(close, fd);
    if (own >= 0) r->own[r->nown++] = own;
    return own;
}

void reset_send(uint32_t kind, int value) {
    struct resident *r = resident;
    r->reply.kind = kind;
    r->reply.version = FSP_SNAP_VERSION;
    r->reply.number = r->number;
    r->reply.value = value;
    r->reply.calls = r->calls;
    raw(sendto, r->socket, &r->reply, sizeof r->reply, MSG_NOSIGNAL, NULL, 0);
}

bool resident_is(void) {
    return resident && resident->lives;
}

uint64_t resident_mask(uint64_t mask) {
    if (!resident_is()) return mask;
    if (mask & SIGNAL_BIT(SIGSYS)) resident->blocks_sigsys = true;
    return mask & ~SIGNAL_BIT(SIGSYS);
}

/* It is put back, and what is set of it is another's, perhaps. */
void resident_moves(int fd) {
    if (!resident_is()) return;
    resident->touched[fd] = true;
    resident->whose[fd] = WHOSE_SHARED;
}

_Noreturn void resident_cannot(void) {
    resident->record->begun = 0;
    for (;;) leave(0);
}

#else

bool resident_is(void) {
    return false;
}

uint64_t resident_mask(uint64_t mask) {
    return mask;
}

void resident_moves(int fd) {
    (void)fd;
}

_Noreturn void resident_cannot(void) {
    for (;;) leave(0);
}

#endif
#endif
