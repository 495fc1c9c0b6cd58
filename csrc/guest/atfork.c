/*
 * atfork.c - the handlers of forks that libraries register (pthread_atfork(3)), run for ours.
 *
 * A library that keeps random state, threads or locks has them seen to at a fork: GnuTLS draws a
 * new seed in the child, OpenBLAS ends its threads before.  Libc keeps the list to itself and runs
 * it in its own fork alone, which cannot make another process's child (CLONE_PARENT).  So the
 * registration is taken note of on its way to libc: whoever registers is linked with
 * __register_atfork (glibc, where pthread_atfork is a stub in each object) or pthread_atfork
 * (musl, and glibc's before 2.3.2), and finds them here first.
 *
 * A library that goes takes its handlers with it: it is told of by __cxa_atexit, which runs what
 * belongs to a library when that is closed.
 *
 * Threads may register at the same time: the list only grows, and an entry counts once it is
 * whole.  It is run by the only thread.
 */
#include "internal.h"

#ifdef __linux__
#include <dlfcn.h>

#define EXPORT __attribute__((visibility("default")))

#define MAX_HANDLERS 256 /* libraries have one or two each */

typedef void hook(void);
typedef int register_fn(hook *, hook *, hook *, void *);
typedef int register_for_good_fn(hook *, hook *, hook *);

extern int __cxa_atexit(void (*)(void *), void *, void *);

enum state { UNFINISHED, REGISTERED, GONE };

struct handlers {
    hook *prepare, *parent, *child;
    int state;
};

static struct {
    struct handlers at[MAX_HANDLERS];
    unsigned n;     /* that were ever asked for: more than there is room for */
    bool as_a_fork; /* this process is where a fork would be, in the middle of its handlers */
} list;

/* ---- what is registered ---- */

static void forget(void *handlers) {
    __atomic_store_n(&((struct handlers *)handlers)->state, GONE, __ATOMIC_RELEASE);
}

static void note(hook *prepare, hook *parent, hook *child, void *library) {
    unsigned i = __atomic_fetch_add(&list.n, 1, __ATOMIC_RELAXED);
    if (i >= MAX_HANDLERS) return;
    struct handlers *h = &list.at[i];
    h->prepare = prepare;
    h->parent = parent;
    h->child = child;
    __atomic_store_n(&h->state, REGISTERED, __ATOMIC_RELEASE);
    if (library) __cxa_atexit(forget, h, library);
}

EXPORT int __register_atfork(hook *prepare, hook *parent, hook *child, void *library) {
    register_fn *next = (register_fn *)dlsym(RTLD_NEXT, "__register_atfork");
    int error = next(prepare, parent, child, library);
    if (error == 0) note(prepare, parent, child, library);
    return error;
}

EXPORT int pthread_atfork(hook *prepare, hook *parent, hook *child) {
    if (dlsym(RTLD_NEXT, "__register_atfork"))
        return __register_atfork(prepare, parent, child, NULL);
    register_for_good_fn *next = (register_for_good_fn *)dlsym(RTLD_NEXT, "pthread_atfork");
    int error = next(prepare, parent, child);
    if (error == 0) note(prepare, parent, child, NULL);
    return error;
}

/* ---- a fork ---- */

static unsigned count(void) {
    if (list.as_a_fork) return 0;
    return list.n < MAX_HANDLERS ? list.n : MAX_HANDLERS;
}

static void run(hook *handler) {
    if (handler) handler();
}

bool atfork_knows_all(void) {
    return list.n <= MAX_HANDLERS;
}

void atfork_prepare(void) {
    for (unsigned i = count(); i-- > 0;)
        if (list.at[i].state == REGISTERED) run(list.at[i].prepare);
}

void atfork_parent(void) {
    for (unsigned i = 0; i < count(); i++)
        if (list.at[i].state == REGISTERED) run(list.at[i].parent);
}

static void run_child(unsigned n) {
    for (unsigned i = 0; i < n; i++)
        if (list.at[i].state == REGISTERED) run(list.at[i].child);
}

void atfork_child(void) {
    run_child(count());
}

void atfork_be_child(void) {
    unsigned n = count();
    atfork_prepare();
    list.as_a_fork = true;
    run_child(n);
    list.as_a_fork = false;
}

#endif
