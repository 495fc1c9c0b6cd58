/*
 * pages.c - the memory of a resident, as it was.
 *
 * Pages that any run has written to are copied back after each; they are learnt: the others are
 * write-protected, and the kernel tells which are no more (written.c).  No page that is protected
 * can be written without a fault, so as long as the process had none there is nothing to ask.
 * Copying a page costs less than protecting it again.
 *
 * A few pages, and all where the kernel cannot tell, are copied back each time without being
 * learnt.  So are those of mappings that cannot be watched: what may be dropped at any time
 * (MAP_DROPPABLE), a page or two in each process of glibc 2.41 that asked for random bytes.
 *
 * At the freeze nearly all pages are as in the image, and few have to be compared with it: the
 * template's memory is watched since the image was taken, and a page that the fork has written to
 * is its own, and no more the template's.
 *
 * What a fork has of its template is what its memory is here: pages that are wiped on fork
 * (madvise(2)), as the state of the vDSO's getrandom, are not there at the freeze, and zeros
 * after each run as in each fork.
 */
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#define FEW_PAGES   48   /* protecting them costs more than copying */
#define PLAIN_PAGES 4096 /* more are too dear to be copied each time */

/* ---- what each page is copied back from ---- */

static void add_odd(const char *at, const char *from) {
    resident->odd[resident->nodd++] = (struct odd){at, from};
}

