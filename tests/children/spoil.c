/*
 * spoil.c - says what it finds, and then spoils all that a resident has to put back.
 *
 * Lines with "=" have to be the same in each run, those with "~" to differ.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <locale.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>
#include <xmmintrin.h>

#define FEW 40
#define BIG (1 << 20)

#ifndef PR_SET_VMA
#define PR_SET_VMA           0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static int counter = 7;
static char big[BIG];
static __thread int local = 3;
static char *heap;
static int input; /* a file that is open before the effect */
static int ended;
static char alternate[65536];

static uint64_t hash(const char *at, size_t n) {
    uint64_t h = 1469598103934665603u;
    for (; n--; at++) h = (h ^ (unsigned char)*at) * 1099511628211u;
    return h;
}

static void handle(int sig) {
    (void)sig;
}

static int dive(int n) {
    volatile char room[8192];
    memset((char *)room, n, sizeof room);
    return n ? dive(n - 1) + room[5] : 0;
}

static uint64_t hash_file(const char *name) {
    static char text[1 << 18];
    int fd = open(name, O_RDONLY);
    size_t size = 0;
    for (long n; (n = read(fd, text + size, sizeof text - size)) > 0;) size += (size_t)n;
    close(fd);
    uint64_t h = hash(text, size);
    memset(text, 0, size);
    return h;
}

/* Below 512: what the resident has for itself is above. */
static void say_fds(void) {
    DIR *fds = opendir("/proc/self/fd");
    printf("= fds");
    for (struct dirent *entry; (entry = readdir(fds));) {
        int fd = atoi(entry->d_name);
        if (*entry->d_name == '.' || fd >= 512) continue;
        printf(" %d:%x", fd, (unsigned)fcntl(fd, F_GETFD));
    }
    printf("\n");
    closedir(fds);
}

static void say_signals(void) {
    struct sigaction action;
    sigset_t mask;
    stack_t stack;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    printf("= signals");
    for (int sig = 1; sig < NSIG; sig++) {
        if (sigaction(sig, NULL, &action) < 0) continue;
        int kind = action.sa_handler == SIG_DFL ? 0 : action.sa_handler == SIG_IGN ? 1 : 2;
        printf(" %d%d", kind, sigismember(&mask, sig));
    }
    sigaltstack(NULL, &stack);
    printf(" alternate %d\n", stack.ss_flags);
}

static void say_use(void) {
    struct rusage usage;
    struct timespec cpu;
    struct tms ticks;
    getrusage(RUSAGE_SELF, &usage);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    times(&ticks);
    printf("= used %d %d %d\n", usage.ru_utime.tv_sec == 0, cpu.tv_sec == 0, ticks.tms_utime < 100);
}

#define HAS_FSGSBASE (getauxval(AT_HWCAP2) & 2)

static void say_registers(void) {
    unsigned short control, tags[14];
    unsigned long flags, gs = 0;
    uint64_t vector[2];
    __asm__ volatile("fnstcw %0; fnstenv %1" : "=m"(control), "=m"(tags));
    __asm__ volatile("fldenv %0" : : "m"(tags));
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    __asm__ volatile("movdqu %%xmm15, %0" : "=m"(vector));
    if (HAS_FSGSBASE) __asm__ volatile("rdgsbase %0" : "=r"(gs));
    printf("= registers %x %x %x %lx %lx %016lx\n", _mm_getcsr(), control, tags[4],
           flags & 0x240400, gs, vector[0]);
}

/* What libraries keep. */
static void say_libraries(void) {
    void *there = dlopen("libresolv.so.2", RTLD_NOW | RTLD_NOLOAD);
    printf("= libraries %d %d %s %d\n", ended, rand(), setlocale(LC_ALL, NULL), there != NULL);
}

static void say_input(void) {
    char some[8] = {0};
    int at = (int)lseek(input, 0, SEEK_CUR), self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int locked = flock(self, LOCK_EX | LOCK_NB);
    long n = read(input, some, 4);
    lseek(input, -n, SEEK_CUR);
    close(self);
    printf("= input %d %ld %s %d\n", at, n, some + 1, locked);
}

static void say(void) {
    say_registers(); /* before anything else uses them */
    char cwd[256], name[16];
    unsigned char random[16], cpu[8];
    struct timespec now;
    struct stat at;
    int zero = 0, dirty = 0;
    for (size_t i = 0; i < sizeof big; i++) zero |= big[i];
    volatile char below[200000]; /* not set: what the run before may have left there */
    for (size_t i = 0; i < sizeof below; i++) dirty += below[i] == 0x5a;
    printf("= memory %d %d %d %d %d %016lx\n", counter, local, zero, dirty > 1000,
           mallinfo2().uordblks > 0, hash(heap, 300000));
    printf("= places %p %p\n", (void *)heap, sbrk(0));
    printf("= maps %016lx\n", hash_file("/proc/self/maps"));
    mode_t mask = umask(0);
    umask(mask);
    prctl(PR_GET_NAME, name);
    printf("= %s %o %s %s\n", getcwd(cwd, sizeof cwd), mask, name, getenv("SPOILT") ?: "clean");
    say_fds();
    say_signals();
    say_use();
    say_libraries();
    say_input();
    printf("= stdin %d stderr %x\n", fstat(0, &at), (unsigned)fcntl(2, F_GETFL));
    getrandom(random, 16, 0);
    clock_gettime(CLOCK_REALTIME, &now);
    memcpy(cpu, (char *)getauxval(AT_RANDOM), 8);
    printf("~ %016lx\n~ %016lx\n~ %ld.%09ld\n", hash((char *)random, 16), hash((char *)cpu, 8),
           now.tv_sec, now.tv_nsec);
    memset((char *)below, 0x5a, sizeof below);
}

