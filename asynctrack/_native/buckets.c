/* buckets.c: `sums.c` for Python. */

#include "native.h"

#include <string.h>

#include "scan.h"
#include "sums.h"

typedef struct {
    PyObject_HEAD
    scan *of;
    sums all;
} buckets;

static PyObject *begin(buckets *self, PyObject *arguments) {
    Py_ssize_t index;
    unsigned segment, offset;
    if (!PyArg_ParseTuple(arguments, "nII:begin", &index, &segment, &offset)) {
        return NULL;
    }
    if (self->all.row_count || index < 0 || (size_t)index > self->all.lane_count) {
        return PyErr_Format(PyExc_ValueError, "expected that all is taken, and a lane up to %zd; got %zd", (Py_ssize_t)self->all.lane_count, index);
    }
    if (!sums_begin(&self->all, (size_t)index, segment, offset)) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

/* Makes bytes for the sealed entries of each metric. */
static PyObject *group_entries(buckets *self) {
    PyObject *found = PyDict_New();
    for (size_t at = 0; at < self->all.entry_count; at++) {
        self->all.metrics[self->all.entries[at].metric].sealed++;
    }
    for (size_t at = 0; found != NULL && at < self->all.entry_count; at++) {
        const metric_entry *of = &self->all.entries[at];
        PyObject *index = PyLong_FromUnsignedLong(of->metric), *bytes = index == NULL ? NULL : PyDict_GetItemWithError(found, index);
        metric *owner = &self->all.metrics[of->metric];
        if (bytes == NULL && index != NULL && !PyErr_Occurred()) {
            bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(owner->sealed * sizeof of->entry));
            if (bytes != NULL && PyDict_SetItem(found, index, bytes) == 0) {
                Py_DECREF(bytes); /* the dict has it */
            } else {
                Py_CLEAR(bytes);
            }
            owner->sealed = 0; /* from here on: those that are copied */
        }
        Py_XDECREF(index);
        if (bytes == NULL) {
            Py_CLEAR(found);
        } else {
            memcpy(PyBytes_AS_STRING(bytes) + owner->sealed++ * sizeof of->entry, &of->entry, sizeof of->entry);
        }
    }
    for (size_t at = 0; at < self->all.entry_count; at++) {
        self->all.metrics[self->all.entries[at].metric].sealed = 0;
    }
    return found;
}

static PyObject *take(buckets *self, PyObject *unused) {
    (void)unused;
    if (!self->all.row_count) {
        Py_RETURN_NONE;
    }
    PyObject *entries = group_entries(self);
    PyObject *found = entries == NULL ? NULL
                                      : Py_BuildValue("(y#N)", (const char *)self->all.rows, (Py_ssize_t)(self->all.row_count * sizeof *self->all.rows), entries);
    if (found != NULL) {
        self->all.row_count = self->all.entry_count = 0;
    }
    return found;
}

static PyObject *order(buckets *self, PyObject *index) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at < 0 || (size_t)at >= self->all.lane_count) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "there is no lane %zd", at);
    }
    return Py_BuildValue("(OO)", self->all.lanes[at].steps_in_order ? Py_True : Py_False, self->all.lanes[at].times_in_order ? Py_True : Py_False);
}

/* Returns the open row of each lane that has one, and its entries; of all metrics where none are wanted. */
static PyObject *open_rows(buckets *self, PyObject *arguments) {
    PyObject *wanted;
    if (!PyArg_ParseTuple(arguments, "O!:open", &PyTuple_Type, &wanted)) {
        return NULL;
    }
    PyObject *found = PyList_New(0);
    for (size_t at = 0; found != NULL && at < self->all.lane_count; at++) {
        const lane *in = &self->all.lanes[at];
        if (!in->open.records) {
            continue;
        }
        PyObject *entries = PyDict_New();
        for (size_t each = 0; entries != NULL && each < in->count; each++) {
            PyObject *index = PyLong_FromUnsignedLong(in->entries[each].metric);
            int is_wanted = index == NULL ? -1 : !PyTuple_GET_SIZE(wanted) ? 1 : PySequence_Contains(wanted, index);
            if (is_wanted > 0) {
                bucket_entry entry = in->entries[each].entry;
                entry.row = 0;
                PyObject *bytes = PyBytes_FromStringAndSize((const char *)&entry, sizeof entry);
                is_wanted = bytes == NULL ? -1 : PyDict_SetItem(entries, index, bytes);
                Py_XDECREF(bytes);
            }
            Py_XDECREF(index);
            if (is_wanted < 0) {
                Py_CLEAR(entries);
            }
        }
        PyObject *one = entries == NULL ? NULL : Py_BuildValue("(ny#N)", (Py_ssize_t)at, (const char *)&in->open, (Py_ssize_t)sizeof in->open, entries);
        if (one == NULL || PyList_Append(found, one) < 0) {
            Py_CLEAR(found);
        }
        Py_XDECREF(one);
    }
    return found;
}

