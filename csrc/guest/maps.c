/*
 * maps.c - /proc/self/maps (proc_pid_maps(5)): what this process has mapped.
 *
 * /proc/self/smaps has the same lines and below each what the kernel keeps of it, at several times
 * the cost.
 */
#include "internal.h"

#ifdef __linux__

static bool for_each_line(const char *file, bool (*use)(char *line, void *arg), void *arg) {
    char buf[8192];
    size_t have = 0;
    long fd = raw(openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC, 0), n;
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

bool maps_for_each(bool (*use)(char *line, void *arg), void *arg) {
    return for_each_line("/proc/self/maps", use, arg);
}

/* ---- and what a fork gets of it ---- */

struct unforked {
    bool (*use)(char *line, void *arg);
    void *arg;
    bool found;
};

/* "dc" is not copied, "lo" is not locked, "wf" is zeros in a fork; what may be dropped at any time
 * ("dp", the state of getrandom in the vDSO) is zeros now and then anyhow. */
static bool is_unforked(const char *flags) {
    if (strstr(flags, " dc") || strstr(flags, " lo")) return true;
    return strstr(flags, " wf") && !strstr(flags, " dp");
}

static bool use_with_flags(char *line, void *arg) {
    static const char flags[] = "VmFlags:";
    struct unforked *u = arg;
    if (*line < 'A' || *line > 'Z') return u->use(line, u->arg);
    if (strncmp(line, flags, sizeof flags - 1) == 0) u->found |= is_unforked(line);
    return true;
}

bool maps_for_each_forked(bool (*use)(char *line, void *arg), void *arg, bool *all) {
    struct unforked u = {use, arg, false};
    bool there = for_each_line("/proc/self/smaps", use_with_flags, &u);
    *all = !u.found;
    return there;
}

char *maps_file(char *line) {
    line += strcspn(line, "/[");
    return *line == '/' ? line : NULL;
}

uintptr_t maps_read_number(const char **at) {
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

const char *maps_read_range(const char *line, struct range *range) {
    range->start = maps_read_number(&line);
    line++;
    range->end = maps_read_number(&line);
    return line;
}

struct writable {
    bool (*use)(char *start, char *end);
    bool on;
};

static bool is_writable(char *line, void *arg) {
    struct writable *w = arg;
    struct range range;
    if (strncmp(maps_read_range(line, &range), " rw-p", 5) == 0)
        w->on = w->use((char *)range.start, (char *)range.end);
    return w->on;
}

bool maps_for_each_writable(bool (*use)(char *start, char *end)) {
    struct writable w = {use, true};
    return maps_for_each(is_writable, &w) && w.on;
}

static bool is_vdso(char *line, void *arg) {
    if (strstr(line, "[vdso]") == NULL) return true;
    maps_read_range(line, arg);
    return false;
}

bool maps_find_vdso(char **start, size_t *size) {
    struct range range = {0};
    if (!maps_for_each(is_vdso, &range) || range.start == 0) return false;
    *start = (char *)range.start;
    *size = range.end - range.start;
    return true;
}

#endif
