/*
 * stdio.c - the three descriptors of the next child.
 *
 * A spawner's table is its own, but each running child has a few descriptors in it, and a table
 * that is copied with every spawn must not grow with them.  The child's copy ends above its
 * highest source (spawn.c), so sources are kept low: an end that came out high is moved down to
 * a number reserved for it, and the reservation renewed when the child has it.
 */
#include "engine.h"

#include <termios.h>

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
        sys_dup_over(s->devnull, fd); /* keeps the number, drops the pipe */
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

/* The end of the i-th that is the child's. */
static int end_of(struct fsp_spawner *s, int i, enum fsp_io how, int piped) {
    if (how == FSP_IO_NULL) return s->devnull;
    return how == FSP_IO_PIPE ? move_down(s, i, piped) : -1;
}

/* All three are one; ours, two copies, so that the poller can watch each way for itself. */
static int open_terminal(struct fsp_spawner *s, struct fsp_job *job, struct fsp_stdio *io) {
    int fd[2], r = fsp_terminal_open(job->options.size, fd);
    if (r < 0) return r;
    job->out[0].fd = fd[0];
    job->in.fd = r = sys_dup_above(fd[0], 3);
    io->fd[0] = io->fd[1] = io->fd[2] = move_down(s, 0, fd[1]);
    return r < 0 ? r : 0;
}

/* The caller closes the child's ends, also when it fails. */
int fsp_stdio_open(struct fsp_spawner *s, struct fsp_job *job, struct fsp_stdio *io) {
    const struct fsp_job_options *o = &job->options;
    bool want[3] = {o->in == FSP_IO_PIPE, o->out == FSP_IO_PIPE, o->err == FSP_IO_PIPE};
    int fd[3][2];
    *io = (struct fsp_stdio){
        {-1, -1, -1}
    };
    if (o->in == FSP_IO_TERMINAL) return open_terminal(s, job, io);
    int r = fsp_pipes_take(&s->pipes, want, fd);
    if (r < 0) return r;
    job->in.fd = fd[0][1];
    job->out[0].fd = fd[1][0];
    job->out[1].fd = fd[2][0];
    io->fd[0] = end_of(s, 0, o->in, fd[0][0]);
    io->fd[1] = end_of(s, 1, o->out, fd[1][1]);
    io->fd[2] = end_of(s, 2, o->err, fd[2][1]);
    if (o->err == FSP_IO_STDOUT) io->fd[2] = io->fd[1] < 0 ? 1 : io->fd[1];
    return 0;
}

void fsp_stdio_close(struct fsp_spawner *s, const struct fsp_stdio *io) {
    close_end(s, 0, io->fd[0]);
    if (io->fd[1] != io->fd[0]) close_end(s, 1, io->fd[1]);
    if (io->fd[2] != io->fd[1] && io->fd[2] > 2) close_end(s, 2, io->fd[2]);
}

static bool may_be_terminal(int fd) {
    struct termios t;
    return FSP_CALL("ioctl", tcgetattr(fd, &t)) != -ENOTTY;
}

bool fsp_stdio_may_be_terminal(const struct fsp_job_options *o) {
    return (o->in == FSP_IO_INHERIT && may_be_terminal(0)) ||
           (o->out == FSP_IO_INHERIT && may_be_terminal(1));
}
