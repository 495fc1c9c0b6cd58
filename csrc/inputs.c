/*
 * inputs.c - what a template process was made of: when one of these files changes, a fork of it
 * would be a program of yesterday.
 *
 * A name that was looked up and not found counts as well: it may be there tomorrow.
 */
#include "preload.h"

#ifdef __linux__
#include "rawsys.h"

static struct {
    char records[FSP_SNAP_FILES_MAX];
    size_t used;
} inputs;

const void *inputs_all(size_t *size) {
    *size = inputs.used;
    return inputs.records;
}

static size_t padded(size_t path_size) {
    return (sizeof(struct fsp_snap_input) + path_size + 7) & ~(size_t)7;
}

static bool is_known(const char *path, size_t size, unsigned how) {
    for (size_t at = 0; at < inputs.used;) {
        const struct fsp_snap_input *input = (const void *)(inputs.records + at);
        if (input->path_size == size && input->how == how && memcmp(input + 1, path, size) == 0)
            return true;
        at += padded(input->path_size);
    }
    return false;
}

/* The spawner is elsewhere. */
static bool make_absolute(const char *path, char *buf, size_t size) {
    size_t n = strlen(path), used = 0;
    if (*path != '/') {
        long r = raw(getcwd, buf, size);
        if (r <= 0) return false;
        used = (size_t)r;
        buf[used - 1] = '/';
    }
    if (used + n + 1 > size) return false;
    memcpy(buf + used, path, n + 1);
    return true;
}

bool inputs_add(const char *path, unsigned how) {
    char full[PATH_MAX];
    struct stat st;
    if (!make_absolute(path, full, sizeof full)) return false;
    size_t size = strlen(full) + 1;
    if (is_known(full, size, how)) return true;
    if (inputs.used + padded(size) > sizeof inputs.records) return false;
    struct fsp_snap_input *input = (void *)(inputs.records + inputs.used);
    *input = (struct fsp_snap_input){.path_size = (uint32_t)size, .how = how};
    if (raw(newfstatat, AT_FDCWD, full, &st, how & FSP_SNAP_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW) == 0)
        input->id = fsp_snap_identity(&st, how);
    memcpy(input + 1, full, size);
    inputs.used += padded(size);
    return true;
}

/* ---- /proc/self/maps ---- */

/* Calls `use` for each line, without its end, until it says stop. */
static bool for_each_mapping(bool (*use)(char *line, void *arg), void *arg) {
    char buf[8192];
    size_t have = 0;
    long fd = raw(openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0), n;
    if (fd < 0) return false;
    bool on = true;
    while (on && (n = raw(read, fd, buf + have, sizeof buf - have)) > 0) {
        char *line = buf, *end = buf + have + n, *newline;
        while (on && (newline = memchr(line, '\n', (size_t)(end - line)))) {
            *newline = '\0';
            on = use(line, arg);
            line = newline + 1;
        }
        have = (size_t)(end - line);
        memmove(buf, line, have);
    }
    raw(close, fd);
    return true;
}

#define DELETED " (deleted)"

/* Memory that the kernel shows as a file, though there never was one by that name. */
static bool is_nameless(const char *path) {
    static const char *const names[] = {"/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage", "/["};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(path, names[i], strlen(names[i])) == 0) return true;
    return false;
}

/* The name is another file's by now: a process that starts anew will map that one. */
static bool add_former(char *path, size_t size) {
    size_t at = inputs.used;
    path[size] = '\0';
    if (!inputs_add(path, FSP_SNAP_FOLLOW | FSP_SNAP_FORMER)) return false;
    struct fsp_snap_input *input = (void *)(inputs.records + at);
    if (inputs.used > at) input->id.ino = UINT64_MAX;
    return true;
}

#define DELETED " (deleted)"

/* Memory that the kernel shows as a file, though there never was one by that name. */
static bool is_nameless(const char *path) {
    static const char *const names[] = {"/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage", "/["};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(path, names[i], strlen(names[i])) == 0) return true;
    return false;
}

/* The name is another file's by now: a process that starts anew will map that one. */
static bool add_former(char *path, size_t size) {
    size_t at = inputs.used;
    path[size] = '\0';
    if (!inputs_add(path, FSP_SNAP_FOLLOW | FSP_SNAP_FORMER)) return false;
    struct fsp_snap_input *input = (void *)(inputs.records + at);
    if (inputs.used > at) input->id.ino = UINT64_MAX;
    return true;
}

static bool add_mapping(char *line, void *arg) {
    char *path = strchr(line, '/');
    bool *all = arg;
    if (path == NULL || is_nameless(path)) return true;
    size_t size = strlen(path), end = sizeof DELETED - 1;
    if (size > end && strcmp(path + size - end, DELETED) == 0)
        *all &= add_former(path, size - end);
    else
        *all &= inputs_add(path, FSP_SNAP_FOLLOW);
    return true;
}

bool inputs_add_mapped(void) {
    bool all = true;
    return for_each_mapping(add_mapping, &all) && all;
}

static uintptr_t read_hex(const char **at) {
    uintptr_t n = 0;
    for (;; ++*at) {
        char c = **at;
        if (c >= '0' && c <= '9')
            n = n << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            n = n << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return n;
    }
}

struct range {
    uintptr_t start, end;
};

/* What follows it in the line: " rw-p ...". */
static const char *read_range(const char *line, struct range *range) {
    range->start = read_hex(&line);
    line++;
    range->end = read_hex(&line);
    return line;
}

struct writable {
    bool (*use)(char *start, char *end);
    bool on;
};

static bool is_writable(char *line, void *arg) {
    struct writable *w = arg;
    struct range range;
    if (strncmp(read_range(line, &range), " rw-p", 5) == 0)
        w->on = w->use((char *)range.start, (char *)range.end);
    return w->on;
}

bool inputs_for_each_writable(bool (*use)(char *start, char *end)) {
    struct writable w = {use, true};
    return for_each_mapping(is_writable, &w) && w.on;
}

static bool is_vdso(char *line, void *arg) {
    if (strstr(line, "[vdso]") == NULL) return true;
    read_range(line, arg);
    return false;
}

bool inputs_find_vdso(char **start, size_t *size) {
    struct range range = {0};
    if (!for_each_mapping(is_vdso, &range) || range.start == 0) return false;
    *start = (char *)range.start;
    *size = range.end - range.start;
    return true;
}

#endif
