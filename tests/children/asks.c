/*
 * asks.c - ask a service at a missing path, then perhaps one that is there, and tell of both.
 *
 *   asks MISSING [THERE]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char text[1000];
static int size;

#define TELL(...) (size += snprintf(text + size, sizeof text - size, __VA_ARGS__))

static int ask(const char *path, int flags) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | flags, 0);
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    int r = connect(fd, (void *)&to, sizeof to);
    TELL("%d at %d\n", r < 0 ? errno : 0, fd);
    return fd;
}

static void tell_of(int fd) {
    int type = 0, flags = fcntl(fd, F_GETFL), closes = fcntl(fd, F_GETFD);
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type});
    TELL("%d: type %d, flags %#x and %#x\n", fd, type, flags, closes);
}

int main(int argc, char **argv) {
    (void)argc;
    close(ask(argv[1], SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (argv[2]) {
        char line[64] = "";
        int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        fcntl(other, F_SETFD, FD_CLOEXEC);
        int fd = ask(argv[2], 0);
        TELL("%zd: %s", read(fd, line, sizeof line - 1), line);
        tell_of(other);
        tell_of(fd);
    }
    return write(1, text, size) != size;
}
