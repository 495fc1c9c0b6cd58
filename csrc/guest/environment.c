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
    char **room;        /* for the list of a request's, which cannot fail then */
} env;

/* Each has a pointer and a terminator in its request's plan. */
#define MOST_ENTRIES (FSP_SNAP_PLAN_MAX / (sizeof(char *) + 1))

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

static bool is_changed(void) {
    return *env.set || *env.removed;
}

/* As the kernel would give it to the program, with the changes of the program. */
static char **merge(char *const *asked, char **list) {
    char **at = list;
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

static char **room_for(size_t entries) {
    long at = raw(mmap, NULL, (entries + count(env.set) + 1) * sizeof(char *),
                  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return failed(at) ? NULL : (char **)at;
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
    if (!is_changed()) {
        exchange((char **)env.start);
        return true;
    }
    char **own = room_for(count(env.start));
    env.room = room_for(MOST_ENTRIES);
    if (own == NULL || env.room == NULL) return false;
    exchange(merge(env.start, own));
    return true;
}

bool env_enter(char *const *asked) {
    if (are_same(asked, env.start)) return false;
    exchange(is_changed() ? merge(asked, env.room) : (char **)asked);
    return true;
}

#endif
