/*
 * fuzz_path.c - a program is found where a plain search finds it, whatever the list, and however
 * the directories on it have changed since the last look.
 *
 * The input: steps.  Each puts a file of a small world there, takes it away or looks for one on a
 * list of what the input says.
 */
#include "fuzz.h"

#define NDIRS  4
#define NNAMES 3
#define LIST   2048

static char dir[NDIRS][PATH_MAX];
static const char *const names[NNAMES] = {"a", "bb", "c.sh"};

/* Each change has a time of its own, long past. */
static void changed(unsigned d) {
    static long changes;
    struct timespec then = {1000000000 + changes / 1000, changes % 1000};
    changes++;
    FUZZ_REQUIRE(utimensat(AT_FDCWD, dir[d], (struct timespec[2]){then, then}, 0) == 0);
}

static const char *file_in(unsigned d, unsigned n) {
    static char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/%s", dir[d], names[n]);
    return path;
}

static void make_world(void) {
    static const char *const folders[NDIRS] = {"d0", "d1", "d2", "d2/d3"};
    if (dir[0][0]) return;
    for (unsigned i = 0; i < NDIRS; i++) {
        snprintf(dir[i], sizeof dir[i], "%s", support_path(folders[i]));
        FUZZ_REQUIRE(mkdir(dir[i], 0755) == 0);
        changed(i);
    }
}

/* ---- steps ---- */

static void put(struct bytes *b) {
    static const unsigned modes[] = {0755, 0644, 0};
    unsigned d = take_below(b, NDIRS), n = take_below(b, NNAMES), mode = take_below(b, 4);
    const char *path = file_in(d, n);
    if (rmdir(path) < 0) unlink(path);
    if (mode == 3)
        FUZZ_REQUIRE(mkdir(path, 0755) == 0);
    else
        support_write_file(path, "", modes[mode]);
    changed(d);
}

static void take_away(struct bytes *b) {
    unsigned d = take_below(b, NDIRS), n = take_below(b, NNAMES);
    const char *path = file_in(d, n);
    if (rmdir(path) < 0) unlink(path);
    changed(d);
}

/* Directories of the world, others, empty ones, and any bytes. */
static void take_list(struct bytes *b, char *list) {
    size_t used = 0;
    for (unsigned n = take_below(b, 6); n + 1 && used < LIST / 2; n--) {
        unsigned what = take_below(b, 8);
        if (what < NDIRS)
            used += (size_t)snprintf(list + used, LIST - used, "%s%s", dir[what],
                                     take_below(b, 4) ? "" : "/");
        else if (what == NDIRS)
            used += (size_t)snprintf(list + used, LIST - used, "/no/such/%u", take(b));
        else if (what == NDIRS + 1)
            for (unsigned k = take_below(b, 12); k && b->left; k--) {
                char c = (char)take(b);
                if (c) list[used++] = c;
            }
        if (n) list[used++] = ':';
    }
    list[used] = '\0';
}

/* ---- a plain search ---- */

static int judge(const char *path) {
    struct stat st;
    if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 || stat(path, &st) < 0) return -errno;
    return S_ISREG(st.st_mode) ? 0 : -EACCES;
}

/* The list's parts, each with the file behind it, as execvp(3) tells them. */
static int join(const char *part, size_t len, const char *file, char *buf, size_t size) {
    const char *slash = len && part[len - 1] != '/' ? "/" : "";
    int n = snprintf(buf, size, "%.*s%s%s", (int)len, part, slash, file);
    return n < (int)size ? n : -ENAMETOOLONG;
}

static int plain_search(const char *list, const char *file, char *buf, size_t size) {
    int first = 0, r = -ENOENT;
    for (const char *at = list;; at++) {
        size_t len = strcspn(at, ":");
        int n = join(at, len, file, buf, size);
        r = n < 0 ? n : judge(buf);
        if (r == 0) return n;
        if (r != -ENOENT && r != -ENOTDIR && !first) first = r;
        at += len;
        if (*at == '\0') return first ? first : r;
    }
}

static bool is_absolute(const char *list) {
    for (const char *at = list;; at++) {
        if (*at != '/') return false;
        at += strcspn(at, ":");
        if (*at == '\0') return true;
    }
}

/* ---- is it the same? ---- */

static void each_part_is_joined(const char *list, const char *file, size_t size) {
    char *buf = malloc(size); /* of just that size: see ASan */
    char plain[2 * LIST];
    const char *rest = list;
    for (const char *at = list;; at++) {
        size_t len = strcspn(at, ":");
        int n = join(at, len, file, plain, sizeof plain);
        int r = fsp_path_next(&rest, file, buf, size);
        FUZZ_REQUIRE(r == ((size_t)n < size ? n : -ENAMETOOLONG));
        if (r > 0) FUZZ_REQUIRE(strcmp(buf, plain) == 0);
        at += len;
        if (*at == '\0') break;
    }
    FUZZ_REQUIRE(fsp_path_next(&rest, file, buf, size) == 0);
    free(buf);
}

static void look(struct bytes *b) {
    char list[LIST], plain[PATH_MAX], found[PATH_MAX];
    const char *file = names[take_below(b, NNAMES)];
    unsigned small = take(b);
    take_list(b, list);
    each_part_is_joined(list, file, 1 + small);
    int be = is_absolute(list) ? plain_search(list, file, plain, sizeof plain) : -ENOENT;
    int is = fsp_path_lookup(list, file, 0, found, sizeof found);
    FUZZ_REQUIRE(is == be);
    if (is > 0) FUZZ_REQUIRE(strcmp(found, plain) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes b = {data, size};
    make_world();
    for (unsigned step = 0; b.left && step < 40; step++) {
        unsigned what = take_below(&b, 4);
        if (what == 0)
            put(&b);
        else if (what == 1)
            take_away(&b);
        else
            look(&b);
    }
    return 0;
}
