/* decode.c: makes records of the frames of a batch, without a Python call for each.

   What it does not know it leaves out and names, and Python decodes it: extension types, keys that are no texts, deep nests, texts that are not
   UTF-8, and whatever is cut short. It calls no Python code itself. */

#include "native.h"

#include "walk.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* Texts of keys that are kept: a power of two. A run has some dozen keys, and a key that falls on another's place takes it. */
#define KEYS 512
/* Longer keys are not kept. Arbitrary. */
#define LONGEST_KEY 64
/* Shapes that are kept, a power of two, and names in one. Arbitrary: a loop logs two or three shapes. */
#define SHAPES 16
#define MOST_NAMES 64
/* Items that a list has room for before they are read: of lists in lists, each may say that it is as long as the rest of the record. Arbitrary. */
#define MOST_ROOM 1024

typedef struct {
    PyObject *text;
    uint32_t length;
    char bytes[LONGEST_KEY];
} known_key;

/* The names of a record in their order. Most records have the names of an earlier one, and to copy a dict and set its values takes half the time
   that a new one takes. */
typedef struct {
    PyObject *pattern; /* a dict of the names to None */
    uint32_t count;
    PyObject *names[MOST_NAMES];
} shape;

typedef struct {
    PyObject_HEAD
    PyObject *record; /* the class */
    atomic_bool busy; /* an allocation may run the collector, and with it a finaliser, and with that another thread */
    known_key keys[KEYS];
    shape shapes[SHAPES];
} decoder;

static uint32_t place_of(const uint8_t *bytes, uint32_t length) {
    uint32_t hash = length * 0x9e3779b1u;
    uint32_t word;
    uint32_t at = 0;
    for (; at + 4 <= length; at += 4) {
        memcpy(&word, bytes + at, 4);
        hash = (hash ^ word) * 0x85ebca6bu;
        hash ^= hash >> 15;
    }
    for (; at < length; at++) {
        hash = (hash ^ bytes[at]) * 0x85ebca6bu;
    }
    return (hash ^ hash >> 16) & (KEYS - 1);
}

/* Returns NULL, without an exception where the bytes are not UTF-8: such a record is odd. */
static PyObject *text_of(const uint8_t *bytes, uint32_t length) {
    PyObject *text = PyUnicode_DecodeUTF8((const char *)bytes, length, NULL);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
    }
    return text;
}

static PyObject *key_of(decoder *self, const uint8_t *bytes, uint32_t length) {
    if (length > LONGEST_KEY) {
        return text_of(bytes, length);
    }
    known_key *known = &self->keys[place_of(bytes, length)];
    if (known->text != NULL && known->length == length && memcmp(known->bytes, bytes, length) == 0) {
        return Py_NewRef(known->text);
    }
    PyObject *text = text_of(bytes, length);
    if (text != NULL) {
        memcpy(known->bytes, bytes, length);
        known->length = length;
        Py_XSETREF(known->text, Py_NewRef(text));
    }
    return text;
}

static PyObject *value_of(decoder *self, mp_input *in, int depth);

/* Makes a dict of the next pairs; returns NULL as `value_of` does. */
static PyObject *dict_of(decoder *self, mp_input *in, uint32_t pairs, int depth) {
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    for (; pairs > 0; pairs--) {
        mp_item item;
        if (!mp_next(in, &item) || item.kind != MP_STR) {
            goto odd;
        }
        PyObject *key = key_of(self, item.bytes, item.length);
        PyObject *value = key == NULL ? NULL : value_of(self, in, depth);
        int failed = value == NULL ? -1 : PyDict_SetItem(dict, key, value);
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed) {
            goto odd;
        }
    }
    return dict;
odd:
    Py_DECREF(dict);
    return NULL;
}

static void forget_shape(shape *known) {
    Py_CLEAR(known->pattern);
    while (known->count > 0) {
        known->count--; /* not within the macro, which may evaluate its argument twice */
        Py_CLEAR(known->names[known->count]);
    }
}

/* Remembers the names of a dict that has been made of as many pairs. */
static int remember_shape(shape *known, PyObject *dict) {
    PyObject *name, *value, *pattern = PyDict_New();
    Py_ssize_t at = 0;
    forget_shape(known);
    while (pattern != NULL && PyDict_Next(dict, &at, &name, &value)) {
        if (!PyUnicode_IS_COMPACT_ASCII(name)) { /* `is_text` compares bytes: such a shape is never met again */
            forget_shape(known);
            Py_CLEAR(pattern);
            return 0;
        }
        if (PyDict_SetItem(pattern, name, Py_None) < 0) {
            Py_CLEAR(pattern);
            break;
        }
        known->names[known->count++] = Py_NewRef(name);
    }
    known->pattern = pattern;
    return pattern == NULL ? -1 : 0;
}

