/*
 * start.c - a spawn on the calling thread that does not hold it until the exec.
 *
 * The child is detached, as a spawner's is, and the caller has a descriptor to watch: the reading
 * end of a pipe whose other end is the child's alone.  It closes on exec and on exit, and both
 * come after the child has left our memory (begin_new_exec and do_exit in Linux), so that
 * what the child told is complete when the pipe is at its end.
 *
 * A detached child's table is a copy, which takes 0.1 us for each open file, and the caller
 * waits for that.  Where it would take about as long as an exec does, and where the backend cannot
 * detach, nothing is started: fsp_spawn is the better way.
 */
#include "internal.h"

/* With descriptors from here on the table is not worth a copy. */
#define COPY_BELOW 1024

/* Starts that may be on their way at a time: their pads are kept for the next ones. */
#define MOST 64

static unsigned pending;

int fsp_highest(const struct fsp_plan *plan, const struct fsp_stdio *io) {
    int top = 2;
    for (int i = 0; i < 3; i++)
        if (io->fd[i] > top) top = io->fd[i];
    if (plan->nkeep && plan->keep[plan->nkeep - 1] > top) top = plan->keep[plan->nkeep - 1];
    return top;
}

/* Its writing end is above all that the child is told to move, or it would be moved over. */
static int open_tell(int top, int fd[2]) {
    int r = sys_pipe(fd);
    if (r < 0 || fd[1] > top) return r;
    r = sys_dup_above(fd[1], top + 1);
    sys_close(fd[1]);
    fd[1] = r;
    if (r < 0) sys_close(fd[0]);
    return r;
}

static int detach(struct fsp_pad *pad, struct fsp_plan *plan, const struct fsp_stdio *io, int top,
                  struct fsp_start *start, struct fsp_error *error) {
    int fd[2], r = open_tell(top, fd);
    if (r < 0) return 0; /* too few descriptors: without these there may be enough */
    pad->tell = fd[1];
    r = fsp_spawn_on(pad, plan, io, FSP_SPAWN_DETACHED, NULL, &start->child, error);
    pad->tell = 0;
    sys_close(fd[1]);
    if (r < 0 || !pad->launch.detached) { /* the backend was refused: this one waited */
        sys_close(fd[0]);
        return r < 0 ? r : 1;
    }
    start->pad = pad;
    start->plan = fsp_plan_ref(plan);
    start->fd = fd[0];
    start->owner = getpid();
    return 1;
}

int fsp_start(struct fsp_plan *plan, const struct fsp_stdio *io, struct fsp_start *start,
              struct fsp_error *error) {
    *start = (struct fsp_start){
        .child = {-1, -1},
          .fd = -1
    };
    *error = (struct fsp_error){0};
    int top = fsp_highest(plan, io);
    if (top >= COPY_BELOW || !fsp_detaches(plan)) return 0;
    if (__atomic_load_n(&pending, __ATOMIC_RELAXED) >= MOST) return 0;
    struct fsp_pad *pad = fsp_pad_get();
    if (pad == NULL) return 0;
    int r = detach(pad, plan, io, top, start, error);
    if (start->pad)
        __atomic_add_fetch(&pending, 1, __ATOMIC_RELAXED);
    else
        fsp_pad_put(pad);
    return r;
}

/* The child has left our memory. */
static void let_go(struct fsp_start *start) {
    sys_close(start->fd);
    fsp_pad_put(start->pad);
    fsp_plan_unref(start->plan);
    start->fd = -1;
    start->pad = NULL;
    start->plan = NULL;
    __atomic_sub_fetch(&pending, 1, __ATOMIC_RELAXED);
}

int fsp_start_end(struct fsp_start *start, struct fsp_child *child, struct fsp_error *error) {
    *error = (struct fsp_error){0};
    if (start->pad) {
        struct fsp_status status;
        fsp_pad_wait(start->pad);
        volatile struct fsp_error *told = &start->pad->error;
        *error = (struct fsp_error){told->err, told->stage, told->index};
        let_go(start);
        if (error->err) {
            fsp_wait(&start->child, 1, &status);
            return -error->err;
        }
    }
    *child = start->child;
    start->child = (struct fsp_child){-1, -1};
    return 0;
}

void fsp_start_drop(struct fsp_start *start) {
    struct fsp_status status;
    if (start->child.pid <= 0) return;
    if (start->pad && start->owner != getpid()) {
        sys_close(start->child.pidfd);
        start->child = (struct fsp_child){-1, -1};
        let_go(start);
        return;
    }
    fsp_kill(&start->child, 0, SIGKILL);
    fsp_wait(&start->child, 1, &status);
    if (start->pad) let_go(start);
}
