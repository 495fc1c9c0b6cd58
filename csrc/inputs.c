/*
 * inputs.c - what a template process was made of: when one of these files changes, a fork of it
 * would be a program of yesterday.
 *
 * A name that was looked up and not found counts as well: it may be there tomorrow.  So does the
 * directory in which the process runs: its name may be a link, and lead to another one tomorrow.
 * What has a relative name is looked up again as the program did, from that directory's name.
 */
#include "preload.h"

#ifdef __linux__
#include "rawsys.h"

static struct {
    char records[FSP_SNAP_FILES_MAX];
    size_t used;
    char place[PATH_MAX]; /* empty: it has no name of its own */
    struct fsp_snap_identity here;
} inputs;

const void *inputs_all(size_t *size) {
    *size = inputs.used;
    return inputs.records;
}

static size_t padded(size_t path_size) {
    return (sizeof(struct fsp_snap_input) + path_size + 7) & ~(size_t)7;
}

static struct fsp_snap_input *find(const char *path, size_t size, unsigned how) {
    for (size_t at = 0; at < inputs.used;) {
        struct fsp_snap_input *input = (void *)(inputs.records + at);
        if (input->path_size == size && input->how == how && memcmp(input + 1, path, size) == 0)
            return input;
        at += padded(input->path_size);
    }
    return NULL;
}

static struct fsp_snap_input *append(const char *path, size_t size, unsigned how) {
    struct fsp_snap_input *input = (void *)(inputs.records + inputs.used);
    if (inputs.used + padded(size) > sizeof inputs.records) return NULL;
    *input = (struct fsp_snap_input){.path_size = (uint32_t)size, .how = how};
    memcpy(input + 1, path, size);
    inputs.used += padded(size);
    return input;
}

/* ---- where it runs ---- */

static struct fsp_snap_identity look_here(void) {
    struct stat st;
    long r = raw(newfstatat, AT_FDCWD, ".", &st, 0);
    return r < 0 ? (struct fsp_snap_identity){0} : fsp_snap_identity(&st, FSP_SNAP_PLACE);
}

void inputs_set_place(const char *name) {
    size_t n = name ? strlen(name) : 0;
    if (n >= sizeof inputs.place) n = 0;
    if (n) memcpy(inputs.place, name, n); /* a program may write over what it was started with */
    inputs.place[n] = '\0';
    inputs.here = look_here();
}

bool inputs_add_place(void) {
    if (*inputs.place == '\0') return true;
    unsigned how = FSP_SNAP_FOLLOW | FSP_SNAP_PLACE;
    size_t size = strlen(inputs.place) + 1;
    struct fsp_snap_input *input = find(inputs.place, size, how);
    if (input == NULL) input = append(inputs.place, size, how);
    if (input) input->id = inputs.here;
    return input;
}

/* The directory by its name, or its own if the program has gone elsewhere; its length, or 0. */
static size_t name_place(char *buf, size_t size) {
    struct fsp_snap_identity now = look_here();
    if (*inputs.place && fsp_snap_same(&now, &inputs.here)) {
        size_t n = strlen(inputs.place);
        if (n + 1 > size) return 0;
        memcpy(buf, inputs.place, n + 1);
        return n;
    }
    long r = raw(getcwd, buf, size);
    return r <= 0 ? 0 : (size_t)r - 1;
}

/* ---- the files ---- */

/* The spawner is elsewhere. */
static bool make_absolute(const char *path, char *buf, size_t size) {
    size_t n = strlen(path), used = 0;
    if (*path != '/') {
        used = name_place(buf, size - 1);
        if (used == 0) return false;
        buf[used++] = '/';
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
    if (find(full, size, how)) return true;
    struct fsp_snap_input *input = append(full, size, how);
    if (input == NULL) return false;
    /* By the program's name for it, which leads where the program is. */
    if (raw(newfstatat, AT_FDCWD, path, &st, how & FSP_SNAP_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW) == 0)
        input->id = fsp_snap_identity(&st, how);
    return true;
}

/* ---- what is mapped ---- */

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

enum fsp_refusal inputs_add_mapped(bool late) {
    bool all = true, forked = true;
    bool there =
        late ? maps_for_each(add_mapping, &all) : maps_for_each_forked(add_mapping, &all, &forked);
    if (!there) return FSP_REFUSED_PROC;
    if (!forked) return FSP_REFUSED_UNFORKED;
    return all ? FSP_REFUSED_NOT : FSP_REFUSED_INPUTS;
}

#endif
