/* points.c: takes single numbers from the records that a scan reads, each with its place on an axis: see `curves/points.py`, which does the same in Python. */

#include "native.h"

#include <stdlib.h>
#include <string.h>

#include "buckets.h"
#include "scan.h"

enum { BY_STEP, BY_TIME, BY_KEY };

typedef struct {
    double *pairs;
    size_t count, room;
} series;

typedef struct {
    PyObject_HEAD
    scan *of;
    series *all; /* for each key */
    size_t keys;
    column *against; /* the axis, where it is a metric */
    int kind;
    int64_t origin;
    double begin, end;
} points;

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

static bool place_in(const points *self, const columns *all, int64_t step, int64_t time_ns, double *x) {
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
    points *self = taker;
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

static PyObject *take(points *self, PyObject *index) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at < 0 || (size_t)at >= self->keys) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "there is no key %zd", at);
    }
    series *of = &self->all[at];
    return PyBytes_FromStringAndSize((const char *)of->pairs, (Py_ssize_t)(of->count * 2 * sizeof *of->pairs));
}

static bool find_columns(points *self, PyObject *keys, PyObject *against) {
    self->keys = (size_t)PyTuple_GET_SIZE(keys);
    self->all = calloc(self->keys ? self->keys : 1, sizeof *self->all);
    Py_ssize_t length;
    for (size_t at = 0; self->all != NULL && at < self->keys; at++) {
        const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(keys, (Py_ssize_t)at), &length);
        column *of = name == NULL ? NULL : columns_named(&self->of->all, name, (size_t)length);
        if (of == NULL) {
            return false;
        }
        of->metric = (uint32_t)at + 1;
    }
    const char *name = against == Py_None ? NULL : PyUnicode_AsUTF8AndSize(against, &length);
    self->against = name == NULL ? NULL : columns_named(&self->of->all, name, (size_t)length);
    return self->all != NULL && !PyErr_Occurred() && (against == Py_None || self->against != NULL);
}

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *known[] = {"scan", "keys", "against", "kind", "origin", "begin", "end", NULL};
    PyObject *of, *keys, *against;
    int kind;
    long long origin;
    double begin, end;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO!OiLdd:Points", known, &of, &PyTuple_Type, &keys, &against, &kind, &origin, &begin, &end)) {
        return NULL;
    }
    if (!is_scan(of)) {
        return PyErr_Format(PyExc_TypeError, "expected a Scan; got %R", of);
    }
    points *self = (points *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->of = (scan *)Py_NewRef(of);
    self->kind = against == Py_None ? kind : BY_KEY;
    self->origin = origin;
    self->begin = begin;
    self->end = end;
    if (!find_columns(self, keys, against)) {
        Py_DECREF(self);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    self->of->all.take = take_record;
    self->of->all.taker = self;
    return (PyObject *)self;
}

static void dealloc(points *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->of != NULL && self->of->all.taker == self) {
        self->of->all.take = NULL;
    }
    for (size_t at = 0; self->all != NULL && at < self->keys; at++) {
        free(self->all[at].pairs);
    }
    free(self->all);
    Py_XDECREF(self->of);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)take, METH_O, "take($self, key, /)\n--\n\nReturn pairs of place and number of the key of this index."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Takes single numbers from the records that a scan reads."},
    {Py_tp_new, make},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "asynctrack._native.Points",
    .basicsize = sizeof(points),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int points_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed;
}
