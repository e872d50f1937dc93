/* buckets.c: takes the records that a scan reads, and sums them up: see `curves/buckets.py`, which does the same in Python, and says what for. */

#include "native.h"

#include <stdlib.h>
#include <string.h>

#include "buckets.h"
#include "figures.h"
#include "scan.h"

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
    PyObject_HEAD
    scan *of;
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
} buckets;

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
static bool seal(buckets *self, lane *in) {
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
static bool know(buckets *self, column *of) {
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

static bool add(buckets *self, lane *in, const cell *value, pick found) {
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
    buckets *self = taker;
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

static PyObject *begin(buckets *self, PyObject *arguments) {
    Py_ssize_t index;
    unsigned segment, offset;
    if (!PyArg_ParseTuple(arguments, "nII:begin", &index, &segment, &offset)) {
        return NULL;
    }
    if (self->row_count || index < 0 || (size_t)index > self->lane_count) {
        return PyErr_Format(PyExc_ValueError, "expected that all is taken, and a lane up to %zd; got %zd", (Py_ssize_t)self->lane_count, index);
    }
    if ((size_t)index == self->lane_count) {
        if (!grow((void **)&self->lanes, &self->lane_room, self->lane_count, sizeof *self->lanes)) {
            return PyErr_NoMemory();
        }
        self->lanes[self->lane_count++] = (lane){.steps_in_order = true, .times_in_order = true};
    }
    self->segment = segment;
    self->offset = offset;
    if ((size_t)index != self->current || !self->stamp) {
        lane *in = &self->lanes[index];
        self->current = (size_t)index;
        self->stamp++;
        for (size_t at = 0; at < in->count; at++) {
            metric *of = &self->metrics[in->entries[at].metric];
            of->stamp = self->stamp;
            of->slot = (uint32_t)at;
        }
    }
    self->of->all.take = take_record;
    self->of->all.taker = self;
    Py_RETURN_NONE;
}

/* Makes bytes for the sealed entries of each metric. */
static PyObject *group_entries(buckets *self) {
    PyObject *found = PyDict_New();
    for (size_t at = 0; at < self->entry_count; at++) {
        self->metrics[self->entries[at].metric].sealed++;
    }
    for (size_t at = 0; found != NULL && at < self->entry_count; at++) {
        const metric_entry *of = &self->entries[at];
        PyObject *index = PyLong_FromUnsignedLong(of->metric), *bytes = index == NULL ? NULL : PyDict_GetItemWithError(found, index);
        metric *owner = &self->metrics[of->metric];
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
    for (size_t at = 0; at < self->entry_count; at++) {
        self->metrics[self->entries[at].metric].sealed = 0;
    }
    return found;
}

static PyObject *take(buckets *self, PyObject *unused) {
    (void)unused;
    if (!self->row_count) {
        Py_RETURN_NONE;
    }
    PyObject *entries = group_entries(self);
    PyObject *found = entries == NULL ? NULL
                                      : Py_BuildValue("(y#N)", (const char *)self->rows, (Py_ssize_t)(self->row_count * sizeof *self->rows), entries);
    if (found != NULL) {
        self->row_count = self->entry_count = 0;
    }
    return found;
}

static PyObject *order(buckets *self, PyObject *index) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at < 0 || (size_t)at >= self->lane_count) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "there is no lane %zd", at);
    }
    return Py_BuildValue("(OO)", self->lanes[at].steps_in_order ? Py_True : Py_False, self->lanes[at].times_in_order ? Py_True : Py_False);
}

/* Returns the open row of each lane that has one, and its entries; of all metrics where none are wanted. */
static PyObject *open_rows(buckets *self, PyObject *arguments) {
    PyObject *wanted;
    if (!PyArg_ParseTuple(arguments, "O!:open", &PyTuple_Type, &wanted)) {
        return NULL;
    }
    PyObject *found = PyList_New(0);
    for (size_t at = 0; found != NULL && at < self->lane_count; at++) {
        const lane *in = &self->lanes[at];
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
    if (at < 0 || (size_t)at >= self->metric_count) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "there is no metric %zd", at);
    }
    const metric *of = &self->metrics[at];
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
    for (size_t each = at < 0 ? 0 : (size_t)at; found != NULL && each < self->metric_count; each++) {
        PyObject *name = scan_name(self->metrics[each].of);
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
        self->records = records;
        self->most = most;
    }
    return (PyObject *)self;
}

static void dealloc(buckets *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->of != NULL && self->of->all.taker == self) {
        self->of->all.take = NULL;
    }
    for (size_t at = 0; at < self->lane_count; at++) {
        free(self->lanes[at].entries);
    }
    free(self->lanes);
    free(self->metrics);
    free(self->rows);
    free(self->entries);
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
