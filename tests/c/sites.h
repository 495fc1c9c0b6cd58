/*
 * sites.h - the places in the core that call out, each by itself.
 *
 * The compiler reads this before all else (Makefile).  Whatever asks fsp_fault() says where it is,
 * and is on a list that the linker makes: none can be forgotten.  sys_calls.h is made of os/sys.h:
 * it has FSP_AT around each of the functions there that ask.
 */
#ifndef SITES_H
#define SITES_H

#include "os/rawsys.h"

#ifdef __linux__

struct site {
    const char *file; /* as from the repository's root */
    int line;
    int number; /* faults.c */
};

/* This is where this thread asks, until it says so again. */
void faults_here(const struct site *site);

#define FSP_AT(expr)                                                                               \
    ({                                                                                             \
        static struct site at_ = {__FILE__, __LINE__, 0};                                          \
        static struct site *const listed_ __attribute__((section("fsp_sites"), used)) = &at_;      \
        faults_here(&at_);                                                                         \
        (expr);                                                                                    \
    })

#define fsp_fault(call) FSP_AT(fsp_fault(call))
#include "sys_calls.h"

#endif
#endif
