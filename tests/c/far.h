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

#define FAR_CHECKED 1u /* each resident is compared with what it was (compare.c), */
#define FAR_PLAIN   2u /* each puts back all of its pages */

struct far_page {
    unsigned wanted;
    int armed; /* the number of a place; -1: none */
    int err;
    long first, count, seen;
    int nsites;
    struct {
        char file[40];
        int line, entry; /* of the object's list; -1: several of them */
        char call[24];
        long asked;
    } site[FAR_SITES];
};

#endif
