/*
 * heap.c - what is due next: a binary heap of jobs, each knowing its place.
 *
 * Pure code apart from its growth, which is asked for before a job starts so that a running job
 * never fails to be timed.
 */
#include "engine.h"

int fsp_heap_reserve(struct fsp_heap *heap) {
    if (heap->n < heap->cap) return 0;
    size_t cap = heap->cap ? heap->cap * 2 : 64;
    struct fsp_job **jobs = sys_realloc(heap->jobs, cap * sizeof(struct fsp_job *));
    if (jobs == NULL) return -ENOMEM;
    heap->jobs = jobs;
    heap->cap = cap;
    return 0;
}

static void put(struct fsp_heap *heap, size_t i, struct fsp_job *job) {
    heap->jobs[i] = job;
    job->heap_index = i;
}

static void sift_up(struct fsp_heap *heap, size_t i) {
    struct fsp_job *job = heap->jobs[i];
    while (i > 0 && heap->jobs[(i - 1) / 2]->next_due > job->next_due) {
        put(heap, i, heap->jobs[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(heap, i, job);
}

static void sift_down(struct fsp_heap *heap, size_t i) {
    struct fsp_job *job = heap->jobs[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap->n) break;
        if (child + 1 < heap->n && heap->jobs[child + 1]->next_due < heap->jobs[child]->next_due)
            child++;
        if (heap->jobs[child]->next_due >= job->next_due) break;
        put(heap, i, heap->jobs[child]);
        i = child;
    }
    put(heap, i, job);
}

void fsp_heap_moved(struct fsp_heap *heap, struct fsp_job *job) {
    sift_up(heap, job->heap_index);
    sift_down(heap, job->heap_index);
}

void fsp_heap_add(struct fsp_heap *heap, struct fsp_job *job) {
    put(heap, heap->n++, job);
    sift_up(heap, job->heap_index);
}

void fsp_heap_remove(struct fsp_heap *heap, struct fsp_job *job) {
    size_t i = job->heap_index;
    struct fsp_job *last = heap->jobs[--heap->n];
    if (last == job) return;
    put(heap, i, last);
    fsp_heap_moved(heap, last);
}
