/*
 * fault.c - the switch of the seam (see sys.h).
 */
#include "sys.h"

#include "fastspawn.h"

int (*fsp_fault_hook)(const char *call);

void fsp_fault_set(int (*hook)(const char *call)) {
    __atomic_store_n(&fsp_fault_hook, hook, __ATOMIC_RELAXED);
}
