/*
 * side.h - what far_guest.c and far_worker.c share: the page of far.h, seen from the other side.
 */
#ifndef SIDE_H
#define SIDE_H

#include "../far.h"

#include <stdbool.h>
#include <string.h>
#include <sys/shm.h>

static struct far_page *page;

extern struct site *const first_entry[] __asm__("__start_fsp_sites");
extern struct site *const last_entry[] __asm__("__stop_fsp_sites");

static bool is_same(int n, const struct site *site) {
    return page->site[n].line == site->line && strcmp(page->site[n].file, site->file) == 0;
}

/* Another process may have listed it.  A line may have several; a place in a header is one, in
 * however many files it is. */
static int number_of(const struct site *site, int entry) {
    size_t len = strlen(site->file);
    int n = 0;
    if (len && site->file[len - 1] == 'h') entry = -1;
    while (n < page->nsites && (page->site[n].entry != entry || !is_same(n, site))) n++;
    if (n == FAR_SITES || n < page->nsites) return n == FAR_SITES ? -1 : n;
    strncpy(page->site[n].file, site->file, sizeof page->site[n].file - 1);
    page->site[n].line = site->line;
    page->site[n].entry = entry;
    page->nsites++;
    return n;
}

/* Those whose path begins so. */
static void find_page(const char *path) {
    const char *id = getenv(FAR_VARIABLE);
    void *at = id ? shmat(atoi(id), NULL, 0) : (void *)-1;
    page = at == (void *)-1 ? NULL : at;
    for (struct site *const *entry = first_entry; entry < last_entry; entry++)
        (*entry)->number = page && strncmp((*entry)->file, path, strlen(path)) == 0
                               ? number_of(*entry, (int)(entry - first_entry))
                               : -1;
}

static inline FSP_UNINSTRUMENTED int fault_at(const struct site *site, const char *call) {
    if (page == NULL || site->number < 0) return 0;
    char *name = page->site[site->number].call;
    if (__atomic_fetch_add(&page->site[site->number].asked, 1, __ATOMIC_RELAXED) == 0)
        for (size_t i = 0; call[i] && i < sizeof page->site->call - 1; i++) name[i] = call[i];
    if (__atomic_load_n(&page->armed, __ATOMIC_RELAXED) != site->number) return 0;
    long i = __atomic_fetch_add(&page->seen, 1, __ATOMIC_RELAXED);
    return i >= page->first && i - page->first < page->count ? page->err : 0;
}

#endif
