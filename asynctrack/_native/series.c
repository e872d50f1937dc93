/* series.c: takes single numbers from the records that columns are fed with: see `curves/python_buckets.py`, which does the same in Python. Plain C. */

#include "series.h"

#include <stdlib.h>

static bool add(series *to, double x, double y) {
    if (to->count == to->room) {
        size_t room = to->room ? to->room * 2 : 256;
        double *more = realloc(to->pairs, room * 2 * sizeof *more);
        if (more == NULL) {
            return false;
        }
        to->pairs = more;
        to->room = room;
    }
    to->pairs[2 * to->count] = x;
    to->pairs[2 * to->count++ + 1] = y;
    return true;
}

static bool place_in(const number_series *self, const columns *all, int64_t step, int64_t time_ns, double *x) {
    if (self->kind == BY_KEY) {
        bool found = false;
        for (size_t at = 0; at < all->cell_count; at++) {
            double number;
            if (all->cells[at].column == self->against && number_in(&all->cells[at], &number) && is_finite(number)) {
                *x = number;
                found = true;
            }
        }
        return found;
    }
    int64_t value = self->kind == BY_TIME ? time_ns : step, difference;
    *x = __builtin_sub_overflow(value, self->origin, &difference) ? (double)value - (double)self->origin : (double)difference;
    if (self->kind == BY_TIME) {
        *x /= 1e9;
    }
    return true;
}

static bool take_record(void *taker, columns *all, int64_t step, int64_t time_ns) {
    number_series *self = taker;
    double x, y;
    if (!place_in(self, all, step, time_ns, &x) || !(x >= self->begin && x <= self->end)) {
        return true;
    }
    for (size_t at = 0; at < all->cell_count; at++) {
        const cell *value = &all->cells[at];
        if (value->column->metric && number_in(value, &y) && !add(&self->all[value->column->metric - 1], x, y)) {
            return false;
        }
    }
    return true;
}

void series_begin(number_series *self) {
    self->of->take = take_record;
    self->of->taker = self;
}

void series_free(number_series *self) {
    if (self->of != NULL && self->of->taker == self) {
        self->of->take = NULL;
    }
    for (size_t at = 0; self->all != NULL && at < self->keys; at++) {
        free(self->all[at].pairs);
    }
    free(self->all);
}