static void spoil_memory(void) {
    counter++;
    local++;
    memset(big, 9, sizeof big);
    memset(heap, 2, 300000);
    dive(FEW);
    for (int i = 0; i < FEW; i++) memset(malloc(10000 + (size_t)i * 4000), 3, 10000);
    char *map = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(map, 4, BIG);
    munmap(map + BIG / 2, 4096);
    mprotect(map, 4096, PROT_NONE);
    madvise(map + 8192, 4096, MADV_DONTNEED);
    map = mremap(map + BIG / 2 + 4096, BIG / 4, BIG, MREMAP_MAYMOVE);
    if (map == MAP_FAILED) exit(3);
    mmap(map, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, input, 0);
    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, map, 4096, "spoilt");
    for (int i = 0; i < FEW; i++) /* none beside the other */
        mmap(NULL, 8192, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sbrk(100000);
    setenv("SPOILT", "spoilt", 1);
}

static void lock(void) {
    struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int self = open("/proc/self/exe", O_RDONLY);
    if (flock(self, LOCK_EX | LOCK_NB) || fcntl(self, F_OFD_SETLK, &whole)) exit(3);
}

static void spoil_fds(void) {
    struct open_how how = {.flags = O_RDONLY};
    int pair[2], on = 1;
    if (pipe(pair) || fcntl(pair[0], F_SETPIPE_SZ, 8192) < 0) exit(3);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || ioctl(pair[0], FIONBIO, &on)) exit(3);
    if (ioctl(pair[0], FIOCLEX) || fcntl(pair[1], F_SETFL, O_NONBLOCK) || dup(1) < 0) exit(3);
    eventfd(0, 0);
    epoll_create1(EPOLL_CLOEXEC);
    inotify_add_watch(inotify_init1(0), "/", IN_CREATE);
    timerfd_create(CLOCK_MONOTONIC, 0);
    fcntl(memfd_create("spoilt", MFD_ALLOW_SEALING), F_ADD_SEALS, F_SEAL_WRITE);
    dup2(1, 100);
    fcntl(1, F_DUPFD, 200);
    open("/dev/null", O_RDONLY);
    open("/", O_RDONLY | O_DIRECTORY);
    syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how);
    lock();
    lseek(input, 100, SEEK_SET);
    dup2(1, input);
    fcntl(0, F_SETFD, FD_CLOEXEC);
    fcntl(2, F_SETFL, O_NONBLOCK);
    FILE *file = tmpfile();
    if (file) fputs("x", file);
    close(0);
    setvbuf(stdin, NULL, _IONBF, 0);
}

static void at_end(void) {
    ended++;
}

static void spoil_libraries(void) {
    atexit(at_end);
    srand(7);
    setlocale(LC_ALL, "C.UTF-8");
    dlopen("libresolv.so.2", RTLD_NOW);
}

/* Nothing may be mapped with them. */
static void spoil_limits(void) {
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        struct rlimit limit;
        if (which == RLIMIT_NOFILE || which == RLIMIT_CPU || getrlimit(which, &limit)) continue;
        limit.rlim_cur = which == RLIMIT_STACK ? 1 << 20 : 0;
        if (setrlimit(which, &limit)) exit(3);
    }
}

static void spoil_state(void) {
    sigset_t all;
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigfillset(&action.sa_mask);
    if (chdir("/tmp") || sigaltstack(&stack, NULL)) exit(3);
    umask(0111);
    prctl(PR_SET_NAME, "spoilt");
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGSYS) sigaction(sig, &action, NULL);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    _mm_setcsr(0x9fc0);
    unsigned short control = 0x0f7f;
    __asm__ volatile("fldcw %0; fldpi; fldpi" : : "m"(control));
    __asm__ volatile("pcmpeqd %%xmm15, %%xmm15" : : : "xmm15");
    if (HAS_FSGSBASE) __asm__ volatile("wrgsbase %0" : : "r"(0x1234ul));
}

/* Without standard streams, and with flags that C does not know of: the way down and alignment
 * checks. */
static void end(void) {
    syscall(SYS_close_range, 1, 2, 0);
    __asm__ volatile("pushfq; orq $0x40400, (%%rsp); popfq; syscall"
                     :
                     : "a"(SYS_exit_group), "D"(5)
                     : "rcx", "r11", "memory");
}

int main(int argc, char **argv) {
    struct stat first;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    heap = malloc(300000);
    memset(heap, 1, 300000);
    input = open(argv[0], O_RDONLY);
    if (read(input, &first, 1) != 1) return 3;
    fstat(1, &first); /* the effect */
    say();
    fflush(stdout);
    spoil_memory();
    spoil_fds();
    spoil_libraries();
    spoil_state();
    spoil_limits();
    if (argc > 1) return 5;
    end();
}
