/*
 * reset.h - what the files that make up a resident (template/resident.h) know of one another.
 *
 *   resident.c   its life: it is forked, waits for a job, lets the program run on, and at its end
 *   pages.c      has the pages that were written as they were,
 *   image.c      from an image that all residents of a template share;
 *   written.c    asks the kernel which were;
 *   mapped.c     what was mapped meanwhile goes,
 *   frozen.c     what was unmapped is there again (both by ranges.c),
 *   state.c      and so does all else that the kernel keeps of it.
 *   rerun.c      Which calls of the program can be undone, and how (call.h), by
 *   descriptors.c, mapped.c, frozen.c, signals.c, limits.c, used.c;
 *   leave.c      before one that cannot, the process becomes an ordinary one.
 *   compare.c    Is everything as it was?
 *   own.c        Memory and descriptors that are not the program's.
 *
 * All that a resident knows lies outside of what is put back, in one mapping of its own.
 */
#ifndef FSP_RESET_H
#define FSP_RESET_H

#include "internal.h"

#if defined(__linux__) && defined(__x86_64__)
#define FSP_HAVE_RESIDENTS 1

#include <asm/prctl.h>
#include <sys/resource.h>
#include <ucontext.h>

#define PAGE         4096
#define MAX_REGIONS  1024
#define MAX_PAGES    (256 * 1024) /* 1 GB */
#define MAX_FDS      512          /* of the program; ours are from `high` on */
#define MAX_RANGES   256
#define MAX_OWN      16
#define MACHINE_SIZE (64 * 1024)
#define FOUND        512
#define NSIGNALS     64

#define SIGNAL_BIT(sig) ((uint64_t)1 << ((sig) - 1))

/* What is written in maps as " rw-p", without what is ours. */
struct region {
    char *start, *end;
    size_t first; /* the number of its first page */
    int prot;
    bool file;  /* what was never touched is the file's, and not zeros */
    bool stack; /* it may grow downwards */
    bool unwatched;
};

/* Some that do not touch. */
struct ranges {
    struct range at[MAX_RANGES];
    size_t n;
};

/* `from` NULL: zeros. */
struct span {
    char *to;
    const char *from;
    size_t size;
};

/* A frozen descriptor. */
struct frozen {
    int fd, saved, flags; /* O_CLOEXEC, or 0 */
    int type;             /* each run has a socket of its own there (sockets.c); 0: it is none */
    bool gone;            /* the program has closed it, or put another in its place */
    bool follows;         /* it is a copy of 0 to 2: each run puts another in its place */
    bool own;             /* nobody else moves its offset */
    long at;
};

/* What is set of a file that is open (its flags, its locks) all have who have a copy of it.  So it
 * counts where the first one came from, whatever has the number. */
enum whose {
    WHOSE_SHARED, /* others have it, too, or the next job will: what is set stays */
    WHOSE_NULL,   /* /dev/null of this resident, for all of its jobs: its flags are put back */
    WHOSE_JOBS    /* it came with the job, or the run has opened it */
};

/* A page that is not as in the image.  `from` as in a span, or NOWHERE. */
struct odd {
    const char *at, *from;
};

/* A page of PAGEMAP_SCAN (Linux 6.7). */
struct found {
    uint64_t start, end, categories;
};

struct resident {
    _Alignas(64) char machine[MACHINE_SIZE]; /* the stack of all that is not the program */
    volatile char selector;
    bool lives; /* else this is the template process */
    bool checked;
    bool plain; /* no pages are learnt */

    /* image.c: of the template's memory, shared */
    struct region imaged[MAX_REGIONS];
    size_t nimaged, image_pages;
    const char *image;
    char *in_image;                    /* for each page of it: enum imaged */
    int image_of;                      /* the template's pid */
    int template_uffd, template_pages; /* its memory is watched: descriptors; -1: none */

    /* resident.c */
    struct residence here;
    /* The signal that shows how to go back to the program; a run has ended. */
    void (*born)(ucontext_t *context), (*again)(int status);
    int socket, high, own[MAX_OWN], nown;
    struct fsp_resident_record *record;
    char *plan; /* where the program has it */
    char told[FSP_SNAP_PLAN_MAX];
    size_t told_size; /* 0: it was told none */
    uint64_t told_at;
    int failed; /* the image could not be taken: -errno */
    bool leaves_next;
    char *program_sp;
    ucontext_t *frame; /* to it the program returns at each job's begin */
    uint64_t number;
    uint32_t calls;
    struct fsp_resident_reply reply;
    struct rusage base;
    bool touched[3]; /* of 0 to 2: it is something else by now */
    bool leads_session;
    int ending; /* its status, until it is told */

