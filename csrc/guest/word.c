/*
 * word.c - what a template process and its spawner say to each other (snapshot.h), and the memory
 * in which they do.
 */
#include "internal.h"

#ifdef __linux__
#include <stdalign.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct guest self;

/* ---- to the spawner ---- */

static long send_message(const struct msghdr *msg) {
    long r;
    do r = raw(sendmsg, self.socket, msg, MSG_NOSIGNAL);
    while (r == -EINTR);
    return r;
}

void word_tell(enum fsp_snap_kind kind, uint32_t slot, int value) {
    struct fsp_snap_reply reply = {kind, FSP_SNAP_VERSION, slot, value};
    struct iovec part = {&reply, sizeof reply};
    if (send_message(&(struct msghdr){.msg_iov = &part, .msg_iovlen = 1}) < 0)
        leave(0); /* nobody is left to serve */
}

long word_say(struct fsp_snap_reply *reply, const struct inputs_packed *inputs, int fd) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    int fds[2] = {fd, inputs->fd}, *first = fd < 0 ? &fds[1] : fds;
    size_t size = ((fd >= 0) + (inputs->fd >= 0)) * sizeof(int);
    struct iovec parts[2] = {
        {reply,                sizeof *reply},
        {(void *)inputs->data, inputs->size }
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
    if (size) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *c = (void *)control; /* the first one */
        *c = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(size)};
        memcpy(CMSG_DATA(c), first, size);
    }
    return send_message(&msg);
}

bool word_greet(int value, unsigned calls) {
    struct fsp_snap_reply reply = {FSP_SNAP_HELLO, FSP_SNAP_VERSION, self.running + calls, value};
    struct inputs_packed inputs;
    if (!inputs_pack(&inputs)) return false;
    if (word_say(&reply, &inputs, -1) < 0) leave(0);
    if (inputs.fd >= 0) raw(close, inputs.fd);
    return true;
}

void word_fail(uint32_t slot, long error, int index) {
    volatile struct fsp_error *e = &self.page->slot[slot].error;
    e->index = index;
    e->stage = FSP_STAGE_FDS;
    e->err = (int)-error;
    for (;;) leave(127);
}

/* ---- from it ---- */

static int take_fds(struct msghdr *msg, int fd[3]) {
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    if (c == NULL || c->cmsg_type != SCM_RIGHTS) return 0;
    size_t size = c->cmsg_len - CMSG_LEN(0);
    memcpy(fd, CMSG_DATA(c), size);
    return (int)(size / sizeof(int));
}

/* Wait for a message of at least the first part's size; -1: there is nobody any more.
 * The number of descriptors that came along, at most 3. */
int word_receive(struct iovec *parts, size_t n, int fd[3]) {
    alignas(struct cmsghdr) char control[CMSG_LEN(3 * sizeof(int))]; /* no room for a fourth */
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = n,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long r;
    do r = raw(recvmsg, self.socket, &msg, MSG_CMSG_CLOEXEC);
    while (r == -EINTR);
    int nfds = r < 0 ? 0 : take_fds(&msg, fd);
    if (r >= (long)parts[0].iov_len) return nfds;
    for (int i = 0; i < nfds; i++) raw(close, fd[i]);
    return -1;
}

/* What the program has set, or may have, since it was what the plan says. */
static void keep_as_is(struct fsp_plan *plan) {
    if (plan->cwd && self.cwd && strcmp(plan->cwd, self.cwd) == 0) plan->cwd = NULL;
    plan->umask = -1;
    plan->flags &= ~FSP_FLAG_RESTORE_SIGNALS;
}

/* False: nobody wants us any more. */
bool word_request(struct parcel *p) {
    struct iovec parts[2] = {
        {&p->request,                    sizeof p->request                     },
        {self.plan + FSP_SNAP_PLAN_FROM, FSP_SNAP_PLAN_MAX - FSP_SNAP_PLAN_FROM}
    };
    p->nfds = word_receive(parts, 2, p->fd);
    if (p->nfds < 0) return false;
    if (p->request.plan_size == 0) return true;
    struct fsp_plan *plan = self_plan();
    fsp_plan_relocate(plan, p->request.plan_at);
    if (self.running) keep_as_is(plan);
    return true;
}

void word_close(const struct parcel *p) {
    for (int i = 0; i < p->nfds; i++) raw(close, p->fd[i]);
}

/* ---- memory ---- */

long word_map_page(int fd) {
    return raw(mmap, NULL, sizeof *self.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

/* Where it lies, in whole pages. */
static struct range around(const struct fsp_resident_record *record) {
    uintptr_t from = (uintptr_t)record, end = (uintptr_t)(record + 1);
    return (struct range){from & ~(uintptr_t)4095, (end + 4095) & ~(uintptr_t)4095};
}

struct fsp_resident_record *word_keep_record(uint32_t n) {
    struct fsp_resident_record *record = &self.page->resident[n % FSP_SNAP_RECORDS];
    struct range kept = around(record);
    uintptr_t from = (uintptr_t)self.page, end = from + (sizeof *self.page + 4095) / 4096 * 4096;
    if (kept.start > from) raw(munmap, from, kept.start - from);
    if (kept.end < end) raw(munmap, kept.end, end - kept.end);
    return record;
}

void word_drop_record(const struct fsp_resident_record *record) {
    struct range kept = around(record);
    raw(munmap, kept.start, kept.end - kept.start);
}

long word_map_plan(void) {
    return raw(mmap, NULL, FSP_SNAP_PLAN_MAX, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

bool word_map(void) {
    long page = word_map_page(self.page_fd);
    long plan = word_map_plan();
    self.page = (struct fsp_snap_page *)page;
    self.plan = (char *)plan;
    return !failed(page) && !failed(plan);
}

void word_drop_page(void) {
    if (self.pid == 0 && !resident_is()) raw(munmap, self.page, sizeof *self.page);
}

#endif
