/* pyramid.c: makes the coarser levels of a pyramid, and draws from it: see `curves/levels.py` and `curves/cells.py`, which do the same in Python, and say what for.

   The bytes may come from a cache that anybody has written. */

#include "native.h"

#include <stdlib.h>
#include <string.h>

#include "buckets.h"

enum { BY_STEP, BY_TIME };

/* What is drawn at one place. */
typedef struct {
    double x_low, x_high, low, high, total, last, last_x;
    uint64_t count, broken;
} cell_of_curve;

_Static_assert(sizeof(cell_of_curve) == 72, "curves/cells.py has this size");

/* The places, side by side. */
typedef struct {
    cell_of_curve *cells;
    size_t count;
    double begin, end, width;
} canvas;

static PyObject *lift_rows(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer given;
    if (!PyArg_ParseTuple(arguments, "y*:lift_rows", &given)) {
        return NULL;
    }
    size_t groups = (size_t)given.len / sizeof(bucket_row) / 4;
    PyObject *found = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(groups * sizeof(bucket_row)));
    for (size_t at = 0; found != NULL && at < groups; at++) {
        bucket_row parts[4], whole;
        memcpy(parts, (const char *)given.buf + at * sizeof parts, sizeof parts);
        whole = parts[0];
        for (size_t each = 1; each < 4; each++) {
            whole.step_low = parts[each].step_low < whole.step_low ? parts[each].step_low : whole.step_low;
            whole.step_high = parts[each].step_high > whole.step_high ? parts[each].step_high : whole.step_high;
            whole.time_low = parts[each].time_low < whole.time_low ? parts[each].time_low : whole.time_low;
            whole.time_high = parts[each].time_high > whole.time_high ? parts[each].time_high : whole.time_high;
            whole.records += parts[each].records;
        }
        memcpy(PyBytes_AS_STRING(found) + at * sizeof whole, &whole, sizeof whole);
    }
    PyBuffer_Release(&given);
    return found;
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

static PyObject *lift_entries(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer given;
    if (!PyArg_ParseTuple(arguments, "y*:lift_entries", &given)) {
        return NULL;
    }
    size_t count = (size_t)given.len / sizeof(bucket_entry), made = 0;
    bucket_entry *all = malloc(count ? count * sizeof *all : 1);
    for (size_t at = 0; all != NULL && at < count; at++) {
        bucket_entry next;
        memcpy(&next, (const char *)given.buf + at * sizeof next, sizeof next);
        next.row /= 4;
        if (made && all[made - 1].row == next.row) {
            join(&all[made - 1], &next);
        } else {
            all[made++] = next;
        }
    }
    PyBuffer_Release(&given);
    PyObject *found = all == NULL ? PyErr_NoMemory() : PyBytes_FromStringAndSize((const char *)all, (Py_ssize_t)(made * sizeof *all));
    free(all);
    return found;
}

/* Converts a step or a time to its place on the axis. */
static double place_of(int64_t value, int kind, int64_t origin) {
    int64_t difference;
    double place = __builtin_sub_overflow(value, origin, &difference) ? (double)value - (double)origin : (double)difference;
    return kind == BY_TIME ? place / 1e9 : place;
}

static cell_of_curve *cell_at(const canvas *on, double x) {
    double at = on->width > 0 ? (x - on->begin) / on->width : 0;
    size_t index = at > 0 ? at < (double)on->count ? (size_t)at : on->count - 1 : 0;
    return &on->cells[index];
}

/* Draws what lies between two places, in the cell of their middle. */
static void draw(const canvas *on, double x_low, double x_high, const bucket_entry *of) {
    cell_of_curve *into = cell_at(on, x_low + (x_high - x_low) / 2);
    bool is_first = !into->count && !into->broken;
    into->x_low = is_first || x_low < into->x_low ? x_low : into->x_low;
    into->x_high = is_first || x_high > into->x_high ? x_high : into->x_high;
    if (of->count) {
        bool first_number = !into->count;
        into->low = first_number || of->low < into->low ? of->low : into->low;
        into->high = first_number || of->high > into->high ? of->high : into->high;
        into->last = first_number || x_high >= into->last_x ? of->last : into->last;
        into->last_x = first_number || x_high >= into->last_x ? x_high : into->last_x;
        into->total += of->total;
        into->count += of->count;
    }
    into->broken += of->broken;
}

