/*
 * bind.c - what lazy binding would do in every fork, done once in the template.
 *
 * A call through the procedure linkage table is looked up when it is first made, and in a fork
 * each is the first: the search runs through the symbol tables of all libraries, and most of its
 * page faults are the fork's own. LD_BIND_NOW would do it at the start, but for whatever is
 * loaded later, too, where it may fail what would never have been called. So the same searches
 * are made here, and the same slots written (ELF gABI chapter 5, "Procedure Linkage Table").
 *
 * Only where the answer is sure to be the dynamic linker's own: for objects that were there from
 * the start, whose scope is the global one, and for names with a version of which there is one
 * definition. Others stay lazy, as does what cannot be found. musl binds at once, and has no
 * dlvsym.
 */
#include "internal.h"

#ifdef __linux__
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>

#if defined(__x86_64__)
#define JUMP_SLOT R_X86_64_JUMP_SLOT
#elif defined(__aarch64__)
#define JUMP_SLOT R_AARCH64_JUMP_SLOT
#else
#define JUMP_SLOT (-1u)
#endif

extern void *dlvsym(void *, const char *, const char *) __attribute__((weak));

struct object {
    ElfW(Addr) base;
    const ElfW(Rela) * slots;
    const ElfW(Sym) * symbols;
    const char *strings;
    const ElfW(Versym) * versions; /* of each symbol */
    const ElfW(Verneed) * needs;
    size_t nslots;
    bool sure;
};

/* glibc has made addresses of most entries, but not of the vDSO's. */
static const void *address(const struct object *o, ElfW(Addr) value) {
    return (const void *)(value < o->base ? o->base + value : value);
}

static void read_entry(struct object *o, const ElfW(Dyn) * entry) {
    ElfW(Addr) value = entry->d_un.d_ptr;
    switch (entry->d_tag) {
    case DT_JMPREL:
        o->slots = address(o, value);
        break;
    case DT_PLTRELSZ:
        o->nslots = entry->d_un.d_val / sizeof *o->slots;
        break;
    case DT_PLTREL:
        o->sure &= value == DT_RELA;
        break;
    case DT_SYMTAB:
        o->symbols = address(o, value);
        break;
    case DT_STRTAB:
        o->strings = address(o, value);
        break;
    case DT_VERSYM:
        o->versions = address(o, value);
        break;
    case DT_VERNEED:
        o->needs = address(o, value);
        break;
    case DT_BIND_NOW:
    case DT_SYMBOLIC:
        o->sure = false;
        break;
    case DT_FLAGS:
        o->sure &= !(value & (DF_BIND_NOW | DF_SYMBOLIC));
        break;
    case DT_FLAGS_1:
        o->sure &= !(value & DF_1_NOW);
        break;
    }
}

/* The name of a version that the object needs of some library; NULL: it needs none. */
static const char *version_name(const struct object *o, unsigned index) {
    for (const ElfW(Verneed) *need = o->needs; need;) {
        const ElfW(Vernaux) *aux = (const void *)((const char *)need + need->vn_aux);
        for (unsigned i = 0; i < need->vn_cnt; i++) {
            if (aux->vna_other == index) return o->strings + aux->vna_name;
            aux = (const void *)((const char *)aux + aux->vna_next);
        }
        need = need->vn_next ? (const void *)((const char *)need + need->vn_next) : NULL;
    }
    return NULL;
}

/*
 * What is found in the program itself may be no function but the program's own stub for one: that
 * is the function's address for everyone when a program at a fixed address takes it.  The linker
 * knows one from the other; here both stay lazy.
 */
static struct range program;

static bool is_in_program(const void *found) {
    return (uintptr_t)found >= program.start && (uintptr_t)found < program.end;
}

static void find_program(const struct dl_phdr_info *info) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD) continue;
        uintptr_t start = info->dlpi_addr + part->p_vaddr, end = start + part->p_memsz;
        if (program.end == 0 || start < program.start) program.start = start;
        if (end > program.end) program.end = end;
    }
}

static void bind_slot(const struct object *o, const ElfW(Rela) * slot) {
    size_t index = ELF64_R_SYM(slot->r_info);
    const ElfW(Sym) *symbol = &o->symbols[index];
    if (ELF64_R_TYPE(slot->r_info) != JUMP_SLOT || slot->r_addend) return;
    if (ELF64_ST_VISIBILITY(symbol->st_other) != STV_DEFAULT) return;
    const char *version = version_name(o, o->versions[index] & 0x7fff);
    if (version == NULL) return;
    const char *name = o->strings + symbol->st_name;
    void *found = dlvsym(RTLD_DEFAULT, name, version);
    void **at = (void **)(o->base + slot->r_offset);
    if (found == NULL || is_in_program(found)) return;
    /* dlvsym passes over a function without a version that comes first, the linker does not. */
    if (*at != found && found == dlsym(RTLD_DEFAULT, name)) *at = found;
}

static int bind_object(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    if (program.end == 0) find_program(info); /* it comes first */
    struct object o = {.base = info->dlpi_addr, .sure = true};
    const ElfW(Dyn) *entry = NULL;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const void *)(o.base + info->dlpi_phdr[i].p_vaddr);
    for (; entry && entry->d_tag != DT_NULL; entry++) read_entry(&o, entry);
    if (!o.sure || !o.slots || !o.symbols || !o.strings || !o.versions || !o.needs) return 0;
    for (size_t i = 0; i < o.nslots; i++) bind_slot(&o, &o.slots[i]);
    return 0;
}

void bind_all(void) {
    if (&dlvsym == NULL || getenv("LD_AUDIT") || getenv("LD_PROFILE")) return;
    dl_iterate_phdr(bind_object, NULL);
    dlerror(); /* of what was not found */
}

#endif
