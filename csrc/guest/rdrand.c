/*
 * rdrand.c - the processor's own random numbers, while a program runs to its first effect.
 *
 * RDRAND and RDSEED cannot be trapped, and what bytes are an instruction only running tells: so
 * pages that may hold one are made readable only. What enters such a page is let run in it one
 * instruction at a time (the trap flag), until it leaves, or is at one of the two: there the
 * process stops, and each fork draws its own. Few pages are of that kind: none of libc's, one or
 * two of libstdc++, libcrypto and libgcrypt each.
 */
#include "internal.h"

#if defined(__linux__) && defined(__x86_64__)

#include <sys/uio.h>

#define PAGE         4096
#define MAX_PAGES    256
#define MAX_PREFIXES 4 /* of the instruction, that assemblers give it: 66, REX */
#define TRAP_FLAG    0x100
#define FETCH        0x10 /* in the error code of a page fault: it was one of an instruction */

struct page {
    char *at;
    int prot; /* as the program has it */
};

static struct {
    struct page page[MAX_PAGES];
    size_t n;
    struct page *open; /* the one that is being gone through */
    bool stepping;     /* one instruction at a time */
} hidden;

/* ---- what is an instruction of the kind ---- */

static bool is_prefix(unsigned char c) {
    return c == 0x66 || c == 0xf2 || c == 0xf3 || (c & 0xf0) == 0x40;
}

/* 0f c7 /6 and /7, on a register (with f3 it is RDPID, which is as different for each). */
static bool is_drawing(const unsigned char *code) {
    for (int i = 0; i < MAX_PREFIXES && is_prefix(*code); i++) code++;
    return code[0] == 0x0f && code[1] == 0xc7 && code[2] >= 0xf0;
}

/* ---- hiding ---- */

static bool hide_page(char *at, int prot) {
    for (size_t i = 0; i < hidden.n; i++)
        if (hidden.page[i].at == at) return true;
    if (hidden.n == MAX_PAGES || raw(mprotect, at, PAGE, prot & ~PROT_EXEC) < 0) return false;
    hidden.page[hidden.n++] = (struct page){at, prot};
    return true;
}

/* With the page before, if the instruction's prefixes may be there. */
static bool hide_at(char *code, char *start, int prot) {
    char *page = (char *)((uintptr_t)code & -PAGE), *first = code - MAX_PREFIXES;
    if (first >= start && first < page && !hide_page(page - PAGE, prot)) return false;
    return hide_page(page, prot);
}

/* `text` is a copy of what is at `at`. */
static bool search(const unsigned char *text, size_t size, char *at, char *start, int prot) {
    const unsigned char *c = text, *end = text + size - 2;
    for (; size > 2 && (c = memchr(c, 0xc7, (size_t)(end + 1 - c))) != NULL && c < end + 1; c++)
        if (c > text && c[-1] == 0x0f && c[1] >= 0xf0 && !hide_at(at + (c - 1 - text), start, prot))
            return false;
    return true;
}

/* Read by the kernel: a mapping may be longer than its file. */
bool rdrand_hide(char *start, char *end, int prot) {
    unsigned char text[4 * PAGE + 2];
    for (char *at = start; at < end; at += sizeof text - 2) {
        size_t size = (size_t)(end - at);
        if (size > sizeof text) size = sizeof text;
        struct iovec to = {text, size}, from = {at, size};
        long n = raw(process_vm_readv, raw(getpid, 0), &to, 1, &from, 1, 0);
        if (n == -EFAULT) return true;
        if (n < 0 || !search(text, (size_t)n, at, start, prot)) return false;
        if ((size_t)n < size) return true;
    }
    return true;
}

static bool hide_mapped(char *line, void *all) {
    struct range range;
    const char *rest = maps_read_range(line, &range);
    if (rest[3] != 'x' || strstr(rest, "[v")) return true; /* [vdso] and [vsyscall] */
    if ((uintptr_t)&rdrand_show >= range.start && (uintptr_t)&rdrand_show < range.end) return true;
    int prot = PROT_EXEC | (rest[1] == 'r' ? PROT_READ : 0) | (rest[2] == 'w' ? PROT_WRITE : 0);
    return *(bool *)all = rdrand_hide((char *)range.start, (char *)range.end, prot);
}

