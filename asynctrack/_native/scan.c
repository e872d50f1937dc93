/* scan.c: the columns of a run for Python: `columns.c` gathers them, and here they become buffers, which NumPy and Arrow wrap, and lists.

   NumPy is never imported here. A scan holds the interpreter lock while it reads frames, so its caller gives it a few MiB at a time. */

#include "native.h"

#include "buffer.h"
#include "columns.h"
#include "figures.h"
#include "scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(size_t count, size_t size) {
    return count > (size_t)PY_SSIZE_T_MAX / size ? NULL : malloc(count ? count * size : 1);
}

static column *column_at(scan *self, PyObject *index) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (at < 0 || (size_t)at >= self->all.listed_count) {
        PyErr_Format(PyExc_IndexError, "expected a column from 0 to %zd; got %zd", (Py_ssize_t)self->all.listed_count - 1, at);
        return NULL;
    }
    return self->all.listed[at];
}

static PyObject *feed(scan *self, PyObject *arguments) {
    Py_buffer frames;
    Py_ssize_t start, stop, end;
    if (!PyArg_ParseTuple(arguments, "y*nnn:feed", &frames, &start, &stop, &end)) {
        return NULL;
    }
    PyObject *result = NULL;
    mp_frame stopped;
    if (self->broken || start < 0 || start > end || end > frames.len) {
        PyErr_Format(PyExc_ValueError, "expected a stretch of %zd bytes; got %zd to %zd", frames.len, start, end);
    } else {
        size_t at = (size_t)start;
        feed_result why = columns_feed(&self->all, frames.buf, &at, stop < 0 ? 0 : (size_t)stop, (size_t)end, &stopped);
        if (why == FEED_NO_MEMORY) {
            self->broken = true;
            PyErr_NoMemory();
        } else if (why == FEED_DONE) {
            result = PyLong_FromSize_t(at);
        } else {
            Py_ssize_t begin = stopped.payload - (const uint8_t *)frames.buf;
            result = Py_BuildValue("(iniKInn)", (int)why, (Py_ssize_t)at, (int)stopped.kind, (unsigned long long)stopped.number,
                                   stopped.lost, begin, begin + (Py_ssize_t)stopped.length);
        }
    }
    PyBuffer_Release(&frames);
    return result;
}

/* Finds the tag of a value that was put, and its bits; other objects are kept. */
static int read_object(scan *self, PyObject *value, cell *of) {
    int overflow = 0;
    if (value == Py_None) {
        of->tag = TAG_NIL;
    } else if (PyBool_Check(value)) {
        of->tag = TAG_BOOL;
        of->bits = value == Py_True;
    } else if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        of->tag = TAG_FLOAT;
        memcpy(&of->bits, &number, 8);
    } else if (PyLong_CheckExact(value) && ((of->bits = (uint64_t)PyLong_AsLongLongAndOverflow(value, &overflow)), !overflow)) {
        of->tag = TAG_INT;
    } else {
        Py_ssize_t length;
        const char *text = PyUnicode_CheckExact(value) ? PyUnicode_AsUTF8AndSize(value, &length) : NULL;
        if (text != NULL && (size_t)length <= UINT32_MAX) {
            of->tag = TAG_TEXT;
            of->text = (const uint8_t *)text;
            of->length = (uint32_t)length;
            return 0;
        }
        PyErr_Clear();
        of->tag = TAG_OBJECT;
        of->is_number = PyLong_CheckExact(value);
        of->bits = (uint64_t)PyList_GET_SIZE(self->objects);
        return PyList_Append(self->objects, value);
    }
    return 0;
}

