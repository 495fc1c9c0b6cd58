/*
 * gives.c - gives back memory that it has had since before its first effect, in one way.
 *
 * Each line has to be the same in each run, and as without a template.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096
#define PAGES 300
#define SIZE  (PAGES * PAGE)

static char *area, *heap;
static char data[16 * PAGE] = {1};
static sigjmp_buf out;

static unsigned hash(const char *at, size_t n) {
    unsigned h = 2166136261u;
    for (; n--; at++) h = (h ^ (unsigned char)*at) * 16777619u;
    return h;
}

static void jump(int sig) {
    siglongjmp(out, sig);
}

static int faults(volatile char *at, int writes) {
    if (sigsetjmp(out, 1)) return 1;
    if (writes)
        *at = 1;
    else
        (void)*at;
    return 0;
}

static char *page(int n) {
    return area + n * PAGE;
}

static void say_fault(char *at) {
    int fd = open("/proc/self/exe", O_RDONLY);
    long n = read(fd, at, 1);
    printf("%d %d %d\n", faults(at, 0), faults(at, 1), n < 0 && errno == EFAULT);
    close(fd);
}

/* In the middle, twice; what was unmapped before; all but a page at each end. */
static void unmap(void) {
    page(20)[0] = 9;
    printf("%d", munmap(page(10), 30 * PAGE));
    say_fault(page(20));
    printf("%d", munmap(page(15), 5 * PAGE));
    printf(" %d", munmap(page(100), PAGE));
    printf(" %d\n", munmap(page(1), SIZE - 2 * PAGE));
    say_fault(page(200));
    char *more = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(more, 7, SIZE);
    page(0)[5] = page(PAGES - 1)[5] = 3;
    printf("%d\n", munmap(more, SIZE));
}

static void protect(void) {
    printf("%d\n", mprotect(page(3), 5 * PAGE, PROT_READ));
    say_fault(page(4));
    printf("%d\n", mprotect(page(100), 100 * PAGE, PROT_NONE));
    say_fault(page(150));
    printf("%d\n", mprotect(page(120), 10 * PAGE, PROT_READ | PROT_WRITE));
    say_fault(page(125));
    memset(page(120), 5, 10 * PAGE);
    char *own = data + PAGE - ((uintptr_t)data & (PAGE - 1));
    printf("%d\n", mprotect(own, 2 * PAGE, PROT_READ));
    say_fault(own);
}

static void drop(void) {
    memset(page(5), 8, PAGE);
    printf("%d", madvise(page(4), 40 * PAGE, MADV_DONTNEED));
    printf(" %d %d\n", page(4)[0], page(5)[1]);
    page(6)[7] = 2;
    page(270)[0] = 4; /* there was nothing */
    printf("%d", madvise(page(260), 40 * PAGE, MADV_DONTNEED));
    page(271)[0] = 4;
    printf("%d %d\n", page(270)[0], madvise(page(50), 20 * PAGE, MADV_FREE));
    page(55)[0] = 1;
    char *own = data + PAGE - ((uintptr_t)data & (PAGE - 1));
    own[3] = 3;
    printf("%d %d\n", madvise(own, PAGE, MADV_DONTNEED), own[3]);
}

static void move(void) {
    char *smaller = mremap(page(200), 50 * PAGE, 20 * PAGE, MREMAP_MAYMOVE);
    printf("%d", smaller == page(200));
    say_fault(page(230));
    page(2)[0] = 6;
    char *larger = mremap(page(0), 100 * PAGE, SIZE, MREMAP_MAYMOVE);
    printf("%x %d", hash(larger, SIZE), larger != area);
    say_fault(page(50));
    memset(larger, 3, SIZE);
    munmap(larger, PAGE);
}

static void shrink(void) {
    char *end = sbrk(0);
    memset(end - 20 * PAGE, 6, 3);
    printf("%d", sbrk(-30 * PAGE) == end);
    printf(" %d", sbrk(0) == end - 30 * PAGE);
    say_fault(end - 20 * PAGE);
    printf("%d", sbrk(15 * PAGE) == end - 30 * PAGE);
    printf(" %d", (end - 20 * PAGE)[1]);
    memset(end - 25 * PAGE, 4, 9 * PAGE);
    say_fault(end - 10 * PAGE);
    printf("%d", sbrk(100 * PAGE) == end - 15 * PAGE);
    printf(" %d %d\n", (end - 20 * PAGE)[1], (end - 10 * PAGE)[1]);
    memset(end - 40 * PAGE, 2, 120 * PAGE);
    printf("%d", sbrk(-100 * PAGE) == end + 85 * PAGE);
    printf(" %d\n", sbrk(0) == end - 15 * PAGE);
}

/* Without a fault, and only if it is told to. */
static void quietly(void) {
    char how = 0;
    if (read(0, &how, 1) != 1) exit(3);
    if (how == 'd') madvise(page(4), 40 * PAGE, MADV_DONTNEED);
    if (how == 'u') munmap(page(50), 40 * PAGE);
    if (how == 'w') sbrk(-3 * PAGE); /* the code is there, then */
    if (how == 'w') sbrk(PAGE);
    if (how == 's') sbrk(-30 * PAGE);
    if (how == 's') sbrk(20 * PAGE);
}

/* What would notice that there is something. */
static void place(void) {
    munmap(page(10), 10 * PAGE);
    char *at = mmap(page(12), 2 * PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    printf("%d %d %x\n", at == page(12), at[5], hash(page(20), 100 * PAGE));
    say_fault(page(10));
}

static void ask(void) {
    unsigned char there[2];
    munmap(page(10), 10 * PAGE);
    printf("%d %d\n", mincore(page(9), PAGE, there), mincore(page(9), 2 * PAGE, there));
}

static void alter(void) {
    munmap(page(10), 10 * PAGE);
    printf("%d\n", mprotect(page(9), 2 * PAGE, PROT_READ));
}

static void shrunk(void) {
    unsigned char there;
    char *end = sbrk(0);
    sbrk(-30 * PAGE);
    munmap(page(10), 10 * PAGE);
    fflush(stdout);
    if (fork() == 0) {
        char *aligned = (char *)((uintptr_t)end & ~(uintptr_t)(PAGE - 1));
        printf("%d", mincore(aligned - 20 * PAGE, PAGE, &there));
        printf(" %d", mincore(page(12), PAGE, &there));
        printf(" %d", sbrk(0) == end - 30 * PAGE);
        printf(" %d", sbrk(25 * PAGE) == end - 30 * PAGE);
        printf(" %d\n", (end - 20 * PAGE)[1]);
        exit(0);
    }
    wait(NULL);
    printf("%d\n", mincore(page(12), PAGE, &there));
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } ways[] = {
        {"unmap",   unmap  },
        {"protect", protect},
        {"drop",    drop   },
        {"move",    move   },
        {"shrink",  shrink },
        {"quietly", quietly},
        {"place",   place  },
        {"ask",     ask    },
        {"alter",   alter  },
        {"shrunk",  shrunk }
    };
    static char buffer[1 << 16];
    struct stat first;
    struct sigaction action = {.sa_handler = jump, .sa_flags = SA_NODEFER};
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 250 * PAGE);
    heap = sbrk(60 * PAGE);
    memset(heap, 5, 60 * PAGE);
    sigaction(SIGSEGV, &action, NULL);
    fstat(1, &first); /* the effect */
    printf("%x %x %d\n", hash(area, SIZE), hash(heap, 60 * PAGE), data[0]);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (argc > 1 && strcmp(argv[1], ways[i].name) == 0) ways[i].run();
    return 4;
}