bool rdrand_hide_mapped(void) {
    bool all = true;
    return maps_for_each(hide_mapped, &all) && all;
}

void rdrand_forget(char *start, char *end) {
    for (size_t i = hidden.n; i-- > 0;) {
        if (hidden.page[i].at + PAGE <= start || hidden.page[i].at >= end) continue;
        if (hidden.open == &hidden.page[i]) hidden.open = NULL;
        hidden.page[i] = hidden.page[--hidden.n];
        if (hidden.open == &hidden.page[hidden.n]) hidden.open = &hidden.page[i];
    }
}

void rdrand_uncover(void) {
    for (size_t i = 0; i < hidden.n; i++)
        raw(mprotect, hidden.page[i].at, PAGE, hidden.page[i].prot);
}

bool rdrand_cover(void) {
    for (struct page *p = hidden.page; p < hidden.page + hidden.n; p++)
        if (p != hidden.open && raw(mprotect, p->at, PAGE, p->prot & ~PROT_EXEC) < 0) return false;
    return true;
}

static void step(ucontext_t *context, bool on) {
    greg_t *flags = &context->uc_mcontext.gregs[REG_EFL];
    if (on)
        *flags |= TRAP_FLAG;
    else if (hidden.stepping)
        *flags &= ~TRAP_FLAG;
    hidden.stepping = on;
}

void rdrand_show(ucontext_t *context) {
    rdrand_uncover();
    hidden.n = 0;
    hidden.open = NULL;
    step(context, false);
}

/* ---- going through a page ---- */

static void close_page(void) {
    if (hidden.open) raw(mprotect, hidden.open->at, PAGE, hidden.open->prot & ~PROT_EXEC);
    hidden.open = NULL;
}

static bool enter_page(const char *fault, ucontext_t *context) {
    const void *code = (const void *)context->uc_mcontext.gregs[REG_RIP];
    for (size_t i = 0; i < hidden.n; i++) {
        if ((uintptr_t)(fault - hidden.page[i].at) >= PAGE) continue;
        close_page();
        if (is_drawing(code)) return false;
        hidden.open = &hidden.page[i];
        raw(mprotect, hidden.open->at, PAGE, hidden.open->prot);
        step(context, true);
        return true;
    }
    return false;
}

static bool go_on(ucontext_t *context) {
    const char *code = (const char *)context->uc_mcontext.gregs[REG_RIP];
    if (hidden.open && (uintptr_t)(code - hidden.open->at) < PAGE)
        return !is_drawing((const void *)code);
    close_page();
    step(context, false);
    return true;
}

static bool is_in_hidden(const char *at) {
    for (size_t i = 0; i < hidden.n; i++)
        if ((uintptr_t)(at - hidden.page[i].at) < PAGE) return true;
    return false;
}

bool rdrand_is_met(int sig, const siginfo_t *info, const ucontext_t *context) {
    const char *code = (const char *)context->uc_mcontext.gregs[REG_RIP];
    bool fetch = sig == SIGSEGV && context->uc_mcontext.gregs[REG_ERR] & FETCH;
    bool stepped = sig == SIGTRAP && info->si_code == TRAP_TRACE && hidden.stepping;
    return (fetch || stepped) && is_in_hidden(code) && is_drawing((const void *)code);
}

bool rdrand_is_passed(int sig, const siginfo_t *info, ucontext_t *context) {
    bool fetch = context->uc_mcontext.gregs[REG_ERR] & FETCH;
    if (sig == SIGSEGV && fetch) return enter_page(info->si_addr, context);
    return sig == SIGTRAP && info->si_code == TRAP_TRACE && hidden.stepping && go_on(context);
}

#endif
