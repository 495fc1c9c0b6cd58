/*
 * puppet.c - the test program as a template process that does not behave (support.h).
 *
 *   PROGRAM --puppet MODE
 *
 * It speaks the protocol of snapshot.h by hand, up to the point where MODE says otherwise.
 */
#include "support.h"

#ifdef __linux__
#include "rawsys.h"
#include "snapshot.h"

#include <sched.h>
#include <stdalign.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

static const char *mode;
static int channel;
static struct fsp_snap_page *page;
static int told[2]; /* closed when FORKED has been said: it comes before what the fork asks */

static bool is(const char *name) {
    return strcmp(mode, name) == 0;
}

static void say(int socket, uint32_t kind, uint32_t version, uint32_t slot, int value) {
    struct fsp_snap_reply reply = {kind, version, slot, value};
    if (send(socket, &reply, sizeof reply, MSG_NOSIGNAL) < 0) _exit(90);
}

/* The first descriptors that came along; the size of the message, 0 when there is none any more. */
static long hear(int socket, void *part, size_t size, int fd[3]) {
    static char rest[FSP_SNAP_PLAN_MAX];
    alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))];
    struct iovec parts[2] = {
        {part, size       },
        {rest, sizeof rest}
    };
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = 2,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long n = recvmsg(socket, &msg, 0);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c) memcpy(fd, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return n < 0 ? 0 : n;
}

static void ask(int socket, uint32_t slot, int fd) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct fsp_snap_reply reply = {FSP_SNAP_CHECKPOINT, FSP_SNAP_VERSION, slot, 0};
    struct iovec part = {&reply, sizeof reply};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    *CMSG_FIRSTHDR(&msg) = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof fd);
    if (sendmsg(socket, &msg, MSG_NOSIGNAL) < 0) _exit(91);
}

/* A fork that asks to be a template process, is let, and then is none. */
static void apply(uint32_t slot) {
    struct fsp_snap_reply reply;
    int ends[2], fd[3];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) _exit(92);
    ask(channel, is("ask-slot") ? 5000 : slot, ends[1]);
    close(ends[1]);
    if (is("ask-twice")) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0) _exit(92);
        ask(channel, slot, fd[1]);
    }
    if (hear(ends[0], &reply, sizeof reply, fd) == 0) _exit(93);
    bool yes = reply.kind == FSP_SNAP_GO && reply.value;
    if (is("ask-die")) _exit(yes ? 9 : 94);
    if (is("ask-nofork")) say(ends[0], FSP_SNAP_FORKED, FSP_SNAP_VERSION, 0, -EAGAIN);
    dprintf(1, yes ? "on" : "refused");
    _exit(4);
}

/* The job's child, by the way that the preload object takes. */
static void fork_for(const struct fsp_snap_request *request, const int fd[3]) {
    int *pid = &page->slot[request->slot].pid;
    long flags = CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD;
    if (pipe(told) < 0) _exit(97);
    long r = raw6(SYS_clone, flags, 0, (long)pid, 0, 0, 0);
    if (r != 0) return;
    close(told[1]);
    for (int i = 0; i < 3; i++)
        if (request->fd[i] >= 0) dup2(fd[request->fd[i]], i);
    char byte;
    if (strncmp(mode, "ask", 3) == 0 && read(told[0], &byte, 1) == 0) apply(request->slot);
    dprintf(1, "forked");
    _exit(5);
}

static __attribute__((noreturn)) void serve(void) {
    struct fsp_snap_request request;
    int fd[3] = {-1, -1, -1};
    for (;;) {
        if (hear(channel, &request, sizeof request, fd) < (long)sizeof request) _exit(0);
        if (is("mute")) continue;
        if (is("die")) _exit(0);
        if (is("babble")) {
            if (send(channel, "?", 1, MSG_NOSIGNAL) < 0) _exit(90);
            continue;
        }
        if (!is("nofork")) fork_for(&request, fd);
        if (is("fork-die")) _exit(0);
        say(channel, FSP_SNAP_FORKED, FSP_SNAP_VERSION, request.slot, is("nofork") ? -EAGAIN : 0);
        for (int i = 0; i < 3; i++) close(fd[i]);
        for (int i = 0; i < 2 && !is("nofork"); i++) close(told[i]);
    }
}

void support_puppet(const char *name) {
    int page_fd;
    mode = name;
    const char *word = getenv(FSP_SNAP_VARIABLE);
    if (word == NULL || sscanf(word, "%d,%d", &channel, &page_fd) != 2) _exit(95);
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    if (page == MAP_FAILED) _exit(96);
    if (is("leave")) _exit(3);
    if (is("refuse")) say(channel, FSP_SNAP_REFUSED, FSP_SNAP_VERSION, 0, FSP_REFUSED_THREADS);
    if (is("version")) say(channel, FSP_SNAP_HELLO, FSP_SNAP_VERSION + 1, 0, 0);
    if (is("silent") || is("refuse") || is("version")) {
        char byte;
        (void)!recv(channel, &byte, 1, 0); /* until nobody is there any more */
        _exit(0);
    }
    say(channel, FSP_SNAP_HELLO, FSP_SNAP_VERSION, 0, strncmp(mode, "ask", 3) == 0);
    serve();
}

#else

void support_puppet(const char *name) {
    (void)name;
    _exit(95);
}

#endif
