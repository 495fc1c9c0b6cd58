/*
 * tasks.c - is this the only thread?
 *
 * A thread that was joined is one still for a moment: what wakes the joiner (the kernel clears the
 * thread's id) comes before its end.  Such threads are waited for, since they run no code of the
 * program any more.
 */
#include "preload.h"

#ifdef __linux__
#include "rawsys.h"

#include <dirent.h>

#define PF_EXITING 4    /* in the flags of proc_pid_stat(5): linux/sched.h */
#define PATIENCE   5000 /* ms */

struct entry { /* getdents64(2) */
    uint64_t ino, off;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* The flags are the sixth field after the name's bracket, which is the last one. */
static bool is_exiting(const char *stat) {
    const char *c = strrchr(stat, ')');
    for (int field = 0; c && field < 7; field++) c = strchr(c + 1, ' ');
    unsigned flags = 0;
    for (; c && c[1] >= '0' && c[1] <= '9'; c++) flags = flags * 10 + (unsigned)(c[1] - '0');
    return flags & PF_EXITING;
}

/* Will it be gone soon, or is it? */
static bool is_leaving(int tasks, const char *name) {
    char path[32], stat[512];
    size_t n = strlen(name);
    if (n + sizeof "/stat" > sizeof path) return false;
    memcpy(path, name, n);
    memcpy(path + n, "/stat", sizeof "/stat");
    int fd = (int)raw(openat, tasks, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return fd == -ENOENT;
    long size = raw(read, fd, stat, sizeof stat - 1);
    raw(close, fd);
    if (size < 0) return size == -ESRCH;
    stat[size] = '\0';
    return is_exiting(stat);
}

static bool is_number(const char *name, int number) {
    int n = 0;
    for (; *name >= '0' && *name <= '9'; name++) n = n * 10 + (*name - '0');
    return *name == '\0' && n == number;
}

/* All but the one that asks. */
static bool are_leaving(int tasks) {
    _Alignas(struct entry) char list[1024];
    int own = (int)raw(gettid, 0);
    for (long n; (n = raw(getdents64, tasks, list, sizeof list)) > 0;)
        for (long at = 0; at < n;) {
            const struct entry *e = (const void *)(list + at);
            at += e->size;
            if (e->name[0] == '.' || is_number(e->name, own)) continue;
            if (!is_leaving(tasks, e->name)) return false;
        }
    return true;
}

enum fsp_refusal tasks_refusal(void) {
    struct stat st;
    for (int waited = 0;; waited++) {
        if (raw(newfstatat, AT_FDCWD, "/proc/self/task", &st, 0) < 0) return FSP_REFUSED_PROC;
        if (st.st_nlink == 3) return FSP_REFUSED_NOT;
        int tasks = (int)raw(openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_CLOEXEC, 0);
        bool leaving = tasks >= 0 && waited < PATIENCE && are_leaving(tasks);
        if (tasks >= 0) raw(close, tasks);
        if (!leaving) return FSP_REFUSED_THREADS;
        raw(nanosleep, &(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

#endif
