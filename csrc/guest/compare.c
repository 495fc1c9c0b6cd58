/*
 * compare.c - is a resident what it was?  Asked for (FSP_SNAP_CHECKED) by tests: it costs more than
 * the reset.
 */
#include "reset.h"

#ifdef FSP_HAVE_RESIDENTS
#include <sys/prctl.h>
#include <sys/time.h>

#define MAPS_SIZE (1024 * 1024) /* twice */
#define NLIMITS   16
#define NTIMERS   3

static bool differ(enum fsp_resident_part part, uint64_t where) {
    resident->reply.differs = part;
    resident->reply.where = where;
    return false;
}

/* ---- memory ---- */

static bool are_zeros(const char *at, size_t size) {
    return size == 0 || (*at == 0 && same_bytes(at, at + 1, size - 1));
}

static bool is_same_part(const char *at, const char *from, size_t size) {
    return from ? same_bytes(at, from, size) : are_zeros(at, size);
}

static bool is_same_page(const char *at, const char *from) {
    const struct resident *r = resident;
    const char *rseq = r->rseq, *end = rseq + r->rseq_size;
    if (rseq == NULL || end <= at || rseq >= at + PAGE) return is_same_part(at, from, PAGE);
    bool same = rseq <= at || is_same_part(at, from, (size_t)(rseq - at));
    if (end >= at + PAGE) return same;
    return same && is_same_part(end, from ? from + (end - at) : NULL, (size_t)(at + PAGE - end));
}

/* Zeros that were never touched are left so. */
static bool is_same_region(const struct region *g) {
    const struct resident *r = resident;
    uint64_t look[LOOK_CHUNK];
    for (const char *at = g->start; at < g->end;) {
        size_t n = (size_t)(g->end - at) / PAGE;
        if (n > LOOK_CHUNK) n = LOOK_CHUNK;
        if (!image_look(r->pagemap, at, n, look)) return differ(FSP_RESIDENT_MEMORY, 0);
        for (size_t i = 0; i < n; i++, at += PAGE) {
            const char *from = pages_source(at);
            if (from == NOWHERE || (from == NULL && look_is_never(look[i]))) continue;
            if (!is_same_page(at, from)) return differ(FSP_RESIDENT_MEMORY, (uintptr_t)at);
        }
    }
    return true;
}

static bool is_same_memory(void) {
    const struct resident *r = resident;
    for (size_t i = 0; i < r->nregions; i++)
        if (!is_same_region(&r->region[i])) return false;
    return true;
}

/* ---- mappings ---- */

static long read_maps(char *to) {
    long fd = raw(openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0), size = 0, n;
    if (fd < 0) return fd;
    while ((n = raw(read, fd, to + size, MAPS_SIZE - size)) > 0) size += n;
    raw(close, fd);
    return size;
}

static bool are_same_maps(void) {
    struct resident *r = resident;
    char *now = r->maps + MAPS_SIZE;
    long size = read_maps(now);
    if (size == r->maps_read && same_bytes(now, r->maps, (size_t)size)) return true;
    return differ(FSP_RESIDENT_MAPS, (uint64_t)size);
}

/* ---- descriptors ---- */

static bool is_same_file(int fd, int saved) {
    struct stat a, b;
    if (raw(fstat, fd, &a) < 0 || raw(fstat, saved, &b) < 0) return false;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
           raw(fcntl, fd, F_GETFL) == raw(fcntl, saved, F_GETFL);
}

static bool is_same_frozen(const struct frozen *f) {
    long flags = raw(fcntl, f->fd, F_GETFD);
    bool same = f->type ? sockets_type(f->fd) == f->type : is_same_file(f->fd, f->saved);
    if (!same || flags < 0 || !(flags & FD_CLOEXEC) != !f->flags)
        return differ(FSP_RESIDENT_FDS, (uint64_t)f->fd);
    if (f->own && raw(lseek, f->fd, 0, SEEK_CUR) != f->at)
        return differ(FSP_RESIDENT_FDS, (uint64_t)f->fd);
    return true;
}

static bool are_same_fds(void) {
    const struct resident *r = resident;
    for (int fd = 0; fd < r->high; fd++) {
        const struct frozen *f = state_frozen(fd);
        if (fd < 3 && !is_same_file(fd, r->rest[fd])) return differ(FSP_RESIDENT_FDS, fd);
        if (f && !is_same_frozen(f)) return false;
        if (fd > 2 && !f && raw(fcntl, fd, F_GETFD) >= 0) return differ(FSP_RESIDENT_FDS, fd);
    }
    return true;
}

/* ---- and the rest ---- */

static bool are_same_handlers(void) {
    const struct resident *r = resident;
    for (int sig = 1; sig <= NSIGNALS; sig++) {
        struct ksigaction now = {0};
        raw(rt_sigaction, sig, NULL, &now, sizeof now.mask);
        if (!same_bytes(&now, &r->action[sig], sizeof now))
            return differ(FSP_RESIDENT_STATE, (uint64_t)sig);
    }
    return true;
}

