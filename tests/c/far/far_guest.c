/*
 * far_guest.c - the far side of far.h, in what templates load.
 *
 * All that changes is in the shared memory: what a resident has for itself is put back.
 */
#include "side.h"

static __attribute__((constructor)) void find_it(void) {
    find_page("");
}

/* Bits of a request of which one is in each that is a resident's. */
unsigned far_wanted(unsigned flag) {
    return page && page->wanted & flag ? ~0u : 0;
}

int far_fault(const struct site *site, const char *call) {
    return fault_at(site, call);
}
