/* figures.h: compares the numbers of a column exactly, integers with floats too. Plain C. */

#ifndef ASYNCTRACK_FIGURES_H
#define ASYNCTRACK_FIGURES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "columns.h"

/* A number as it was logged, truths too: comparing goes by its value, as in Python. */
typedef struct {
    bool whole;
    int64_t i;
    double f;
} figure;

static inline figure figure_at(const column *of, size_t at) {
    figure found = {tag_of(of, at) != TAG_FLOAT, 0, 0.0};
    if (found.whole) {
        found.i = (int64_t)of->values[at];
    } else {
        memcpy(&found.f, &of->values[at], 8);
    }
    return found;
}

/* Compares an integer with a float exactly, which may be beyond all integers, and is no NaN. */
static inline int compare_mixed(int64_t whole, double with) {
    if (with >= 0x1p63) {
        return -1;
    }
    if (with < -0x1p63) {
        return 1;
    }
    int64_t floor = (int64_t)with; /* towards zero */
    if (whole != floor) {
        return whole < floor ? -1 : 1;
    }
    double rest = with - (double)floor;
    return rest > 0 ? -1 : rest < 0;
}

static inline bool is_less(figure one, figure other) {
    if (one.whole && other.whole) {
        return one.i < other.i;
    }
    if (!one.whole && !other.whole) {
        return one.f < other.f;
    }
    double with = one.whole ? other.f : one.f;
    return with == with && (one.whole ? compare_mixed(one.i, with) < 0 : compare_mixed(other.i, with) > 0);
}

#endif
