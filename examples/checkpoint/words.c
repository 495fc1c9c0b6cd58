/*
 * words.c - which of the words on standard input are not in a list?
 *
 *   cc -I "$(python -m fastspawn --include)" words.c -o words
 *   fastspawn serve --strategy snapshot --snapshot-at checkpoint -- ./words LIST
 *
 * The list is read and sorted once; each request only looks words up.  By itself, too, it works.
 */
#include <fastspawn/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char **words;
static size_t count;

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *next_word(FILE *file) {
    static char word[64];
    return fscanf(file, "%63s", word) == 1 ? word : NULL;
}

static int read_list(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return -1;
    for (char *word; (word = next_word(file));) {
        words = realloc(words, (count + 1) * sizeof *words);
        if (words == NULL || (words[count++] = strdup(word)) == NULL) return -1;
    }
    fclose(file);
    qsort(words, count, sizeof *words, compare);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || read_list(argv[1]) < 0) {
        perror(argc < 2 ? "words LIST" : argv[1]);
        return 2;
    }
    const char *files[] = {argv[1], NULL};
    fastspawn_checkpoint(files);

    for (char *word; (word = next_word(stdin));)
        if (bsearch(&word, words, count, sizeof *words, compare) == NULL) puts(word);
    return 0;
}
