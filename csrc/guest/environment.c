/*
 * environment.c - the environment of the forks of a checkpoint.
 *
 * What the program set or took away above its checkpoint was done once, and holds for all: a
 * request's environment is the template's, as the program changed it, with the request's own
 * differences on top.  What was taken away stays away.
 */
#include "internal.h"

#ifdef __linux__
#include <time.h>

extern char **environ;
extern char *program_invocation_name __attribute__((weak));
extern char *program_invocation_short_name __attribute__((weak));

static struct {
    char *const *start; /* the template process's: what requests are compared with */
    char *const *first; /* of the request that came to the checkpoint, as it was given */
    char **set;         /* entries that the program has made or changed */
    char **removed;     /* entries that it took away */
} env;

static size_t name_size(const char *entry) {
    return strcspn(entry, "=");
}

static char *find(char *const *list, const char *entry) {
    size_t n = name_size(entry);
    for (; *list; list++)
        if (name_size(*list) == n && memcmp(*list, entry, n) == 0) return *list;
    return NULL;
}

static size_t count(char *const *list) {
    size_t n = 0;
    while (list[n]) n++;
    return n;
}

static bool is_same(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool are_same(char *const *a, char *const *b) {
    while (*a && is_same(*a, *b)) a++, b++;
    return *a == *b;
}

/* As the kernel would give it to the program, with the changes of the program. */
static char **merge(char *const *asked) {
    if (*env.set == NULL && *env.removed == NULL) return (char **)asked;
    char **list = sys_malloc((count(asked) + count(env.set) + 1) * sizeof *list), **at = list;
    if (list == NULL) return (char **)asked;
    for (; *asked; asked++) {
        char *set = find(env.set, *asked);
        bool own = !is_same(find(env.start, *asked), *asked);
        if (!find(env.removed, *asked)) *at++ = set && !own ? set : *asked;
    }
    *at = NULL;
    for (char **set = env.set; *set; set++)
        if (!find(list, *set)) {
            *at++ = *set;
            *at = NULL;
        }
    return list;
}

/* The zone is looked at once, by most functions. */
static void exchange(char **list) {
    const char *before = getenv("TZ");
    environ = list;
    if (!is_same(before, getenv("TZ"))) tzset();
}

void env_name_program(char *name) {
    char *slash = strrchr(name, '/');
    if (&program_invocation_name) program_invocation_name = name;
    if (&program_invocation_short_name) program_invocation_short_name = slash ? slash + 1 : name;
}

void env_start(char *const *envp) {
    env.start = envp;
}

void env_give(char *const *envp) {
    env.first = envp;
}

bool env_freeze(void) {
    char **set = env.set = sys_malloc((count(environ) + 1) * sizeof *set);
    char **removed = env.removed = sys_malloc((count(env.first) + 1) * sizeof *removed);
    if (set == NULL || removed == NULL) return false;
    for (char **at = environ; *at; at++)
        if (!is_same(find(env.first, *at), *at)) *set++ = *at;
    *set = NULL;
    for (char *const *at = env.first; *at; at++)
        if (!find(environ, *at)) *removed++ = *at;
    *removed = NULL;
    exchange(merge(env.start));
    return true;
}

bool env_enter(char *const *asked) {
    if (are_same(asked, env.start)) return false;
    exchange(merge(asked));
    return true;
}

#endif
