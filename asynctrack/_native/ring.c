/* ring.c: stores one frame in the ring. Runs in the caller, in any thread, signal handler or finaliser.

   From the look at the limit to the store of the head there is no call of Python's, so under the interpreter lock nothing comes in between: no
   thread, signal handler, finaliser or tracer. A mutex guards the same lines where there is no such lock. The head is stored after the frame's
   bytes, in a way that the worker on another core sees in that order. All that is rare stays in Python: `asynctrack/queue/producer.py`. */

#include "ring.h"

#include <structmember.h>

static PyObject *put_side_name, *put_slowly_name;

#ifdef Py_GIL_DISABLED
#define LOCK(self) PyMutex_Lock(&(self)->mutex)
#define UNLOCK(self) PyMutex_Unlock(&(self)->mutex)
#else
#define LOCK(self)
#define UNLOCK(self)
#endif

bool place(FastPut *self, const void *payload, uint64_t length, uint64_t kind, uint64_t count) {
    LOCK(self);
    bool placed = store_frame(&self->store, payload, length, kind, count);
    UNLOCK(self);
    return placed;
}

int put_side(FastPut *self) {
    Py_ssize_t count = self->side == NULL ? 0 : PyObject_Size(self->side);
    if (count <= 0) {
        return (int)count;
    }
    PyObject *done = PyObject_CallMethodNoArgs((PyObject *)self, put_side_name);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *put_slowly(FastPut *self, PyObject *payload, uint64_t kind, uint64_t count) {
    PyObject *numbers[2] = {PyLong_FromUnsignedLongLong(kind), PyLong_FromUnsignedLongLong(count)};
    PyObject *done = NULL;
    if (numbers[0] != NULL && numbers[1] != NULL) {
        done = PyObject_CallMethodObjArgs((PyObject *)self, put_slowly_name, payload, numbers[0], numbers[1], NULL);
    }
    Py_XDECREF(numbers[0]);
    Py_XDECREF(numbers[1]);
    return done;
}

static PyObject *put(FastPut *self, PyObject *const *arguments, Py_ssize_t given) {
    uint64_t numbers[2] = {0, 1};
    if (given < 1 || given > 3 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "put() takes bytes, a kind and a count");
        return NULL;
    }
    for (Py_ssize_t i = 1; i < given; i++) {
        numbers[i - 1] = PyLong_AsUnsignedLongLong(arguments[i]);
        if (numbers[i - 1] == (uint64_t)-1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (!place(self, PyBytes_AS_STRING(arguments[0]), (uint64_t)PyBytes_GET_SIZE(arguments[0]), numbers[0], numbers[1])) {
        return put_slowly(self, arguments[0], numbers[0], numbers[1]);
    }
    if (put_side(self) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyObject *count_drops(FastPut *self, PyObject *const *arguments, Py_ssize_t given) {
    if (given != 2) {
        PyErr_SetString(PyExc_TypeError, "_count_drops() takes the index of a word and a count");
        return NULL;
    }
    Py_ssize_t index = PyNumber_AsSsize_t(arguments[0], PyExc_IndexError);
    unsigned long long count = PyLong_AsUnsignedLongLong(arguments[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    LOCK(self);
    if (index >= 0 && (size_t)index < self->store.length / 8) {
        _Atomic uint64_t *word = word_of(&self->store, (size_t)index);
        atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + count, memory_order_relaxed);
        self->store.number += count;
        self->store.lost = (self->store.lost + (count << LOST_SHIFT)) & LOST_MASK;
    }
    UNLOCK(self);
    Py_RETURN_NONE;
}

/* Frees the mutex in a forked child: a thread that only the parent has may have held it. */
static PyObject *free_mutex(FastPut *self, PyObject *nothing) {
    (void)self, (void)nothing;
#ifdef Py_GIL_DISABLED
    self->mutex = (PyMutex){0};
#endif
    Py_RETURN_NONE;
}

static PyObject *get_number(FastPut *self, void *offset) {
    LOCK(self);
    uint64_t value = *(uint64_t *)((char *)self + (uintptr_t)offset);
    UNLOCK(self);
    return PyLong_FromUnsignedLongLong(value);
}

static int set_number(FastPut *self, PyObject *given, void *offset) {
    if (given == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a producer's number cannot be deleted");
        return -1;
    }
    unsigned long long value = PyLong_AsUnsignedLongLong(given);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        return -1;
    }
    LOCK(self);
    *(uint64_t *)((char *)self + (uintptr_t)offset) = value;
    UNLOCK(self);
    return 0;
}

static PyObject *get_words(FastPut *self, void *nothing) {
    (void)nothing;
    if (self->words == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_words");
        return NULL;
    }
    return Py_NewRef(self->words);
}

/* Goes on in another mapping, which lives from here on as long as it is in use. */
static int set_words(FastPut *self, PyObject *words, void *nothing) {
    (void)nothing;
    Py_buffer fresh;
    if (words == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a producer's words cannot be deleted");
        return -1;
    }
    if (PyObject_GetBuffer(words, &fresh, PyBUF_WRITABLE) < 0) {
        return -1;
    }
    if (fresh.len < HEADER_BYTES || (uintptr_t)fresh.buf % 8) {
        PyErr_Format(PyExc_ValueError, "expected the words of a ring; got %zd bytes", fresh.len);
        PyBuffer_Release(&fresh);
        return -1;
    }
    PyObject *former_words = self->words;
    LOCK(self);
    Py_buffer former = self->buffer;
    self->buffer = fresh;
    self->store.base = fresh.buf;
    self->store.length = (size_t)fresh.len;
    UNLOCK(self);
    self->words = Py_NewRef(words);
    PyBuffer_Release(&former);
    Py_XDECREF(former_words);
    return 0;
}

static int set_up(FastPut *self, PyObject *ring, PyObject *words, PyObject *capacity) {
    uint64_t size = PyLong_AsUnsignedLongLong(capacity);
    if ((size == (uint64_t)-1 && PyErr_Occurred()) || set_words(self, words, NULL) < 0) {
        return -1;
    }
    const uint64_t *header = (const uint64_t *)self->store.base;
    self->store.mask = size - 1;
    self->store.head = header[WORD_HEAD];
    self->store.number = header[WORD_FIRST];
    self->store.limit = self->store.lost = 0;
    Py_XSETREF(self->ring, Py_NewRef(ring));
    return 0;
}

static int init(FastPut *self, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"ring", NULL};
    PyObject *ring;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:FastPut", names, &ring)) {
        return -1;
    }
    PyObject *words = PyObject_GetAttrString(ring, "words");
    PyObject *data = PyObject_GetAttrString(ring, "data");
    PyObject *capacity = PyObject_GetAttrString(ring, "capacity");
    int done = -1;
    if (words != NULL && data != NULL && capacity != NULL) {
        done = set_up(self, ring, words, capacity);
        Py_XSETREF(self->data, Py_NewRef(data));
    }
    Py_XDECREF(words);
    Py_XDECREF(data);
    Py_XDECREF(capacity);
    return done;
}

static int traverse(FastPut *self, visitproc visit, void *arg) {
    Py_VISIT(self->ring);
    Py_VISIT(self->words);
    Py_VISIT(self->data);
    Py_VISIT(self->lock);
    Py_VISIT(self->side);
    return 0;
}

static int clear(FastPut *self) {
    self->store.limit = 0;
    Py_CLEAR(self->ring);
    Py_CLEAR(self->words);
    Py_CLEAR(self->data);
    Py_CLEAR(self->lock);
    Py_CLEAR(self->side);
    return 0;
}

static void dealloc(FastPut *self) {
    PyObject_GC_UnTrack(self);
    clear(self);
    self->store.base = NULL;
    self->store.length = 0;
    PyBuffer_Release(&self->buffer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)(void (*)(void))put, METH_FASTCALL,
     "put($self, payload, kind=0, count=1, /)\n--\n\nPut one frame; return False when there is no room or nothing more may be put, and then nothing is counted."},
    {"_count_drops", (PyCFunction)(void (*)(void))count_drops, METH_FASTCALL,
     "_count_drops($self, index, count, /)\n--\n\nCount so many drops in a word of the header."},
    {"_free_mutex", (PyCFunction)free_mutex, METH_NOARGS,
     "_free_mutex($self, /)\n--\n\nFree, in a forked child, the mutex that a thread of the parent may have held."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"ring", T_OBJECT_EX, offsetof(FastPut, ring), 0, NULL},
    {"_data", T_OBJECT_EX, offsetof(FastPut, data), 0, NULL},
    {"_lock", T_OBJECT_EX, offsetof(FastPut, lock), 0, NULL},
    {"_side", T_OBJECT_EX, offsetof(FastPut, side), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define NUMBER(name, field) {name, (getter)get_number, (setter)set_number, NULL, (void *)offsetof(FastPut, store.field)}

static PyGetSetDef numbers[] = {
    NUMBER("_head", head),
    NUMBER("_limit", limit),
    NUMBER("_lost", lost),
    NUMBER("_mask", mask),
    NUMBER("_number", number),
    {"_words", (getter)get_words, (setter)set_words, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject FastPutType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "asynctrack._native.FastPut",
    .tp_doc = "FastPut(ring)\n--\n\nStores frames in a ring it owns, as long as there is nothing else to do.",
    .tp_basicsize = sizeof(FastPut),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)init,
    .tp_dealloc = (destructor)dealloc,
    .tp_traverse = (traverseproc)traverse,
    .tp_clear = (inquiry)clear,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = numbers,
};

FastPut *producer_of(PyObject *method) {
    if (!PyCFunction_Check(method) || PyCFunction_GET_FUNCTION(method) != (PyCFunction)(void (*)(void))put) {
        return NULL;
    }
    PyObject *self = PyCFunction_GET_SELF(method);
    return self != NULL && PyObject_TypeCheck(self, &FastPutType) ? (FastPut *)self : NULL;
}

int ring_exec(PyObject *module) {
    put_side_name = PyUnicode_InternFromString("_put_side");
    put_slowly_name = PyUnicode_InternFromString("_put_slowly");
    if (put_side_name == NULL || put_slowly_name == NULL) {
        return -1;
    }
    return PyModule_AddType(module, &FastPutType);
}
