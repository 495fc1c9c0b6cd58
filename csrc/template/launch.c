/*
 * launch.c - a template process begins.
 *
 * It is the program itself, executed with the preload object (preload.c) and three descriptors:
 * its end of the socket, the page on which the forks' pids appear, and the object.  Once it runs
 * and is watched it has its place, and has until the template's timeout to say HELLO.  Whatever
 * fails before leaves nothing behind but the error, and the next try is put off.
 */
#include "zygote.h"

#ifdef __linux__
#include <stdio.h>
#include <sys/socket.h>

static int open_channel(struct fsp_zygote *z, int fd[3], const char *library) {
    int ends[2];
    fd[0] = fd[1] = fd[2] = -1;
    int r =
        (int)FSP_CALL("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    if (r < 0) return r;
    z->socket = ends[0];
    fd[0] = ends[1];
    r = sys_nonblock(z->socket);
    if (r == 0) r = fd[1] = fsp_zygote_open_page(z);
    if (r >= 0) r = fd[2] = sys_open(library, O_RDONLY);
    return r < 0 ? r : 0;
}

static size_t length(char *const *list) {
    size_t n = 0;
    while (list[n]) n++;
    return n;
}

/* The one limit that a program has looked at before its main: libc takes it for the size of
 * threads' stacks, and the kernel for where memory begins to be mapped. */
static const struct fsp_rlimit *stack_limit(const struct fsp_plan *plan) {
    const struct fsp_rlimit *found = NULL;
    for (size_t i = 0; i < plan->nrlimits; i++)
        if (plan->rlimits[i].resource == RLIMIT_STACK) found = &plan->rlimits[i];
    return found;
}

/* The program's own plan, with the preload object reached by its descriptor: the loader's list has
 * no way to quote a path. */
static int plan_with(const struct fsp_template *t, const int fd[3], int effect,
                     struct fsp_plan **out) {
    const struct fsp_plan *plan = t->start;
    size_t n = length(plan->envp), kept = 0;
    const char **envp = sys_malloc((n + 3) * sizeof *envp);
    char variable[80 + PATH_MAX], preload[PATH_MAX];
    const char **own = NULL;
    const struct fsp_rlimit *stack = stack_limit(plan);
    if (envp == NULL) return -ENOMEM;
    for (; kept < n; kept++) {
        envp[kept] = plan->envp[kept];
        if (strncmp(envp[kept], "LD_PRELOAD=", 11) == 0)
            own = &envp[kept]; /* the last one counts */
    }
    int len = snprintf(preload, sizeof preload, "LD_PRELOAD=/proc/self/fd/%d%s%s", fd[2],
                       own ? ":" : "", own ? *own + 11 : "");
    int wide = snprintf(variable, sizeof variable, FSP_SNAP_VARIABLE "=%d,%d,%d,%zu,%d%s%s", fd[0],
                        fd[1], fd[2], length(t->plan->argv), effect, plan->cwd ? "," : "",
                        plan->cwd ? plan->cwd : "");
    /* In its place: a program may print them in order. */
    if (own)
        *own = preload;
    else
        envp[kept++] = preload;
    envp[kept++] = variable;
    envp[kept] = NULL;
    struct fsp_spec spec = {
        .file = plan->file,
        .argv = (const char *const *)plan->argv,
        .envp = envp,
        .search = plan->search,
        .cwd = plan->cwd,
        .keep_fds = fd,
        .nkeep_fds = 3,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = effect ? plan->umask : -1, /* the program may ask before it is forked */
        .rlimits = effect ? plan->rlimits : stack,
        .nrlimits = effect ? plan->nrlimits : stack != NULL,
        .death_signal = plan->death_signal,
        .flags = FSP_FLAG_CLOSE_FDS | FSP_FLAG_SETPGROUP | (plan->flags & FSP_FLAG_RESTORE_SIGNALS),
    };
    bool fits = len < (int)sizeof preload && wide < (int)sizeof variable;
    int r = fits ? fsp_plan_new(&spec, out) : -ENAMETOOLONG;
    free(envp);
    return r;
}

/* As snapshot.h has it. */
static int effect_of(const struct fsp_zygote *z) {
    unsigned flags = z->template->flags;
    if (!z->at_effect) return 0;
    return flags & FSP_TEMPLATE_FALLBACK && !(flags & FSP_TEMPLATE_PYTHON) ? 2 : 1;
}

static int spawn(struct fsp_spawner *s, struct fsp_zygote *z, const int fd[3],
                 struct fsp_error *error) {
    struct fsp_plan *plan;
    struct fsp_stdio io = {
        {s->devnull, s->devnull, -1}
    };
    int r = plan_with(z->template, fd, effect_of(z), &plan);
    if (r < 0) return r;
    r = fsp_spawn(plan, &io, fsp_spawner_flags(s), &s->engine->mask, &z->child, error);
    fsp_plan_unref(plan);
    return r;
}

static int watch(struct fsp_spawner *s, struct fsp_zygote *z) {
    int r =
        fsp_poller_watch(&s->poller, z->socket, FSP_POLL_IN, fsp_helper_token(&z->helper, false));
    return r < 0
               ? r
               : fsp_poller_watch_child(&s->poller, &z->child, fsp_helper_token(&z->helper, true));
}

/* Without its pidfd and its place in the poller it is of no use. */
static void discard(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_status status;
    if (z->child.pid > 0) {
        fsp_kill(&z->child, 0, SIGKILL);
        if (fsp_wait(&z->child, 1, &status) < 0) sys_close(z->child.pidfd);
    }
    fsp_zygote_close(s, z);
    fsp_zygote_free(z);
}

void fsp_zygote_start(struct fsp_spawner *s, struct fsp_template *t) {
    struct fsp_error error = {0};
    struct fsp_zygote *z = fsp_zygote_new(s, t);
    int fd[3] = {-1, -1, -1}, r = -ENOMEM;
    if (z) {
        z->file = fsp_files_program(t->plan);
        z->at_effect = t->flags & FSP_TEMPLATE_EFFECT && !fsp_place_of(t, s)->no_effect &&
                       !fsp_plan_credentials(t->plan);
        r = open_channel(z, fd, t->library);
        if (r == 0) r = spawn(s, z, fd, &error);
        if (r == 0) r = watch(s, z);
        for (int i = 0; i < 3; i++) sys_close(fd[i]);
    }
    if (r < 0) {
        if (error.err == 0) error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
        if (z) discard(s, z);
        fsp_template_set_failed(s, t, FSP_REFUSED_SPAWN, error, 0);
        return;
    }
    fsp_zygote_take_place(s, z);
    fsp_zygote_set_due(s, z, z->born + t->timeout);
}

#endif
