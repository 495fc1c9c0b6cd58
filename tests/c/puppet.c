/*
 * puppet.c - the test program as a template process that does not behave (support.h).
 *
 *   PROGRAM --puppet MODE
 *
 * It speaks the protocol of snapshot.h by hand, up to the point where MODE says otherwise.
 */
#include "support.h"

#ifdef __linux__
#include "os/rawsys.h"
#include "template/snapshot.h"

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

static void say_with(int socket, struct fsp_snap_reply *reply, size_t size, const int *fd,
                     size_t nfds) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct iovec part = {reply, size};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = CMSG_SPACE(nfds * sizeof(int))};
    *CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                            .cmsg_type = SCM_RIGHTS,
                                            .cmsg_len = CMSG_LEN(nfds * sizeof(int))};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fd, nfds * sizeof(int));
    if (sendmsg(socket, &msg, MSG_NOSIGNAL) < 0) _exit(91);
}

/* One file so many times, as what it came from, in memory that nobody can write any more, unless
 * MODE says otherwise. */
static int put_down(int times) {
    struct {
        struct fsp_snap_input input;
        char path[8];
    } one = {
        {.path_size = 2, .how = FSP_SNAP_FOLLOW | FSP_SNAP_PLACE},
        "/"
    };
    struct stat st;
    if (stat("/", &st) < 0) _exit(87);
    one.input.id = fsp_snap_identity(&st, one.input.how);
    if (is("ask-pipe")) return 0;
    int fd = memfd_create("puppet", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) _exit(88);
    while (times--)
        if (write(fd, &one, sizeof one) != sizeof one) _exit(88);
    if (is("ask-large") && ftruncate(fd, FSP_SNAP_FILES_MAX + 1l) < 0) _exit(88);
    if (!is("ask-open") && fcntl(fd, F_ADD_SEALS, FSP_SNAP_SEALS) < 0) _exit(89);
    return fd;
}

static void say(int socket, uint32_t kind, uint32_t version, uint32_t slot, int value) {
    struct fsp_snap_reply reply = {kind, version, slot, value};
    if (is(kind == FSP_SNAP_HELLO ? "give-files" : "give")) { /* what nobody asked for */
        int fd[3];
        for (int i = 0; i < 3; i++) fd[i] = open("/dev/full", O_WRONLY);
        say_with(socket, &reply, sizeof reply, fd, 3);
        for (int i = 0; i < 3; i++) close(fd[i]);
        return;
    }
    if (is("many") && kind == FSP_SNAP_HELLO) {
        int fd = put_down(1500);
        say_with(socket, &reply, sizeof reply, &fd, 1);
        close(fd);
        return;
    }
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

static void ask(int socket, uint32_t slot, int end) {
    struct fsp_snap_reply reply = {FSP_SNAP_CHECKPOINT, FSP_SNAP_VERSION, slot, 0};
    int fd[2] = {end, put_down(1)};
    say_with(socket, &reply, sizeof reply, fd, 2);
    if (fd[1] > 0) close(fd[1]);
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
    if (is("ask-slow")) sleep(6); /* longer than an answer to others may take */
    if (is("ask-nofork") || is("ask-slow"))
        say(ends[0], FSP_SNAP_FORKED, FSP_SNAP_VERSION, 0, -EAGAIN);
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
