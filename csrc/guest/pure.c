/*
 * pure.c - the system calls that are no effects: they change nothing outside of this process, and
 * answer the same to every fork as long as no file changes that it knows of.
 *
 * What is allowed is a list; what is not on it is an effect.  Each function takes the registers and
 * says whether it was pure; if so it has made the call.
 *
 * Descriptors that were opened on the way are files, read-only; each fork opens its own anew,
 * since what is shared by forks is the offset.
 */
#include "dispatch.h"

#if defined(__linux__) && defined(__x86_64__)
#include <asm/prctl.h>
#include <linux/futex.h>
#include <sys/utsname.h>

#define PAGE   4096
#define MAX_FD 128

enum kind {
    NONE,
    A_FILE, /* or a directory */
    MAPS    /* of this process, whose forks have the same mappings */
};

static struct {
    char kind[MAX_FD];
    int n; /* one more than the highest that was ever opened */
} opened;

static enum kind kind_of(long fd) {
    return fd >= 0 && fd < MAX_FD ? (enum kind)opened.kind[fd] : NONE;
}

static bool is_opened(long fd) {
    return kind_of(fd) != NONE;
}

static bool is_file(long fd) {
    return kind_of(fd) == A_FILE;
}

/* What the call opens. */
static bool take(struct call *c, enum kind kind) {
    call_pass(c);
    if (c->result < 0) return true;
    if (c->result >= MAX_FD || c->result < 3) {
        raw(close, c->result);
        return false;
    }
    if (c->result >= opened.n) opened.n = (int)c->result + 1;
    opened.kind[c->result] = (char)kind;
    return true;
}

/* A stack is guarded by who knows where it ends (libsigsegv: grep, diff, m4). */
static const char maps[] = "/proc/self/maps";

static bool is_maps(const char *path) {
    struct stat st; /* the kernel reads the path, which may be nowhere */
    return raw(newfstatat, AT_FDCWD, path, &st, 0) == 0 && strcmp(path, maps) == 0;
}

/* A file to be read (or a directory, but not its entries): noted, with its absence if it is not
 * there. */
static bool open_file(struct call *c, int dir, const char *path, long flags) {
    const long harmless = O_RDONLY | O_CLOEXEC | O_NOCTTY | 0100000 /* O_LARGEFILE */;
    char buf[PATH_MAX];
    if (flags & ~harmless) return false;
    const char *name = plain_name(path, true, buf, sizeof buf);
    if (name == NULL) return is_maps(path) && take(c, MAPS);
    if (dir != AT_FDCWD && *path != '/') return false;
    return inputs_add(name, FSP_SNAP_FOLLOW) && take(c, A_FILE);
}

static bool close_file(struct call *c) {
    if (!is_opened(c->arg[0])) return false;
    opened.kind[c->arg[0]] = NONE;
    return call_pass(c);
}

/* What is said of a name: noted, access time and all. */
static bool look_at(struct call *c, long dir, const char *path, bool follow) {
    char buf[PATH_MAX];
    const char *name = plain_name(path, follow, buf, sizeof buf);
    if (name == NULL || ((int)dir != AT_FDCWD && *path != '/')) return false;
    return inputs_add(name, FSP_SNAP_STAT | (follow ? FSP_SNAP_FOLLOW : 0)) && call_pass(c);
}

/* Of the program's own, which is mapped and so an input already, a fork reads the same. */
static bool read_link(struct call *c, long dir, const char *path) {
    char buf[PATH_MAX];
    return look_at(c, dir, path, false) || (plain_program(path, buf, sizeof buf) && call_pass(c));
}

static bool look_at_with(struct call *c, long dir, const char *path, long flags) {
    if (flags & AT_EMPTY_PATH) return call_pass_if(c, is_opened(dir) && path && *path == '\0');
    return path && look_at(c, dir, path, !(flags & AT_SYMLINK_NOFOLLOW));
}

#ifndef MAP_DROPPABLE /* Linux 6.11 */
#define MAP_DROPPABLE 8
#endif

static char *page_after(long end) {
    return (char *)((end + PAGE - 1) & -PAGE);
}

/* What is there now.  False: it is code that cannot be watched; it is not run yet. */
static bool note_memory(long start, long size, long prot) {
    char *end = page_after(start + size);
    rdrand_forget((char *)start, end);
    return !(prot & PROT_EXEC) || rdrand_hide((char *)start, end, (int)prot);
}

