/* sums.h: sums up records in rows and entries. Plain C. */

#ifndef ASYNCTRACK_SUMS_H
#define ASYNCTRACK_SUMS_H

#include "buckets.h"
#include "figures.h"

/* A number that is remembered: the first, last, least or greatest of its metric. */
typedef struct {
    figure value;
    int64_t step;
    uint64_t number;
    uint32_t lane;
} pick;

typedef struct {
    const column *of;
    uint64_t stamp; /* of the lane and row in which `slot` is its place */
    uint32_t slot;
    uint32_t sealed; /* entries that wait to be taken */
    uint64_t count, broken;
    double total, lost;
    pick first, last, low, high;
} metric;

typedef struct {
    uint32_t metric;
    bucket_entry entry;
} metric_entry;

/* The records of one ring in one session. */
typedef struct {
    uint32_t rows; /* that are sealed */
    bool steps_in_order, times_in_order, begun;
    int64_t last_step, last_time;
    bucket_row open;
    metric_entry *entries; /* of the open row */
    size_t count, room;
} lane;

typedef struct {
    columns *of; /* whose records they are */
    uint32_t most, records; /* metrics, and records of a row */
    metric *metrics;
    size_t metric_count, metric_room;
    lane *lanes;
    size_t lane_count, lane_room;
    size_t current;
    uint64_t stamp;
    uint32_t segment, offset;
    bucket_row *rows; /* sealed, of the current lane */
    size_t row_count, row_room;
    metric_entry *entries;
    size_t entry_count, entry_room;
} sums;

/* Takes the records that come next for those of a lane, an old or the next new one, in a batch of the journal; false without memory. */
bool sums_begin(sums *self, size_t lane, uint32_t segment, uint32_t offset);

/* Frees all, and takes no more. */
void sums_free(sums *self);

#endif
