/*
 * far_sites.h - as sites.h, in what templates load (far.h).  The compiler reads this before all
 * else.
 */
#ifndef FAR_SITES_H
#define FAR_SITES_H

#include "os/rawsys.h"
#include "template/resident.h"

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

__attribute__((visibility("hidden"))) unsigned far_wanted(unsigned flag);

/* What no engine asks of a resident: it asks for it if the test does. */
#undef FSP_SNAP_CHECKED
#undef FSP_SNAP_PLAIN
#define FSP_SNAP_CHECKED far_wanted(1)
#define FSP_SNAP_PLAIN   far_wanted(2)

/* Of sys.h, what is used there: that file was read before. */
#define sys_malloc(size)       (fsp_fault("malloc") ? NULL : malloc(size))
#define sys_realloc(old, size) (fsp_fault("realloc") ? NULL : realloc(old, size))
#define sys_fstat(fd, at)      ((int)FSP_CALL("fstat", fstat(fd, at)))

#endif
