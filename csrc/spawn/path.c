/*
 * path.c - find a program on PATH, once, in the parent.
 *
 * A child that searches pays one failed execve per directory.  The parent looks instead, and
 * remembers: an entry names the directory list, the file and the answer, with the mtime of each
 * directory up to the match.  A program that appears earlier on the list changes one of those
 * mtimes, one that disappears changes the last, so checking them is as good as searching.  Two
 * limits are kept in mind:
 *
 *   - a directory changed within the clock's own granularity of our look could change again
 *     without a new mtime; such an answer is used once and not remembered;
 *   - relative directories depend on the working directory of the child, so a list that has one
 *     is left to the child (-ENOENT here), which tries each in turn.
 *
 * What is executable is asked with the effective identity, as exec does.  The child still decides:
 * if exec refuses what was found here, it goes through the list itself.
 */
#include "internal.h"

#include <stdio.h>

#define MAX_DIRS    32 /* longer lists are searched each time */
#define MAX_ENTRIES 64
#define RACY_NS     20000000 /* coarser than any tick that stamps an mtime */

struct entry {
    char *key; /* search '\0' file '\0' answer */
    const char *file, *path;
    uint64_t checked; /* monotonic */
    size_t ndirs;
    struct timespec mtime[MAX_DIRS]; /* tv_nsec -1: no such directory */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry cache[MAX_ENTRIES];
static size_t next_victim;

FSP_UNINSTRUMENTED int fsp_path_next(const char **search, const char *file, char *buf,
                                     size_t size) {
    const char *dir = *search;
    if (dir == NULL) return 0;
    size_t len = 0, file_len = 0;
    while (dir[len] && dir[len] != ':') len++;
    while (file[file_len]) file_len++;
    *search = dir[len] ? dir + len + 1 : NULL;

    /* An empty directory is the current one, and joins to the bare name. */
    size_t slash = len > 0 && dir[len - 1] != '/';
    if (len + slash + file_len + 1 > size) return -ENAMETOOLONG;
    char *at = buf;
    for (size_t i = 0; i < len; i++) *at++ = dir[i];
    if (slash) *at++ = '/';
    for (size_t i = 0; i <= file_len; i++) *at++ = file[i];
    return (int)(len + slash + file_len);
}

static struct timespec modified(const struct stat *st) {
#ifdef __APPLE__
    return st->st_mtimespec;
#else
    return st->st_mtim;
#endif
}

static struct timespec dir_mtime(const char *dir) {
    struct stat st;
    if (sys_stat(dir, &st) < 0) return (struct timespec){0, -1};
    return modified(&st);
}

static bool same_time(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_racy(struct timespec mtime) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = ((int64_t)now.tv_sec - mtime.tv_sec) * 1000000000 + (now.tv_nsec - mtime.tv_nsec);
    return mtime.tv_nsec >= 0 && age < RACY_NS;
}

static bool has_relative(const char *search) {
    for (;;) {
        if (*search != '/') return true;
        while (*search && *search != ':') search++;
        if (*search++ == '\0') return false;
    }
}

/* exec's own rule: a regular file that may be executed. */
static int try_file(const char *path) {
    struct stat st;
    int r = sys_executable(path);
    if (r < 0) return r;
    r = sys_stat(path, &st);
    if (r < 0) return r;
    return S_ISREG(st.st_mode) ? 0 : -EACCES;
}

/* Every directory up to the match has the mtime that it had. */
static bool still_true(const struct entry *e) {
    const char *search = e->key;
    char dir[PATH_MAX];
    for (size_t i = 0; i < e->ndirs; i++) {
        if (fsp_path_next(&search, "", dir, sizeof dir) <= 0) return false;
        if (!same_time(dir_mtime(dir), e->mtime[i])) return false;
    }
    return true;
}

static void forget(struct entry *e) {
    free(e->key);
    *e = (struct entry){0};
}

static struct entry *find(const char *search, const char *file) {
    for (size_t i = 0; i < MAX_ENTRIES; i++) {
        struct entry *e = &cache[i];
        if (e->key && strcmp(e->file, file) == 0 && strcmp(e->key, search) == 0) return e;
    }
    return NULL;
}

static void remember(const struct entry *found, const char *search, const char *file,
                     const char *path) {
    size_t ns = strlen(search) + 1, nf = strlen(file) + 1, np = strlen(path) + 1;
    char *key = sys_malloc(ns + nf + np);
    if (key == NULL) return; /* only slower */
    struct entry *e = &cache[next_victim++ % MAX_ENTRIES];
    forget(e);
    *e = *found;
    e->key = memcpy(key, search, ns);
    e->file = memcpy(key + ns, file, nf);
    e->path = memcpy(key + ns + nf, path, np);
}

static int search_dirs(const char *search, const char *file, bool cached, char *buf, size_t size) {
    struct entry found = {.checked = sys_now()};
    const char *rest = search;
    bool racy = false;
    int first_error = 0, r = -ENOENT;
    while (rest) {
        /* The time is taken before the look: a change between the two is then seen. */
        const char *dir = rest;
        if (cached && found.ndirs < MAX_DIRS && fsp_path_next(&dir, "", buf, size) >= 0) {
            struct timespec mtime = dir_mtime(buf);
            racy |= is_racy(mtime);
            found.mtime[found.ndirs++] = mtime;
        } else
            racy = true;
        int len = fsp_path_next(&rest, file, buf, size);
        r = len < 0 ? len : try_file(buf);
        if (r == 0) {
            if (cached && !racy) remember(&found, search, file, buf);
            return len;
        }
        if (r != -ENOENT && r != -ENOTDIR && first_error == 0) first_error = r;
    }
    return first_error ? first_error : r;
}

/* Under the lock: the remembered answer, or -ENOENT. */
static int recall(const char *search, const char *file, uint64_t max_age, char *buf, size_t size) {
    struct entry *e = find(search, file);
    if (e == NULL) return -ENOENT;
    uint64_t now = sys_now();
    size_t len = strlen(e->path);
    bool fresh = now - e->checked < max_age;
    if (len >= size || (!fresh && !still_true(e))) {
        forget(e);
        return -ENOENT;
    }
    if (!fresh) e->checked = now;
    memcpy(buf, e->path, len + 1);
    return (int)len;
}

/* Whoever finds the cache in use searches: the one who holds it may be a thread that a fork left
 * behind. */
int fsp_path_lookup(const char *search, const char *file, uint64_t max_age, char *buf,
                    size_t size) {
    if (has_relative(search)) return -ENOENT;
    bool cached = pthread_mutex_trylock(&lock) == 0;
    int r = cached ? recall(search, file, max_age, buf, size) : -ENOENT;
    if (r < 0) r = search_dirs(search, file, cached, buf, size);
    if (cached) pthread_mutex_unlock(&lock);
    return r;
}

/*
 * A relative list is the child's to search: this tells what it would find, for those who want to
 * know before they spawn.
 */
static int resolve_relative(const struct fsp_plan *plan, char *buf, size_t size) {
    const char *rest = plan->search ? plan->search : "";
    int first_error = 0, r = -ENOENT;
    char joined[2 * PATH_MAX];
    while (rest) {
        int len = fsp_path_next(&rest, plan->file, buf, size);
        if (len < 0) return len;
        const char *path = buf;
        if (buf[0] != '/' && plan->cwd) {
            len = snprintf(joined, sizeof joined, "%s/%s", plan->cwd, buf);
            if (len >= (int)sizeof joined) return -ENAMETOOLONG;
            path = joined;
        }
        r = try_file(path);
        if (r == 0) return (int)strlen(buf);
        if (r != -ENOENT && r != -ENOTDIR && first_error == 0) first_error = r;
    }
    return first_error ? first_error : r;
}

int fsp_plan_resolve(const struct fsp_plan *plan, uint64_t max_age, char *buf, size_t size) {
    if (plan->search && !has_relative(plan->search))
        return fsp_path_lookup(plan->search, plan->file, max_age, buf, size);
    return resolve_relative(plan, buf, size);
}
