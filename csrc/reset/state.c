/*
 * state.c - what is told of residents, and what is judged by it.
 */
#include "reset.h"

#ifdef __linux__

/* ---- what is judged ---- */

void fsp_reset_give_up(struct fsp_spawner *s, struct fsp_reset *reset, int error) {
    if (__atomic_exchange_n(&reset->off, true, __ATOMIC_RELAXED)) return;
    if (error) __atomic_store_n(&reset->state.error, -error, __ATOMIC_RELAXED);
    fsp_origin_call(&reset->origin); /* those that are idle on other spawners end, too */
    fsp_engine_tell(s->engine);
}

void fsp_reset_done(struct fsp_spawner *s, struct fsp_reset *reset, unsigned served) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    fsp_nest_add(&nest->resets, 1);
    if (nest->resets == 1) fsp_engine_tell(s->engine);
    if (served != FSP_EARLY) return;
    __atomic_store_n(&reset->proven, true, __ATOMIC_RELAXED);
    __atomic_store_n(&reset->early, 0, __ATOMIC_RELAXED);
}

void fsp_reset_left(struct fsp_spawner *s, struct fsp_reset *reset, unsigned served, int by) {
    fsp_reset_count(&reset->state.leaves);
    fsp_reset_count(&reset->left_by[by < 0 || by > FSP_CALLS ? FSP_CALLS : by]);
    __atomic_store_n(&reset->state.left_by, by, __ATOMIC_RELAXED);
    if (served >= FSP_EARLY) return;
    bool proven = __atomic_load_n(&reset->proven, __ATOMIC_RELAXED);
    unsigned early = __atomic_add_fetch(&reset->early, 1, __ATOMIC_RELAXED);
    if (early >= (proven ? FSP_LATER_LEAVES : FSP_EARLY_LEAVES)) fsp_reset_give_up(s, reset, 0);
}

/* ---- what is told ---- */

#define LOAD(member)  __atomic_load_n(&(member), __ATOMIC_RELAXED)
#define STATE(member) .member = LOAD(reset->state.member)

void fsp_reset_get_state(struct fsp_reset *reset, struct fsp_reset_state *out) {
    *out = (struct fsp_reset_state){
        STATE(leaves),           STATE(retired), STATE(made),  STATE(residents),
        .off = LOAD(reset->off), STATE(left_by), STATE(error),
    };
    for (unsigned i = 0; i < reset->nspawners; i++) {
        const struct fsp_nest *nest = &reset->at[i];
        out->resets += LOAD(nest->resets);
        out->calls += LOAD(nest->calls);
        out->pages += LOAD(nest->pages);
        out->restore_ns += LOAD(nest->restore_ns);
    }
}

uint64_t fsp_reset_left_by(struct fsp_reset *reset, unsigned call) {
    return call <= FSP_CALLS ? LOAD(reset->left_by[call]) : 0;
}

#else

void fsp_reset_get_state(struct fsp_reset *reset, struct fsp_reset_state *out) {
    (void)reset;
    *out = (struct fsp_reset_state){0};
}

uint64_t fsp_reset_left_by(struct fsp_reset *reset, unsigned call) {
    (void)reset, (void)call;
    return 0;
}

#endif
