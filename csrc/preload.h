/*
 * preload.h - what the files of the preload object know of one another.
 */
#ifndef FSP_PRELOAD_H
#define FSP_PRELOAD_H

#include "snapshot.h"

#ifdef __linux__

/* ---- preload.c ---- */

/* Tell the spawner that this is a template process, after so many calls, and serve.  Returns in a
 * fork, settled: its slot. */
uint32_t preload_serve(int value, unsigned calls);
/* In a fork: it cannot be what it should; descriptor `index` is why. */
_Noreturn void preload_fail(uint32_t slot, long error, int index);
/* This cannot be what was asked for. */
_Noreturn void preload_refuse(enum fsp_refusal why);

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
void fresh_show(void);
/* In a fork: new bytes of AT_RANDOM; before main also a heap that begins elsewhere, and the size of
 * what its stack shall leave free. */
void fresh_renew_random(void);
size_t fresh_renew(void);

/* ---- tasks.c ---- */

/* FSP_REFUSED_NOT: this is the only thread. */
enum fsp_refusal tasks_refusal(void);

/* ---- inputs.c: the files that this process came from ---- */

/* The process is in this directory (NULL: in one without a name of its own). */
void inputs_set_place(const char *name);
bool inputs_add_place(void); /* false: there are too many */
/* Note a file as it is now, or that it is missing; `path` as the program named it, `how` as in
 * struct fsp_snap_input.  False: there are too many, or the path is too long. */
bool inputs_add(const char *path, unsigned how);
/* The program, its libraries, and whatever else is mapped.  Not FSP_REFUSED_NOT: that cannot be
 * known, or (unless `late`: as after any fork) a fork would not have all of it. */
enum fsp_refusal inputs_add_mapped(bool late);
/* All of them: struct fsp_snap_input and path, one after the other. */
const void *inputs_all(size_t *size);

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
/* In a fork of it; false: the request has the template's own, and nothing is to do. */
bool env_enter(char *const *asked);

/* ---- loops.c ---- */

/* Does the program have an event loop? */
bool loops_exist(void);

/* ---- copies.c: descriptors that are the same as 0 to 2 ---- */

/* Once, where the first request's streams are in place; false: they cannot be listed. */
bool copies_find(void);
/* They are copies again, of what 0 to 2 are now. */
void copies_follow(void);

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
/* All of it is code again, also where the program goes on. */
void rdrand_show(ucontext_t *context);
#endif

/* ---- effect.c: on to the first effect ---- */

/* From here on the program runs under watch, up to what others could see or what it would see of
 * the world; there the process becomes a template.  Returns if that is possible at all. */
enum fsp_refusal effect_watch(void);

#endif
#endif
