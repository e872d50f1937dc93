/* points.c: `series.c` for Python. */

#include "native.h"

#include <stdlib.h>

#include "scan.h"
#include "series.h"

typedef struct {
    PyObject_HEAD
    scan *of;
    number_series numbers;
} points;

static PyObject *take(points *self, PyObject *index) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at < 0 || (size_t)at >= self->numbers.keys) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "there is no key %zd", at);
    }
    series *of = &self->numbers.all[at];
    return PyBytes_FromStringAndSize((const char *)of->pairs, (Py_ssize_t)(of->count * 2 * sizeof *of->pairs));
}

static bool find_columns(points *self, PyObject *keys, PyObject *against) {
    self->numbers.keys = (size_t)PyTuple_GET_SIZE(keys);
    self->numbers.all = calloc(self->numbers.keys ? self->numbers.keys : 1, sizeof *self->numbers.all);
    Py_ssize_t length;
    for (size_t at = 0; self->numbers.all != NULL && at < self->numbers.keys; at++) {
        const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(keys, (Py_ssize_t)at), &length);
        column *of = name == NULL ? NULL : columns_named(&self->of->all, name, (size_t)length);
        if (of == NULL) {
            return false;
        }
        of->metric = (uint32_t)at + 1;
    }
    const char *name = against == Py_None ? NULL : PyUnicode_AsUTF8AndSize(against, &length);
    self->numbers.against = name == NULL ? NULL : columns_named(&self->of->all, name, (size_t)length);
    return self->numbers.all != NULL && !PyErr_Occurred() && (against == Py_None || self->numbers.against != NULL);
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
    self->numbers = (number_series){
        .of = &self->of->all, .kind = against == Py_None ? kind : BY_KEY, .origin = origin, .begin = begin, .end = end};
    if (!find_columns(self, keys, against)) {
        Py_DECREF(self);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    series_begin(&self->numbers);
    return (PyObject *)self;
}

static void dealloc(points *self) {
    PyTypeObject *type = Py_TYPE(self);
    series_free(&self->numbers);
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
