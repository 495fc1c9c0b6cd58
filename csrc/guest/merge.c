/*
 * merge.c - fewer mappings to be copied with each fork.
 *
 * setlocale maps a file for each category, a dozen in all, most of them a page long and side by
 * side. A fork copies every mapping, and its end takes each down again: microseconds for each.
 * Their content in anonymous memory is one mapping.
 *
 * They have to stay where they are. Those that the kernel put into a hole among libraries (where
 * ld.so.cache was, for one, so that its size matters) lie alone, or a few together. And LC_CTYPE
 * is large: of a file a fork gets the pages that it reads, of memory an entry for every page.
 *
 * Of other files that would not do: a program may drop pages of a private mapping to read them
 * anew (madvise(2), MADV_DONTNEED). libc reads a locale, and unmaps it, and nothing else; and
 * when one of its files changes, the template is replaced.
 */
#include "internal.h"

#ifdef __linux__

#include <sys/uio.h>

#define MAX_RUNS 8
#define MAX_RUN  (256l * 1024)

struct runs {
    struct range at[MAX_RUNS];
    size_t n, files; /* of the last one */
};

/* By the file's name: LOCPATH and the LC_ALL of a path (setlocale(3)) may lead anywhere, and other
 * files are below folders that are called "locale". */
static bool is_locale(const char *rest) {
    const char *slash = strrchr(rest, '/');
    if (strncmp(rest, " r--p ", 6) != 0 || slash == NULL) return false;
    if (strcmp(slash, "/SYS_LC_MESSAGES") == 0) return true;
    return strncmp(slash, "/LC_", 4) == 0 &&
           strspn(slash + 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(slash + 4);
}

/* A single file gains nothing. */
static void end_run(struct runs *runs) {
    if (runs->files == 1) runs->n--;
    runs->files = 0;
}

static bool add_line(char *line, void *arg) {
    struct runs *runs = arg;
    struct range range;
    bool wanted = is_locale(maps_read_range(line, &range));
    struct range *last = runs->files ? &runs->at[runs->n - 1] : NULL;
    if (last && wanted && range.start == last->end && range.end - last->start <= MAX_RUN) {
        last->end = range.end;
        runs->files++;
        return true;
    }
    end_run(runs);
    if (!wanted || range.end - range.start > MAX_RUN) return true;
    if (runs->n == MAX_RUNS) return false;
    runs->at[runs->n++] = range;
    runs->files = 1;
    return true;
}

/* The copy is made by the kernel: a file that has been cut short gives an error and no SIGBUS. */
static void merge(const struct range *run) {
    size_t size = run->end - run->start;
    long copy = raw(mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy < 0 && copy > -4096) return;
    struct iovec to = {(void *)copy, size}, from = {(void *)run->start, size};
    long pid = raw(getpid, 0);
    if (raw(process_vm_readv, pid, &to, 1, &from, 1, 0) == (long)size &&
        raw(mprotect, copy, size, PROT_READ) == 0 &&
        raw(mremap, copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, run->start) > 0)
        return;
    raw(munmap, copy, size);
}

void merge_locale(void) {
    struct runs runs = {0};
    if (!maps_for_each(add_line, &runs)) return;
    end_run(&runs);
    for (size_t i = 0; i < runs.n; i++) merge(&runs.at[i]);
}

#endif
