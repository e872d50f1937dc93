/* canvas.c: makes the coarser levels of a pyramid, and draws from it: see `curves/python_drawing.py`, which does the same in Python, and says what for. Plain C. */

#include "canvas.h"

#include <string.h>

static const char *item(const void *items, size_t at, size_t size) {
    return (const char *)items + at * size;
}

void lift_four_rows(const void *rows, size_t count, void *into) {
    for (size_t at = 0; at < count / 4; at++) {
        bucket_row parts[4], whole;
        memcpy(parts, item(rows, at, sizeof parts), sizeof parts);
        whole = parts[0];
        for (size_t each = 1; each < 4; each++) {
            whole.step_low = parts[each].step_low < whole.step_low ? parts[each].step_low : whole.step_low;
            whole.step_high = parts[each].step_high > whole.step_high ? parts[each].step_high : whole.step_high;
            whole.time_low = parts[each].time_low < whole.time_low ? parts[each].time_low : whole.time_low;
            whole.time_high = parts[each].time_high > whole.time_high ? parts[each].time_high : whole.time_high;
            whole.records += parts[each].records;
        }
        memcpy((char *)into + at * sizeof whole, &whole, sizeof whole);
    }
}

static void join(bucket_entry *into, const bucket_entry *next) {
    if (next->count) {
        into->low = next->low < into->low ? next->low : into->low;
        into->high = next->high > into->high ? next->high : into->high;
        into->total += next->total;
        into->last = next->last;
        into->count += next->count;
    }
    into->broken += next->broken;
}

size_t lift_row_entries(const void *entries, size_t count, bucket_entry *into) {
    size_t made = 0;
    for (size_t at = 0; at < count; at++) {
        bucket_entry next;
        memcpy(&next, item(entries, at, sizeof next), sizeof next);
        next.row /= 4;
        if (made && into[made - 1].row == next.row) {
            join(&into[made - 1], &next);
        } else {
            into[made++] = next;
        }
    }
    return made;
}

/* Converts a step or a time to its place on the axis. */
static double place_of(int64_t value, int kind, int64_t origin) {
    int64_t difference;
    double place = __builtin_sub_overflow(value, origin, &difference) ? (double)value - (double)origin : (double)difference;
    return kind == AXIS_TIME ? place / 1e9 : place;
}

static char *cell_at(const canvas *on, double x) {
    double width = (on->end - on->begin) / (double)on->count;
    double at = width > 0 ? (x - on->begin) / width : 0;
    size_t index = at > 0 ? at < (double)on->count ? (size_t)at : on->count - 1 : 0;
    return (char *)on->cells + index * sizeof(drawn_cell);
}

/* Draws what lies between two places, in the cell of their middle. */
static void draw(const canvas *on, const drawn_cell *of) {
    drawn_cell into;
    char *place = cell_at(on, of->x_low + (of->x_high - of->x_low) / 2);
    memcpy(&into, place, sizeof into);
    bool is_first = !into.count && !into.broken;
    into.x_low = is_first || of->x_low < into.x_low ? of->x_low : into.x_low;
    into.x_high = is_first || of->x_high > into.x_high ? of->x_high : into.x_high;
    if (of->count) {
        bool first_number = !into.count;
        into.low = first_number || of->low < into.low ? of->low : into.low;
        into.high = first_number || of->high > into.high ? of->high : into.high;
        into.last = first_number || of->last_x >= into.last_x ? of->last : into.last;
        into.last_x = first_number || of->last_x >= into.last_x ? of->last_x : into.last_x;
        into.total += of->total;
        into.count += of->count;
    }
    into.broken += of->broken;
    memcpy(place, &into, sizeof into);
}

static drawn_cell cell_of(double x_low, double x_high, const bucket_entry *of) {
    return (drawn_cell){x_low, x_high, of->low, of->high, of->total, of->last, x_high, of->count, of->broken};
}

void draw_row_entries(const canvas *on, const void *rows, size_t row_count, const void *entries, size_t count, int kind, int64_t origin) {
    for (size_t at = 0; at < count; at++) {
        bucket_entry of;
        bucket_row row;
        memcpy(&of, item(entries, at, sizeof of), sizeof of);
        if (of.row >= row_count) {
            continue;
        }
        memcpy(&row, item(rows, of.row, sizeof row), sizeof row);
        double x_low = place_of(kind == AXIS_TIME ? row.time_low : row.step_low, kind, origin);
        double x_high = place_of(kind == AXIS_TIME ? row.time_high : row.step_high, kind, origin);
        if (x_high >= on->begin && x_low <= on->end) {
            drawn_cell drawn = cell_of(x_low, x_high, &of);
            draw(on, &drawn);
        }
    }
}

void draw_entries_against(const canvas *on, const void *places, size_t place_count, const void *entries, size_t count) {
    size_t next = 0;
    for (size_t at = 0; at < count; at++) {
        bucket_entry of, place = {.row = 0};
        memcpy(&of, item(entries, at, sizeof of), sizeof of);
        for (; next < place_count; next++) {
            memcpy(&place, item(places, next, sizeof place), sizeof place);
            if (place.row >= of.row) {
                break;
            }
        }
        if (next < place_count && place.row == of.row && place.count && place.high >= on->begin && place.low <= on->end) {
            drawn_cell drawn = cell_of(place.low, place.high, &of);
            draw(on, &drawn);
        }
    }
}

void draw_single_points(const canvas *on, const void *points, size_t count) {
    for (size_t at = 0; at < count; at++) {
        double point[2];
        memcpy(point, item(points, at, sizeof point), sizeof point);
        drawn_cell of = {.x_low = point[0], .x_high = point[0], .last_x = point[0]};
        if (is_finite(point[1])) {
            of.low = of.high = of.total = of.last = point[1];
            of.count = 1;
        } else {
            of.broken = 1;
        }
        draw(on, &of);
    }
}

void draw_other_cells(const canvas *on, const void *cells, size_t count) {
    for (size_t at = 0; at < count; at++) {
        drawn_cell of;
        memcpy(&of, item(cells, at, sizeof of), sizeof of);
        if (of.count || of.broken) {
            draw(on, &of);
        }
    }
}
