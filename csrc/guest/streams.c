/*
 * streams.c - what a program asks about its standard streams before its first effect.
 *
 * They are the requests', and what they are may differ from one to the next: a pipe, /dev/null, or
 * (stderr) what this process has; a file or a socket if it is the spawner's own, but no terminal
 * (fsp_stdio_may_be_terminal: such a job is no fork of this process).  Answered here is only what
 * is the same of all of these, so neither fstat(2) nor F_GETFL: they tell a pipe from /dev/null.
 *
 * Each makes the call, and answers false if it was another one, or its answer is not the one that
 * all get.
 */
#include "internal.h"

#ifdef __linux__
#include <poll.h>
#include <sys/ioctl.h>

#define TERMIOS2 0x802c542aul /* TCGETS2, whose header is at odds with libc's */

static bool is_stream(long fd) {
    return fd >= 0 && fd <= 2;
}

/* Is it a terminal, how large, whose?  It is none, and no plain file that was opened is. */
bool streams_ask_device(long fd, bool is_file, unsigned long request, long at, long *result) {
    bool terminals = request == TCGETS || request == TERMIOS2 || request == TIOCGWINSZ ||
                     request == TIOCGPGRP || request == TIOCGSID;
    if (!(is_file || is_stream(fd)) || !terminals) return false;
    *result = raw(ioctl, fd, request, at);
    return *result == -ENOTTY;
}

/* Is it open?  It is, and stays so at an exec: settle.c puts it there with no flag. */
bool streams_ask_flags(long fd, long command, long *result) {
    if (!is_stream(fd) || command != F_GETFD) return false;
    *result = raw(fcntl, fd, F_GETFD);
    return *result == 0;
}

/*
 * Is one of them closed?  So Rust's programs begin: all three, no event, no wait.  None is, and
 * nobody at the other end has hung up: a program that is quicker than whoever starts it finds the
 * same.  It is not taken for an answer where only some are asked about, as by who waits for the
 * other end to hang up.
 */
bool streams_ask_closed(struct pollfd *list, long n, long *result) {
    if (n != 3) return false;
    *result = raw(poll, list, n, 0); /* looks whether it can be read, too */
    if (*result != 0) return false;
    for (int i = 0; i < 3; i++)
        if (list[i].fd != i || list[i].events) return false;
    return true;
}

#endif
