/*
 * faults.c - calls that fail on demand (support.h).
 *
 * Everything is in memory that forked children share, so that a count goes on where the parent
 * left off.  The hook runs between clone and exec: no libc, no instrumentation.
 */
#include "os/rawsys.h"

#include "support.h"

#ifdef __linux__
#include "far.h"

#include <stdio.h>
#include <sys/shm.h>
#endif

#define TRACE    8192
#define SITES    1024
#define CHILDREN 4096 /* at a time, as far as their pids go */

struct faults {
    const char *name;
    const struct site *at;
    int err;
    long first, count, seen;
    const char *trace[TRACE];
    struct {
        long asked;
        const char *call;
    } site[SITES];
    const struct site *child_at[CHILDREN];
    const char *hold_at;
    int hold, held;
    const char *raise_at;
    int raise;
    pid_t self;
    bool spare;
    pthread_t spared;
};

static struct faults *faults;

static FSP_UNINSTRUMENTED bool same(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

static FSP_UNINSTRUMENTED pid_t self(void) {
#ifdef __linux__
    return (pid_t)raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
#else
    return getpid();
#endif
}

static FSP_UNINSTRUMENTED bool is_child(void) {
    return self() != faults->self;
}

static FSP_UNINSTRUMENTED void doze(void) {
    struct timespec ms = {0, 1000000};
#ifdef __linux__
    raw6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
#else
    nanosleep(&ms, NULL);
#endif
}

static FSP_UNINSTRUMENTED void raise_here(int sig) {
#ifdef __linux__
    raw6(SYS_kill, raw6(SYS_getpid, 0, 0, 0, 0, 0, 0), sig, 0, 0, 0, 0);
#else
    kill(getpid(), sig);
#endif
}

static FSP_UNINSTRUMENTED void hold_here(void) {
    __atomic_add_fetch(&faults->held, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&faults->hold, __ATOMIC_RELAXED)) doze();
    __atomic_sub_fetch(&faults->held, 1, __ATOMIC_RELAXED);
}

#ifdef __linux__

static __thread const struct site *site_here;

extern struct site *const first_entry[] __asm__("__start_fsp_sites");
extern struct site *const last_entry[] __asm__("__stop_fsp_sites");

/* A child has its parent's thread variables as long as it shares its memory, and runs beside it:
 * its place is noted by its pid. */
FSP_UNINSTRUMENTED void faults_here(const struct site *site) {
    pid_t pid = faults ? self() : 0;
    if (faults == NULL || pid == faults->self)
        site_here = site;
    else
        faults->child_at[(unsigned)pid % CHILDREN] = site;
}

static FSP_UNINSTRUMENTED const struct site *here(void) {
    pid_t pid = self();
    return pid == faults->self ? site_here : faults->child_at[(unsigned)pid % CHILDREN];
}

static FSP_UNINSTRUMENTED void note_site(const char *call) {
    const struct site *site = here();
    if (site == NULL) return;
    __atomic_fetch_add(&faults->site[site->number].asked, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&faults->site[site->number].call, call, __ATOMIC_RELAXED);
}

static FSP_UNINSTRUMENTED bool is_elsewhere(void) {
    return faults->at && faults->at != here();
}

static void number_sites(void) {
    if (last_entry - first_entry > SITES) _exit(98);
    for (int i = 0; i < last_entry - first_entry; i++) first_entry[i]->number = i;
}

/* ---- those of another program ---- */

static bool far_wanted;
static struct far_page *far;
static struct site far_site[FAR_SITES]; /* for good: a page goes with its process */
static char far_file[FAR_SITES][sizeof far->site->file];
static int nfar;

void faults_also_far(void) {
    far_wanted = true;
}

/* Until the last process that has it ends. */
static void open_far(void) {
    static char variable[32]; /* the environment's from here on */
    int shm = far_wanted && far == NULL ? shmget(IPC_PRIVATE, sizeof *far, IPC_CREAT | 0600) : -1;
    if (shm >= 0) far = shmat(shm, NULL, 0);
    if (far == (void *)-1) _exit(98);
    if (shm >= 0) shmctl(shm, IPC_RMID, NULL);
    if (shm < 0) return;
    snprintf(variable, sizeof variable, FAR_VARIABLE "=%d", shm);
    putenv(variable);
}

void faults_far_wanted(unsigned flags) {
    far->wanted = flags;
}

static void close_far(void) {
    if (far) shmdt(far);
    far = NULL;
}

static bool is_far(const struct site *site) {
    return site >= far_site && site < far_site + FAR_SITES;
}

