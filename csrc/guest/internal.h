/*
 * internal.h - what the files of the preload object know of one another.
 */
#ifndef FSP_GUEST_INTERNAL_H
#define FSP_GUEST_INTERNAL_H

#include "template/snapshot.h"

#ifdef __linux__
#include "os/rawsys.h"

#include <sys/socket.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))

typedef void hook(void);
typedef int main_fn(int, char **, char **);

/* This process, as a template or a fork of one. */
extern struct guest {
    main_fn *main;
    int socket, page_fd, library_fd, argc, effect;
    bool running; /* past main: what the program made of itself stays */
    struct fsp_snap_page *page;
    char *plan;           /* FSP_SNAP_PLAN_MAX bytes: the latest request's that had one */
    int *tid;             /* what the kernel clears at the end of the thread */
    int *libc_tid;        /* what libc takes for the thread's id; NULL: `tid` is that */
    int *said_tid;        /* where libc says that it has it; NULL: it does not */
    bool own_name;        /* the program goes by its argv[0], not by an interpreter's */
    hook *before, *after; /* what the caller of a checkpoint has to do around each fork, or NULL */
    long robust_list, robust_size;
    int pid;           /* of the one process that may checkpoint; 0: none */
    uint32_t slot;     /* ... its slot */
    int parent;        /* ... and the spawner's process, as its request told it */
    const char *place; /* the directory in which the plan has the template run, or NULL */
    const char *cwd;   /* the directory in which it did so; its forks are there already */
    void *auxv;        /* the auxiliary vector (getauxval(3)) */
    /* What the program opened on its way: a fork opens all of it anew; is this one of them?  NULL:
     * it was not watched. */
    void (*reopen)(uint32_t slot);
    bool (*has_opened)(int fd);
} self;

static inline struct fsp_plan *self_plan(void) {
    return (struct fsp_plan *)self.plan;
}

static inline bool failed(long r) {
    return r < 0 && r > -4096;
}

static inline void leave(int status) {
    raw(exit_group, status);
}

/* ---- word.c: what is said to the spawner, and by it ---- */

/* A request, and the descriptors that came along. */
struct parcel {
    struct fsp_snap_request request;
    int fd[3], nfds;
};

struct inputs_packed {
    const void *data;
    size_t size;
    int fd; /* -1: none */
};

/* ... with the files that this process came from (inputs_pack), and `fd` unless that is -1;
 * negative: nobody has heard it. */
long word_say(struct fsp_snap_reply *reply, const struct inputs_packed *inputs, int fd);
void word_tell(enum fsp_snap_kind kind, uint32_t slot, int value);
/* This is a template process, after so many calls.  False: there is no room for its inputs. */
bool word_greet(int value, unsigned calls);
/* In a fork: it cannot be what it should; descriptor `index` is why. */
_Noreturn void word_fail(uint32_t slot, long error, int index);
/* Wait for a message of at least the first part's size; -1: there is nobody any more.
 * The number of descriptors that came along, at most 3. */
int word_receive(struct iovec *parts, size_t n, int fd[3]);
/* False: nobody wants us any more. */
bool word_request(struct parcel *p);
void word_close(const struct parcel *p);
/* The page that is shared with the spawner, and room for a plan: addresses, or -errno. */
long word_map_page(int fd);
/* In a resident: the n-th record, and nothing of the page but what lies around it. */
struct fsp_resident_record *word_keep_record(uint32_t n);
void word_drop_record(const struct fsp_resident_record *record); /* once it is none */
long word_map_plan(void);
bool word_map(void); /* both, for `self` */
/* In a fork that is what its request says: what is written there is believed.  Unless it may
 * become a template, or is a resident. */
void word_drop_page(void);

/* ---- fork.c ---- */

/* Around each fork, in the process that forks: as libc's has it, and what the caller asked for. */
void fork_prepare(void);
void fork_end(void);
/* 0 in the fork. */
long fork_for(const struct parcel *p);
/* In the fork: it becomes what its request says. */
void fork_settle(const struct parcel *p);
/* Once, where the program holds no lock. */
void fork_ask_for_tid(void);
/* One thread once a fork is prepared, and an address for its id: else it would be no whole
 * process. */
enum fsp_refusal fork_refusal(void);

/* ---- serve.c ---- */

/* Returns in a fork, settled: its slot; or -1, at the end.  Neither side writes to `self`, which
 * would then be copied. */
int serve_forks(void);
/* Tell the spawner that this is a template process, after so many calls, and serve.  Returns in a
 * fork. */
uint32_t serve_requests(int value, unsigned calls);
/* This cannot be what was asked for. */
_Noreturn void serve_refuse(enum fsp_refusal why);

/* ---- atfork.c: the handlers that libraries have for forks, in libc's order ---- */