    /* pages.c */
    struct region region[MAX_REGIONS];
    size_t nregions, pages, private_pages, compared;
    struct odd *odd; /* in ascending order */
    size_t nodd;
    char *is_hot; /* a bit for each page: a span has it */
    char *copies;
    struct span *hot;
    size_t nhot, hot_pages;
    size_t plan_pages; /* of the plan's place, that are restored without being learnt */
    int uffd, pagemap; /* -1: none */
    char *rseq;
    size_t rseq_size;
    long faults; /* when the run began */
    struct found found[FOUND];

    /* mapped.c */
    struct ranges mapped;
    char *brk, *brk_now; /* at the freeze; as the program believes */
    bool brk_moves;

    /* frozen.c */
    struct ranges holes, altered; /* unmapped; protected otherwise */

    /* state.c */
    int null, cwd, rest[3]; /* what 0 to 2 are between jobs */
    struct frozen frozen[MAX_FDS];
    size_t nfrozen;
    bool made[MAX_FDS];
    int made_end;
    char whose[MAX_FDS]; /* enum whose, of each that is open */
    bool makes;          /* it has begun to make one, of which nothing may be noted */
    struct ksigaction action[NSIGNALS + 1];
    struct ksigaction own_sigsys, frozen_sigsys; /* what the program believes is there; and did */
    uint64_t mask, actions_set, actions_once;
    uint64_t masks_sigsys, masked_sigsys; /* of which handlers it believes that, too; and did */
    bool blocks_sigsys, blocked_sigsys;   /* the program believes that it does; or did, frozen */
    bool moved, masked, named, timed;
    bool nulls_set; /* the flags of `null` are not what they were */
    long nulls_flags;
    stack_t stack;
    int umask;
    char name[16];
    unsigned long fs, gs;
    bool has_fsgsbase;

    /* limits.c */
    struct rlimit limit[RLIM_NLIMITS]; /* before the run set them */
    unsigned limits_changed;           /* a bit for each */

    /* compare.c */
    char *maps, *settings;
    long maps_read;
    size_t maps_size, settings_size;
};

#define HIDDEN __attribute__((visibility("hidden")))

/* NULL: this process is neither a resident, nor has it forked one. */
extern HIDDEN struct resident *resident;

static inline bool is_error(long r) {
    return r < 0 && r > -4096;
}

/* Not libc's: between two instructions of the program. */
static inline void copy_bytes(void *to, const void *from, size_t n) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static inline void zero_bytes(void *to, size_t n) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0) : "memory");
}

static inline bool same_bytes(const void *a, const void *b, size_t n) {
    bool same;
    __asm__ volatile("cmp %%rcx, %%rcx; repe cmpsb; sete %0"
                     : "=q"(same), "+S"(a), "+D"(b), "+c"(n)
                     :
                     : "memory", "cc");
    return same;
}

/* Both are pages: some ten times as fast. */
static inline bool same_page(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    uint64_t different = 0;
    for (size_t i = 0; i < PAGE / sizeof *x; i += 4)
        different |=
            (x[i] ^ y[i]) | (x[i + 1] ^ y[i + 1]) | (x[i + 2] ^ y[i + 2]) | (x[i + 3] ^ y[i + 3]);
    return different == 0;
}

/* ---- own.c ---- */

/* Anonymous memory of ours, between pages that nobody can use; or NULL. */
void *reset_map(size_t size);
void reset_unmap(void *at, size_t size);
/* A descriptor of ours, out of the program's way; it takes `fd`.  -errno. */
int reset_keep(int fd);
/* What was not put back is nobody's next process: it ends, with the status of a job that is not
 * done yet, and is made anew. */
static inline void reset_must(long r) {
    if (is_error(r))
        for (;;) raw(exit_group, resident->ending);
}
/* See dup3(2): it may have to be asked again. */
static inline long reset_dup(int fd, int target, int flags) {
    long r;
    do r = raw(dup3, fd, target, flags);
    while (r == -EINTR || r == -EBUSY);
    return r;
}
/* The upper half of a register says nothing of a descriptor: the kernel does not look at it. */
static inline bool reset_is_own(long fd) {
    return (int)fd >= resident->high;
}
void reset_send(uint32_t kind, int value);

