/*
 * written.c - which pages of a process were written since: userfaultfd(2), whose asynchronous mode
 * lets the writer go on, and asks for no privilege in user mode, and PAGEMAP_SCAN (both Linux 6.7).
 *
 * A fork is watched no more: the kernel drops the registration and its marks there.
 */
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#include <linux/userfaultfd.h>

/* Linux 5.7, 6.4, 6.7: older headers lack them. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef SYS_userfaultfd
#define SYS_userfaultfd 323
#endif

struct scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t inverted, mask, any_of, returned;
};
#define SCAN_PAGES   _IOWR('f', 16, struct scan)
#define IS_WPALLOWED (1u << 0)
#define IS_WRITTEN   (1u << 1)
#define IS_PRESENT   (1u << 3)
#define IS_SWAPPED   (1u << 4) /* or was never touched, and is watched */

static int open_uffd(void) {
    int fd = (int)raw(userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0) return fd;
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
    };
    long error = raw(ioctl, fd, UFFDIO_API, &api);
    if (error == 0) return fd;
    raw(close, fd);
    return (int)error;
}

static long protect(int uffd, const struct region *g) {
    struct uffdio_range range = {(uintptr_t)g->start, (uintptr_t)(g->end - g->start)};
    struct uffdio_register add = {.range = range, .mode = UFFDIO_REGISTER_MODE_WP};
    struct uffdio_writeprotect wp = {.range = range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    long error = raw(ioctl, uffd, UFFDIO_REGISTER, &add);
    return error < 0 ? error : raw(ioctl, uffd, UFFDIO_WRITEPROTECT, &wp);
}

/* A mapping that cannot be watched, alone (MAP_DROPPABLE), is told by EINVAL. */
int written_watch(struct region *list, size_t n) {
    int uffd = open_uffd();
    long error = 0;
    for (size_t i = 0; uffd >= 0 && error == 0 && i < n; i++) {
        error = protect(uffd, &list[i]);
        list[i].unwatched = error == -EINVAL;
        if (list[i].unwatched) error = 0;
    }
    if (error == 0) return uffd;
    raw(close, uffd);
    return (int)error;
}

static long scan(int pagemap, struct scan *asked, uint64_t *from, struct found found[FOUND]) {
    asked->size = sizeof *asked;
    asked->start = *from;
    asked->vec = (uintptr_t)found;
    asked->vec_len = FOUND;
    long n = raw(ioctl, pagemap, SCAN_PAGES, asked);
    *from = asked->walk_end;
    return n;
}

long written_list(int pagemap, uint64_t *from, uint64_t end, struct found found[FOUND]) {
    struct scan all = {.end = end, .mask = IS_WPALLOWED | IS_WRITTEN, .returned = IS_WRITTEN};
    return scan(pagemap, &all, from, found);
}

/* What was dropped meanwhile has no mark, and is neither there nor elsewhere. */
long written_list_not(int pagemap, uint64_t *from, uint64_t end, struct found found[FOUND]) {
    struct scan all = {
        .end = end,
        .inverted = IS_WRITTEN,
        .mask = IS_WPALLOWED | IS_WRITTEN,
        .any_of = IS_PRESENT | IS_SWAPPED,
        .returned = IS_WPALLOWED,
    };
    return scan(pagemap, &all, from, found);
}

#endif
