/*
 * hits.c - notes which blocks of an object's code are entered (-fsanitize-coverage=trace-pc).
 *
 * A byte for each address of its code, in a file that is mapped and shared: what forks enter, what
 * ends by _exit or SIGKILL, what puts its memory back to what it was, all count, and nothing has to
 * be written at an end.  A store is all that is done, so a signal handler and a child between clone
 * and exec may come here, too.
 *
 * The file is FSP_HITS, or if that ends with a slash, the program's name in that directory.  It is
 * there before, and in tmpfs, where such a store is no change of a file: templates begin anew when
 * one that they have mapped was changed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNCOUNTED __attribute__((no_sanitize_coverage))

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char etext[] __attribute__((visibility("hidden")));

static unsigned char *hits;

static UNCOUNTED void name_file(char name[2 * PATH_MAX]) {
    char program[PATH_MAX];
    strcpy(name, FSP_HITS);
    if (FSP_HITS[sizeof FSP_HITS - 2] != '/') return;
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n < 0 ? 0 : n] = '\0';
    const char *slash = strrchr(program, '/');
    if (slash) strcat(name, slash + 1);
}

static UNCOUNTED __attribute__((constructor(101))) void map_hits(void) {
    char name[2 * PATH_MAX];
    name_file(name);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    size_t size = (size_t)(etext - __ehdr_start);
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) hits = at;
    close(fd);
}

UNCOUNTED __attribute__((visibility("hidden"))) void __sanitizer_cov_trace_pc(void) {
    if (hits) hits[(const char *)__builtin_return_address(0) - __ehdr_start] = 1;
}
