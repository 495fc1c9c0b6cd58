/*
 * poller_epoll.c - readiness on Linux: epoll, pidfds, eventfds.
 */
#include "poller.h"

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define BATCH 64

int fsp_poller_init(struct fsp_poller *p) {
    int r = (int)FSP_CALL("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
    p->fd = r;
    return r < 0 ? r : 0;
}

void fsp_poller_close(struct fsp_poller *p) {
    sys_close(p->fd);
    p->fd = -1;
}

static int add(struct fsp_poller *p, int fd, unsigned events, uint64_t token) {
    struct epoll_event ev = {.events = events, .data.u64 = token};
    return (int)FSP_CALL("epoll_ctl", epoll_ctl(p->fd, EPOLL_CTL_ADD, fd, &ev));
}

int fsp_poller_watch(struct fsp_poller *p, int fd, unsigned want, uint64_t token) {
    return add(p, fd, want == FSP_POLL_OUT ? EPOLLOUT : EPOLLIN, token);
}

void fsp_poller_forget(struct fsp_poller *p, int fd, unsigned want) {
    (void)want;
    (void)epoll_ctl(p->fd, EPOLL_CTL_DEL, fd, NULL);
}

/* A pidfd stays readable from exit on, while the spawner may still be draining pipes: once. */
int fsp_poller_watch_child(struct fsp_poller *p, const struct fsp_child *child, uint64_t token) {
    return child->pidfd < 0 ? -ENOSYS : add(p, child->pidfd, EPOLLIN | EPOLLONESHOT, token);
}

/* Rounded up: waking before a deadline would only mean to sleep again. */
static int milliseconds(uint64_t ns) {
    if (ns == UINT64_MAX) return -1;
    uint64_t ms = ns / 1000000 + (ns % 1000000 != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

int fsp_poller_wait(struct fsp_poller *p, uint64_t *tokens, int max, uint64_t timeout) {
    struct epoll_event ready[BATCH];
    if (max > BATCH) max = BATCH;
    int n = (int)FSP_CALL("epoll_wait", epoll_wait(p->fd, ready, max, milliseconds(timeout)));
    for (int i = 0; i < n; i++) tokens[i] = ready[i].data.u64;
    return n;
}

int fsp_waker_init(struct fsp_waker *w) {
    int r = (int)FSP_CALL("eventfd", eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    w->fd[0] = w->fd[1] = r;
    return r < 0 ? r : 0;
}

void fsp_waker_close(struct fsp_waker *w) {
    sys_close(w->fd[0]);
    w->fd[0] = w->fd[1] = -1;
}

void fsp_waker_set(struct fsp_waker *w) {
    uint64_t one = 1;
    (void)!write(w->fd[1], &one, sizeof one);
}

void fsp_waker_clear(struct fsp_waker *w) {
    uint64_t count;
    (void)!read(w->fd[0], &count, sizeof count);
}
#endif
