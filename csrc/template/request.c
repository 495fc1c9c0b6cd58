/*
 * request.c - what goes over the socket of a template process to it.
 */
#include "zygote.h"

#ifdef __linux__
#include <sys/socket.h>
#include <sys/uio.h>

void fsp_zygote_add_fds(struct msghdr *msg, char *control, const int *fd, size_t n) {
    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *c = (void *)control; /* the first one */
    *c = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int))};
    memcpy(CMSG_DATA(c), fd, n * sizeof(int));
}

int fsp_zygote_choose_fds(const struct fsp_spawner *s, const struct fsp_stdio *io, int32_t from[3],
                          int send[3]) {
    int n = 0;
    for (int i = 0; i < 3; i++) {
        int fd = io->fd[i] < 0 ? i : io->fd[i];
        if (i < 2 ? fd == s->devnull : fd == 2)
            from[i] = FSP_SNAP_OWN; /* as it was started: see launch.c */
        else if (fd == s->devnull)
            from[i] = FSP_SNAP_NULL;
        else {
            int k = 0;
            while (k < n && send[k] != fd) k++;
            if (k == n) send[n++] = fd;
            from[i] = k;
        }
    }
    return n;
}

static void remember(struct fsp_zygote *z, struct fsp_plan *plan) {
    if (z->told == plan) return;
    fsp_plan_unref(z->told);
    z->told = fsp_plan_ref(plan);
}

int fsp_zygote_request(struct fsp_spawner *s, struct fsp_zygote *z,
                       struct fsp_snap_request *request, struct fsp_plan *plan, const int *fd,
                       size_t nfds) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct iovec parts[2] = {
        {request,                           sizeof *request                },
        {(char *)plan + FSP_SNAP_PLAN_FROM, plan->size - FSP_SNAP_PLAN_FROM}
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 1};
    request->mask = s->engine->mask;
    if (!(plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP))) request->group = getpgrp();
    if (plan->death_signal) request->parent = getpid();
    if (z->told != plan) {
        request->plan_size = (uint32_t)plan->size;
        request->plan_at = (uint64_t)(uintptr_t)plan;
        msg.msg_iovlen = 2;
    }
    if (nfds) fsp_zygote_add_fds(&msg, control, fd, nfds);
    int r = (int)FSP_CALL("sendmsg", sendmsg(z->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (r < 0) return r;
    remember(z, plan);
    return 0;
}

#endif