/* Memory of its own, or of a file that it may read; not memory that forks would share, nor what
 * stays in memory (mlock(2)): a fork's does not.  What may be dropped at any time is zeros in a
 * fork, as it may be here. */
static bool map_memory(struct call *c) {
    long prot = c->arg[2], flags = c->arg[3];
    bool mine = flags & MAP_PRIVATE || !(prot & PROT_WRITE);
    bool pure = flags & MAP_ANONYMOUS ? flags & MAP_PRIVATE || (flags & MAP_TYPE) == MAP_DROPPABLE
                                      : mine && is_file((int)c->arg[4]);
    if (!call_pass_if(c, pure && !(flags & MAP_LOCKED))) return false;
    bool made = c->result >= 0 || c->result < -4095;
    if (made && !note_memory(c->result, c->arg[1], prot)) serve_refuse(FSP_REFUSED_DRAWN);
    return true;
}

static bool protect_memory(struct call *c) {
    call_pass(c);
    if (c->result == 0 && !note_memory(c->arg[0], c->arg[1], c->arg[2]))
        serve_refuse(FSP_REFUSED_DRAWN);
    return true;
}

static bool unmap_memory(struct call *c) {
    call_pass(c);
    if (c->result == 0) rdrand_forget((char *)c->arg[0], page_after(c->arg[0] + c->arg[1]));
    return true;
}

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLD /* 5.4 */
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_GUARD_INSTALL /* 6.13 */
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

/* Not what keeps memory, or its content, from a fork (MADV_DONTFORK, MADV_WIPEONFORK). */
static bool advise(struct call *c) {
    switch (c->arg[2]) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_DOFORK:
    case MADV_KEEPONFORK:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
    case MADV_GUARD_INSTALL:
    case MADV_GUARD_REMOVE:
        return call_pass(c);
    default:
        return false;
    }
}

static bool query_descriptor(struct call *c) {
    long command = c->arg[1];
    if (streams_ask_flags(c->arg[0], command, &c->result)) return true;
    bool pure = command == F_GETFD || command == F_SETFD || command == F_GETFL;
    return call_pass_if(c, pure && (is_opened(c->arg[0]) || sockets_has(c->arg[0])));
}

static bool poll_streams(struct call *c) {
    return (int)c->arg[2] == 0 &&
           streams_ask_closed((struct pollfd *)c->arg[0], c->arg[1], &c->result);
}

/* ---- where it runs ---- */

/* By the name that the kernel has for it, which others may change. */
static bool say_where(struct call *c) {
    const char *name = (const char *)c->arg[0];
    return call_pass(c) && c->result > 0 && *name == '/' && inputs_add_here(name);
}

static bool say_processors(struct call *c) {
    if (c->arg[0] != 0 && c->arg[0] != raw(gettid, 0)) return false;
    return call_pass(c) && c->result > 0 &&
           inputs_add_processors((const void *)c->arg[2], (size_t)c->result);
}

static bool say_names(struct call *c) {
    return call_pass(c) && c->result == 0 &&
           inputs_add_names((const void *)c->arg[0], sizeof(struct utsname));
}

bool pure_reads_maps(const struct call *c) {
    bool reads = c->nr == SYS_read || c->nr == SYS_readv || c->nr == SYS_pread64;
    return reads && kind_of(c->arg[0]) == MAPS;
}

