/*
 * terminal.c - a pseudo terminal (pty(7)): our end, and the one that a child gets.
 */
#include "internal.h"

#ifdef __linux__

#include <stdio.h>
#include <termios.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41) /* Linux 4.13 */
#endif

int fsp_terminal_resize(int fd, struct fsp_size size) {
    struct winsize window = {.ws_col = size.cols, .ws_row = size.rows};
    return (int)FSP_CALL("ioctl", ioctl(fd, TIOCSWINSZ, &window));
}

/* Not by its name, where that can be: what is at /dev/pts may be another one's (mounts). */
static int open_peer(int fd) {
    int number;
    char path[32];
    int r = (int)FSP_CALL("ioctl", ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (r != -EINVAL && r != -ENOTTY) return r;
    r = (int)FSP_CALL("ioctl", ioctl(fd, TIOCGPTN, &number));
    if (r < 0) return r;
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    return sys_open(path, O_RDWR | O_NOCTTY);
}

/* As terminals are today: a letter is erased as a whole, however many bytes it has. */
static void set_utf8(int fd) {
    struct termios t;
    if (tcgetattr(fd, &t) < 0) return;
    t.c_iflag |= IUTF8;
    (void)tcsetattr(fd, TCSANOW, &t);
}

int fsp_terminal_open(struct fsp_size size, int fd[2]) {
    int unlocked = 0;
    fd[1] = -1;
    fd[0] = sys_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    int r = fd[0];
    if (r >= 0) r = (int)FSP_CALL("ioctl", ioctl(fd[0], TIOCSPTLCK, &unlocked));
    if (r >= 0) r = fsp_terminal_resize(fd[0], size);
    if (r >= 0) r = fd[1] = open_peer(fd[0]);
    if (r >= 0) {
        set_utf8(fd[1]);
        return 0;
    }
    sys_close(fd[0]);
    fd[0] = -1;
    return r;
}

#else

int fsp_terminal_resize(int fd, struct fsp_size size) {
    (void)fd, (void)size;
    return -ENOTSUP;
}

int fsp_terminal_open(struct fsp_size size, int fd[2]) {
    (void)size;
    fd[0] = fd[1] = -1;
    return -ENOTSUP;
}

#endif
