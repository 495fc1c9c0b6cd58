/*
 * far.h - places that call out in another program (sites.h): what templates load, built for tests.
 *
 * The test and that program share memory, which the environment names: there the places are listed,
 * their calls counted, and one is refused.
 */
#ifndef FAR_H
#define FAR_H

#define FAR_VARIABLE "FSP_FAR" /* =ID: shmat(2) */
#define FAR_SITES    640

struct far_page {
    int armed; /* the number of a place; -1: none */
    int err;
    long first, count, seen;
    int nsites;
    struct {
        char file[40];
        int line;
        char call[24];
        long asked;
    } site[FAR_SITES];
};

#endif
