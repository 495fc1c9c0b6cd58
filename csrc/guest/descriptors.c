/*
 * descriptors.c - the calls of a resident's program that make, close and set descriptors.
 *
 * What it makes is closed at the end of the run; what is gone of those that were there is noted
 * before, and put back (state.c).  Ours are none for it.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
#include <poll.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#define MOST_POLLED 65536 /* with more open it left long ago */

/* Where 0 to 2 or a frozen one was is none, or another. */
static void note_gone(long fd) {
    struct frozen *f = state_frozen(fd);
    if (fd >= 0 && fd < 3) resident->touched[fd] = true;
    if (f) f->gone = true;
}

static void note_made(long fd, enum whose whose) {
    struct resident *r = resident;
    if (fd < 0) return;
    if (fd >= r->high) { /* beyond ours: more are open than we can tell of */
        r->leaves_next = true;
        return;
    }
    r->whose[fd] = (char)whose;
    if (fd < 3 || state_frozen(fd)) {
        note_gone(fd);
        return;
    }
    r->made[fd] = true;
    if (fd >= r->made_end) r->made_end = (int)fd + 1;
}

/* Ours may be those that there is no room for. */
static bool make(struct call *c, enum whose whose) {
    resident->makes = true; /* before: a handler may jump away from the call */
    call_pass(c);
    note_made(c->result, whose);
    return c->result != -EMFILE;
}

bool fds_make(struct call *c) {
    return make(c, WHOSE_JOBS);
}

bool fds_copy(struct call *c) {
    return make(c, state_whose((int)c->arg[0]));
}

bool fds_make_two(struct call *c, const int *pair) {
    resident->makes = true;
    call_pass(c);
    if (c->result == 0) {
        note_made(pair[0], WHOSE_JOBS);
        note_made(pair[1], WHOSE_JOBS);
    }
    return c->result != -EMFILE;
}

/* What is written to these may change the process that writes (statfs(2)). */
static bool is_settings(int fd) {
    static const unsigned magic[] = {
        0x9fa0,     /* proc */
        0x63677270, /* cgroup v2 */
        0x27e0eb,   /* cgroup */
        0x7655821,  /* resctrl */
    };
    struct statfs fs;
    if (raw(fstatfs, fd, &fs) < 0) return true;
    for (size_t i = 0; i < sizeof magic / sizeof *magic; i++)
        if ((unsigned)fs.f_type == magic[i]) return true;
    return false;
}

static bool is_terminal(int fd) {
    char termios[64];
    return raw(ioctl, fd, 0x5401 /* TCGETS */, termios) == 0;
}

/* A terminal would become the session's. */
bool fds_open(struct call *c, long *flags) {
    long asked = flags ? *flags : O_WRONLY;
    bool may_lead = flags && resident->leads_session && !(asked & O_NOCTTY);
    if (may_lead) *flags |= O_NOCTTY;
    if (!fds_make(c)) return false;
    if (c->result < 0) return true;
    int fd = (int)c->result;
    bool writes = (asked & O_ACCMODE) != O_RDONLY && !(asked & O_PATH);
    if ((writes && is_settings(fd)) || (may_lead && is_terminal(fd))) {
        raw(close, fd);
        if (state_made(fd)) resident->made[fd] = false;
        if (may_lead) *flags = asked;
        return false;
    }
    return true;
}

struct how_to_open {
    uint64_t flags, mode, resolve;
};

bool fds_open_2(struct call *c) {
    const struct how_to_open *how = (const void *)c->arg[2];
    if ((size_t)c->arg[3] != sizeof *how || !call_can_read(how, sizeof *how)) return false;
    struct how_to_open own = *how;
    c->arg[2] = (long)&own;
    bool opened = fds_open(c, (long *)&own.flags);
    c->arg[2] = (long)how;
    return opened;
}

bool fds_close(struct call *c) {
    int fd = (int)c->arg[0];
    if (reset_is_own(fd)) return call_answer(c, -EBADF);
    note_gone(fd);
    if (state_made(fd)) resident->made[fd] = false;
    return call_pass(c);
}

bool fds_close_range(struct call *c) {
    struct resident *r = resident;
    unsigned first = (unsigned)c->arg[0], last = (unsigned)c->arg[1];
    if (c->arg[2] != 0 || first > last) return false;
    if (last >= (unsigned)r->high) last = (unsigned)r->high - 1;
    if (first > last) return call_answer(c, 0);
    for (unsigned fd = first; fd <= last; fd++) {
        note_gone((int)fd);
        if (state_made(fd)) r->made[fd] = false;
    }
    c->result = raw(close_range, first, last, 0);
    return c->result == 0;
}

bool fds_place(struct call *c) {
    int from = (int)c->arg[0], to = (int)c->arg[1];
    if (reset_is_own(from)) return call_answer(c, -EBADF);
    if (reset_is_own(to)) return false;
    if (from == to || to < 0) return call_pass(c);
    enum whose whose = state_whose(from);
    note_gone(to);
    resident->whose[to] = WHOSE_SHARED; /* until it is known */
    resident->makes = true;
    call_pass(c);
    note_made(c->result, whose);
    return true;
}

