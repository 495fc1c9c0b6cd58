/*
 * plain.c - names whose content changes only with the file itself: a regular file, a directory or
 * a link of an ordinary file system, or nothing at all.
 *
 * A directory in which everyone writes (/tmp) is none of these: what stat(2) says of it is news.
 * /dev/null is one, which nobody changes by reading or writing.
 *
 * The way to it counts as well.  What /proc/self/fd and its like lead to is another file for each
 * process, so such a name is not plain, but for that of the program's own file: forks run the same.
 */
#include "internal.h"

#ifdef __linux__

#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* A file system whose files are their names' content, and not the kernel's news (statfs(2)). */
static const long file_systems[] = {
    0xef53,     /* ext2, 3, 4 */
    0x58465342, /* xfs */
    0x9123683e, /* btrfs */
    0x01021994, /* tmpfs */
    0x858458f6, /* ramfs */
    0x794c7630, /* overlayfs */
    0x73717368, /* squashfs */
    0xe0f5e1e2, /* erofs */
    0xf2f52010, /* f2fs */
    0x2fc12fc1, /* zfs */
    0xca451a4e, /* bcachefs */
};

/* openat2(2), Linux 5.6: older headers lack it. */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#define NO_MAGICLINKS 0x02

struct how {
    uint64_t flags, mode, resolve;
};

/* O_PATH: nothing is asked of the file, nor said to it. */
static long find(const char *path, bool follow) {
    struct how how = {
        .flags = (uint64_t)O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW),
        .resolve = NO_MAGICLINKS,
    };
    return raw(openat2, AT_FDCWD, path, &how, sizeof how);
}

static bool is_null(const struct stat *st) {
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

static bool is_ordinary(int fd) {
    struct stat st;
    struct statfs fs;
    if (raw(newfstatat, fd, "", &st, AT_EMPTY_PATH) < 0 || raw(fstatfs, fd, &fs) < 0) return false;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode) && !is_null(&st))
        return false;
    if (S_ISDIR(st.st_mode) && st.st_mode & S_IWOTH) return false;
    for (size_t i = 0; i < sizeof file_systems / sizeof *file_systems; i++)
        if (file_systems[i] == (long)fs.f_type) return true;
    return false;
}

bool plain_can(void) {
    long fd = find("/", true);
    raw(close, fd);
    return fd >= 0;
}

bool plain_is(const char *path, bool follow) {
    long fd = find(path, follow);
    if (fd < 0) return fd == -ENOENT || fd == -ENOTDIR || fd == -EACCES || fd == -ENAMETOOLONG;
    bool ordinary = is_ordinary((int)fd);
    raw(close, fd);
    return ordinary;
}

bool plain_program(const char *path, char *buf, size_t size) {
    long n = raw(readlink, path, buf, size - 1); /* reads the path, which may be nowhere */
    if (n < 0 || strcmp(path, "/proc/self/exe") != 0) return false;
    buf[n] = '\0';
    return true;
}

const char *plain_name(const char *path, bool follow, char *buf, size_t size) {
    struct stat a, b;
    if (plain_is(path, follow)) return path;
    if (!follow || !plain_program(path, buf, size) || !plain_is(buf, true)) return NULL;
    if (raw(newfstatat, AT_FDCWD, path, &a, 0) < 0 || raw(newfstatat, AT_FDCWD, buf, &b, 0) < 0)
        return NULL;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino ? buf : NULL; /* else it was replaced */
}

#endif
