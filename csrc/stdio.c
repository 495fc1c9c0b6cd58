/*
 * stdio.c - the three descriptors of the next child.
 *
 * A spawner's table is its own, but each running child has a few descriptors in it, and a table
 * that is copied with every spawn must not grow with them.  The child's copy ends above its
 * highest source (spawn.c), so sources are kept low: an end that came out high is moved down to
 * a number reserved for it, and the reservation renewed when the child has it.
 */
#include "engine.h"

#ifdef __linux__

#define LOW_ENOUGH 48

static int move_down(struct fsp_spawner *s, int i, int fd) {
    if (fd < LOW_ENOUGH || s->low[i] < 0) return fd;
    if (FSP_CALL("dup3", dup3(fd, s->low[i], O_CLOEXEC)) < 0) return fd;
    sys_close(fd);
    return s->low[i];
}

static void close_end(struct fsp_spawner *s, int i, int fd) {
    if (fd < 0 || fd == s->devnull) return;
    if (fd != s->low[i])
        sys_close(fd);
    else
        dup3(s->devnull, fd, O_CLOEXEC); /* keeps the number, drops the pipe */
}

#else

static int move_down(struct fsp_spawner *s, int i, int fd) {
    (void)s, (void)i;
    return fd;
}

static void close_end(struct fsp_spawner *s, int i, int fd) {
    (void)i;
    if (fd != s->devnull) sys_close(fd);
}

#endif

static int open_in(struct fsp_spawner *s, struct fsp_job *job, int *end) {
    int fd[2], r = 0;
    if (job->options.in == FSP_IO_NULL) *end = s->devnull;
    if (job->options.in != FSP_IO_PIPE) return 0;
    r = fsp_pipe_to_child(fd);
    if (r < 0) return r;
    job->in.fd = fd[1];
    *end = move_down(s, 0, fd[0]);
    return 0;
}

static int open_out(struct fsp_spawner *s, struct fsp_job *job, int i, enum fsp_io how, int *end) {
    int fd[2], r = 0;
    if (how == FSP_IO_NULL) *end = s->devnull;
    if (how != FSP_IO_PIPE) return 0;
    r = fsp_pipe_from_child(&s->pipes, fd);
    if (r < 0) return r;
    job->out[i].fd = fd[0];
    *end = move_down(s, i + 1, fd[1]);
    return 0;
}

/* Fills in what it opened also when it fails: the caller closes either way. */
int fsp_stdio_open(struct fsp_spawner *s, struct fsp_job *job, struct fsp_stdio *io) {
    const struct fsp_job_options *o = &job->options;
    *io = (struct fsp_stdio){
        {-1, -1, -1}
    };
    int r = open_in(s, job, &io->fd[0]);
    if (r == 0) r = open_out(s, job, 0, o->out, &io->fd[1]);
    if (r == 0) r = open_out(s, job, 1, o->err, &io->fd[2]);
    if (o->err == FSP_IO_STDOUT) io->fd[2] = io->fd[1] < 0 ? 1 : io->fd[1];
    return r;
}

void fsp_stdio_close(struct fsp_spawner *s, const struct fsp_stdio *io) {
    close_end(s, 0, io->fd[0]);
    close_end(s, 1, io->fd[1]);
    if (io->fd[2] != io->fd[1] && io->fd[2] > 2) close_end(s, 2, io->fd[2]);
}
