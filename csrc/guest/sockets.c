/*
 * sockets.c - a socket with which a program asks, before its first effect, for a service that is
 * not there.
 *
 * So libc begins to look for the name of a user (nscd(8)): connect(2) finds no such file, which is
 * an input like any other that is missing, and the socket is closed.  One that is there is asked by
 * each fork, and by a resident in each of its runs, with a socket of its own.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
#include <sys/un.h>

#define MAX_FD 128

static struct {
    bool is[MAX_FD];
    int n; /* one more than the highest that there ever was */
} made;

bool sockets_has(long fd) {
    return fd >= 0 && fd < MAX_FD && made.is[fd];
}

bool sockets_make(struct call *c) {
    const long *a = c->arg;
    if (a[0] != AF_UNIX || a[2] != 0) return false;
    call_pass(c);
    if (c->result < 3 || c->result >= MAX_FD) {
        if (c->result >= 0) raw(close, c->result);
        return false;
    }
    if (c->result >= made.n) made.n = (int)c->result + 1;
    return made.is[c->result] = true;
}

static bool is_missing(const char *path) {
    struct stat st;
    return raw(newfstatat, AT_FDCWD, path, &st, 0) == -ENOENT;
}

/* Of such an address, `path` with room for all of it; false: it is another one. */
static bool read_address(const struct sockaddr_un *to, size_t size, char *path) {
    const size_t before = offsetof(struct sockaddr_un, sun_path);
    if (size < sizeof(uint64_t) || size > sizeof *to || !call_can_read(to, size)) return false;
    memcpy(path, to->sun_path, size - before);
    path[size - before] = '\0';
    return to->sun_family == AF_UNIX && *path;
}

/* Missing before and after it was noted: it is so for those who look whether it still is. */
bool sockets_connect(struct call *c) {
    char path[sizeof(struct sockaddr_un)];
    return sockets_has(c->arg[0]) &&
           read_address((const void *)c->arg[1], (size_t)c->arg[2], path) && is_missing(path) &&
           plain_is(path, true) && inputs_add(path, FSP_SNAP_FOLLOW) && is_missing(path) &&
           call_answer(c, -ENOENT);
}

bool sockets_close(struct call *c) {
    if (!sockets_has(c->arg[0])) return false;
    made.is[c->arg[0]] = false;
    return call_pass(c);
}

/* ---- where the program goes on ---- */

int sockets_type(int fd) {
    int type = 0, size = sizeof type;
    if (!sockets_has(fd)) return 0;
    raw(getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size);
    return type | ((int)raw(fcntl, fd, F_GETFL) & SOCK_NONBLOCK);
}

long sockets_renew(int fd, int type, int flags) {
    long own = raw(socket, AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (own < 0) return own;
    long r = guest_place(own, fd, flags);
    raw(close, own);
    return r < 0 ? r : 0;
}

void sockets_renew_all(uint32_t slot) {
    for (int fd = 0; fd < made.n; fd++) {
        if (!made.is[fd]) continue;
        int flags = raw(fcntl, fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0;
        long error = sockets_renew(fd, sockets_type(fd), flags);
        if (error) word_fail(slot, error, fd);
    }
}

#endif
