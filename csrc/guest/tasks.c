/*
 * tasks.c - is this the only thread?
 *
 * A thread that was joined is one still for a moment: what wakes the joiner (the kernel clears the
 * thread's id) comes before its end.  Such threads are waited for, since they run no code of the
 * program any more.
 */
#include "internal.h"

#ifdef __linux__

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

long tasks_read(int tasks, const char *tid, const char *file, char *buf, size_t size) {
    char path[32];
    size_t n = strlen(tid), more = strlen(file) + 1;
    if (n + more > sizeof path) return -ENAMETOOLONG;
    memcpy(path, tid, n);
    memcpy(path + n, file, more);
    int fd = (int)raw(openat, tasks, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    long r = raw(read, fd, buf, size - 1);
    raw(close, fd);
    buf[r < 0 ? 0 : r] = '\0';
    return r;
}

/* Will it be gone soon, or is it? */
static bool is_leaving(int tasks, const char *tid, void *unused) {
    char stat[512];
    long r = tasks_read(tasks, tid, "/stat", stat, sizeof stat);
    (void)unused;
    return r < 0 ? r == -ENOENT || r == -ESRCH : is_exiting(stat);
}

static bool is_number(const char *name, int number) {
    int n = 0;
    for (; *name >= '0' && *name <= '9'; name++) n = n * 10 + (*name - '0');
    return *name == '\0' && n == number;
}

int tasks_open(void) {
    return (int)raw(openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_CLOEXEC, 0);
}

bool tasks_for_each(int tasks, bool (*use)(int tasks, const char *tid, void *arg), void *arg) {
    _Alignas(struct entry) char list[1024];
    int own = (int)raw(gettid, 0);
    for (long n; (n = raw(getdents64, tasks, list, sizeof list)) > 0;)
        for (long at = 0; at < n;) {
            const struct entry *e = (const void *)(list + at);
            at += e->size;
            if (e->name[0] == '.' || is_number(e->name, own)) continue;
            if (!use(tasks, e->name, arg)) return false;
        }
    return true;
}

enum fsp_refusal tasks_refusal(void) {
    struct stat st;
    for (int waited = 0;; waited++) {
        if (raw(newfstatat, AT_FDCWD, "/proc/self/task", &st, 0) < 0) return FSP_REFUSED_PROC;
        if (st.st_nlink == 3) return FSP_REFUSED_NOT;
        int tasks = tasks_open();
        bool leaving = tasks >= 0 && waited < PATIENCE && tasks_for_each(tasks, is_leaving, NULL);
        if (tasks >= 0) raw(close, tasks);
        if (!leaving) return FSP_REFUSED_THREADS;
        raw(nanosleep, &(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

#endif