static bool has_canvas(canvas *on, const Py_buffer *cells) {
    on->cells = cells->buf;
    on->count = (size_t)cells->len / sizeof *on->cells;
    on->width = on->count ? (on->end - on->begin) / (double)on->count : 0;
    if (cells->len % (Py_ssize_t)sizeof *on->cells || !on->count) {
        PyErr_SetString(PyExc_ValueError, "expected room for one cell at least");
        return false;
    }
    return true;
}

static PyObject *draw_entries(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer cells, rows, entries;
    canvas on;
    int kind;
    long long origin;
    if (!PyArg_ParseTuple(arguments, "w*ddy*y*iL:draw_entries", &cells, &on.begin, &on.end, &rows, &entries, &kind, &origin)) {
        return NULL;
    }
    bool done = has_canvas(&on, &cells);
    size_t row_count = (size_t)rows.len / sizeof(bucket_row), count = (size_t)entries.len / sizeof(bucket_entry);
    for (size_t at = 0; done && at < count; at++) {
        bucket_entry of;
        bucket_row row;
        memcpy(&of, (const char *)entries.buf + at * sizeof of, sizeof of);
        if (of.row >= row_count) {
            continue;
        }
        memcpy(&row, (const char *)rows.buf + of.row * sizeof row, sizeof row);
        double x_low = place_of(kind == BY_TIME ? row.time_low : row.step_low, kind, origin);
        double x_high = place_of(kind == BY_TIME ? row.time_high : row.step_high, kind, origin);
        if (x_high >= on.begin && x_low <= on.end) {
            draw(&on, x_low, x_high, &of);
        }
    }
    PyBuffer_Release(&cells);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&entries);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *draw_against(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer cells, places, entries;
    canvas on;
    if (!PyArg_ParseTuple(arguments, "w*ddy*y*:draw_against", &cells, &on.begin, &on.end, &places, &entries)) {
        return NULL;
    }
    bool done = has_canvas(&on, &cells);
    size_t place_count = (size_t)places.len / sizeof(bucket_entry), count = (size_t)entries.len / sizeof(bucket_entry), next = 0;
    for (size_t at = 0; done && at < count; at++) {
        bucket_entry of, place = {.row = 0};
        memcpy(&of, (const char *)entries.buf + at * sizeof of, sizeof of);
        for (; next < place_count; next++) {
            memcpy(&place, (const char *)places.buf + next * sizeof place, sizeof place);
            if (place.row >= of.row) {
                break;
            }
        }
        if (next < place_count && place.row == of.row && place.count && place.high >= on.begin && place.low <= on.end) {
            draw(&on, place.low, place.high, &of);
        }
    }
    PyBuffer_Release(&cells);
    PyBuffer_Release(&places);
    PyBuffer_Release(&entries);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *draw_points(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer cells, points;
    canvas on;
    if (!PyArg_ParseTuple(arguments, "w*ddy*:draw_points", &cells, &on.begin, &on.end, &points)) {
        return NULL;
    }
    bool done = has_canvas(&on, &cells);
    for (size_t at = 0; done && at < (size_t)points.len / 16; at++) {
        double point[2];
        memcpy(point, (const char *)points.buf + 16 * at, sizeof point);
        bucket_entry of = NO_NUMBERS;
        if (is_finite(point[1])) {
            of = (bucket_entry){.low = point[1], .high = point[1], .total = point[1], .last = point[1], .count = 1};
        } else {
            of.broken = 1;
        }
        draw(&on, point[0], point[0], &of);
    }
    PyBuffer_Release(&cells);
    PyBuffer_Release(&points);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef functions[] = {
    {"lift_rows", lift_rows, METH_VARARGS, "lift_rows($module, rows, /)\n--\n\nReturn a row for each four."},
    {"lift_entries", lift_entries, METH_VARARGS, "lift_entries($module, entries, /)\n--\n\nReturn an entry for all of each four rows."},
    {"draw_entries", draw_entries, METH_VARARGS,
     "draw_entries($module, cells, begin, end, rows, entries, kind, origin, /)\n--\n\nDraw entries over the steps or the times of their rows."},
    {"draw_against", draw_against, METH_VARARGS,
     "draw_against($module, cells, begin, end, places, entries, /)\n--\n\nDraw entries over those of another metric."},
    {"draw_points", draw_points, METH_VARARGS, "draw_points($module, cells, begin, end, points, /)\n--\n\nDraw pairs of place and number."},
    {NULL, NULL, 0, NULL},
};

int pyramid_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
