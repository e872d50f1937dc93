/* sums.c: sums up the records that columns are fed with: see `curves/python_buckets.py`, which does the same in Python, and says what for. Plain C. */

#include "sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool grow(void **items, size_t *room, size_t count, size_t size) {
    if (count < *room) {
        return true;
    }
    size_t wanted = *room ? *room * 2 : 16;
    void *more = wanted > SIZE_MAX / size ? NULL : realloc(*items, wanted * size);
    if (more == NULL) {
        return false;
    }
    *items = more;
    *room = wanted;
    return true;
}

/* Closes the open row of the current lane. */
static bool seal(sums *self, lane *in) {
    if (!grow((void **)&self->rows, &self->row_room, self->row_count, sizeof *self->rows)) {
        return false;
    }
    for (size_t at = 0; at < in->count; at++) {
        if (!grow((void **)&self->entries, &self->entry_room, self->entry_count, sizeof *self->entries)) {
            return false;
        }
        self->entries[self->entry_count] = in->entries[at];
        self->entries[self->entry_count++].entry.row = in->rows;
    }
    self->rows[self->row_count++] = in->open;
    in->rows++;
    in->open.records = 0;
    in->count = 0;
    self->stamp++;
    return true;
}

/* Finds or makes the number of a column's metric; false without memory. It stays 0 where there are too many. */
static bool know(sums *self, column *of) {
    if (of->metric || self->metric_count == self->most) {
        return true;
    }
    if (!grow((void **)&self->metrics, &self->metric_room, self->metric_count, sizeof *self->metrics)) {
        return false;
    }
    self->metrics[self->metric_count] = (metric){.of = of};
    of->metric = (uint32_t)++self->metric_count;
    return true;
}

static void remember(metric *of, const cell *value, double number, pick found) {
    found.value = (figure){value->tag != TAG_FLOAT, (int64_t)value->bits, number};
    of->last = found;
    if (!of->count++) {
        of->first = found;
    }
    if (!is_finite(number)) {
        of->broken++;
        return;
    }
    bool is_first = of->count - of->broken == 1;
    if (is_first || is_less(found.value, of->low.value)) {
        of->low = found;
    }
    if (is_first || is_less(of->high.value, found.value)) {
        of->high = found;
    }
    double total = of->total + number; /* Neumaier's sum */
    of->lost += fabs(of->total) >= fabs(number) ? (of->total - total) + number : (number - total) + of->total;
    of->total = total;
}

static bool add(sums *self, lane *in, const cell *value, pick found) {
    double number;
    if (!number_in(value, &number)) {
        return true;
    }
    if (!value->column->metric) {
        if (!know(self, value->column)) {
            return false;
        }
        if (!value->column->metric) {
            return true;
        }
    }
    uint32_t index = value->column->metric - 1;
    metric *of = &self->metrics[index];
    if (of->stamp != self->stamp) {
        if (!grow((void **)&in->entries, &in->room, in->count, sizeof *in->entries)) {
            return false;
        }
        of->stamp = self->stamp;
        of->slot = (uint32_t)in->count;
        in->entries[in->count++] = (metric_entry){index, NO_NUMBERS};
    }
    bucket_entry *into = &in->entries[of->slot].entry;
    if (is_finite(number)) {
        into->low = number < into->low ? number : into->low;
        into->high = number > into->high ? number : into->high;
        into->total += number;
        into->last = number;
        into->count++;
    } else {
        into->broken++;
    }
    remember(of, value, number, found);
    return true;
}

static bool take_record(void *taker, columns *all, int64_t step, int64_t time_ns) {
    sums *self = taker;
    lane *in = &self->lanes[self->current];
    bucket_row *row = &in->open;
    pick found = {.step = step, .number = all->number, .lane = (uint32_t)self->current};
    bool has_numbers = false;
    for (size_t at = 0; at < all->cell_count; at++) {
        const cell *value = &all->cells[at];
        if (!add(self, in, value, found)) {
            return false;
        }
        has_numbers |= value->column->metric && (value->tag == TAG_FLOAT || value->tag == TAG_INT || value->tag == TAG_BOOL);
    }
    if (!has_numbers) {
        return true;
    }
    in->steps_in_order &= !in->begun || step >= in->last_step;
    in->times_in_order &= !in->begun || time_ns >= in->last_time;
    in->begun = true;
    in->last_step = step;
    in->last_time = time_ns;
    if (!row->records) {
        *row = (bucket_row){step, step, time_ns, time_ns, self->segment, self->offset, (uint32_t)all->begins, 0};
    } else {
        row->step_low = step < row->step_low ? step : row->step_low;
        row->step_high = step > row->step_high ? step : row->step_high;
        row->time_low = time_ns < row->time_low ? time_ns : row->time_low;
        row->time_high = time_ns > row->time_high ? time_ns : row->time_high;
    }
    return ++row->records < self->records || seal(self, in);
}

bool sums_begin(sums *self, size_t index, uint32_t segment, uint32_t offset) {
    if (index == self->lane_count) {
        if (!grow((void **)&self->lanes, &self->lane_room, self->lane_count, sizeof *self->lanes)) {
            return false;
        }
        self->lanes[self->lane_count++] = (lane){.steps_in_order = true, .times_in_order = true};
    }
    self->segment = segment;
    self->offset = offset;
    if (index != self->current || !self->stamp) {
        lane *in = &self->lanes[index];
        self->current = index;
        self->stamp++;
        for (size_t at = 0; at < in->count; at++) {
            metric *of = &self->metrics[in->entries[at].metric];
            of->stamp = self->stamp;
            of->slot = (uint32_t)at;
        }
    }
    self->of->take = take_record;
    self->of->taker = self;
    return true;
}

void sums_free(sums *self) {
    if (self->of != NULL && self->of->taker == self) {
        self->of->take = NULL;
    }
    for (size_t at = 0; at < self->lane_count; at++) {
        free(self->lanes[at].entries);
    }
    free(self->lanes);
    free(self->metrics);
    free(self->rows);
    free(self->entries);
}
