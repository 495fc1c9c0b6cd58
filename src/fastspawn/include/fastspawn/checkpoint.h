/*
 * fastspawn/checkpoint.h - for programs that are run by fastspawn: up to here we are the same for
 * every request.
 *
 * What the program did before fastspawn_checkpoint() is done once; what follows, once per request,
 * each time in a fork.  That needs Template(at="checkpoint"), or --strategy snapshot
 * --snapshot-at checkpoint; anywhere else the call does nothing, and the same program runs.
 *
 *      load_the_large_table();
 *      fastspawn_checkpoint(NULL);
 *      char *const *argv = fastspawn_arguments();   // NULL: main's own
 *
 * cc -I "$(python -m fastspawn --include)".  The functions are in the object that fastspawn
 * preloads, so nothing is linked with (before glibc 2.34: -ldl).  A program in another language
 * calls them by its own FFI, under the names "fastspawn_checkpoint" and "fastspawn_arguments".
 */
#ifndef FASTSPAWN_CHECKPOINT_H
#define FASTSPAWN_CHECKPOINT_H

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

#ifndef RTLD_DEFAULT /* libc's headers keep it for _GNU_SOURCE */
#define RTLD_DEFAULT ((void *)0)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * `files` (NULL, or ended by NULL): what was read before; when one of them changes, the program is
 * started anew.  To be called once, by the only thread; it flushes stdio's streams.
 *
 * Returns 0 in the process that goes on with the request that came first, and 1 in one of a later
 * request: then standard input, output and error, `environ`, and what fastspawn_arguments() gives
 * are that request's, while main's argv, and all that was read, are still the first one's.  What
 * the program set or removed in the environment before (setenv(3)) holds for all.  Files that were
 * opened before are shared, with their positions.  Handlers of forks (pthread_atfork(3))
 * run as for fork(2), around each.
 *
 * Or -errno, and the program goes on as a plain process: -ENOTSUP (fastspawn has not asked for
 * checkpoints, does not run this, or cannot here: the server says why), -EBUSY (there are several
 * threads once the handlers before a fork have run, or an event loop: epoll(7), io_uring(7)),
 * -E2BIG (it came from more files than can be watched), -EAGAIN (another process came first).
 */
static inline int fastspawn_checkpoint(const char *const *files) {
    int (*checkpoint)(const char *const *);
    *(void **)&checkpoint = dlsym(RTLD_DEFAULT, "fastspawn_checkpoint");
    return checkpoint ? checkpoint(files) : -ENOTSUP;
}

/* The argument list of this process's request, ended by NULL and valid until the process ends;
 * NULL where fastspawn does not run this. */
static inline char *const *fastspawn_arguments(void) {
    char *const *(*arguments)(void);
    *(void **)&arguments = dlsym(RTLD_DEFAULT, "fastspawn_arguments");
    return arguments ? arguments() : NULL;
}

#ifdef __cplusplus
}
#endif
#endif
