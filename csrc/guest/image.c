/*
 * image.c - the memory of a template process, as its residents put it back.
 *
 * It is written once, by the template before its first resident, to a memory file, which all of
 * them map to read.  A resident takes from it what is alike there, and keeps a copy of the rest
 * (pages.c): its thread's id, its stack near the fork, what a fork's handlers changed since.
 */
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#include <sys/uio.h>

/* ---- which memory ---- */

struct listed {
    struct region *list;
    size_t n, pages;
    bool fits;
};

static bool is_own(const struct region *g) {
    const char *own = (const char *)resident;
    return g->start >= own && g->start < own + sizeof *resident;
}

static bool add_region(char *line, void *arg) {
    struct listed *l = arg;
    struct range range;
    const char *rest = maps_read_range(line, &range); /* " rw-p 00000000 00:00 0 ..." */
    struct region g = {.start = (char *)range.start, .end = (char *)range.end};
    if (rest[2] != 'w' || rest[4] != 'p' || is_own(&g)) return true;
    g.prot = PROT_WRITE | (rest[1] == 'r' ? PROT_READ : 0) | (rest[3] == 'x' ? PROT_EXEC : 0);
    g.stack = strstr(rest, "[stack]");
    g.file = maps_file(line) != NULL;
    g.first = l->pages;
    l->fits = l->n < MAX_REGIONS;
    if (!l->fits) return false;
    l->list[l->n++] = g;
    l->pages += (size_t)(g.end - g.start) / PAGE;
    l->fits = l->pages <= MAX_PAGES;
    return l->fits;
}

int image_regions(struct region *list, size_t *pages) {
    struct listed l = {.list = list, .fits = true};
    if (!maps_for_each(add_region, &l)) return -ENOENT;
    *pages = l.pages;
    return l.fits ? (int)l.n : -E2BIG;
}

bool image_look(int pagemap, const char *at, size_t n, uint64_t look[LOOK_CHUNK]) {
    long size = (long)(n * sizeof *look);
    return raw(pread64, pagemap, look, size, (uintptr_t)at / PAGE * sizeof *look) == size;
}

/* The kernel reads: a file that was cut short, or a guard page, is no signal then. */
bool image_read(void *to, const char *at, size_t size) {
    struct iovec here = {to, size}, there = {(void *)at, size};
    return raw(process_vm_readv, raw(getpid, 0), &here, 1, &there, 1, 0) == (long)size;
}

/* ---- the image ---- */

/* What the kernel cannot read (a guard page, a file that was cut short) is left out. */
static void write_pages(int fd, size_t page, size_t n, const char *at) {
    if (raw(pwrite64, fd, at, n * PAGE, page * PAGE) == (long)(n * PAGE)) return;
    for (size_t i = 0; i < n; i++)
        if (raw(pwrite64, fd, at + i * PAGE, PAGE, (page + i) * PAGE) != PAGE)
            resident->in_image[page + i] = IMAGED_NOT;
}

static enum imaged kind_of(const struct region *g, uint64_t look) {
    if (look_is_never(look)) return g->file ? IMAGED_FILE : IMAGED_NOT;
    return look_is_files(look) ? IMAGED_FILE : IMAGED_MEMORY;
}

static bool look_at_region(int pagemap, const struct region *g) {
    uint64_t look[LOOK_CHUNK];
    size_t pages = (size_t)(g->end - g->start) / PAGE;
    for (size_t from = 0; from < pages; from += LOOK_CHUNK) {
        size_t n = pages - from < LOOK_CHUNK ? pages - from : LOOK_CHUNK;
        if (!image_look(pagemap, g->start + from * PAGE, n, look)) return false;
        char *kind = resident->in_image + g->first + from;
        for (size_t i = 0; i < n; i++) kind[i] = (char)kind_of(g, look[i]);
    }
    return true;
}

/* What was never touched and is no file's is left out: it is zeros. */
static void write_region(int fd, const struct region *g) {
    const char *kind = resident->in_image + g->first;
    size_t pages = (size_t)(g->end - g->start) / PAGE;
    for (size_t i = 0; i < pages; i++) {
        size_t first = i;
        while (i < pages && kind[i]) i++;
        if (i > first) write_pages(fd, g->first + first, i - first, g->start + first * PAGE);
    }
}

static int write_image(int fd) {
    struct resident *r = resident;
    if (!inputs_may_have_file(r->image_pages * PAGE)) return -EFBIG;
    if (raw(ftruncate, fd, r->image_pages * PAGE) < 0) return -ENOMEM;
    for (size_t i = 0; i < r->nimaged; i++) write_region(fd, &r->imaged[i]);
    long at = raw(mmap, NULL, r->image_pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (is_error(at)) return (int)at;
    r->image = (const char *)at;
    return 0;
}

/* After it was looked at, and before it is copied: what is written between the two is known. */
static void watch(int pagemap) {
    struct resident *r = resident;
    r->template_uffd = reset_keep(written_watch(r->imaged, r->nimaged));
    if (r->template_uffd >= 0)
        r->template_pages = reset_keep((int)raw(fcntl, pagemap, F_DUPFD_CLOEXEC, 0));
}

static int take(int fd, int pagemap) {
    struct resident *r = resident;
    for (size_t i = 0; i < r->nimaged; i++)
        if (!look_at_region(pagemap, &r->imaged[i])) return -EIO;
    watch(pagemap);
    return write_image(fd);
}

int image_take(void) {
    struct resident *r = resident;
    r->image_of = (int)raw(getpid, 0);
    r->template_uffd = r->template_pages = -1;
    int n = image_regions(r->imaged, &r->image_pages);
    if (n < 0) return n;
    r->nimaged = (size_t)n;
    r->in_image = reset_map(r->image_pages);
    int fd = (int)raw(memfd_create, "fastspawn", MFD_CLOEXEC);
    int pagemap = (int)raw(openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
    int result = r->in_image ? 0 : -ENOMEM;
    if (fd < 0 || pagemap < 0) result = fd < 0 ? fd : pagemap;
    if (result == 0) result = take(fd, pagemap);
    if (r->in_image) raw(mprotect, r->in_image, r->image_pages, PROT_READ); /* not to be imaged */
    if (fd >= 0) raw(close, fd);
    if (pagemap >= 0) raw(close, pagemap);
    return result;
}

void image_forget(void) {
    const struct resident *r = resident;
    if (r == NULL) return;
    if (r->template_uffd >= 0) raw(close, r->template_uffd);
    if (r->template_pages >= 0) raw(close, r->template_pages);
}

/* Its number in the image; image_pages: it is none. */
static size_t number_of(const char *at) {
    const struct resident *r = resident;
    size_t low = 0, high = r->nimaged;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (at >= r->imaged[middle].end)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == r->nimaged || at < r->imaged[low].start) return r->image_pages;
    return r->imaged[low].first + (size_t)(at - r->imaged[low].start) / PAGE;
}

enum imaged image_has(const char *at) {
    size_t page = number_of(at);
    return page < resident->image_pages ? (enum imaged)resident->in_image[page] : IMAGED_NOT;
}

const char *image_page(const char *at) {
    const struct resident *r = resident;
    size_t page = number_of(at);
    return page < r->image_pages && r->in_image[page] ? r->image + page * PAGE : NULL;
}

#endif