const char *pages_source(const char *at) {
    const struct resident *r = resident;
    size_t low = 0, high = r->nodd;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->odd[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->nodd && r->odd[low].at == at ? r->odd[low].from : image_page(at);
}

/* It is in memory, or elsewhere, or may not be read at all. */
static void compare_page(const char *at, bool there) {
    struct resident *r = resident;
    const char *shared = image_page(at);
    char *to = r->copies + r->private_pages * PAGE;
    r->compared++;
    if (there && shared && same_page(at, shared)) return;
    if (there)
        copy_bytes(to, at, PAGE);
    else if (!image_read(to, at, PAGE))
        return add_odd(at, NOWHERE);
    if (!there && shared && same_page(to, shared)) return;
    add_odd(at, to);
    r->private_pages++;
}

/* Those to which the template has not written since the image was taken, one after the other. */
struct kept {
    uint64_t from, end;
    long n, i;
};

static struct kept kept_all(void) {
    const struct resident *r = resident;
    bool known = r->template_pages >= 0 && r->nregions;
    uint64_t end = (uintptr_t)(known ? r->region[r->nregions - 1].end : NULL);
    return (struct kept){.from = (uintptr_t)(known ? r->region[0].start : NULL), .end = end};
}

static bool is_kept(struct kept *k, uint64_t at) {
    struct resident *r = resident;
    for (;; k->i++) {
        while (k->i == k->n) {
            if (k->from >= k->end) return false;
            k->n = written_list_not(r->template_pages, &k->from, k->end, r->found);
            k->i = 0;
            if (k->n < 0) *k = (struct kept){0};
        }
        if (at < r->found[k->i].end) return at >= r->found[k->i].start;
    }
}

/* It is as the template has it (and so, if that has kept it, as the image has it). */
static bool is_templates(const char *at, uint64_t look) {
    enum imaged imaged = image_has(at);
    if (look_is_never(look) || look_is_files(look)) return imaged == IMAGED_FILE;
    return look_in_memory(look) && !look_is_own(look) && imaged == IMAGED_MEMORY;
}

static void find_source(const struct region *g, const char *at, uint64_t look, struct kept *kept) {
    if (look_is_never(look) && !g->file) {
        if (image_has(at)) add_odd(at, NULL);
        return;
    }
    if (!is_templates(at, look) || !is_kept(kept, (uintptr_t)at))
        compare_page(at, look_in_memory(look));
}

static bool find_sources(const struct region *g, struct kept *kept) {
    uint64_t look[LOOK_CHUNK];
    for (const char *at = g->start; at < g->end;) {
        size_t n = (size_t)(g->end - at) / PAGE;
        if (n > LOOK_CHUNK) n = LOOK_CHUNK;
        if (!image_look(resident->pagemap, at, n, look)) return false;
        for (size_t i = 0; i < n; i++, at += PAGE) find_source(g, at, look[i], kept);
    }
    return true;
}

/* ---- the pages that are copied back ---- */

static bool ends_at(const struct span *s, const char *to, const char *from) {
    return s->to + s->size == to && (from ? s->from && s->from + s->size == from : !s->from);
}

static void add_span(char *to, const char *from, size_t size) {
    struct resident *r = resident;
    if (r->nhot && ends_at(&r->hot[r->nhot - 1], to, from))
        r->hot[r->nhot - 1].size += size;
    else
        r->hot[r->nhot++] = (struct span){to, from, size};
}

/* Not what the kernel keeps up to date there itself. */
static void add_around_rseq(char *at, const char *from) {
    struct resident *r = resident;
    char *end = r->rseq + r->rseq_size;
    if (r->rseq > at) add_span(at, from, (size_t)(r->rseq - at));
    if (end < at + PAGE) add_span(end, from ? from + (end - at) : NULL, (size_t)(at + PAGE - end));
}

static bool become_hot(size_t page) {
    struct resident *r = resident;
    char bit = (char)(1 << page % 8), *at = &r->is_hot[page / 8];
    if (*at & bit) return false;
    *at |= bit;
    r->hot_pages++;
    return true;
}

static void add_hot(const struct region *g, char *at) {
    struct resident *r = resident;
    const char *from = pages_source(at);
    if (from == NOWHERE || !become_hot(g->first + (size_t)(at - g->start) / PAGE)) return;
    if (r->rseq && r->rseq + r->rseq_size > at && r->rseq < at + PAGE)
        add_around_rseq(at, from);
    else
        add_span(at, from, PAGE);
}

/* Most of the place for plans is never used. */
static bool is_plan(const char *at) {
    const char *plan = resident->plan;
    return at >= plan && at < plan + FSP_SNAP_PLAN_MAX;
}

static void add_region(const struct region *g) {
    for (char *at = g->start; at < g->end; at += PAGE)
        if (!is_plan(at)) add_hot(g, at);
}

static size_t add_all(void) {
    struct resident *r = resident;
    for (size_t i = 0; i < r->nregions; i++) add_region(&r->region[i]);
    return r->hot_pages;
}

void pages_plan(size_t size) {
    struct resident *r = resident;
    if (!r->plain) return;
    for (; r->plan_pages * PAGE < size; r->plan_pages++) {
        char *at = r->plan + r->plan_pages * PAGE;
        for (const struct region *g = r->region; g < r->region + r->nregions; g++)
            if (at >= g->start && at < g->end) add_hot(g, at);
    }
}

/* Zeros that are dropped are zeros. */
void pages_note(char *start, char *end) {
    struct resident *r = resident;
    for (const struct region *g = r->region; g < r->region + r->nregions; g++)
        for (char *at = start > g->start ? start : g->start; at < end && at < g->end; at += PAGE)
            if (pages_source(at)) add_hot(g, at);
}

/* ---- which were written ---- */

static bool learn(void) {
    struct resident *r = resident;
    r->uffd = reset_keep(written_watch(r->region, r->nregions));
    if (r->uffd < 0) return false;
    for (size_t i = 0; i < r->nregions; i++)
        if (r->region[i].unwatched) add_region(&r->region[i]);
    uint64_t from = (uintptr_t)r->region[0].start;
    return r->hot_pages <= FEW_PAGES && written_list(r->pagemap, &from, from, r->found) >= 0;
}

/* Of a stack that has grown there are pages below its first one: they are unmapped. */
static void add_found(const struct found *found, size_t *region) {
    struct resident *r = resident;
    for (char *at = (char *)found->start; at < (char *)found->end; at += PAGE) {
        while (*region < r->nregions && at >= r->region[*region].end) ++*region;
        if (*region == r->nregions) return;
        if (at >= r->region[*region].start) add_hot(&r->region[*region], at);
    }
}

static void find_written(void) {
    struct resident *r = resident;
    uint64_t from = (uintptr_t)r->region[0].start;
    uint64_t end = (uintptr_t)r->region[r->nregions - 1].end;
    size_t region = 0;
    while (from < end) {
        long n = written_list(r->pagemap, &from, end, r->found);
        reset_must(n);
        for (long i = 0; i < n; i++) add_found(&r->found[i], &region);
    }
    r->reply.scans++;
}

/* ---- a resident's life ---- */

static bool make_tables(void) {
    struct resident *r = resident;
    r->odd = reset_map(r->pages * sizeof *r->odd);
    r->is_hot = reset_map(r->pages / 8 + 1);
    r->copies = reset_map((r->pages + 1) * PAGE);
    r->hot = reset_map((r->pages + 2) * sizeof *r->hot); /* rseq may split one, or two */
    return r->odd && r->is_hot && r->copies && r->hot;
}

/* Else what is in swap would be taken for a guard page, and not be put back. */
static bool can_read(void) {
    char one, other = 1;
    return image_read(&one, &other, 1) && one == other;
}

int pages_freeze(void) {
    struct resident *r = resident;
    r->uffd = -1;
    if (!can_read()) return -ENOSYS;
    int fd = (int)raw(openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    r->pagemap = reset_keep(fd);
    if (r->pagemap < 0) return r->pagemap;
    int n = image_regions(r->region, &r->pages);
    if (n < 0) return n;
    r->nregions = (size_t)n;
    if (!make_tables()) return -ENOMEM;
    struct kept kept = kept_all();
    for (size_t i = 0; i < r->nregions; i++)
        if (!find_sources(&r->region[i], &kept)) return -EIO;
    image_forget();
    r->plain |= r->pages <= FEW_PAGES + FSP_SNAP_PLAN_MAX / PAGE || !learn();
    return r->plain && add_all() > PLAIN_PAGES ? -EOPNOTSUPP : 0;
}

static long count_faults(const struct rusage *usage) {
    return usage->ru_minflt + usage->ru_majflt;
}

void pages_begin(void) {
    resident->faults = count_faults(&resident->base);
}

/* Page by page: there is no telling what lies below the hole below it. */
static void cut_stack(const struct region *g) {
    char there, *from = g->start;
    while (raw(mincore, from - PAGE, PAGE, &there) == 0) from -= PAGE;
    if (from < g->start) reset_must(raw(munmap, from, g->start - from));
}

void pages_restore(void) {
    struct resident *r = resident;
    struct rusage usage;
    raw(getrusage, RUSAGE_SELF, &usage);
    if (count_faults(&usage) != r->faults) {
        for (size_t i = 0; i < r->nregions; i++)
            if (r->region[i].stack) cut_stack(&r->region[i]);
        if (!r->plain) find_written();
    }
    for (const struct span *s = r->hot, *end = s + r->nhot; s < end; s++)
        if (s->from)
            copy_bytes(s->to, s->from, s->size);
        else
            zero_bytes(s->to, s->size);
}

#endif
