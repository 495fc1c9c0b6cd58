/*
 * far_worker.c - the far side of far.h, in the worker of a pool: it is built of the test's own
 * objects (sites.h).  The places below it are those of the spawn sweep.
 */
#include "side.h"

#include "fastspawn.h"

static const struct site *here;

/* Also in a child on this memory: its places have no number, and this process waits for it. */
FSP_UNINSTRUMENTED void faults_here(const struct site *site) {
    here = site;
}

static FSP_UNINSTRUMENTED int hook(const char *call) {
    return fault_at(here, call);
}

static __attribute__((constructor)) void find_it(void) {
    find_page("csrc/worker/");
    fsp_fault_set(hook);
}
