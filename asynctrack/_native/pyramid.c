/* pyramid.c: `canvas.c` for Python. */

#include "native.h"

#include <stdlib.h>

#include "canvas.h"

static PyObject *lift_rows(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer given;
    if (!PyArg_ParseTuple(arguments, "y*:lift_rows", &given)) {
        return NULL;
    }
    size_t count = (size_t)given.len / sizeof(bucket_row);
    PyObject *found = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count / 4 * sizeof(bucket_row)));
    if (found != NULL) {
        lift_four_rows(given.buf, count, PyBytes_AS_STRING(found));
    }
    PyBuffer_Release(&given);
    return found;
}

static PyObject *lift_entries(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer given;
    if (!PyArg_ParseTuple(arguments, "y*:lift_entries", &given)) {
        return NULL;
    }
    size_t count = (size_t)given.len / sizeof(bucket_entry);
    bucket_entry *all = malloc(count ? count * sizeof *all : 1);
    size_t made = all == NULL ? 0 : lift_row_entries(given.buf, count, all);
    PyBuffer_Release(&given);
    PyObject *found = all == NULL ? PyErr_NoMemory() : PyBytes_FromStringAndSize((const char *)all, (Py_ssize_t)(made * sizeof *all));
    free(all);
    return found;
}

static bool has_canvas(canvas *on, const Py_buffer *cells) {
    on->cells = cells->buf;
    on->count = (size_t)cells->len / sizeof(drawn_cell);
    if (cells->len % (Py_ssize_t)sizeof(drawn_cell) || !on->count) {
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
    if (done) {
        draw_row_entries(&on, rows.buf, (size_t)rows.len / sizeof(bucket_row), entries.buf, (size_t)entries.len / sizeof(bucket_entry), kind, origin);
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
    if (done) {
        draw_entries_against(&on, places.buf, (size_t)places.len / sizeof(bucket_entry), entries.buf, (size_t)entries.len / sizeof(bucket_entry));
    }
    PyBuffer_Release(&cells);
    PyBuffer_Release(&places);
    PyBuffer_Release(&entries);
    return done ? Py_NewRef(Py_None) : NULL;
}

/* Draws what is given in one buffer beside the cells. */
static PyObject *draw_by(PyObject *arguments, const char *format, void (*by)(const canvas *, const void *, size_t), size_t size) {
    Py_buffer cells, given;
    canvas on;
    if (!PyArg_ParseTuple(arguments, format, &cells, &on.begin, &on.end, &given)) {
        return NULL;
    }
    bool done = has_canvas(&on, &cells);
    if (done) {
        by(&on, given.buf, (size_t)given.len / size);
    }
    PyBuffer_Release(&cells);
    PyBuffer_Release(&given);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *draw_points(PyObject *module, PyObject *arguments) {
    (void)module;
    return draw_by(arguments, "w*ddy*:draw_points", draw_single_points, 2 * sizeof(double));
}

static PyObject *draw_cells(PyObject *module, PyObject *arguments) {
    (void)module;
    return draw_by(arguments, "w*ddy*:draw_cells", draw_other_cells, sizeof(drawn_cell));
}

static PyMethodDef functions[] = {
    {"lift_rows", lift_rows, METH_VARARGS, "lift_rows($module, rows, /)\n--\n\nReturn a row for each four."},
    {"lift_entries", lift_entries, METH_VARARGS, "lift_entries($module, entries, /)\n--\n\nReturn an entry for all of each four rows."},
    {"draw_entries", draw_entries, METH_VARARGS,
     "draw_entries($module, cells, begin, end, rows, entries, kind, origin, /)\n--\n\nDraw entries over the steps or the times of their rows."},
    {"draw_against", draw_against, METH_VARARGS,
     "draw_against($module, cells, begin, end, places, entries, /)\n--\n\nDraw entries over those of another metric."},
    {"draw_points", draw_points, METH_VARARGS, "draw_points($module, cells, begin, end, points, /)\n--\n\nDraw pairs of place and number."},
    {"draw_cells", draw_cells, METH_VARARGS, "draw_cells($module, cells, begin, end, others, /)\n--\n\nDraw other cells."},
    {NULL, NULL, 0, NULL},
};

int pyramid_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