static bool is_same_state(void) {
    const struct resident *r = resident;
    struct stat here, there;
    stack_t stack = {0};
    char name[sizeof r->name] = {0};
    raw(newfstatat, AT_FDCWD, ".", &here, 0);
    raw(newfstatat, r->cwd, "", &there, AT_EMPTY_PATH);
    raw(sigaltstack, NULL, &stack);
    raw(prctl, PR_GET_NAME, name, 0, 0, 0);
    int mask = (int)raw(umask, 0);
    raw(umask, mask);
    bool same = here.st_dev == there.st_dev && here.st_ino == there.st_ino && mask == r->umask &&
                same_bytes(name, r->name, sizeof name) && stack.ss_sp == r->stack.ss_sp &&
                stack.ss_size == r->stack.ss_size && stack.ss_flags == r->stack.ss_flags;
    return same ? are_same_handlers() : differ(FSP_RESIDENT_STATE, 0);
}

/* ---- what no run changes without leaving ---- */

struct settings {
    struct rlimit limit[NLIMITS];
    struct itimerval timer[NTIMERS];
    long process[8], ids[8];
    unsigned long fs, gs;
    void *robust;
    size_t robust_size;
    int subreaper;
    uint64_t mask; /* that the next run begins with, */
    char frame[];  /* and its registers */
};

static void ask_process(long *to) {
    static const int asked[] = {PR_GET_DUMPABLE,   PR_GET_PDEATHSIG,  PR_GET_KEEPCAPS,
                                PR_GET_TIMERSLACK, PR_GET_SECUREBITS, PR_GET_NO_NEW_PRIVS,
                                PR_GET_THP_DISABLE};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        int signal = 0;
        long r = raw(prctl, asked[i], asked[i] == PR_GET_PDEATHSIG ? &signal : NULL, 0, 0, 0);
        *to++ = asked[i] == PR_GET_PDEATHSIG ? signal : r;
    }
    *to = raw(personality, 0xffffffff);
}

static void ask_ids(long *to) {
    *to++ = raw(getpgid, 0);
    *to++ = raw(getsid, 0);
    *to++ = raw(getuid, 0);
    *to++ = raw(geteuid, 0);
    *to++ = raw(getgid, 0);
    *to++ = raw(getegid, 0);
    *to++ = raw(getpriority, PRIO_PROCESS, 0);
    *to = raw(sched_getscheduler, 0);
}

static size_t frame_size(void) {
    const struct resident *r = resident;
    return (size_t)(r->machine + sizeof r->machine - (char *)r->frame);
}

static void ask_settings(struct settings *s) {
    for (int i = 0; i < NLIMITS; i++) raw(prlimit64, 0, i, NULL, &s->limit[i]);
    for (int i = 0; i < NTIMERS; i++) raw(getitimer, i, &s->timer[i]);
    ask_process(s->process);
    ask_ids(s->ids);
    raw(arch_prctl, ARCH_GET_FS, &s->fs);
    raw(arch_prctl, ARCH_GET_GS, &s->gs);
    raw(get_robust_list, 0, &s->robust, &s->robust_size);
    raw(prctl, PR_GET_CHILD_SUBREAPER, &s->subreaper, 0, 0, 0);
    s->mask = *(const uint64_t *)&resident->frame->uc_sigmask;
    copy_bytes(s->frame, resident->frame, frame_size());
}

static bool are_same_settings(void) {
    const struct resident *r = resident;
    size_t size = sizeof(struct settings) + frame_size();
    struct settings *now = (struct settings *)(r->settings + r->settings_size);
    ask_settings(now);
    for (size_t i = 0; i < size; i++)
        if (((char *)now)[i] != r->settings[i]) return differ(FSP_RESIDENT_SETTINGS, i);
    return true;
}

static size_t settings_size(void) {
    return (sizeof(struct settings) + frame_size() + 63) / 64 * 64;
}

int compare_freeze(void) {
    struct resident *r = resident;
    r->settings_size = settings_size();
    r->maps_size = 2 * MAPS_SIZE + 2 * r->settings_size;
    r->maps = reset_map(r->maps_size);
    if (r->maps == NULL) return -ENOMEM;
    r->settings = r->maps + 2 * MAPS_SIZE;
    ask_settings((struct settings *)r->settings);
    r->maps_read = read_maps(r->maps);
    return r->maps_read < 0 ? (int)r->maps_read : 0;
}

void compare_all(void) {
    differ(FSP_RESIDENT_SAME, 0);
    (void)(is_same_memory() && are_same_maps() && are_same_fds() && is_same_state() &&
           are_same_settings());
}

#endif