static bool is_text(PyObject *text, const mp_item *item) {
    return PyUnicode_GET_LENGTH(text) == (Py_ssize_t)item->length &&
           memcmp(PyUnicode_1BYTE_DATA(text), item->bytes, item->length) == 0;
}

/* Makes a dict of pairs with the names of a shape; returns NULL, without an exception, where they have others, or as `value_of` does. */
static PyObject *dict_in_shape(decoder *self, const shape *known, mp_input *in, int depth) {
    PyObject *dict = PyDict_Copy(known->pattern);
    for (uint32_t at = 0; dict != NULL && at < known->count; at++) {
        mp_item key;
        PyObject *value = NULL;
        if (mp_next(in, &key) && key.kind == MP_STR && is_text(known->names[at], &key)) {
            value = value_of(self, in, depth);
        }
        if (value == NULL || PyDict_SetItem(dict, known->names[at], value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(value);
    }
    return dict;
}

/* Makes the dict of a record's data, as `dict_of` does. */
static PyObject *data_of(decoder *self, mp_input *in, uint32_t pairs, int depth) {
    mp_input begin = *in;
    mp_item first;
    if (pairs == 0 || pairs > MOST_NAMES || !mp_next(&begin, &first) || first.kind != MP_STR) {
        return dict_of(self, in, pairs, depth);
    }
    begin = *in;
    shape *known = &self->shapes[(place_of(first.bytes, first.length) + pairs) & (SHAPES - 1)];
    if (known->count == pairs) {
        PyObject *dict = dict_in_shape(self, known, in, depth);
        if (dict != NULL || PyErr_Occurred()) {
            return dict;
        }
        *in = begin;
    }
    PyObject *dict = dict_of(self, in, pairs, depth);
    if (dict != NULL && PyDict_GET_SIZE(dict) == (Py_ssize_t)pairs && remember_shape(known, dict) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *list_of(decoder *self, mp_input *in, uint32_t length, int depth) {
    Py_ssize_t room = length < MOST_ROOM ? (Py_ssize_t)length : MOST_ROOM;
    PyObject *list = PyList_New(room);
    for (Py_ssize_t at = 0; list != NULL && at < (Py_ssize_t)length; at++) {
        PyObject *item = value_of(self, in, depth);
        if (item == NULL) {
            Py_CLEAR(list);
        } else if (at < room) {
            PyList_SET_ITEM(list, at, item);
        } else if (append_new(list, item) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* Makes the next value; returns NULL where it is odd, and with an exception where there is no memory. */
static PyObject *value_of(decoder *self, mp_input *in, int depth) {
    mp_item item;
    if (!mp_next(in, &item)) {
        return NULL;
    }
    switch (item.kind) {
    case MP_NIL:
        return Py_NewRef(Py_None);
    case MP_BOOL:
        return PyBool_FromLong((long)item.i);
    case MP_INT:
        return PyLong_FromLongLong(item.i);
    case MP_UINT:
        return PyLong_FromUnsignedLongLong(item.u);
    case MP_FLOAT:
        return PyFloat_FromDouble(item.f);
    case MP_STR:
        return text_of(item.bytes, item.length);
    case MP_BIN:
        return PyBytes_FromStringAndSize((const char *)item.bytes, item.length);
    case MP_ARRAY:
        return depth > 0 ? list_of(self, in, item.length, depth - 1) : NULL;
    case MP_MAP:
        return depth > 0 ? dict_of(self, in, item.length, depth - 1) : NULL;
    default:
        return NULL;
    }
}

static PyObject *integer_of(const mp_item *item) {
    return item->kind == MP_INT ? PyLong_FromLongLong(item->i) : PyLong_FromUnsignedLongLong(item->u);
}

/* Where the records of a batch come from: the ring's id, and the label of its writer or None. */
typedef struct {
    PyObject *ring, *writer;
} source;

/* Makes the record of a frame; returns NULL as `value_of` does. */
static PyObject *record_of(decoder *self, const mp_frame *frame, const source *from) {
    mp_input in = {frame->payload, frame->payload + frame->length};
    mp_record head;
    if (!mp_begin_record(&in, &head)) {
        return NULL;
    }
    PyObject *data = data_of(self, &in, head.pairs, MP_MAX_DEPTH);
    if (data == NULL) {
        return NULL;
    }
    PyObject *record = NULL;
    if (in.at == in.end) {
        PyObject *number = PyLong_FromUnsignedLongLong(frame->number);
        PyObject *step = head.step.kind == MP_NIL ? Py_XNewRef(number) : integer_of(&head.step);
        PyObject *time = integer_of(&head.time);
        if (number != NULL && step != NULL && time != NULL) {
            PyObject *arguments[] = {number, step, time, data, from->ring, from->writer};
            record = PyObject_Vectorcall(self->record, arguments, 6, NULL);
        }
        if (record != NULL && !PyObject_GC_IsTracked(data) && PyObject_GC_IsTracked(record)) {
            PyObject_GC_UnTrack(record); /* it refers to nothing that refers to others: the collector need not look at it */
        }
        Py_XDECREF(number);
        Py_XDECREF(step);
        Py_XDECREF(time);
    }
    Py_DECREF(data);
    return record;
}

/* What `take` gathers. */
typedef struct {
    decoder *by;
    source from;
    PyObject *records, *odd, *others;
} taken;

static int take_frame(void *to, const mp_frame *frame, const uint8_t *frames) {
    taken *found = to;
    if (frame->kind != MP_RECORD) {
        return append_new(found->others, other_frame(frame, frames));
    }
    PyObject *record = record_of(found->by, frame, &found->from);
    if (record == NULL && PyErr_Occurred()) {
        return -1;
    }
    if (record == NULL) {
        record = Py_NewRef(Py_None);
        if (append_new(found->odd, odd_frame(PyList_GET_SIZE(found->records), frame, frames)) < 0) {
            Py_DECREF(record);
            return -1;
        }
    }
    return append_new(found->records, record);
}

static PyObject *take_alone(taken *found, walk *over, PyObject *whole) {
    if (found->records == NULL || found->odd == NULL || found->others == NULL || begin_alone(&found->by->busy, "a FrameDecoder decodes") < 0) {
        return NULL;
    }
    int failed = walk_frames(over, whole);
    atomic_store(&found->by->busy, false);
    return failed ? NULL : Py_BuildValue("(OOOn)", found->records, found->odd, found->others, over->inner);
}

static PyObject *take(decoder *self, PyObject *arguments) {
    PyObject *whole;
    taken found = {.by = self, .from = {NULL, Py_None}};
    walk over = {.take = take_frame, .to = &found};
    if (!PyArg_ParseTuple(arguments, "y*O!nnnO!|O:take", &over.frames, &PyList_Type, &whole, &over.inner, &over.max_bytes, &over.max_records,
                          &PyLong_Type, &found.from.ring, &found.from.writer)) {
        return NULL;
    }
    found.records = PyList_New(0);
    found.odd = PyList_New(0);
    found.others = PyList_New(0);
    PyObject *result = take_alone(&found, &over, whole);
    Py_XDECREF(found.records);
    Py_XDECREF(found.odd);
    Py_XDECREF(found.others);
    PyBuffer_Release(&over.frames);
    return result;
}

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *record;
    static char *known[] = {"record", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "O:FrameDecoder", known, &record)) {
        return NULL;
    }
    decoder *self = (decoder *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->record = Py_NewRef(record);
    }
    return (PyObject *)self;
}

static int traverse(decoder *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->record);
    return 0;
}

static int clear(decoder *self) {
    Py_CLEAR(self->record);
    for (size_t at = 0; at < KEYS; at++) {
        Py_CLEAR(self->keys[at].text);
    }
    for (size_t at = 0; at < SHAPES; at++) {
        forget_shape(&self->shapes[at]);
    }
    return 0;
}

static void dealloc(decoder *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)take, METH_VARARGS,
     "take($self, frames, whole, inner, max_bytes, max_records, ring, writer=None, /)\n--\n\n"
     "Take the frames of the stretches in `whole` from byte `inner` on, about `max_bytes`, at most so many records.\n\n"
     "Returns:\n"
     "    The records, None for each that Python has to decode; these, each with its index, the byte behind it, its number, lost, and begin and end of its\n"
     "    payload; the other frames, each with the byte behind it, its kind, number, lost, and begin and end of its payload; and the byte behind them all."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Decodes the frames of batches to records of a class."},
    {Py_tp_new, make},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "asynctrack._native.FrameDecoder",
    .basicsize = sizeof(decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int decode_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed;
}
