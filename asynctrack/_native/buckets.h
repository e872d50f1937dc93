/* What the pyramid of a run's curves consists of: `curves/layout.py` says what the fields mean, and has their sizes too. */
#ifndef ASYNCTRACK_BUCKETS_H
#define ASYNCTRACK_BUCKETS_H

#include "columns.h"

#include <math.h>
#include <string.h>

/* Consecutive records of one lane, and where the first of them stands in the journal. */
typedef struct {
    int64_t step_low, step_high, time_low, time_high;
    uint32_t segment, offset, inner, records;
} bucket_row;

/* The numbers of one metric in a row. */
typedef struct {
    double low, high, total, last;
    uint32_t count, broken, row, unused;
} bucket_entry;

_Static_assert(sizeof(bucket_row) == 48 && sizeof(bucket_entry) == 48, "curves/layout.py has these sizes");

#define NO_NUMBERS {.low = (double)INFINITY, .high = -(double)INFINITY, .last = (double)NAN}

/* Finds the number that a value is, truths too; false where it is none. */
static inline bool number_in(const cell *of, double *number)
{
    if (of->tag == TAG_FLOAT) {
        memcpy(number, &of->bits, 8);
        return true;
    }
    *number = (double)(int64_t)of->bits;
    return of->tag == TAG_INT || of->tag == TAG_BOOL;
}

static inline bool is_finite(double number) { return number - number == 0; }

#endif
