/*
 * copies.c - what a program has made of its standard streams above a checkpoint: descriptors above
 * 2 that are the same, by dup(2) or as /dev/stdout; and others in their place, by dup2(2) or
 * close(2).
 *
 * Each fork at the checkpoint has its request's streams instead of the first one's, whose pipes
 * have no reader any more, or that of somebody else; and has them where the program has put those.
 * A file of the program's own in the place of one stays there.
 *
 * A stream is known by its file, so /dev/null in the place of /dev/null is the request's.
 */
#include "internal.h"

#ifdef __linux__

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#define NONE       (-1)
#define UNKNOWN    (-2) /* the kernel does not say */
#define KEPT_ABOVE 60   /* where a program does not expect its next descriptor */

static struct copies {
    struct stat given[3]; /* 0 to 2 when the program was entered; all zeros: not open */
    struct made {
        int of;     /* the stream that it is; NONE: it is none */
        int own;    /* what it is then: a copy, out of the program's way; NONE: it is closed */
        int flags;  /* O_CLOEXEC, or 0 */
    } made[3];      /* what the program has made of them */
    bool moved;     /* of one of them, something else */
    bool unknown;   /* something of this is not known */
    bool filled[3]; /* it is closed, but for what is here in its place */
    size_t n;
    struct copy {
        int fd, of, flags;
    } *at;
} copies;

/* ---- descriptors as such ---- */

long guest_copy_above(int fd) {
    long high = -EINVAL;
    for (int floor = KEPT_ABOVE; high == -EINVAL && floor > 3; floor /= 2) /* RLIMIT_NOFILE */
        high = raw(fcntl, fd, F_DUPFD_CLOEXEC, floor);
    return high;
}

/* See dup3(2): it may have to be asked again. */
long guest_place(long fd, int target, int flags) {
    long r;
    do r = raw(dup3, fd, target, flags);
    while (r == -EINTR || r == -EBUSY);
    return r;
}

/* ---- what they are ---- */

/* All zeros if it is not open. */
static void look_up(int fd, struct stat *out) {
    int r = sys_fstat(fd, out);
    if (r < 0) *out = (struct stat){0};
    copies.unknown |= r < 0 && r != -EBADF;
}

void copies_note_streams(void) {
    copies.unknown = false;
    for (int i = 0; i < 3; i++) look_up(i, &copies.given[i]);
}

static bool is_same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_same_stream(const struct stat *a, int stream) {
    bool of_one = S_ISFIFO(a->st_mode) || S_ISSOCK(a->st_mode);
    return of_one && is_same_file(a, &copies.given[stream]);
}

/* Of which standard stream is it a copy; or NONE, or UNKNOWN.  The other end of the same pipe is
 * none. */
static int original(int fd) {
    struct stat at;
    long mode = raw(fcntl, fd, F_GETFL);
    if (mode < 0) return mode == -EBADF ? NONE : UNKNOWN;
    if (sys_fstat(fd, &at) < 0) return UNKNOWN;
    for (int i = 1; i <= 2; i++)
        if ((mode & O_ACCMODE) != O_RDONLY && is_same_stream(&at, i)) return i;
    return (mode & O_ACCMODE) != O_WRONLY && is_same_stream(&at, 0) ? 0 : NONE;
}

static int flags_of(int fd) {
    long flags = raw(fcntl, fd, F_GETFD);
    return flags > 0 && flags & FD_CLOEXEC ? O_CLOEXEC : 0;
}

static bool add(int fd, int of) {
    struct copy *more = sys_realloc(copies.at, (copies.n + 1) * sizeof *more);
    if (more == NULL) return false;
    copies.at = more;
    more[copies.n++] = (struct copy){fd, of, flags_of(fd)};
    return true;
}

static bool find_copies(void) {
    DIR *fds = opendir("/proc/self/fd");
    struct dirent *entry;
    bool done = fds != NULL;
    while (done && (entry = readdir(fds))) {
        int fd = atoi(entry->d_name), of = fd > 2 ? original(fd) : NONE;
        done = of == NONE || (of != UNKNOWN && add(fd, of));
    }
    if (fds) closedir(fds);
    return done;
}

static void look_at(int stream) {
    const struct stat *given = &copies.given[stream];
    struct made *made = &copies.made[stream];
    struct stat now;
    look_up(stream, &now);
    int of = is_same_file(&now, given) ? stream : original(stream);
    copies.unknown |= of == UNKNOWN;
    *made = (struct made){of, NONE, flags_of(stream)};
    copies.moved |= of != stream || made->flags;
}

bool copies_find(void) {
    for (int i = 0; i < 3; i++) look_at(i);
    return !copies.unknown && find_copies();
}

bool copies_has(int fd) {
    for (size_t i = 0; i < copies.n; i++)
        if (copies.at[i].fd == fd) return true;
    return false;
}

/* ---- none of ours gets the number of one that is closed ---- */

void copies_fill(void) {
    for (int i = 0; i < 3; i++) {
        if (raw(fcntl, i, F_GETFD) >= 0) continue;
        long null = raw(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
        copies.filled[i] = null == i;
    }
}

void copies_clear(void) {
    for (int i = 0; i < 3; i++) {
        if (copies.filled[i]) raw(close, i);
        copies.filled[i] = false;
    }
}

/* ---- they are those of others ---- */

bool copies_keep(void) {
    for (int i = 0; i < 3; i++) {
        struct made *made = &copies.made[i];
        if (made->of != NONE || copies.filled[i]) continue;
        made->own = (int)guest_copy_above(i);
        if (made->own < 0) return false;
    }
    return true;
}

static long follow(const int stream[3]) {
    long r = 0;
    for (const struct copy *copy = copies.at; r >= 0 && copy < copies.at + copies.n; copy++)
        r = guest_place(stream[copy->of], copy->fd, copy->flags);
    return r;
}

long copies_drop(void) {
    return follow((const int[3]){0, 1, 2});
}

static long put(const struct made *made, int fd, const int stream[3]) {
    resident_moves(fd);
    if (made->of != NONE) return guest_place(stream[made->of], fd, made->flags);
    if (made->own != NONE) return guest_place(made->own, fd, made->flags);
    raw(close, fd);
    return 0;
}

static void forget_kept(void) {
    for (int i = 0; i < 3; i++)
        if (copies.made[i].own != NONE) raw(close, copies.made[i].own);
}

long copies_follow(void) {
    int stream[3];
    if (!copies.moved) return copies_drop();
    for (int i = 0; i < 3; i++) {
        stream[i] = (int)guest_copy_above(i);
        if (stream[i] < 0) return stream[i];
    }
    long r = follow(stream);
    for (int i = 0; i < 3 && r >= 0; i++) r = put(&copies.made[i], i, stream);
    for (int i = 0; i < 3; i++) raw(close, stream[i]);
    if (!resident_is()) forget_kept();
    return r;
}

#endif