static PyObject *put(scan *self, PyObject *arguments) {
    long long step, time_ns;
    PyObject *pairs;
    if (!PyArg_ParseTuple(arguments, "LLO!:put", &step, &time_ns, &PyList_Type, &pairs)) {
        return NULL;
    }
    columns_begin_row(&self->all);
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(pairs); at++) {
        PyObject *value;
        const char *name;
        Py_ssize_t length;
        cell found = {0};
        if (!PyArg_Parse(PyList_GET_ITEM(pairs, at), "(s#O)", &name, &length, &value) || read_object(self, value, &found) < 0) {
            return NULL;
        }
        found.column = columns_named(&self->all, name, (size_t)length);
        if (found.column == NULL || !columns_add(&self->all, found)) {
            return PyErr_NoMemory();
        }
    }
    if (!columns_commit(&self->all, step, time_ns)) {
        self->broken = true;
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static PyObject *begin_session(scan *self, PyObject *arguments) {
    PyObject *cuts, *name, *step;
    int stores;
    Py_ssize_t at = 0;
    if (!PyArg_ParseTuple(arguments, "O!p:begin_session", &PyDict_Type, &cuts, &stores)) {
        return NULL;
    }
    columns_begin_session(&self->all);
    self->all.stores = stores;
    while (PyDict_Next(cuts, &at, &name, &step)) {
        Py_ssize_t length;
        const char *text = PyUnicode_AsUTF8AndSize(name, &length);
        long long from = text == NULL ? -1 : PyLong_AsLongLong(step);
        if (from == -1 && PyErr_Occurred()) {
            return NULL;
        }
        column *of = columns_named(&self->all, text, (size_t)length);
        if (of == NULL) {
            return PyErr_NoMemory();
        }
        of->has_cut = true;
        of->cut = from;
    }
    Py_RETURN_NONE;
}

PyObject *scan_name(const column *of) {
    char *flat = PyMem_Malloc((size_t)of->name_length + 1);
    if (flat == NULL) {
        return PyErr_NoMemory();
    }
    columns_name(of, flat);
    PyObject *name = PyUnicode_DecodeUTF8(flat, of->name_length, NULL);
    PyMem_Free(flat);
    return name;
}

static PyObject *firsts(scan *self, PyObject *unused) {
    (void)unused;
    PyObject *found = PyDict_New();
    for (size_t at = 0; found != NULL && at < self->all.column_buckets_count; at++) {
        for (column *of = self->all.column_buckets[at]; found != NULL && of != NULL; of = of->bucket) {
            if (!of->has_first) {
                continue;
            }
            PyObject *name = scan_name(of), *step = PyLong_FromLongLong(of->first);
            if (name == NULL || step == NULL || PyDict_SetItem(found, name, step) < 0) {
                Py_CLEAR(found);
            }
            Py_XDECREF(name);
            Py_XDECREF(step);
        }
    }
    return found;
}

static PyObject *names(scan *self, PyObject *unused) {
    (void)unused;
    PyObject *found = PyList_New((Py_ssize_t)self->all.listed_count);
    for (size_t at = 0; found != NULL && at < self->all.listed_count; at++) {
        PyObject *name = scan_name(self->all.listed[at]);
        if (name == NULL) {
            Py_CLEAR(found);
        } else {
            PyList_SET_ITEM(found, (Py_ssize_t)at, name);
        }
    }
    return found;
}

static PyObject *clear_all(scan *self, PyObject *unused) {
    (void)unused;
    columns_clear(&self->all);
    if (PyList_SetSlice(self->objects, 0, PyList_GET_SIZE(self->objects), NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *steps(scan *self, PyObject *unused) {
    (void)unused;
    int64_t *copy = allocate(self->all.rows, sizeof *copy);
    if (copy != NULL && self->all.rows) {
        memcpy(copy, self->all.steps, self->all.rows * sizeof *copy);
    }
    return wrap_buffer(copy, self->all.rows, sizeof *copy, 'q');
}

static PyObject *times(scan *self, PyObject *unused) {
    (void)unused;
    double *seconds = allocate(self->all.rows, sizeof *seconds);
    for (size_t at = 0; seconds != NULL && at < self->all.rows; at++) {
        seconds[at] = self->all.has_times ? (double)self->all.times[at] / 1e9 : 0.0;
    }
    return wrap_buffer(seconds, self->all.rows, sizeof *seconds, 'd');
}

static PyObject *describe(scan *self, PyObject *index) {
    column *of = column_at(self, index);
    if (of == NULL) {
        return NULL;
    }
    return Py_BuildValue("(InLLO)", of->tags_met, (Py_ssize_t)of->count, (long long)of->low, (long long)of->high,
                         of->rows == NULL ? Py_True : Py_False);
}

static PyObject *first_number(scan *self, PyObject *index) {
    column *of = column_at(self, index);
    return of == NULL ? NULL : PyLong_FromUnsignedLongLong(of->first_number);
}

static PyObject *steps_of(scan *self, PyObject *index) {
    column *of = column_at(self, index);
    if (of == NULL) {
        return NULL;
    }
    int64_t *copy = allocate(of->count, sizeof *copy);
    if (copy != NULL && of->rows == NULL && of->count) {
        memcpy(copy, self->all.steps, of->count * sizeof *copy);
    } else if (copy != NULL) {
        for (size_t at = 0; at < of->count; at++) {
            copy[at] = self->all.steps[of->rows[at]];
        }
    }
    return wrap_buffer(copy, of->count, sizeof *copy, 'q');
}

static PyObject *rows_of(scan *self, PyObject *index) {
    column *of = column_at(self, index);
    if (of == NULL) {
        return NULL;
    }
    int64_t *copy = allocate(of->count, sizeof *copy);
    for (size_t at = 0; copy != NULL && at < of->count; at++) {
        copy[at] = row_of(of, at);
    }
    return wrap_buffer(copy, of->count, sizeof *copy, 'q');
}

/* Converts a number or truth to the bits of one in a column of a type: '?', 'q' or 'd'. */
static uint64_t converted(const column *of, size_t at, char type) {
    uint64_t bits = of->values[at];
    if (type == 'd' && tag_of(of, at) != TAG_FLOAT) {
        double number = (double)(int64_t)bits;
        memcpy(&bits, &number, 8);
    }
    return bits;
}

/* Reads the arguments of `values` and `aligned`, and checks that the column has nothing but what converts to the type. */
static column *typed_column(scan *self, PyObject *arguments, unsigned also, int *type) {
    PyObject *index;
    if (!PyArg_ParseTuple(arguments, "OC", &index, type)) {
        return NULL;
    }
    column *of = column_at(self, index);
    if (of == NULL) {
        return NULL;
    }
    unsigned fits = *type == '?' ? 1u << TAG_BOOL : *type == 'q' ? 1u << TAG_BOOL | 1u << TAG_INT : 0;
    fits = *type == 'd' ? 1u << TAG_BOOL | 1u << TAG_INT | 1u << TAG_FLOAT : fits;
    if (!fits || of->tags_met & ~(fits | also)) {
        PyErr_Format(PyExc_TypeError, "the column has values that do not fit the type %c", *type);
        return NULL;
    }
    return of;
}

/* Gives the memory of a column's values away. */
static uint64_t *surrender(column *of) {
    uint64_t *values = of->count ? realloc(of->values, of->count * sizeof *values) : allocate(0, 1);
    if (values == NULL) {
        return NULL;
    }
    if (!of->count) {
        free(of->values);
    }
    free(of->tags);
    free(of->rows);
    of->values = NULL;
    of->tags = NULL;
    of->rows = NULL;
    of->count = of->room = 0;
    return values;
}

static PyObject *values_of(scan *self, PyObject *arguments) {
    int type;
    column *of = typed_column(self, arguments, 0, &type);
    if (of == NULL) {
        return NULL;
    }
    size_t count = of->count;
    if (type == '?') {
        uint8_t *truths = allocate(count, 1);
        for (size_t at = 0; truths != NULL && at < count; at++) {
            truths[at] = of->values[at] != 0;
        }
        return wrap_buffer(truths, count, 1, '?');
    }
    if (of->tags_met != 1u << TAG_FLOAT) {
        for (size_t at = 0; at < count; at++) {
            of->values[at] = converted(of, at, (char)type);
        }
    }
    return wrap_buffer(surrender(of), count, 8, (char)type);
}

/* Marks in bits, and in a byte for each, the rows that have a value; returns their count. */
static size_t mark_rows(scan *self, const column *of, uint8_t *bits, uint64_t *values, char type) {
    size_t marked = 0;
    for (size_t at = 0; at < of->count; at++) {
        size_t row = (size_t)row_of(of, at);
        if (tag_of(of, at) == TAG_NIL || row >= self->all.rows) {
            continue;
        }
        marked += !(bits[row >> 3] >> (row & 7) & 1);
        bits[row >> 3] |= (uint8_t)(1u << (row & 7));
        values[row] = converted(of, at, type);
    }
    return marked;
}

static PyObject *aligned(scan *self, PyObject *arguments) {
    int type;
    column *of = typed_column(self, arguments, 1u << TAG_NIL, &type);
    if (of == NULL) {
        return NULL;
    }
    size_t rows = self->all.rows, missing = 0;
    PyObject *valid = NULL, *numbers;
    if (of->count == rows && of->rows == NULL && !(of->tags_met & 1u << TAG_NIL)) {
        valid = Py_NewRef(Py_None);
        PyObject *again = Py_BuildValue("(OC)", PyTuple_GET_ITEM(arguments, 0), type == '?' ? 'q' : type);
        numbers = again == NULL ? NULL : values_of(self, again);
        Py_XDECREF(again);
    } else {
        uint64_t *every = rows > SIZE_MAX / 8 ? NULL : calloc(rows ? rows : 1, sizeof *every);
        uint8_t *bits = calloc(rows / 8 + 1, 1);
        if (every != NULL && bits != NULL) {
            missing = rows - mark_rows(self, of, bits, every, (char)type);
            free(surrender(of));
        }
        if (every == NULL || bits == NULL) {
            free(every);
            free(bits);
            return PyErr_NoMemory();
        }
        numbers = wrap_buffer(every, rows, 8, type == '?' ? 'q' : (char)type);
        valid = wrap_buffer(bits, rows / 8 + 1, 1, 'B');
    }
    PyObject *result = numbers == NULL || valid == NULL ? NULL : Py_BuildValue("(OOn)", numbers, valid, (Py_ssize_t)missing);
    Py_XDECREF(numbers);
    Py_XDECREF(valid);
    return result;
}

static PyObject *text_at(scan *self, uint64_t begin) {
    uint32_t length;
    memcpy(&length, self->all.texts + begin, 4);
    return PyUnicode_DecodeUTF8((const char *)self->all.texts + begin + 4, length, NULL);
}

/* Returns value `at` of a column; `before` is the one before it, of which a text that is the same is taken again. */
static PyObject *object_at(scan *self, const column *of, size_t at, PyObject *before) {
    uint64_t bits = of->values[at];
    double number;
    switch (tag_of(of, at)) {
    case TAG_NIL:
        return Py_NewRef(Py_None);
    case TAG_BOOL:
        return PyBool_FromLong(bits != 0);
    case TAG_INT:
        return PyLong_FromLongLong((int64_t)bits);
    case TAG_FLOAT:
        memcpy(&number, &bits, 8);
        return PyFloat_FromDouble(number);
    case TAG_TEXT:
        if (before != NULL && tag_of(of, at - 1) == TAG_TEXT && of->values[at - 1] == bits) {
            return Py_NewRef(before);
        }
        return text_at(self, bits);
    default:
        return Py_XNewRef(PyList_GetItem(self->objects, (Py_ssize_t)bits));
    }
}

static PyObject *objects_of(scan *self, PyObject *index) {
    column *of = column_at(self, index);
    PyObject *list = of == NULL ? NULL : PyList_New((Py_ssize_t)of->count), *before = NULL;
    for (size_t at = 0; list != NULL && at < of->count; at++) {
        before = object_at(self, of, at, before);
        if (before == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)at, before);
        }
    }
    return list;
}

/* Finds the first value of a column that is of a row, or of a later one. */
static size_t first_from(const column *of, size_t row) {
    size_t low = 0, high = of->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((size_t)row_of(of, middle) < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static PyObject *aligned_objects(scan *self, PyObject *arguments) {
    PyObject *index;
    Py_ssize_t first = 0, end = PY_SSIZE_T_MAX;
    if (!PyArg_ParseTuple(arguments, "O|nn:aligned_objects", &index, &first, &end)) {
        return NULL;
    }
    column *of = column_at(self, index);
    if (of == NULL) {
        return NULL;
    }
    end = (size_t)(end < 0 ? 0 : end) > self->all.rows ? (Py_ssize_t)self->all.rows : end;
    first = first < 0 ? 0 : first;
    PyObject *list = PyList_New(first < end ? end - first : 0), *before = NULL;
    for (Py_ssize_t row = first; list != NULL && row < end; row++) {
        PyList_SET_ITEM(list, row - first, Py_NewRef(Py_None));
    }
    for (size_t at = first_from(of, (size_t)first); list != NULL && at < of->count && row_of(of, at) < end; at++) {
        before = object_at(self, of, at, before);
        if (before == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SetItem(list, (Py_ssize_t)row_of(of, at) - first, before); /* which is the list's from here on */
        }
    }
    return list;
}

static PyObject *count_rows(scan *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(self->all.rows);
}

static int want(scan *self, PyObject *keys) {
    PyObject *iterator = PyObject_GetIter(keys), *key;
    if (iterator == NULL) {
        return -1;
    }
    self->all.only_wanted = true;
    while ((key = PyIter_Next(iterator)) != NULL) {
        Py_ssize_t length;
        const char *name = PyUnicode_AsUTF8AndSize(key, &length);
        column *of = name == NULL ? NULL : columns_named(&self->all, name, (size_t)length);
        Py_DECREF(key);
        if (of == NULL) {
            Py_DECREF(iterator);
            return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
        }
        of->wanted = true;
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *known[] = {"seed", "times", "keys", NULL};
    unsigned long long seed;
    int has_times = 0;
    PyObject *keys = Py_None;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "K|pO:Scan", known, &seed, &has_times, &keys)) {
        return NULL;
    }
    scan *self = (scan *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->objects = PyList_New(0);
    bool begun = columns_begin(&self->all, seed);
    self->all.has_times = has_times;
    if (!begun || self->objects == NULL || (keys != Py_None && want(self, keys) < 0)) {
        if (!begun && !PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void dealloc(scan *self) {
    PyTypeObject *type = Py_TYPE(self);
    columns_free(&self->all);
    Py_XDECREF(self->objects);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *number_of(figure of) {
    return of.whole ? PyLong_FromLongLong(of.i) : PyFloat_FromDouble(of.f);
}

/* What `tally` finds of a column's numbers: of the finite ones the least and the greatest, and where they are. */
typedef struct {
    size_t count, finite, first, last, low, high;
    double total, lost;
} tallied;

/* Adds to a sum, and what that rounds off to `lost`: Neumaier's way, step by step as Python does it in `metric_stats`. */
static void add_exactly(tallied *of, double value) {
    double total = of->total + value;
    bool larger = fabs(of->total) >= fabs(value);
    of->lost += larger ? (of->total - total) + value : (value - total) + of->total;
    of->total = total;
}

static void take_number(tallied *into, const column *of, size_t at) {
    figure value = figure_at(of, at);
    into->first = into->count ? into->first : at;
    into->last = at;
    into->count++;
    if (!value.whole && value.f - value.f != 0) {
        return;
    }
    into->low = !into->finite || is_less(value, figure_at(of, into->low)) ? at : into->low;
    into->high = !into->finite || is_less(figure_at(of, into->high), value) ? at : into->high;
    into->finite++;
    add_exactly(into, value.whole ? (double)value.i : value.f);
}

static PyObject *place_of(scan *self, const column *of, size_t at) {
    size_t row = (size_t)row_of(of, at);
    return Py_BuildValue("(NL)", number_of(figure_at(of, at)), (long long)(row < self->all.rows ? self->all.steps[row] : 0));
}

static PyObject *tally(scan *self, PyObject *arguments) {
    PyObject *index;
    tallied found = {0};
    if (!PyArg_ParseTuple(arguments, "Odd:tally", &index, &found.total, &found.lost)) {
        return NULL;
    }
    column *of = column_at(self, index);
    if (of == NULL) {
        return NULL;
    }
    if (of->tags_met & 1u << TAG_OBJECT) { /* which may be a number */
        Py_RETURN_NONE;
    }
    for (size_t at = 0; of->tags_met & (1u << TAG_BOOL | 1u << TAG_INT | 1u << TAG_FLOAT) && at < of->count; at++) {
        value_tag tag = tag_of(of, at);
        if (tag == TAG_BOOL || tag == TAG_INT || tag == TAG_FLOAT) {
            take_number(&found, of, at);
        }
    }
    if (!found.count) {
        return Py_BuildValue("(nnOOOOdd)", (Py_ssize_t)0, (Py_ssize_t)0, Py_None, Py_None, Py_None, Py_None, found.total, found.lost);
    }
    PyObject *low = found.finite ? place_of(self, of, found.low) : Py_NewRef(Py_None);
    PyObject *high = found.finite ? place_of(self, of, found.high) : Py_NewRef(Py_None);
    return Py_BuildValue("(nnNNNNdd)", (Py_ssize_t)found.count, (Py_ssize_t)(found.count - found.finite), place_of(self, of, found.first),
                         place_of(self, of, found.last), low, high, found.total, found.lost);
}

static PyObject *count_known(scan *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(self->all.column_count + self->all.node_count);
}

static PyObject *count_cut(scan *self, void *unused) {
    (void)unused;
    return Py_BuildValue("(nn)", (Py_ssize_t)self->all.cut_rows, (Py_ssize_t)self->all.cut_values);
}

static PyMethodDef methods[] = {
    {"feed", (PyCFunction)feed, METH_VARARGS,
     "feed($self, frames, start, stop, end, /)\n--\n\nRead the frames that begin between `start` and `stop`, of those that end at `end`.\n\n"
     "Returns:\n"
     "    The byte behind what was read. Where one has to be looked at: the reason why it stopped, the byte behind the frame, its kind, number and lost, and begin and end of its payload."},
    {"put", (PyCFunction)put, METH_VARARGS,
     "put($self, step, time_ns, pairs, /)\n--\n\nAdd a record that Python has made plain: pairs of flat names and values."},
    {"begin_session", (PyCFunction)begin_session, METH_VARARGS,
     "begin_session($self, cuts, stores, /)\n--\n\nBegin a session: the steps from which on a key is left out, and if values are kept."},
    {"firsts", (PyCFunction)firsts, METH_NOARGS, "firsts($self, /)\n--\n\nReturn the least step of each key in this session."},
    {"names", (PyCFunction)names, METH_NOARGS, "names($self, /)\n--\n\nReturn the flat names of the columns, in the order they came."},
    {"clear", (PyCFunction)clear_all, METH_NOARGS, "clear($self, /)\n--\n\nForget all rows."},
    {"steps", (PyCFunction)steps, METH_NOARGS, "steps($self, /)\n--\n\nReturn the steps of all rows."},
    {"times", (PyCFunction)times, METH_NOARGS, "times($self, /)\n--\n\nReturn the times of all rows in seconds."},
    {"describe", (PyCFunction)describe, METH_O,
     "describe($self, column, /)\n--\n\nReturn the tags met, the count of values, the least and the greatest integer, and if value i is of row i."},
    {"first_number", (PyCFunction)first_number, METH_O,
     "first_number($self, column, /)\n--\n\nReturn a number by which columns are in the order of their first numbers; 0 where a column has none."},
    {"steps_of", (PyCFunction)steps_of, METH_O, "steps_of($self, column, /)\n--\n\nReturn the steps of a column's values."},
    {"rows_of", (PyCFunction)rows_of, METH_O, "rows_of($self, column, /)\n--\n\nReturn the rows of a column's values."},
    {"values_of", (PyCFunction)values_of, METH_VARARGS,
     "values_of($self, column, type, /)\n--\n\nReturn a column's values as a type, '?', 'q' or 'd', and forget them."},
    {"objects_of", (PyCFunction)objects_of, METH_O, "objects_of($self, column, /)\n--\n\nReturn a column's values as they were logged."},
    {"aligned", (PyCFunction)aligned, METH_VARARGS,
     "aligned($self, column, type, /)\n--\n\nReturn a value for each row, bits for the rows that have one, or None where all have, and the count of the others; "
     "forget the column's values."},
    {"aligned_objects", (PyCFunction)aligned_objects, METH_VARARGS,
     "aligned_objects($self, column, first=0, end=sys.maxsize, /)\n--\n\nReturn a value for each row between two, None where it has none."},
    {"tally", (PyCFunction)tally, METH_VARARGS,
     "tally($self, column, total, lost, /)\n--\n\nReturn the count of a column's numbers, how many are not finite, the first, the last, the lowest and the highest finite one, "
     "each with its step, and the sum of the finite ones from `total` and `lost` on; None where the column has objects, which may be numbers."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"rows", (getter)count_rows, NULL, "The count of rows.", NULL},
    {"known", (getter)count_known, NULL, "The count of names that are kept.", NULL},
    {"cut", (getter)count_cut, NULL, "The counts of records that were left out whole since it began, and of values of others.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Gathers the columns of a run."},
    {Py_tp_new, make},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "asynctrack._native.Scan",
    .basicsize = sizeof(scan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static PyTypeObject *type_of_scans;

bool is_scan(PyObject *object) {
    return Py_IS_TYPE(object, type_of_scans);
}

int scan_exec(PyObject *module) {
    Py_XSETREF(type_of_scans, (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL));
    int failed = type_of_scans == NULL ? -1 : PyModule_AddType(module, type_of_scans);
    if (failed) {
        return -1;
    }
    return PyModule_AddIntConstant(module, "ODD", FEED_ODD) < 0 || PyModule_AddIntConstant(module, "OTHER", FEED_OTHER) < 0 ||
                   PyModule_AddIntConstant(module, "WIDE", FEED_WIDE) < 0
               ? -1
               : 0;
}
