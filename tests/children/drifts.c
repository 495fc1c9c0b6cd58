/*
 * drifts.c - a template whose memory is another before each fork, in every way in which it can be;
 * each run tells whether it has it as it was at its own fork, and spoils it.
 *
 *   drifts [huge]   huge: in memory of huge pages
 */
#define _GNU_SOURCE
#include <fastspawn/checkpoint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE  4096
#define PAGES 64
#define HUGE  (2l * 1024 * 1024)

enum { SAME, WRITTEN, DROPPED, REPLACED, MOVED_TO, MOVED, READ, FIRST, HEAP, KINDS };

static char *part[KINDS];
static char of_file[4 * PAGE] __attribute__((aligned(PAGE))) = {1};
static volatile int forks;

static char *map(char *at, size_t size) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
    char *got = mmap(at, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (got == MAP_FAILED) abort();
    return got;
}

/* What is to be in each page of a part, told by its first byte. */
static int wanted(int kind) {
    if (kind == SAME) return 1;
    if (kind == DROPPED) return forks % 2 ? 0 : forks;
    if (kind == READ) return 0;
    return forks;
}

static void fill(char *at, int value) {
    for (int i = 0; i < PAGES; i++) at[i * PAGE] = (char)value;
}

static void drift(void) {
    forks++;
    fill(part[WRITTEN], wanted(WRITTEN));
    if (wanted(DROPPED))
        fill(part[DROPPED], wanted(DROPPED));
    else if (madvise(part[DROPPED], PAGES * PAGE, MADV_DONTNEED))
        abort();
    fill(map(part[REPLACED], PAGES * PAGE), wanted(REPLACED));
    fill(part[MOVED], wanted(MOVED));
    if (mremap(part[MOVED], PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
               part[MOVED_TO]) == MAP_FAILED)
        abort();
    fill(map(part[MOVED], PAGES * PAGE), wanted(MOVED));
    for (int i = 0; i < PAGES; i++) (void)*(volatile char *)(part[READ] + i * PAGE);
    part[FIRST][forks % PAGES * PAGE] = (char)forks;
    fill(part[HEAP], wanted(HEAP));
    of_file[PAGE] = (char)forks;
    if (madvise(of_file + 2 * PAGE, PAGE, MADV_DONTNEED)) abort();
}

static int check(int kind) {
    int wrong = 0;
    for (int i = 0; i < PAGES; i++) wrong += part[kind][i * PAGE] != (char)wanted(kind);
    fill(part[kind], 99);
    return wrong;
}

/* Each fork has written to one page more. */
static int check_first(void) {
    int wrong = 0;
    for (int i = 1; i < PAGES; i++) wrong += part[FIRST][i * PAGE] != (char)(i <= forks ? i : 0);
    fill(part[FIRST], 99);
    return wrong;
}

int main(int argc, char **argv) {
    size_t size = argc > 1 ? HUGE : PAGES * PAGE;
    char *all = map(NULL, KINDS * size + size);
    all = (char *)(((size_t)all + size - 1) & ~(size - 1));
    if (argc > 1 && madvise(all, KINDS * size, MADV_HUGEPAGE)) return 77;
    for (int kind = 0; kind < KINDS; kind++) {
        part[kind] = all + kind * size;
        if (kind != READ && kind != FIRST) fill(part[kind], 1);
    }
    if (argc > 1) *(part[FIRST] + HUGE - 1) = 0; /* as a huge page */
    part[HEAP] = malloc(PAGES * PAGE);
    of_file[2 * PAGE] = 7;
    if (pthread_atfork(drift, NULL, NULL)) return 3;
    if (fastspawn_checkpoint(NULL) < 0) return 3;
    printf("%d:", forks);
    for (int kind = 0; kind < KINDS; kind++)
        printf(" %d", kind == FIRST ? check_first() : check(kind));
    printf(" %d %d %d\n", of_file[0], of_file[PAGE] == (char)forks, of_file[2 * PAGE]);
    of_file[PAGE] = of_file[2 * PAGE] = 99;
    return 0;
}
