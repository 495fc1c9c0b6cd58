/*
 * preload.c - the inside of a template process: a program stopped before its main.
 *
 * With the others of this folder it is a shared object of its own, which the dynamic linker loads
 * first (LD_PRELOAD) so that the program's call of __libc_start_main comes here.  Linking, libc's
 * set-up and constructors run as ever; in main's place stands frozen_main, which serves requests
 * (serve.c).  For each it forks (fork.c), and the fork settles as any child does (settle.c) and
 * goes on to the program's main, with the arguments, environment and descriptors of its request.
 *
 * A process can also stop later than before its main: at a checkpoint that it asks for
 * (checkpoint.c), or before its first effect (effect.c).  It is served from there in the same loop.
 *
 * Everything is the kernel's interface, but for dlsym and a few variables that glibc and musl
 * share: one object serves both.
 */
#include "internal.h"

#ifdef __linux__
#include <dlfcn.h>

typedef int start_fn(main_fn *, int, char **, void (*)(void), void (*)(void), void (*)(void),
                     void *);

/* What another program does not have is NULL.  (dlsym would say so with a message from malloc,
 * which is the program's to begin with.) */
extern const char Py_BytesMain[] __attribute__((weak)); /* is it there? It is never called. */
extern char **environ;

/* ---- the program ---- */

/*
 * Of a script, the kernel made "interpreter [argument] script" of the first argument: what stands
 * before the request's own arguments stays as the kernel put it.
 */
static char **arguments(char **mine, int before, char **list, char *const *asked) {
    char **at = list;
    if (before == 0)
        *at++ = *asked;
    else
        for (int i = 0; i <= before; i++) *at++ = mine[i];
    while (*++asked) *at++ = *asked;
    *at = NULL;
    return at;
}

static int enter_main(int argc, char **argv) {
    const struct fsp_plan *plan = self_plan();
    int before = argc - self.argc, n = 0;
    void *room = __builtin_alloca(fresh_renew());
    __asm__ volatile("" : : "r"(room) : "memory");
    while (plan->argv[n]) n++;
    char *list[before + n + 1];
    char **end = arguments(argv, before, list, plan->argv);
    size_t nenv = 0;
    while (self.pid && plan->envp[nenv]) nenv++;
    char *given[nenv + 1]; /* libc takes variables out of the list that it has */
    memcpy(given, plan->envp, nenv * sizeof *given);
    given[nenv] = NULL;
    env_give(given);
    environ = (char **)plan->envp;
    env_name_program(list[0]);
    self.own_name = before == 0;
    word_drop_page();
    atfork_child();
    return self.main((int)(end - list), list, environ);
}

/* Python programs need not be asked for: checkpoint() is part of the package. */
static bool is_python(void) {
    return Py_BytesMain != NULL;
}

/* The spawner's descriptors are not the program's: out of its way, and never to a new program. */
static bool take_channel(void) {
    raw(close, self.library_fd);
    bool mapped = word_map();
    raw(close, self.page_fd);
    long high = guest_copy_above(self.socket);
    if (high >= 0) {
        raw(close, self.socket);
        self.socket = (int)high;
    }
    return mapped && high >= 0;
}

static int compare_bytes(const void *a, const void *b) {
    return *(const char *)a - *(const char *)b;
}

/*
 * What libc does once, and would be an effect: malloc takes random bytes when it is first used;
 * qsort(3) asks how much memory the machine has (sysinfo(2)) before the first time that it needs
 * more than 1024 bytes of it, and keeps the answer (glibc up to 2.36).
 */
static void warm_libc(void) {
    char bytes[1025] = {0};
    void *volatile first = sys_malloc(1);
    free(first);
    qsort(bytes, sizeof bytes, 1, compare_bytes);
}

/*
 * With all of its surroundings fixed the program runs on, and the process is a template later.
 * What libraries have drawn before is the forks' no more than at main: their handlers see to it.
 */
static int run_to_effect(int argc, char **argv, char **envp) {
    self.running = true;
    warm_libc();
    if (!fresh_hide(self.auxv)) serve_refuse(FSP_REFUSED_MEMORY);
    enum fsp_refusal why = effect_watch();
    if (why) serve_refuse(why);
    self.page->in_main = 1; /* a fork, which may begin in one of these handlers, has no such page */
    atfork_be_child();
    return self.main(argc, argv, envp);
}

static int frozen_main(int argc, char **argv, char **envp) {
    if (!take_channel()) leave(127);
    fork_ask_for_tid();
    resident_find();
    inputs_set_place(self.place);
    enum fsp_refusal why = inputs_add_mapped(false);
    if (!why && !inputs_add_place()) why = FSP_REFUSED_INPUTS;
    if (why) serve_refuse(why);
    bind_all();
    env_start(envp);
    fresh_find();
    bool asked = self.effect == 1, possible = self.effect && !is_python();
    if (possible && !asked && fresh_is_seeded_by_address()) serve_refuse(FSP_REFUSED_SEED);
    if (asked || possible) return run_to_effect(argc, argv, envp);
    serve_requests(is_python(), 0);
    return enter_main(argc, argv);
}

/* ---- the environment at the start ---- */

static bool read_number(const char **at, int *value) {
    const char *c = *at;
    int n = 0;
    while (*c >= '0' && *c <= '9') n = n * 10 + (*c++ - '0');
    if (c == *at) return false;
    *value = n;
    *at = *c == ',' ? c + 1 : c;
    return true;
}

static bool is_variable(const char *entry, const char *name) {
    size_t n = strlen(name);
    return strncmp(entry, name, n) == 0 && entry[n] == '=';
}

/* LD_PRELOAD as it was before our object came first on it; false: then there was none. */
static bool restore_preload(char *entry) {
    static const char ours[] = "LD_PRELOAD=/proc/self/fd/";
    const char *at = entry + sizeof ours - 1;
    int fd;
    if (strncmp(entry, ours, sizeof ours - 1) != 0) return true;
    if (!read_number(&at, &fd) || fd != self.library_fd) return true;
    if (*at != ':') return false;
    memmove(strchr(entry, '=') + 1, at + 1, strlen(at + 1) + 1);
    return true;
}

/* Take our variables out of the environment: is this a template process? */
static bool take_variables(char **envp) {
    const char *word = NULL;
    char **kept = envp;
    for (char **at = envp; *at; at++)
        if (is_variable(*at, FSP_SNAP_VARIABLE)) word = *at + sizeof FSP_SNAP_VARIABLE;
    if (word == NULL) return false;
    if (!read_number(&word, &self.socket) || !read_number(&word, &self.page_fd) ||
        !read_number(&word, &self.library_fd) || !read_number(&word, &self.argc) ||
        !read_number(&word, &self.effect))
        return false;
    if (*word) self.place = word;
    for (char **at = envp; *at; at++)
        if (!is_variable(*at, FSP_SNAP_VARIABLE) && restore_preload(*at)) *kept++ = *at;
    *kept = NULL;
    return true;
}

EXPORT int __libc_start_main(main_fn *main, int argc, char **argv, void (*init)(void),
                             void (*fini)(void), void (*rtld_fini)(void), void *stack_end) {
    start_fn *start = (start_fn *)dlsym(RTLD_NEXT, "__libc_start_main");
    self.main = main;
    char **end = argv + argc + 1;
    while (*end) end++;
    self.auxv = end + 1;
    if (take_variables(argv + argc + 1)) main = frozen_main;
    return start(main, argc, argv, init, fini, rtld_fini, stack_end);
}

#endif
