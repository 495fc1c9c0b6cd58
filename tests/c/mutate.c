/*
 * mutate.c - runs a fuzz target without libFuzzer: each file of its corpus, and then, for a while,
 * what comes of them when a few bytes are other ones.
 *
 *   fuzz_NAME [FILE...]    FSP_FUZZ_SEED=  FSP_FUZZ_MS=
 *
 * The same seed makes the same inputs.  The latest one is kept in NAME.input beside the program, so
 * that it is there when the target has stopped.
 */
#include "fuzz.h"
#include "tap.h"

#include <dirent.h>
#include <libgen.h>

#define MOST_FILES 256
#define MOST_BYTES 4096
#define WHILE_MS   300

struct input {
    size_t size;
    uint8_t data[MOST_BYTES];
};

static struct input corpus[MOST_FILES], *latest;
static size_t nfiles;
static uint64_t state;

/* ---- files ---- */

static void read_file(const char *path) {
    struct input *input = &corpus[nfiles];
    FILE *file = nfiles < MOST_FILES ? fopen(path, "re") : NULL;
    if (file == NULL) return;
    input->size = fread(input->data, 1, sizeof input->data, file);
    fclose(file);
    nfiles++;
}

static const char *name_of(const char *program) {
    static char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", program);
    return basename(copy) + strlen("fuzz_");
}

/* In the order of their names: a seed is to make the same of them elsewhere. */
static void read_corpus(const char *name) {
    char folder[PATH_MAX], path[2 * PATH_MAX];
    struct dirent **list;
    snprintf(folder, sizeof folder, "tests/c/corpus/%s", name);
    int n = scandir(folder, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (list[i]->d_name[0] != '.') read_file(path);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

static void keep_latest(const char *program) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.input", program);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    void *at = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof *latest) == 0)
        at = mmap(NULL, sizeof *latest, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    latest = at == MAP_FAILED ? &corpus[MOST_FILES - 1] : at;
}

/* In memory of just that size, so that ASan sees a read beyond. */
static void run_input(const struct input *input) {
    uint8_t *data = malloc(input->size + 1);
    if (input != latest) *latest = *input;
    memcpy(data, input->data, input->size);
    data = realloc(data, input->size ? input->size : 1);
    (void)LLVMFuzzerTestOneInput(data, input->size);
    free(data);
}

/* ---- other bytes ---- */

static uint64_t draw(uint64_t below) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 2685821657736338717u >> 33) % below;
}

static void remove_some(struct input *input) {
    size_t at = draw(input->size), n = 1 + draw(input->size - at);
    memmove(input->data + at, input->data + at + n, input->size - at - n);
    input->size -= n;
}

static void insert_some(struct input *input, const uint8_t *from, size_t n) {
    size_t at = draw(input->size + 1);
    if (n > MOST_BYTES - input->size) n = MOST_BYTES - input->size;
    memmove(input->data + at + n, input->data + at, input->size - at);
    memcpy(input->data + at, from, n);
    input->size += n;
}

static void change_once(struct input *input) {
    static const uint8_t edges[] = {0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff};
    const struct input *other = &corpus[draw(nfiles)];
    uint8_t drawn[8];
    switch (input->size ? draw(6) : 5) {
    case 0:
        input->data[draw(input->size)] ^= (uint8_t)(1u << draw(8));
        break;
    case 1:
        input->data[draw(input->size)] = edges[draw(sizeof edges)];
        break;
    case 2:
        input->data[draw(input->size)] = (uint8_t)draw(256);
        break;
    case 3:
        remove_some(input);
        break;
    case 4: {
        size_t from = other->size ? draw(other->size) : 0;
        insert_some(input, other->data + from, other->size ? 1 + draw(other->size - from) : 0);
        break;
    }
    default:
        for (size_t i = 0; i < sizeof drawn; i++) drawn[i] = (uint8_t)draw(256);
        insert_some(input, drawn, 1 + draw(sizeof drawn));
    }
}

/* ---- tests ---- */

static void each_file(void) {
    for (size_t i = 0; i < nfiles; i++) run_input(&corpus[i]);
    CHECK(nfiles > 0);
}

static void what_comes_of_them(void) {
    const char *ms = getenv("FSP_FUZZ_MS"), *seed = getenv("FSP_FUZZ_SEED");
    uint64_t first = seed ? strtoull(seed, NULL, 0) : sys_now();
    uint64_t end = sys_now() + (ms ? strtoull(ms, NULL, 10) : WHILE_MS) * 1000000u;
    long inputs = 0;
    state = first | 1;
    tap_note("FSP_FUZZ_SEED=%llu", (unsigned long long)first);
    fflush(NULL);
    for (; nfiles && sys_now() < end; inputs++) {
        *latest = corpus[draw(nfiles)];
        for (uint64_t n = 1 + draw(6); n; n--) change_once(latest);
        run_input(latest);
    }
    tap_note("%ld inputs", inputs);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    for (int i = 1; i < argc; i++) read_file(argv[i]);
    if (argc == 1) read_corpus(name_of(argv[0]));
    keep_latest(argv[0]);
    (void)LLVMFuzzerTestOneInput(NULL, 0); /* what it makes once for all */
    RUN(each_file);
    if (argc == 1) RUN(what_comes_of_them);
    return tap_end();
}