/* It goes with the run, and nobody else has it who would not have had it of a fork. */
static bool is_runs(long fd) {
    return state_made(fd) && state_whose(fd) == WHOSE_JOBS;
}

/* The same, or it came with the job. */
static bool is_jobs(long fd) {
    return is_runs(fd) || (fd >= 0 && fd < 3 && state_whose(fd) == WHOSE_JOBS);
}

bool fds_lock(struct call *c) {
    return call_pass_if(c, is_runs((int)c->arg[0]));
}

static bool set_flags(struct call *c, bool allowed) {
    int fd = (int)c->arg[0];
    bool nulls = (fd < 3 || state_made(fd)) && state_whose(fd) == WHOSE_NULL;
    if (nulls) resident->nulls_set = true;
    return call_pass_if(c, nulls || allowed);
}

bool fds_control(struct call *c) {
    int fd = (int)c->arg[0];
    if (reset_is_own(fd)) return call_answer(c, -EBADF);
    switch (c->arg[1]) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return c->arg[2] < resident->high && fds_copy(c);
    case F_GETFD:
    case F_GETFL:
    case F_GETPIPE_SZ:
    case F_GETLK:
    case F_OFD_GETLK:
        return call_pass(c);
    case F_SETFD:
        note_gone(fd);
        return call_pass(c);
    case F_SETFL:
        return !(c->arg[2] & O_ASYNC) && set_flags(c, is_jobs(fd));
    case F_SETPIPE_SZ:
    case F_ADD_SEALS:
        return call_pass_if(c, is_jobs(fd));
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return call_pass_if(c, is_runs(fd)); /* gone when it is closed */
    default:
        return false; /* owners, signals, leases */
    }
}

bool fds_control_device(struct call *c) {
    int fd = (int)c->arg[0];
    if (reset_is_own(fd)) return call_answer(c, -EBADF);
    switch ((unsigned)c->arg[1]) {
    case 0x5401:     /* TCGETS */
    case 0x802c542a: /* TCGETS2: isatty(3) of glibc 2.42 */
    case 0x5413:     /* TIOCGWINSZ */
    case 0x541b:     /* FIONREAD */
    case 0x540f:     /* TIOCGPGRP */
    case 0x5429:     /* TIOCGSID */
    case 0x5411:     /* TIOCOUTQ */
        return call_pass(c);
    case 0x40049409: /* FICLONE */
        return reset_is_own((int)c->arg[2]) ? call_answer(c, -EBADF) : call_pass(c);
    case 0x5451: /* FIOCLEX */
    case 0x5450: /* FIONCLEX */
        return call_pass_if(c, state_made(fd));
    case 0x5421: /* FIONBIO */
        return set_flags(c, is_runs(fd));
    default:
        return false;
    }
}

/* ---- waiting for several ---- */

static bool can_read_all(const char *at, size_t size) {
    for (; size > PAGE; at += PAGE, size -= PAGE)
        if (!call_can_read(at, PAGE)) return false;
    return size == 0 || call_can_read(at, size);
}

/* None of ours is asked about; so if the kernel will refuse it. */
bool fds_may_poll(const struct call *c) {
    const struct pollfd *fds = (const void *)c->arg[0];
    size_t n = (unsigned)c->arg[1];
    if (n > MOST_POLLED || !can_read_all((const void *)fds, n * sizeof *fds)) return true;
    for (size_t i = 0; i < n; i++)
        if (reset_is_own(fds[i].fd)) return false;
    return true;
}

bool fds_may_select(const struct call *c) {
    int from = resident->high, end = (int)c->arg[0];
    if (end > MOST_POLLED) end = MOST_POLLED;
    for (int i = 1; i <= 3; i++) {
        const uint64_t *set = (const void *)c->arg[i];
        if (set == NULL || end <= from || !can_read_all((const void *)set, (end + 63) / 64 * 8))
            continue;
        for (int fd = from; fd < end; fd++)
            if (set[fd / 64] >> fd % 64 & 1) return false;
    }
    return true;
}

/* Not memory that is still being sent when it is put back. */
#define ZEROCOPY 0x4000000

bool fds_send(struct call *c) {
    long flags = c->arg[c->nr == SYS_sendmsg ? 2 : 3];
    return !(flags & ZEROCOPY) && call_pass_of(c, c->arg[0]);
}

/* Descriptors may come along, of a Unix socket alone. */
bool fds_receive(struct call *c) {
    const struct msghdr *msg = (const void *)c->arg[1];
    int domain = AF_UNIX;
    socklen_t size = sizeof domain;
    if (reset_is_own(c->arg[0])) return call_answer(c, -EBADF);
    if (!call_can_read(msg, sizeof *msg)) return call_pass(c);
    if (msg->msg_controllen) raw(getsockopt, c->arg[0], SOL_SOCKET, SO_DOMAIN, &domain, &size);
    return call_pass_if(c, msg->msg_controllen == 0 || domain != AF_UNIX);
}

#endif