static PyObject *picked(const pick *of) {
    return of->value.whole ? Py_BuildValue("(LLKI)", (long long)of->value.i, (long long)of->step, (unsigned long long)of->number, of->lane)
                           : Py_BuildValue("(dLKI)", of->value.f, (long long)of->step, (unsigned long long)of->number, of->lane);
}

static PyObject *totals(buckets *self, PyObject *index) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at < 0 || (size_t)at >= self->all.metric_count) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "there is no metric %zd", at);
    }
    const metric *of = &self->all.metrics[at];
    bool any = of->count > of->broken;
    return Py_BuildValue("(KKddNNNN)", (unsigned long long)of->count, (unsigned long long)of->broken, of->total, of->lost, picked(&of->first),
                         picked(&of->last), any ? picked(&of->low) : Py_NewRef(Py_None), any ? picked(&of->high) : Py_NewRef(Py_None));
}

static PyObject *names(buckets *self, PyObject *after) {
    Py_ssize_t at = PyNumber_AsSsize_t(after, PyExc_IndexError);
    if (at == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *found = PyList_New(0);
    for (size_t each = at < 0 ? 0 : (size_t)at; found != NULL && each < self->all.metric_count; each++) {
        PyObject *name = scan_name(self->all.metrics[each].of);
        if (name == NULL || PyList_Append(found, name) < 0) {
            Py_CLEAR(found);
        }
        Py_XDECREF(name);
    }
    return found;
}

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *known[] = {"scan", "records", "most", NULL};
    PyObject *of;
    unsigned records, most;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OII:Buckets", known, &of, &records, &most)) {
        return NULL;
    }
    if (!is_scan(of)) {
        return PyErr_Format(PyExc_TypeError, "expected a Scan; got %R", of);
    }
    buckets *self = (buckets *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->of = (scan *)Py_NewRef(of);
        self->all = (sums){.of = &self->of->all, .most = most, .records = records};
    }
    return (PyObject *)self;
}

static void dealloc(buckets *self) {
    PyTypeObject *type = Py_TYPE(self);
    sums_free(&self->all);
    Py_XDECREF(self->of);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"begin", (PyCFunction)begin, METH_VARARGS,
     "begin($self, lane, segment, offset, /)\n--\n\nTake the records that the scan reads next for those of a lane, an old or the next new one, in a batch of the journal."},
    {"take", (PyCFunction)take, METH_NOARGS, "take($self, /)\n--\n\nReturn the rows that are sealed since, and for each metric its entries; None where no row is."},
    {"order", (PyCFunction)order, METH_O, "order($self, lane, /)\n--\n\nReturn if the steps of a lane, and if its times, have never gone back."},
    {"open", (PyCFunction)open_rows, METH_VARARGS,
     "open($self, metrics, /)\n--\n\nReturn for each lane with an open row the lane, the row, and the entries of these metrics, of all where there are none."},
    {"totals", (PyCFunction)totals, METH_O,
     "totals($self, metric, /)\n--\n\nReturn count, count of the not finite, sum and what it has lost, and the first, last, least and greatest number, each with step, number and lane."},
    {"names", (PyCFunction)names, METH_O, "names($self, after, /)\n--\n\nReturn the names of the metrics from number `after` on."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Sums up the records that a scan reads."},
    {Py_tp_new, make},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "asynctrack._native.Buckets",
    .basicsize = sizeof(buckets),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int buckets_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed;
}
