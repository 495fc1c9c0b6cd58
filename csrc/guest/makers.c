/*
 * makers.c - whose are the threads that keep this process from being a template?
 *
 * A thread's name tells sometimes.  What began it tells always, but is not kept where others can
 * ask; it stands at the outer end of the thread's stack though: libc's record of the thread, then
 * the frames from the first function on.  So the outermost word there that points into code which
 * is not libc's or a language's is taken for the maker's.  It is told to people and decides
 * nothing.
 *
 * Stacks are read through /proc/self/mem: the threads run on, and one may end meanwhile.
 */
#include "internal.h"

#ifdef __linux__
#include <stdio.h>
#include <sys/prctl.h>

#define MAX_CODE   4096
#define MAX_MAKERS 16
#define MAX_STACK  (1ul << 20) /* what is deeper in it than that is not looked through */
#define NAME_SIZE  16          /* TASK_COMM_LEN */
#define TRIES      250         /* ms, for one that runs just now to wait for something */

struct maker {
    unsigned threads;
    char name[NAME_SIZE]; /* empty: as the process */
    char object[192];     /* the end of its path; empty: not known */
};

struct look {
    struct range code[MAX_CODE]; /* in ascending order */
    size_t ncode;
    struct maker maker[MAX_MAKERS];
    size_t nmakers;
    int memory;
};

static char text[FSP_SNAP_MAKERS_MAX];

/* ---- code that somebody may have a thread begin with ---- */

static const char *path_in(char *line) {
    const char *path = maps_file(line);
    return path ? path : "";
}

/* Between a thread and what it is for. */
static bool is_between(const char *path) {
    static const char *const names[] = {"ld-",        "ld.so",     "libc.so", "libc-",
                                        "libpthread", "libstdc++", "libc++",  "libgcc_s"};
    const char *file = strrchr(path, '/') + 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(file, names[i], strlen(names[i])) == 0) return true;
    return false;
}

static bool has(const struct range *range, uintptr_t at) {
    return at >= range->start && at < range->end;
}

static bool add_code(char *line, void *arg) {
    struct look *look = arg;
    struct range range;
    const char *rest = maps_read_range(line, &range), *path = path_in(line);
    if (strncmp(rest, " r-xp", 5) != 0 || *path == '\0' || is_between(path)) return true;
    if (has(&range, (uintptr_t)add_code)) return true; /* our own */
    look->code[look->ncode++] = range;
    return look->ncode < MAX_CODE;
}

