/*
 * pipe.c - pipes between a spawner and its children.
 */
#include "internal.h"

static int open_half_blocking(int fd[2], int mine) {
    int r = sys_pipe(fd);
    if (r < 0) return r;
    r = sys_nonblock(fd[mine]);
    if (r < 0) {
        sys_close(fd[0]);
        sys_close(fd[1]);
    }
    return r;
}

void fsp_pipes_fill(struct fsp_pipes *pipes) {
    while (pipes->n < FSP_PIPES_AHEAD && open_half_blocking(pipes->ahead[pipes->n], 0) == 0)
        pipes->n++;
}

void fsp_pipes_close(struct fsp_pipes *pipes) {
    while (pipes->n > 0) {
        int *fd = pipes->ahead[--pipes->n];
        sys_close(fd[0]);
        sys_close(fd[1]);
    }
}

int fsp_pipe_from_child(struct fsp_pipes *pipes, int fd[2]) {
    if (pipes->n == 0) return open_half_blocking(fd, 0);
    memcpy(fd, pipes->ahead[--pipes->n], sizeof(int[2]));
    return 0;
}

int fsp_pipe_to_child(int fd[2]) {
    return open_half_blocking(fd, 1);
}