/* ---- written.c ---- */

/* From here on writes to these regions are taken note of, as long as the descriptor that is
 * returned is open; or -errno.  Some cannot be watched, and are marked so. */
int written_watch(struct region *list, size_t n);
/* Ranges of pages that were written, from *from on, which moves on: their number, or -errno. */
long written_list(int pagemap, uint64_t *from, uint64_t end, struct found found[FOUND]);
/* ... and of those that were not, of what is watched. */
long written_list_not(int pagemap, uint64_t *from, uint64_t end, struct found found[FOUND]);

/* ---- image.c ---- */

/* In the template: an image of its memory, once. */
int image_take(void);
/* The page at this address in the image, or NULL. */
const char *image_page(const char *at);
/* ... and whether the page was a file's then, that nobody had written to. */
enum imaged { IMAGED_NOT, IMAGED_MEMORY, IMAGED_FILE };
enum imaged image_has(const char *at);
/* All that the program can write to and shares with no one: their number, or -errno. */
int image_regions(struct region *list, size_t *pages);
/* Copy what may not be there to be read. */
bool image_read(void *to, const char *at, size_t size);
#define NOWHERE ((const char *)1) /* a page that cannot be read */

/* What pagemap says of these pages (the kernel's admin-guide); in chunks. */
#define LOOK_CHUNK 512
bool image_look(int pagemap, const char *at, size_t n, uint64_t look[LOOK_CHUNK]);
static inline bool look_in_memory(uint64_t look) {
    return look >> 63 & 1;
}
/* Or a guard page; under watch also one that was never touched. */
static inline bool look_in_swap(uint64_t look) {
    return look >> 62 & 1;
}
static inline bool look_is_never(uint64_t look) {
    return look >> 62 == 0;
}
static inline bool look_is_files(uint64_t look) { /* in memory, and not written to */
    return look_in_memory(look) && (look >> 61 & 1);
}
static inline bool look_is_own(uint64_t look) { /* of this process alone */
    return look >> 56 & 1;
}

/* ---- pages.c ---- */

/* What is copied to this page, as in a span; or NOWHERE. */
const char *pages_source(const char *at);
int pages_freeze(void); /* 0, or -errno */
void pages_begin(void); /* a run does: what is written from here on is the run's */
void pages_restore(void);
/* The plan that a job is told fills so much of its place. */
void pages_plan(size_t size);

/* These may be written, or dropped. */
void pages_note(char *start, char *end);

/* ---- ranges.c ---- */

uintptr_t range_round_up(uintptr_t n);
/* The pages of so many bytes from there on; none, if it ends before it starts. */
struct range range_of(long at, long size);
bool ranges_have(const struct ranges *set, struct range asked); /* in one of them */
bool ranges_meet(const struct ranges *set, struct range asked); /* a part of it */
/* For one that is added, or taken out. */
bool ranges_have_room(const struct ranges *set);
void ranges_add(struct ranges *set, struct range added);
void ranges_remove(struct ranges *set, struct range gone);

/* ---- mapped.c ---- */

void mapped_freeze(void);
bool mapped_has(long at, long size);
void mapped_restore(void);

/* ---- frozen.c ---- */

bool frozen_has_hole(long at, long size);
void frozen_restore(void);
void frozen_leave(void);

/* ---- limits.c ---- */

void limits_restore(void);

/* ---- state.c ---- */

int state_freeze(void);
/* What the job has of 0 to 2 goes, with all that the run has opened. */
void state_let_go(void);
void state_restore(void);
struct frozen *state_frozen(long fd);
static inline bool state_made(long fd) {
    return fd >= 0 && fd < resident->made_end && resident->made[fd];
}
static inline enum whose state_whose(long fd) {
    return fd >= 0 && fd < resident->high ? (enum whose)resident->whose[fd] : WHOSE_SHARED;
}

/* ---- rerun.c ---- */

int rerun_watch(void); /* from here on the program's calls come here */

/* ---- leave.c ---- */

/* It is an ordinary process when this returns, and when the handler with this context does.
 * `nested`: it runs in another of ours, with one of the program's in between.  What that one goes
 * on with stays, and it finds that this is no resident that lives. */
void reset_leave(long before, ucontext_t *context, bool nested);

/* ---- compare.c ---- */

int compare_freeze(void);
void compare_all(void);

#endif
#endif
