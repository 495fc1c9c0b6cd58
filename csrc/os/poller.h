/*
 * poller.h - readiness: poller_epoll.c on Linux, poller_kqueue.c on macOS.
 */
#ifndef FSP_POLLER_H
#define FSP_POLLER_H

#include "sys.h" /* first: it sets the feature macros */

#include "fastspawn.h"

#include <limits.h>
#include <stdbool.h>

#define FSP_POLL_IN  1u
#define FSP_POLL_OUT 2u

struct fsp_poller {
    int fd;
};

int fsp_poller_init(struct fsp_poller *p);
void fsp_poller_close(struct fsp_poller *p);

/* Level-triggered; `want` is one of the two.  A descriptor is watched once at a time. */
int fsp_poller_watch(struct fsp_poller *p, int fd, unsigned want, uint64_t token);
/* Before fd is closed: a child between clone and exec may hold a copy that keeps it watched. */
void fsp_poller_forget(struct fsp_poller *p, int fd, unsigned want);
/* Tells the exit of a child once. */
int fsp_poller_watch_child(struct fsp_poller *p, const struct fsp_child *child, uint64_t token);
/* Up to `max` tokens, 0 after `timeout` ns (UINT64_MAX: none). */
int fsp_poller_wait(struct fsp_poller *p, uint64_t *tokens, int max, uint64_t timeout);

/* A descriptor that wakes: an eventfd, or a pipe where there is none. */
struct fsp_waker {
    int fd[2]; /* to wait on, to write to (the same for an eventfd) */
};

int fsp_waker_init(struct fsp_waker *w);
void fsp_waker_close(struct fsp_waker *w);
void fsp_waker_set(struct fsp_waker *w);
void fsp_waker_clear(struct fsp_waker *w);

#endif