static bool is_code(const struct look *look, uintptr_t at) {
    size_t low = 0, high = look->ncode;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (has(&look->code[middle], at)) return true;
        if (at < look->code[middle].start)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

/* ---- a thread's stack ---- */

/* Where it is in it (proc_pid_syscall(5): the last field but one); 0: it runs. */
static uintptr_t stack_of(int tasks, const char *tid) {
    char line[256];
    for (int i = 0; i < TRIES; i++) {
        if (tasks_read(tasks, tid, "/syscall", line, sizeof line) <= 0) return 0;
        char *last = strrchr(line, ' ');
        if (last) {
            *last = '\0';
            const char *at = strrchr(line, ' ');
            if (at && at[1] == '0' && at[2] == 'x') return at += 3, maps_read_number(&at);
        }
        raw(nanosleep, &(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return 0;
}

static bool find_mapping(char *line, void *arg) {
    struct range range, *sought = arg;
    maps_read_range(line, &range);
    if (!has(&range, sought->start)) return true;
    sought->end = range.end;
    return false;
}

/* Up to the end of it, or to the guard of the next (which is no mapping of its own in glibc 2.42).
 */
static uintptr_t find_start(const struct look *look, uintptr_t stack) {
    struct range range = {stack & -sizeof(uintptr_t), 0};
    uintptr_t word[512], found = 0;
    maps_for_each(find_mapping, &range);
    if (range.end - range.start > MAX_STACK) range.end = range.start + MAX_STACK;
    for (uintptr_t at = range.start; at < range.end;) {
        size_t size = sizeof word - at % sizeof word;
        long n = raw(pread64, look->memory, word, size, at);
        if (n != (long)size) break;
        for (size_t i = 0; i < size / sizeof *word; i++)
            if (is_code(look, word[i])) found = word[i];
        at += size;
    }
    return found;
}

/* ---- who it is ---- */

struct named {
    uintptr_t at;
    char *buf;
    size_t size;
};

/* The end of the path is what tells. */
static bool name_object(char *line, void *arg) {
    struct named *named = arg;
    struct range range;
    maps_read_range(line, &range);
    const char *path = path_in(line);
    if (!has(&range, named->at)) return true;
    size_t n = strlen(path);
    if (n >= named->size) path += n - (named->size - 1);
    strcpy(named->buf, path);
    return false;
}

static void make_printable(char *name) {
    for (; *name; name++)
        if ((unsigned char)*name < ' ' || *name == 0x7f) *name = '?';
}

/* Without the number at its end. */
static size_t stem_of(const char *name) {
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] >= '0' && name[n - 1] <= '9') n--;
    return n;
}

static bool is_same(const struct maker *a, const struct maker *b) {
    size_t n = stem_of(a->name);
    return n == stem_of(b->name) && memcmp(a->name, b->name, n) == 0 &&
           strcmp(a->object, b->object) == 0;
}

static void count(struct look *look, const struct maker *maker) {
    for (size_t i = 0; i < look->nmakers; i++)
        if (is_same(&look->maker[i], maker)) {
            look->maker[i].threads++;
            return;
        }
    if (look->nmakers < MAX_MAKERS) look->maker[look->nmakers++] = *maker;
}

static bool add_thread(int tasks, const char *tid, void *arg) {
    struct look *look = arg;
    struct maker maker = {.threads = 1};
    char own[NAME_SIZE] = "", line[2 * NAME_SIZE];
    if (tasks_read(tasks, tid, "/comm", line, sizeof line) <= 0) return true; /* it has ended */
    raw(prctl, PR_GET_NAME, own, 0, 0, 0);
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, own) != 0) memcpy(maker.name, line, strnlen(line, NAME_SIZE - 1));
    uintptr_t stack = stack_of(tasks, tid), start = stack ? find_start(look, stack) : 0;
    if (start)
        maps_for_each(name_object, &(struct named){start, maker.object, sizeof maker.object});
    make_printable(maker.name);
    make_printable(maker.object);
    count(look, &maker);
    return true;
}

static void write_text(const struct look *look) {
    size_t n = 0;
    for (size_t i = 0; i < look->nmakers; i++) {
        const struct maker *m = &look->maker[i];
        char line[sizeof *m + 16];
        int size = snprintf(line, sizeof line, "%u\t%s\t%s\n", m->threads, m->name, m->object);
        if (size <= 0 || n + (size_t)size >= sizeof text) return;
        memcpy(text + n, line, (size_t)size);
        n += (size_t)size;
        text[n] = '\0';
    }
}

static void look_through(struct look *look) {
    int tasks = tasks_open();
    if (tasks < 0) return;
    look->memory = (int)raw(openat, AT_FDCWD, "/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
    maps_for_each(add_code, look);
    tasks_for_each(tasks, add_thread, look);
    if (look->memory >= 0) raw(close, look->memory);
    raw(close, tasks);
}

void makers_find(void) {
    long at = raw(mmap, NULL, sizeof(struct look), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    text[0] = '\0';
    if (failed(at)) return;
    struct look *look = (struct look *)at;
    look_through(look);
    write_text(look);
    raw(munmap, look, sizeof *look);
}

struct inputs_packed makers_pack(enum fsp_refusal why) {
    return (struct inputs_packed){text, why == FSP_REFUSED_THREADS ? strlen(text) : 0, -1};
}

/* For the package's own module: after a refusal. */
EXPORT const char *fastspawn_makers(void) {
    return text;
}

#endif