bool pure_make(struct call *c) {
    const long *a = c->arg;
    switch (c->nr) {
    /* Its own memory. */
    case SYS_brk:
    case SYS_mremap:
        return call_pass(c);
    case SYS_madvise:
        return advise(c);
    case SYS_mmap:
        return map_memory(c);
    case SYS_mprotect:
        return protect_memory(c);
    case SYS_munmap:
        return unmap_memory(c);

    /* Files that it opens to read. */
    case SYS_open:
        return open_file(c, AT_FDCWD, (const char *)a[0], a[1]);
    case SYS_openat:
        return open_file(c, (int)a[0], (const char *)a[1], a[2]);
    case SYS_close:
        return close_file(c) || sockets_close(c);
    case SYS_read:
    case SYS_readv:
    case SYS_pread64:
    case SYS_lseek:
    case SYS_fstat:
        return call_pass_if(c, is_opened(a[0]));
    case SYS_fadvise64:
        return call_pass_if(c, is_file(a[0]));
    case SYS_fcntl:
        return query_descriptor(c);

    /* Services that are not there. */
    case SYS_socket:
        return sockets_make(c);
    case SYS_connect:
        return sockets_connect(c);

    /* What its standard streams are not. */
    case SYS_ioctl:
        return streams_ask_device(a[0], is_file(a[0]), (unsigned)a[1], a[2], &c->result);
    case SYS_poll:
        return poll_streams(c);

    /* What names say. */
    case SYS_stat:
        return look_at(c, AT_FDCWD, (const char *)a[0], true);
    case SYS_lstat:
        return look_at(c, AT_FDCWD, (const char *)a[0], false);
    case SYS_access:
        return look_at(c, AT_FDCWD, (const char *)a[0], true);
    case SYS_readlink:
        return read_link(c, AT_FDCWD, (const char *)a[0]);
    case SYS_readlinkat:
        return read_link(c, a[0], (const char *)a[1]);
    case SYS_newfstatat:
        return look_at_with(c, a[0], (const char *)a[1], a[3]);
    case SYS_statx:
        return look_at_with(c, a[0], (const char *)a[1], a[2]);
    case SYS_faccessat:
        return look_at(c, a[0], (const char *)a[1], true);
    case SYS_faccessat2:
        return look_at_with(c, a[0], (const char *)a[1], a[3]);

    /* Where it runs: noted. */
    case SYS_getcwd:
        return say_where(c);
    case SYS_sched_getaffinity:
        return say_processors(c);
    case SYS_uname:
        return say_names(c);

    /* What cannot change from outside: whose it is, and its limits. */
    case SYS_getuid:
    case SYS_geteuid:
    case SYS_getgid:
    case SYS_getegid:
    case SYS_getresuid:
    case SYS_getresgid:
    case SYS_getgroups:
    case SYS_getrlimit:
        return call_pass(c);
    case SYS_prlimit64:
        return call_pass_if(c, a[0] == 0 && a[2] == 0);

    /* A name of its memory, which a fork's has as well. */
    case SYS_prctl:
        return call_pass_if(c, a[0] == PR_SET_VMA && a[1] == PR_SET_VMA_ANON_NAME);

    /* What will happen at a signal: a fork has the same. */
    case SYS_rt_sigaction:
        return watched_set_action(c);
    case SYS_rt_sigprocmask:
        return watched_set_mask(c);
    case SYS_sigaltstack:
        return watched_set_stack(c);

    /* What libc tells the kernel of its thread: fork.c tells it of the fork's. */
    case SYS_set_tid_address:
    case SYS_set_robust_list:
        return call_pass(c);
    case SYS_arch_prctl:
        return call_pass_if(c, a[0] == ARCH_SET_FS || a[0] == ARCH_GET_FS);

    /* There is no one to be woken. */
    case SYS_futex:
        return call_pass_if(c, (a[1] & ~FUTEX_PRIVATE_FLAG) == FUTEX_WAKE);

    default:
        return false;
    }
}

/* ---- in a fork ---- */

static void reopen(int fd, uint32_t slot) {
    char path[] = "/proc/self/fd/\0\0\0";
    char *digit = path + sizeof "/proc/self/fd/" - 1;
    if (fd >= 100) *digit++ = (char)('0' + fd / 100);
    if (fd >= 10) *digit++ = (char)('0' + fd / 10 % 10);
    *digit = (char)('0' + fd % 10);
    long cloexec = raw(fcntl, fd, F_GETFD), at = raw(lseek, fd, 0, SEEK_CUR);
    long own = raw(openat, AT_FDCWD, is_file(fd) ? path : maps, O_RDONLY | O_CLOEXEC, 0);
    if (own < 0) word_fail(slot, own, fd);
    raw(lseek, own, at, SEEK_SET);
    raw(dup3, own, fd, cloexec & FD_CLOEXEC ? O_CLOEXEC : 0);
    raw(close, own);
}

bool pure_has_opened(int fd) {
    return is_opened(fd);
}

void pure_reopen(uint32_t slot) {
    for (int fd = 0; fd < opened.n; fd++)
        if (is_opened(fd)) reopen(fd, slot);
    sockets_renew_all(slot);
}

#endif
