/*
 * pipe.c - pipes between a spawner and its children.
 */
#include "internal.h"

static void drop(int fd[2]) {
    sys_close(fd[0]);
    sys_close(fd[1]);
    fd[0] = fd[1] = -1;
}

static int open_half_blocking(int fd[2], int mine) {
    int r = sys_pipe(fd);
    if (r < 0) return r;
    r = sys_nonblock(fd[mine]);
    if (r < 0) drop(fd);
    return r;
}

void fsp_pipes_fill(struct fsp_pipes *pipes) {
    while (pipes->n < FSP_PIPES_AHEAD && open_half_blocking(pipes->ahead[pipes->n], 0) == 0)
        pipes->n++;
}

void fsp_pipes_close(struct fsp_pipes *pipes) {
    while (pipes->n > 0) drop(pipes->ahead[--pipes->n]);
}

int fsp_pipe_from_child(struct fsp_pipes *pipes, int fd[2]) {
    if (pipes->n == 0) return open_half_blocking(fd, 0);
    memcpy(fd, pipes->ahead[--pipes->n], sizeof(int[2]));
    return 0;
}

int fsp_pipe_to_child(int fd[2]) {
    return open_half_blocking(fd, 1);
}

int fsp_pipes_take(struct fsp_pipes *pipes, const bool want[3], int fd[3][2]) {
    int r = 0;
    for (int i = 0; i < 3; i++) fd[i][0] = fd[i][1] = -1;
    if (want[0]) r = fsp_pipe_to_child(fd[0]);
    for (int i = 1; i < 3 && r == 0; i++)
        if (want[i]) r = fsp_pipe_from_child(pipes, fd[i]);
    for (int i = 0; i < 3 && r < 0; i++) drop(fd[i]);
    return r;
}
