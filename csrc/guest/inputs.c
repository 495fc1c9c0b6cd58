/*
 * inputs.c - what a template process was made of: when one of these files changes, a fork of it
 * would be a program of yesterday.
 *
 * A name that was looked up and not found counts as well: it may be there tomorrow.  So does the
 * directory in which the process runs: its name may be a link, and lead to another one tomorrow.
 * What has a relative name is looked up again as the program did, from that directory's name.
 */
#include "internal.h"

#ifdef __linux__
#include <sys/resource.h>

#define FIRST_ROOM  (64l * 1024)
#define FIRST_SLOTS 1024l

static struct {
    char *records; /* struct fsp_snap_input and path, one after the other */
    size_t used, room;
    uint32_t *slot; /* where one begins, and 1 more; by the hash of its name */
    size_t slots, count;
    char place[PATH_MAX]; /* empty: it has no name of its own */
    struct fsp_snap_identity here;
} inputs;

/* ---- in memory of its own: all of this may go on between any two instructions ---- */

static void *map(size_t size) {
    long at = raw(mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return failed(at) ? NULL : (void *)at;
}

static size_t padded(size_t path_size) {
    return (sizeof(struct fsp_snap_input) + path_size + 7) & ~(size_t)7;
}

static struct fsp_snap_input *input_at(size_t at) {
    return (void *)(inputs.records + at);
}

/* The slot of this name, or the free one that it would have. */
static uint32_t *slot_of(const char *path, size_t size, unsigned how) {
    uint64_t hash = how ^ 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)path[i]) * 1099511628211u;
    for (size_t i = hash ^ hash >> 32;; i++) {
        uint32_t *slot = &inputs.slot[i & (inputs.slots - 1)];
        if (*slot == 0) return slot;
        const struct fsp_snap_input *input = input_at(*slot - 1);
        if (input->path_size == size && input->how == how && memcmp(input + 1, path, size) == 0)
            return slot;
    }
}

static bool grow_slots(void) {
    size_t slots = inputs.slots ? 2 * inputs.slots : FIRST_SLOTS;
    uint32_t *more = map(slots * sizeof *more);
    if (more == NULL) return false;
    if (inputs.slots) raw(munmap, inputs.slot, inputs.slots * sizeof *inputs.slot);
    inputs.slot = more;
    inputs.slots = slots;
    for (size_t at = 0; at < inputs.used;) {
        const struct fsp_snap_input *input = input_at(at);
        *slot_of((const char *)(input + 1), input->path_size, input->how) = (uint32_t)at + 1;
        at += padded(input->path_size);
    }
    return true;
}

static bool grow_records(size_t size) {
    size_t room = inputs.room ? inputs.room : FIRST_ROOM;
    while (room < size) room *= 2;
    if (size > FSP_SNAP_FILES_MAX) return false;
    long at = inputs.room ? raw(mremap, inputs.records, inputs.room, room, MREMAP_MAYMOVE)
                          : (long)map(room);
    if (at == 0 || failed(at)) return false;
    inputs.records = (char *)at;
    inputs.room = room;
    return true;
}

static bool make_room(size_t size) {
    return (2 * inputs.count < inputs.slots || grow_slots()) &&
           (inputs.used + size <= inputs.room || grow_records(inputs.used + size));
}

/* The one of this name, or a new one without an identity; NULL: there are too many. */
static struct fsp_snap_input *take(const char *path, size_t size, unsigned how, bool *is_new) {
    if (!make_room(padded(size))) return NULL;
    uint32_t *slot = slot_of(path, size, how);
    *is_new = *slot == 0;
    if (!*is_new) return input_at(*slot - 1);
    struct fsp_snap_input *input = input_at(inputs.used);
    *input = (struct fsp_snap_input){.path_size = (uint32_t)size, .how = how};
    memcpy(input + 1, path, size);
    *slot = (uint32_t)inputs.used + 1;
    inputs.used += padded(size);
    inputs.count++;
    return input;
}

/* ---- how they are handed over ---- */

bool inputs_may_have_file(size_t size) {
    struct rlimit limit;
    return raw(prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 && limit.rlim_cur >= size;
}

static bool write_all(int fd) {
    for (size_t at = 0; at < inputs.used;) {
        long n = raw(pwrite64, fd, inputs.records + at, inputs.used - at, at);
        if (n == -EINTR) continue;
        if (n <= 0) return false;
        at += (size_t)n;
    }
    return raw(fcntl, fd, F_ADD_SEALS, FSP_SNAP_SEALS) == 0;
}

bool inputs_pack(struct inputs_packed *out) {
    *out = (struct inputs_packed){inputs.records, inputs.used, -1};
    if (inputs.used <= FSP_SNAP_INLINE_MAX) return true;
    if (!inputs_may_have_file(inputs.used)) return false;
    int fd = (int)raw(memfd_create, "fastspawn", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return false;
    *out = (struct inputs_packed){NULL, 0, fd};
    if (write_all(fd)) return true;
    raw(close, fd);
    return false;
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

static bool add_known(const char *name, unsigned how, struct fsp_snap_identity id) {
    bool is_new;
    struct fsp_snap_input *input = take(name, strlen(name) + 1, how, &is_new);
    if (input) input->id = id;
    return input;
}

bool inputs_add_place(void) {
    unsigned how = FSP_SNAP_FOLLOW | FSP_SNAP_PLACE;
    return *inputs.place == '\0' || add_known(inputs.place, how, inputs.here);
}

bool inputs_add_here(const char *path) {
    return add_known(path, FSP_SNAP_FOLLOW | FSP_SNAP_PLACE, look_here());
}

bool inputs_add_processors(const void *mask, size_t size) {
    return add_known("the processors that it may use", FSP_SNAP_PROCESSORS,
                     fsp_snap_told(mask, size));
}

bool inputs_add_names(const void *names, size_t size) {
    return add_known("what uname says", FSP_SNAP_NAMES, fsp_snap_told(names, size));
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
    bool is_new;
    struct fsp_snap_input *input = take(full, strlen(full) + 1, how, &is_new);
    if (input == NULL || !is_new) return input;
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
    char *path = maps_file(line);
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