void atfork_prepare(void); /* before each of ours */
void atfork_parent(void);  /* and after it */
void atfork_child(void);   /* in the fork, when it is what its request says */
/* This process is to be what its forks would be.  One that is forked in the middle of it is so by
 * its forks, which go on with it: no other handlers run then. */
void atfork_be_child(void);
bool atfork_knows_all(void);

/* ---- fresh.c: random bytes and addresses, as exec would give ---- */

void fresh_find(void); /* before main, once */
/* The program draws its random numbers from where its memory is. */
bool fresh_is_seeded_by_address(void);
/* Let reading AT_RANDOM of this auxiliary vector be a fault, until it is shown. */
bool fresh_hide(void *auxv);
bool fresh_is_hidden(const void *at);
bool fresh_show(void);
/* In a fork: new bytes of AT_RANDOM; before main also a heap that begins elsewhere, and the size of
 * what its stack shall leave free. */
void fresh_renew_random(void);
size_t fresh_renew(void);

/* ---- tasks.c ---- */

/* FSP_REFUSED_NOT: this is the only thread. */
enum fsp_refusal tasks_refusal(void);
int tasks_open(void); /* the directory of these, or -errno */
/* Calls `use` for each thread but this one, of /proc/self/task, until it says stop: false then. */
bool tasks_for_each(int tasks, bool (*use)(int tasks, const char *tid, void *arg), void *arg);
/* What one of its files ("/stat") says, with NUL: its length, or -errno. */
long tasks_read(int tasks, const char *tid, const char *file, char *buf, size_t size);

/* ---- makers.c: whose threads these are ---- */

void makers_find(void);
/* What was found, for a message that tells of this refusal: as snapshot.h has it. */
struct inputs_packed makers_pack(enum fsp_refusal why);

/* ---- inputs.c: the files that this process came from ---- */

/* The process is in this directory (NULL: in one without a name of its own). */
void inputs_set_place(const char *name);
bool inputs_add_place(void); /* false: there are too many */
/* Note a file as it is now, or that it is missing; `path` as the program named it, `how` as in
 * struct fsp_snap_input.  False: there are too many, or the path is too long. */
bool inputs_add(const char *path, unsigned how);
/* The kernel said so of the directory in which the process is. */
bool inputs_add_here(const char *path);
/* Of so many bytes. */
bool inputs_add_processors(const void *mask, size_t size);
bool inputs_add_names(const void *names, size_t size);
/* The program, its libraries, and whatever else is mapped.  Not FSP_REFUSED_NOT: that cannot be
 * known, or (unless `late`: as after any fork) a fork would not have all of it. */
enum fsp_refusal inputs_add_mapped(bool late);
/* All of them, struct fsp_snap_input and path, one after the other, as they go along with a
 * message: in it, or as a memfd of its own, which the caller closes.  False: there is no room for
 * them, or none that this process may have (RLIMIT_FSIZE). */
bool inputs_pack(struct inputs_packed *out);
/* One that is too large for the process's limit ends it with SIGXFSZ. */
bool inputs_may_have_file(size_t size);

/* ---- plain.c: which names are the same for every fork ---- */

/* Can this kernel tell? */
bool plain_can(void);
/* Does what `path` leads to, or that it leads nowhere, change only with the file itself? */
bool plain_is(const char *path, bool follow);
/* Is it the link to the program's own file?  Its content, if so. */
bool plain_program(const char *path, char *buf, size_t size);
/* The name by which others find the same, in `buf` or `path` itself; NULL: it is not plain. */
const char *plain_name(const char *path, bool follow, char *buf, size_t size);

/* ---- maps.c ---- */

struct range {
    uintptr_t start, end;
};

/* Calls `use` for each line, without its end, until it says stop; false: there are none. */
bool maps_for_each(bool (*use)(char *line, void *arg), void *arg);
/* The same; is *all of it in a fork as it is here? */
bool maps_for_each_forked(bool (*use)(char *line, void *arg), void *arg, bool *all);
/* In base 16, up to what is no digit. */
/* The file that is mapped, by the name that the kernel has for it; NULL: none.  Memory may have a
 * name with a slash, too (PR_SET_VMA). */
char *maps_file(char *line);
uintptr_t maps_read_number(const char **at);
/* What follows it in the line: " rw-p ...". */
const char *maps_read_range(const char *line, struct range *range);
/* Each mapping that the program can write to and shares with no one; stops at false. */
bool maps_for_each_writable(bool (*use)(char *start, char *end));
/* Where [vdso] is mapped; false: nowhere. */
bool maps_find_vdso(char **start, size_t *size);

/* ---- merge.c ---- */

/* Make one mapping of those of a locale's files that lie side by side. */
void merge_locale(void);