static void arm_far(const struct site *at, int err, long first, long count) {
    open_far();
    if (far == NULL) return;
    for (int i = 0; i < far->nsites; i++) far->site[i].asked = 0;
    far->seen = 0;
    far->wanted = 0;
    far->err = err;
    far->first = first;
    far->count = count;
    __atomic_store_n(&far->armed, at && is_far(at) ? (int)(at - far_site) : -1, __ATOMIC_RELEASE);
}

static void disarm_far(void) {
    if (far) __atomic_store_n(&far->armed, -1, __ATOMIC_RELEASE);
}

static const struct site *site_far(int number) {
    for (; far && nfar < far->nsites; nfar++) {
        memcpy(far_file[nfar], far->site[nfar].file, sizeof far_file[nfar]);
        far_site[nfar] = (struct site){far_file[nfar], far->site[nfar].line,
                                       (int)(last_entry - first_entry) + nfar};
    }
    return number < nfar ? &far_site[number] : NULL;
}

const struct site *faults_site(int number) {
    int own = (int)(last_entry - first_entry);
    return number < own ? first_entry[number] : site_far(number - own);
}

long faults_asked(const struct site *site) {
    if (is_far(site)) return far ? far->site[site - far_site].asked : 0;
    return __atomic_load_n(&faults->site[site->number].asked, __ATOMIC_RELAXED);
}

const char *faults_call(const struct site *site) {
    if (is_far(site))
        return far && far->site[site - far_site].asked ? far->site[site - far_site].call : NULL;
    return __atomic_load_n(&faults->site[site->number].call, __ATOMIC_RELAXED);
}

#else

static void note_site(const char *call) {
    (void)call;
}

static bool is_elsewhere(void) {
    return false;
}

static void number_sites(void) {}
static void close_far(void) {}
static void disarm_far(void) {}
static void arm_far(const struct site *at, int err, long first, long count) {
    (void)at, (void)err, (void)first, (void)count;
}

#endif

static FSP_UNINSTRUMENTED int hook(const char *call) {
    struct faults *f = faults;
    note_site(call);
    if (__atomic_load_n(&f->hold, __ATOMIC_RELAXED) && same(f->hold_at, call) && is_child())
        hold_here();
    if (__atomic_load_n(&f->raise, __ATOMIC_RELAXED) && same(f->raise_at, call) && is_child())
        raise_here(__atomic_exchange_n(&f->raise, 0, __ATOMIC_RELAXED));
    if ((f->name && !same(f->name, call)) || is_elsewhere()) return 0;
    if (f->spare && pthread_equal(f->spared, pthread_self())) return 0;
    long i = __atomic_fetch_add(&f->seen, 1, __ATOMIC_RELAXED);
    if (i < TRACE) __atomic_store_n(&f->trace[i], call, __ATOMIC_RELAXED);
    return i >= f->first && i - f->first < f->count ? f->err : 0;
}

static void start(void) {
    if (faults == NULL) {
        faults =
            mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        number_sites();
    }
    fsp_fault_set(NULL);
    memset(faults, 0, sizeof *faults);
    faults->self = getpid();
}

static void arm(const char *name, const struct site *at, int err, long first, long count) {
    start();
    faults->name = name;
    faults->at = at;
    faults->err = err;
    faults->first = first;
    faults->count = count;
    arm_far(at, err, first, count);
    fsp_fault_set(hook);
}

void faults_arm(const char *name, int err, long first, long count) {
    arm(name, NULL, err, first, count);
}

#ifdef __linux__
void faults_arm_at(const struct site *site, int err, long first, long count) {
    arm(NULL, site, err, first, count);
}
#endif

void faults_spare_this_thread(void) {
    faults->spared = pthread_self();
    faults->spare = true;
}

void faults_off(void) {
    disarm_far();
    fsp_fault_set(NULL);
}

void faults_count_anew(void) {
    faults_off();
    close_far();
    if (faults) munmap(faults, sizeof *faults);
    faults = NULL;
}

long faults_seen(void) {
    return __atomic_load_n(&faults->seen, __ATOMIC_RELAXED);
}

const char *faults_name(long i) {
    return i < TRACE ? __atomic_load_n(&faults->trace[i], __ATOMIC_RELAXED) : NULL;
}

long faults_count_of(const char *name) {
    long n = 0;
    for (long i = 0; i < TRACE && faults_name(i); i++) n += same(faults_name(i), name);
    return n;
}

void faults_hold(const char *name) {
    start();
    faults->hold_at = name;
    faults->hold = 1;
    fsp_fault_set(hook);
}

int faults_held(void) {
    return __atomic_load_n(&faults->held, __ATOMIC_RELAXED);
}

void faults_release(void) {
    __atomic_store_n(&faults->hold, 0, __ATOMIC_RELAXED);
}

void faults_raise(const char *name, int sig) {
    start();
    faults->raise_at = name;
    faults->raise = sig;
    fsp_fault_set(hook);
}
