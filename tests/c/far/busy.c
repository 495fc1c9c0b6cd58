/*
 * busy.c - a program whose template, forks and residents have much to do (test_guest_sweep.c):
 * what it does is named by its first argument, which it has before main.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static char large[64 * PAGE];
static char *mapped, *heap;
static int kept = -1;

/* What it comes to its main with. */
static __attribute__((constructor)) void begin(int argc, char **argv) {
    (void)argv;
    if (argc < 2) _exit(9);
    memset(large, 1, sizeof large);
    heap = sbrk(16 * PAGE);
    memset(heap, 2, 16 * PAGE);
    mapped = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(mapped, 3, 16 * PAGE);
    kept = open("/dev/null", O_RDWR);
}

static int change_much(void) {
    struct rlimit limit;
    sbrk(-4 * PAGE);
    char *more = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(more, 4, 8 * PAGE);
    munmap(mapped + 4 * PAGE, PAGE);
    mprotect(mapped + 8 * PAGE, PAGE, PROT_READ);
    madvise(mapped + 10 * PAGE, PAGE, MADV_DONTNEED);
    memset(large, 5, sizeof large / 2);
    getrlimit(RLIMIT_NOFILE, &limit);
    close(kept);
    close_range(20, 30, 0);
    puts("much");
    return 3;
}

static int grow(void) {
    char *end = sbrk(8 * PAGE);
    memset(end, 6, 8 * PAGE);
    puts("more");
    return 0;
}

static int look(const char *path) {
    char text[64] = "", place[1000];
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || getcwd(place, sizeof place) == NULL || stat(path, &st) < 0) return 1;
    if (readlink(path, place, sizeof place) > 0 || read(fd, text, 2) != 2) return 1;
    dprintf(1, "%.2s", text);
    ssize_t n = read(fd, text, sizeof text);
    return n > 0 && write(1, text, (size_t)n) == n ? 0 : 1;
}

int main(int argc, char **argv) {
    if (strcmp(argv[1], "much") == 0) return change_much();
    if (strcmp(argv[1], "more") == 0) return grow();
    if (strcmp(argv[1], "look") == 0 && argc > 2) return look(argv[2]);
    puts("x");
    return 0;
}