/* ---- bind.c ---- */

/* Bind the calls into libraries that are still to be bound. */
void bind_all(void);

/* ---- environment.c: of forks at a checkpoint ---- */

/* The template process's, and that with which one of its forks entered main.  Both lists stay. */
void env_start(char *const *envp);
void env_give(char *const *envp);
/* That fork is a template now: its environment is what the program made of the template's. */
bool env_freeze(void);
/* What libc says that the program is called. */
void env_name_program(char *name);
/* In a fork of it; false: the request has the template's own, and nothing is to do. */
bool env_enter(char *const *asked);

/* ---- loops.c ---- */

/* Does the program have an event loop? */
bool loops_exist(void);

/* ---- copies.c: what a program has made of 0 to 2 ---- */

/* A copy of it where a program does not expect its next descriptor, which no new program has; or
 * -errno. */
long guest_copy_above(int fd);
/* At this number; or -errno. */
long guest_place(long fd, int target, int flags);

/* In a fork that may checkpoint, where its request's are in place. */
void copies_note_streams(void);
/* Once, at the checkpoint; false: descriptors cannot be listed. */
bool copies_find(void);
/* Those of 0 to 2 that are closed are something, until they are closed again: where the first
 * request goes on. */
void copies_fill(void);
void copies_clear(void);
/* In the template, before 0 to 2 are nobody's: files of the program's own in their place are kept.
 * False: they cannot be. */
bool copies_keep(void);
long copies_drop(void); /* ... and after it; or -errno */
/* In a fork: its streams are where the program has put the first ones; or -errno. */
long copies_follow(void);
/* This one, above 2, is a copy. */
bool copies_has(int fd);

/* ---- sockets.c: sockets that a program has made, and that are connected to nothing yet ---- */

/* Its type and SOCK_NONBLOCK; 0: it is none of these. */
int sockets_type(int fd);
/* Another one in its place, with O_CLOEXEC or no flag.  0 or -errno. */
long sockets_renew(int fd, int type, int flags);

/* ---- rdrand.c: the processor's random numbers (x86-64) ---- */

#ifdef __x86_64__
#include <ucontext.h>

/* Let code that may draw random numbers be no code: in all that is mapped, or between two
 * addresses, which are of pages.  False: there is too much of it, or it cannot be read. */
bool rdrand_hide_mapped(void);
bool rdrand_hide(char *start, char *end, int prot);
/* There is something else now. */
void rdrand_forget(char *start, char *end);
/* Was this signal of hidden code that draws nothing?  Then the program can go on. */
bool rdrand_is_passed(int sig, const siginfo_t *info, ucontext_t *context);
/* Or, as it was not passed, of what draws? */
bool rdrand_is_met(int sig, const siginfo_t *info, const ucontext_t *context);
/* For a moment, in which nothing of the program runs, what is hidden is shown; false: it can't be
 * hidden again. */
void rdrand_uncover(void);
bool rdrand_cover(void);
/* All of it is code again, also where the program goes on. */
void rdrand_show(ucontext_t *context);
#endif

/* ---- streams.c: what is asked of 0 to 2 whose answer is every request's ---- */

struct pollfd;
bool streams_ask_device(long fd, bool is_file, unsigned long request, long at, long *result);
bool streams_ask_flags(long fd, long command, long *result);
bool streams_ask_closed(struct pollfd *list, long n, long *result);

/* ---- effect.c: on to the first effect ---- */

/* From here on the program runs under watch, up to what others could see or what it would see of
 * the world; there the process becomes a template.  Returns if that is possible at all. */
enum fsp_refusal effect_watch(void);

/* ---- resident.c: a fork that serves many jobs ---- */

void resident_find(void); /* before main, once */
/* In the template, before it forks one. */
void resident_prepare(void);
/* In a fork that is none. */
void image_forget(void);
/* Its surroundings. */
struct residence {
    int socket;
    struct fsp_resident_record *record;
    unsigned flags;
    char *plan;                  /* where the program has it: FSP_SNAP_PLAN_MAX bytes */
    bool (*is_reopened)(int fd); /* the offset of this descriptor is nobody else's; or NULL */
    bool (*is_followed)(int fd); /* each job puts another file there */
};
/* In the fork, settled: returns at the begin of each job, in memory that is as it is now.  Where
 * it cannot be, returns at once. */
void resident_live(const struct residence *here);

/* ---- own.c ---- */

bool resident_is(void);
/* What the kernel may block of this mask; the program believes that it blocks all of it. */
uint64_t resident_mask(uint64_t mask);
/* This one of 0 to 2 is not what its job brought. */
void resident_moves(int fd);
/* What its job needs cannot be had: as nothing of it has happened, another does it. */
_Noreturn void resident_cannot(void);

#endif
#endif
