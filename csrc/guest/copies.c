/*
 * copies.c - descriptors above 2 that a program made of its standard streams, by dup(2) or as
 * /dev/stdout.  Each fork at a checkpoint has its request's instead: the first one's pipe has no
 * reader any more, or is that of somebody else.
 */
#include "internal.h"

#ifdef __linux__

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

static struct copies {
    size_t n;
    struct copy {
        int fd, of, flags; /* O_CLOEXEC, or 0 */
    } *at;
} copies;

static bool is_same_stream(const struct stat *a, int fd) {
    struct stat b;
    if (!S_ISFIFO(a->st_mode) && !S_ISSOCK(a->st_mode)) return false;
    return sys_fstat(fd, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

/* Of which standard stream is it a copy; or -1.  The other end of the same pipe is none. */
static int original(int fd) {
    struct stat at;
    long mode = raw(fcntl, fd, F_GETFL);
    if (mode < 0 || sys_fstat(fd, &at) < 0) return -1;
    for (int i = 1; i <= 2; i++)
        if ((mode & O_ACCMODE) != O_RDONLY && is_same_stream(&at, i)) return i;
    return (mode & O_ACCMODE) != O_WRONLY && is_same_stream(&at, 0) ? 0 : -1;
}

static bool add(int fd, int of) {
    struct copy *more = sys_realloc(copies.at, (copies.n + 1) * sizeof *more);
    if (more == NULL) return false;
    copies.at = more;
    int flags = raw(fcntl, fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0;
    more[copies.n++] = (struct copy){fd, of, flags};
    return true;
}

bool copies_find(void) {
    DIR *fds = opendir("/proc/self/fd");
    struct dirent *entry;
    bool done = fds != NULL;
    while (done && (entry = readdir(fds))) {
        int fd = atoi(entry->d_name), of = fd > 2 ? original(fd) : -1;
        if (of >= 0) done = add(fd, of);
    }
    if (fds) closedir(fds);
    return done;
}

bool copies_has(int fd) {
    for (size_t i = 0; i < copies.n; i++)
        if (copies.at[i].fd == fd) return true;
    return false;
}

void copies_follow(void) {
    for (const struct copy *copy = copies.at; copy < copies.at + copies.n; copy++)
        raw(dup3, copy->of, copy->fd, copy->flags);
}

#endif
