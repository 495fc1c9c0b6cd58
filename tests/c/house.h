/*
 * house.h - an engine with a template and its residents, for tests.
 *
 * The template is a shell, stopped before its main, so that each job brings its own script.
 */
#ifndef HOUSE_H
#define HOUSE_H

#include "listen.h"

#ifdef __linux__

#define SECOND 1000000000ull

struct house {
    struct fsp_engine *e;
    struct fsp_template *t;
    struct fsp_reset *r;
};

/* What templates load, as the Makefile made it: `house_object`. */
extern const char *house_object;
const char *library(void);

struct house open_house(unsigned spawners); /* its template is ready */
/* It has an engine.  0 or -errno, and nothing more; the template may not be ready yet. */
int furnish_house(struct house *h);
/* No child is left, and none of the descriptors that there were for them. */
void close_house(struct house *h);

struct fsp_reset_state state_of(const struct house *h);
struct fsp_template_state template_of(const struct house *h);
struct fsp_job_options options_for(const struct house *h);

/* Children of this process, of whatever thread. */
size_t children(pid_t *pid, size_t max);

void answers(const struct heard *one, const char *out, int code);
/* A script by itself; its pid. */
pid_t run(const struct house *h, const char *script, struct fsp_job_options options,
          const char *out, int code);
/* Until a resident has done one; its pid. */
pid_t first_resident(const struct house *h);

#endif
#endif
