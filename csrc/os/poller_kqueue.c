/*
 * poller_kqueue.c - readiness on macOS: kqueue, NOTE_EXIT, a pipe to wake.
 */
#include "poller.h"

#ifdef __APPLE__
#include <sys/event.h>

#define BATCH 64

static int change(struct fsp_poller *p, uintptr_t ident, int16_t filter, uint16_t flags,
                  uint32_t fflags, uint64_t token) {
    struct kevent ev;
    EV_SET(&ev, ident, filter, flags, fflags, 0, (void *)(uintptr_t)token);
    return (int)FSP_CALL("kevent", kevent(p->fd, &ev, 1, NULL, 0, NULL));
}

int fsp_poller_init(struct fsp_poller *p) {
    int r = (int)FSP_CALL("kqueue", kqueue());
    p->fd = r;
    if (r < 0) return r;
    sys_cloexec(r);
    return 0;
}

void fsp_poller_close(struct fsp_poller *p) {
    sys_close(p->fd);
    p->fd = -1;
}

static int16_t filter_of(unsigned want) {
    return want == FSP_POLL_OUT ? EVFILT_WRITE : EVFILT_READ;
}

int fsp_poller_watch(struct fsp_poller *p, int fd, unsigned want, uint64_t token) {
    return change(p, (uintptr_t)fd, filter_of(want), EV_ADD, 0, token);
}

void fsp_poller_forget(struct fsp_poller *p, int fd, unsigned want) {
    (void)change(p, (uintptr_t)fd, filter_of(want), EV_DELETE, 0, 0);
}

int fsp_poller_watch_child(struct fsp_poller *p, const struct fsp_child *child, uint64_t token) {
    return change(p, (uintptr_t)child->pid, EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, token);
}

int fsp_poller_wait(struct fsp_poller *p, uint64_t *tokens, int max, uint64_t timeout) {
    struct kevent ready[BATCH];
    struct timespec ts = {(time_t)(timeout / 1000000000), (long)(timeout % 1000000000)};
    if (max > BATCH) max = BATCH;
    int n = (int)FSP_CALL("kevent",
                          kevent(p->fd, NULL, 0, ready, max, timeout == UINT64_MAX ? NULL : &ts));
    for (int i = 0; i < n; i++) tokens[i] = (uint64_t)(uintptr_t)ready[i].udata;
    return n;
}

int fsp_waker_init(struct fsp_waker *w) {
    int r = sys_pipe(w->fd);
    if (r < 0) return r;
    sys_nonblock(w->fd[0]);
    sys_nonblock(w->fd[1]);
    return 0;
}

void fsp_waker_close(struct fsp_waker *w) {
    sys_close(w->fd[0]);
    sys_close(w->fd[1]);
    w->fd[0] = w->fd[1] = -1;
}

void fsp_waker_set(struct fsp_waker *w) {
    (void)!write(w->fd[1], "", 1);
}

void fsp_waker_clear(struct fsp_waker *w) {
    char sink[64];
    while (read(w->fd[0], sink, sizeof sink) > 0) {
    }
}
#endif
