/*
 * fresh.c - what exec draws for each process, drawn for each fork.
 *
 * Programs seed themselves from it: from the 16 bytes of AT_RANDOM (getauxval(3)), and from where
 * their heap and stack are. A fork has those of its template, so at main it gets new bytes, a heap
 * that begins further up (unless malloc was used: it does not move what it has), and a stack that
 * begins further down. Libraries and the program stay where they are; moving what mmap will give
 * would cost address space (RLIMIT_AS) and page tables.
 *
 * Before its first effect a program may read the bytes already. There the auxiliary vector names
 * a page that cannot be read: reading it is then where the process stops, and each fork reads its
 * own.
 */
#include "internal.h"

#ifdef __linux__

#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

#define PAGE        4096
#define RANDOM_SIZE 16 /* of AT_RANDOM */
#define HEAP_RANGE  (4u << 20)
#define STACK_RANGE (16u << 10)
#define ALIGN       16u /* as malloc and the stack are */

static struct {
    unsigned char *random; /* the kernel's */
    unsigned char *hidden; /* or the page instead */
    bool heap_unused;
} fresh;

/* Lua 5.2 and newer seeds tables and math.random by the time in seconds and where its state is. */
extern void lua_callk(void) __attribute__((weak));

bool fresh_is_seeded_by_address(void) {
    return &lua_callk != NULL;
}

static bool is_no_heap(char *line, void *unused) {
    return *(bool *)unused = strstr(line, "[heap]") == NULL;
}

void fresh_find(void) {
    fresh.random = (unsigned char *)getauxval(AT_RANDOM);
    bool unused = true;
    fresh.heap_unused = maps_for_each(is_no_heap, &unused) && unused;
}

/* ---- before the first effect ---- */

bool fresh_hide(void *auxv) {
    long page = raw(mmap, NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page < 0 && page > -4096) return false;
    for (ElfW(auxv_t) *entry = auxv; entry->a_type != AT_NULL; entry++)
        if (entry->a_type == AT_RANDOM) entry->a_un.a_val = (uintptr_t)page;
    fresh.hidden = (unsigned char *)page;
    return true;
}

bool fresh_is_hidden(const void *at) {
    return fresh.hidden && (uintptr_t)at - (uintptr_t)fresh.hidden < PAGE;
}

bool fresh_show(void) {
    return raw(mprotect, fresh.hidden, PAGE, PROT_READ | PROT_WRITE) == 0;
}

/* ---- in a fork ---- */

struct drawn {
    unsigned char random[RANDOM_SIZE];
    uint32_t heap, stack;
};

static bool draw(struct drawn *drawn, size_t size) {
    if (fresh.random == NULL || raw(getrandom, drawn, size, 0) != (long)size) return false;
    memcpy(fresh.random, drawn->random, RANDOM_SIZE);
    if (fresh.hidden) memcpy(fresh.hidden, drawn->random, RANDOM_SIZE);
    return true;
}

void fresh_renew_random(void) {
    struct drawn drawn;
    (void)draw(&drawn, RANDOM_SIZE);
}

size_t fresh_renew(void) {
    struct drawn drawn;
    if (!draw(&drawn, sizeof drawn)) return 0;
    if (fresh.heap_unused) (void)sbrk(drawn.heap % HEAP_RANGE & ~(ALIGN - 1));
    return drawn.stack % STACK_RANGE & ~(ALIGN - 1);
}

#endif
