/* canvas.h: makes the coarser levels of a pyramid, and draws from it. Plain C. The bytes may come from a cache that anybody has written, and lie anywhere. */

#ifndef ASYNCTRACK_CANVAS_H
#define ASYNCTRACK_CANVAS_H

#include "buckets.h"

enum { AXIS_STEP, AXIS_TIME };

/* What is drawn at one place. */
typedef struct {
    double x_low, x_high, low, high, total, last, last_x;
    uint64_t count, broken;
} drawn_cell;

_Static_assert(sizeof(drawn_cell) == 72, "curves/layout.py has this size");

/* The places, side by side. */
typedef struct {
    void *cells;
    size_t count;
    double begin, end;
} canvas;

/* Makes a row of each four. */
void lift_four_rows(const void *rows, size_t count, void *into);

/* Makes an entry of those of each four rows, and returns how many; there is room for as many as there are. */
size_t lift_row_entries(const void *entries, size_t count, bucket_entry *into);

/* Draw entries over the steps or the times of their rows; over those of another metric; pairs of place and number; other cells. */
void draw_row_entries(const canvas *on, const void *rows, size_t row_count, const void *entries, size_t count, int kind, int64_t origin);
void draw_entries_against(const canvas *on, const void *places, size_t place_count, const void *entries, size_t count);
void draw_single_points(const canvas *on, const void *points, size_t count);
void draw_other_cells(const canvas *on, const void *cells, size_t count);

#endif
