/* lines.c: makes the lines of JSON of the records of a batch. See json.h for what a line is made of. */

#include "native.h"

#include "json.h"
#include "walk.h"

typedef struct {
    PyObject_HEAD
    atomic_bool busy; /* an allocation may run the collector, and with it a finaliser, and with that another thread */
    powers_of_ten powers;
    json_lines lines;
} encoder;

/* What `take` gathers. */
typedef struct {
    json_lines *lines;
    PyObject *odd, *others;
    Py_ssize_t made;      /* counts the lines */
    uint64_t last_number; /* of the record of the last line */
} taken;

static int take_frame(void *to, const mp_frame *frame, const uint8_t *frames) {
    taken *found = to;
    if (frame->kind != MP_RECORD) {
        return append_new(found->others, other_frame(frame, frames));
    }
    if (!json_add(found->lines, frame)) {
        return append_new(found->odd, odd_frame((Py_ssize_t)found->lines->length, frame, frames));
    }
    found->made++;
    found->last_number = frame->number;
    return 0;
}

static PyObject *take_alone(encoder *self, taken *found, walk *over, PyObject *whole) {
    if (found->odd == NULL || found->others == NULL || begin_alone(&self->busy, "a LineEncoder encodes") < 0) {
        return NULL;
    }
    PyObject *lines = walk_frames(over, whole) < 0 ? NULL : PyBytes_FromStringAndSize(self->lines.lines, (Py_ssize_t)self->lines.length);
    json_clear(&self->lines);
    atomic_store(&self->busy, false);
    if (lines == NULL) {
        return NULL;
    }
    return Py_BuildValue("(NnKOOn)", lines, found->made, (unsigned long long)found->last_number, found->odd, found->others, over->inner);
}

static PyObject *take(encoder *self, PyObject *arguments) {
    PyObject *whole;
    taken found = {.lines = &self->lines};
    walk over = {.take = take_frame, .to = &found};
    if (!PyArg_ParseTuple(arguments, "y*O!nnn:take", &over.frames, &PyList_Type, &whole, &over.inner, &over.max_bytes, &over.max_records)) {
        return NULL;
    }
    found.odd = PyList_New(0);
    found.others = PyList_New(0);
    PyObject *result = take_alone(self, &found, &over, whole);
    Py_XDECREF(found.odd);
    Py_XDECREF(found.others);
    PyBuffer_Release(&over.frames);
    return result;
}

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    static char *known[] = {"seed", "gaps", NULL};
    unsigned long long seed;
    int gaps;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "Kp:LineEncoder", known, &seed, &gaps)) {
        return NULL;
    }
    encoder *self = (encoder *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    powers_begin(&self->powers);
    if (!json_begin(&self->lines, &self->powers, seed, gaps)) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void dealloc(encoder *self) {
    PyTypeObject *type = Py_TYPE(self);
    json_free(&self->lines);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)take, METH_VARARGS,
     "take($self, frames, whole, inner, max_bytes, max_records, /)\n--\n\n"
     "Take the frames of the stretches in `whole` from byte `inner` on, about `max_bytes`, at most so many records.\n\n"
     "Returns:\n"
     "    The lines; how many they are; the number of the last one's record; the records that are left to Python, each with the byte of the lines where its own\n"
     "    belongs, the byte behind its frame, its number, lost, and begin and end of its payload; the other frames, each with the byte behind it, its kind,\n"
     "    number, lost, and begin and end of its payload; and the byte behind them all."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Encodes the records of batches as lines of JSON, as `encode_lines` does."},
    {Py_tp_new, make},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "asynctrack._native.LineEncoder",
    .basicsize = sizeof(encoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int lines_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed;
}
