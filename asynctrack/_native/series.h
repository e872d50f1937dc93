/* series.h: takes single numbers from records, each with its place on an axis. Plain C. */

#ifndef ASYNCTRACK_SERIES_H
#define ASYNCTRACK_SERIES_H

#include "buckets.h"

enum { BY_STEP, BY_TIME, BY_KEY };

typedef struct {
    double *pairs;
    size_t count, room;
} series;

typedef struct {
    columns *of; /* whose records they are */
    series *all; /* for each key */
    size_t keys;
    column *against; /* the axis, where it is a metric */
    int kind;
    int64_t origin;
    double begin, end;
} number_series;

/* Takes the records that come next. Each column that is a key has its index, plus 1, as `metric`. */
void series_begin(number_series *self);

/* Frees all, and takes no more. */
void series_free(number_series *self);

#endif
