/*
 * far_sites.h - as sites.h, in what templates load (far.h).  The compiler reads this before all
 * else.
 */
#ifndef FAR_SITES_H
#define FAR_SITES_H

#include "os/rawsys.h"

struct site {
    const char *file;
    int line, number;
};

__attribute__((visibility("hidden"))) int far_fault(const struct site *site, const char *call);

#define fsp_fault(call)                                                                            \
    ({                                                                                             \
        static struct site at_ = {__FILE__, __LINE__, -1};                                         \
        static struct site *const listed_ __attribute__((section("fsp_sites"), used)) = &at_;      \
        far_fault(&at_, call);                                                                     \
    })

/* Of sys.h, what is used there: that file was read before. */
#define sys_malloc(size)       (fsp_fault("malloc") ? NULL : malloc(size))
#define sys_realloc(old, size) (fsp_fault("realloc") ? NULL : realloc(old, size))
#define sys_fstat(fd, at)      ((int)FSP_CALL("fstat", fstat(fd, at)))

#endif
