/* log.c: `Run.log` as one call of C, for the records that users log most; Python's own `log` for all others.

   `LogMethod` stands in the class in place of the Python function that it wraps: a subclass may override it, anybody may replace it, and who asks
   for a signature or a docstring gets those of the function. `LogBase` keeps the bound method that the run's `WriteGate` sets. Only while that is
   `put` of a native producer is there a fast way. */

#include "native.h"

#include <structmember.h>

#include "encode.h"
#include "ring.h"

#define SCRATCH_BYTES ((size_t)32 * 1024)
/* A record of so many keys may not fit the scratch, and is tried again with room for all that half a queue of 16 MiB carries. */
#define MANY_KEYS 500
#define LARGEST_BYTES ((size_t)8 << 20)

static PyObject *data_name, *step_name, *commit_name, *put_encoded_name;

typedef struct {
    PyObject_HEAD
    PyObject *put;
    FastPut *producer; /* whose `put` that is, borrowed from it; NULL where it is no native one */
} LogBase;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function;
    PyObject *weak_references;
} LogMethod;

static PyTypeObject LogBaseType;

/* The arguments of a call; false where Python has to say what is wrong with them. */
static bool take_arguments(PyObject *const *given, Py_ssize_t count, PyObject *names, PyObject **data, PyObject **step, PyObject **commit) {
    PyObject **places[3] = {data, step, commit};
    if (count > 3) {
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        *places[i] = given[i];
    }
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject **place = name == step_name ? step : name == commit_name ? commit : name == data_name ? data : NULL;
        if (place == NULL || *place != NULL) {
            return false;
        }
        *place = given[count + i];
    }
    return *data != NULL;
}

static inline bool is_plain(PyObject *data, PyObject *step, PyObject *commit) {
    return PyDict_CheckExact(data) && (step == Py_None || PyLong_CheckExact(step)) && (commit == NULL || commit == Py_None || commit == Py_True);
}

/* Puts a record that found no room at once, or that another claim kept out. */
static PyObject *put_encoded(PyObject *self, const uint8_t *start, const uint8_t *end) {
    PyObject *payload = PyBytes_FromStringAndSize((const char *)start, end - start);
    if (payload == NULL) {
        return NULL;
    }
    PyObject *done = PyObject_CallMethodOneArg(self, put_encoded_name, payload);
    Py_DECREF(payload);
    return done;
}

static PyObject *place_or_put(PyObject *self, FastPut *producer, const uint8_t *start, const uint8_t *end) {
    if (!place(producer, start, (uint64_t)(end - start), 0, 1)) {
        return put_encoded(self, start, end);
    }
    return put_side(producer) < 0 ? NULL : Py_NewRef(Py_True);
}

/* Encodes and places a record that may be longer than the scratch; as `log_plain`. */
static PyObject *log_large(PyObject *self, FastPut *producer, PyObject *data, PyObject *step, bool *done) {
    uint8_t *room = malloc(LARGEST_BYTES), *end = room == NULL ? NULL : encode_record(room, room + LARGEST_BYTES, data, step);
    PyObject *result = NULL;
    if (end != NULL) {
        *done = true;
        result = place_or_put(self, producer, room, end);
    }
    free(room);
    return result;
}

/* Encodes a record and places it. Returns NULL, without an exception, where the record takes Python. */
static PyObject *log_plain(PyObject *self, FastPut *producer, PyObject *data, PyObject *step, bool *done) {
#ifdef Py_GIL_DISABLED
    static _Thread_local uint8_t scratch[SCRATCH_BYTES];
#else
    static uint8_t scratch[SCRATCH_BYTES]; /* until the frame is placed nothing lets another thread in */
#endif
    uint8_t *end = encode_record(scratch, scratch + sizeof scratch, data, step);
    if (end == NULL) {
        return PyDict_GET_SIZE(data) < MANY_KEYS ? NULL : log_large(self, producer, data, step, done);
    }
    *done = true;
    return place_or_put(self, producer, scratch, end);
}

static FastPut *take_producer(PyObject *self) {
    FastPut *producer = NULL;
    if (PyObject_TypeCheck(self, &LogBaseType)) {
#ifdef Py_GIL_DISABLED
        Py_BEGIN_CRITICAL_SECTION(self);
#endif
        producer = ((LogBase *)self)->producer;
        Py_XINCREF(producer);
#ifdef Py_GIL_DISABLED
        Py_END_CRITICAL_SECTION();
#endif
    }
    return producer;
}

static PyObject *call_log(PyObject *method, PyObject *const *arguments, size_t flags, PyObject *names) {
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    PyObject *data = NULL, *step = Py_None, *commit = NULL, *result = NULL;
    PyObject *given_step = NULL;
    bool done = false;
    if (count > 0 && take_arguments(arguments + 1, count - 1, names, &data, &given_step, &commit)) {
        step = given_step == NULL ? Py_None : given_step;
        FastPut *producer = is_plain(data, step, commit) ? take_producer(arguments[0]) : NULL;
        if (producer != NULL) {
            result = log_plain(arguments[0], producer, data, step, &done);
            Py_DECREF(producer);
        }
    }
    return done ? result : PyObject_Vectorcall(((LogMethod *)method)->function, arguments, flags, names);
}

static PyObject *method_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"function", NULL};
    PyObject *function;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:LogMethod", names, &function)) {
        return NULL;
    }
    LogMethod *self = (LogMethod *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->call = call_log;
        self->function = Py_NewRef(function);
    }
    return (PyObject *)self;
}

static int method_traverse(LogMethod *self, visitproc visit, void *arg) {
    Py_VISIT(self->function);
    return 0;
}

/* There is no `clear`: a finaliser may call it while its cycle is cleared, and a function breaks the cycles that it is in. */
static void method_dealloc(LogMethod *self) {
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs((PyObject *)self);
    Py_DECREF(self->function);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *method_get(PyObject *self, PyObject *instance, PyObject *type) {
    (void)type;
    return instance == NULL || instance == Py_None ? Py_NewRef(self) : PyMethod_New(self, instance);
}

/* What the wrapper does not have itself, its function has. */
static PyObject *method_getattr(PyObject *self, PyObject *name) {
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        found = PyObject_GetAttr(((LogMethod *)self)->function, name);
    }
    return found;
}

/* What is set, too, is set on the function: so both have it. */
static int method_setattr(PyObject *self, PyObject *name, PyObject *value) {
    PyObject *function = ((LogMethod *)self)->function;
    return value == NULL ? PyObject_DelAttr(function, name) : PyObject_SetAttr(function, name, value);
}

static PyObject *method_of_function(PyObject *self, void *name) {
    return PyObject_GetAttrString(((LogMethod *)self)->function, name);
}

/* It is a function to whoever asks, as wrappers of `wrapt` are: `inspect`, `pydoc` and `unittest.mock` treat those in a way of their own. */
static PyObject *method_class(PyObject *self, void *nothing) {
    (void)nothing;
    return Py_NewRef((PyObject *)Py_TYPE(((LogMethod *)self)->function));
}

/* It is copied and pickled as functions are: by its name. */
static PyObject *method_reduce(PyObject *self, PyObject *nothing) {
    (void)nothing;
    return method_of_function(self, "__qualname__");
}

static PyObject *method_repr(PyObject *self) {
    return PyObject_Repr(((LogMethod *)self)->function);
}

static PyMethodDef method_methods[] = {
    {"__reduce__", method_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef method_members[] = {
    {"__wrapped__", T_OBJECT, offsetof(LogMethod, function), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef method_names[] = {
    {"__class__", method_class, NULL, NULL, NULL},
    {"__doc__", method_of_function, NULL, NULL, "__doc__"},
    {"__module__", method_of_function, NULL, NULL, "__module__"},
    {"__name__", method_of_function, NULL, NULL, "__name__"},
    {"__qualname__", method_of_function, NULL, NULL, "__qualname__"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject LogMethodType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "asynctrack._native.LogMethod",
    .tp_basicsize = sizeof(LogMethod),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
    .tp_new = method_new,
    .tp_dealloc = (destructor)method_dealloc,
    .tp_traverse = (traverseproc)method_traverse,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(LogMethod, call),
    .tp_descr_get = method_get,
    .tp_getattro = method_getattr,
    .tp_setattro = method_setattr,
    .tp_repr = method_repr,
    .tp_weaklistoffset = offsetof(LogMethod, weak_references),
    .tp_methods = method_methods,
    .tp_members = method_members,
    .tp_getset = method_names,
};

static PyObject *base_get_put(LogBase *self, void *nothing) {
    (void)nothing;
    PyObject *put;
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(self);
#endif
    put = Py_XNewRef(self->put);
#ifdef Py_GIL_DISABLED
    Py_END_CRITICAL_SECTION();
#endif
    if (put == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_put");
    }
    return put;
}

static int base_set_put(LogBase *self, PyObject *put, void *nothing) {
    (void)nothing;
    PyObject *former;
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(self);
#endif
    former = self->put;
    self->put = Py_XNewRef(put);
    self->producer = put == NULL ? NULL : producer_of(put);
#ifdef Py_GIL_DISABLED
    Py_END_CRITICAL_SECTION();
#endif
    Py_XDECREF(former);
    return 0;
}

static int base_traverse(LogBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->put);
    return 0;
}

static int base_clear(LogBase *self) {
    self->producer = NULL;
    Py_CLEAR(self->put);
    return 0;
}

static void base_dealloc(LogBase *self) {
    PyObject_GC_UnTrack(self);
    base_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyGetSetDef base_attributes[] = {
    {"_put", (getter)base_get_put, (setter)base_set_put, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject LogBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "asynctrack._native.LogBase",
    .tp_doc = "Keeps the bound method by which a run's records are put.",
    .tp_basicsize = sizeof(LogBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)base_dealloc,
    .tp_traverse = (traverseproc)base_traverse,
    .tp_clear = (inquiry)base_clear,
    .tp_getset = base_attributes,
};

int log_exec(PyObject *module) {
    data_name = PyUnicode_InternFromString("data");
    step_name = PyUnicode_InternFromString("step");
    commit_name = PyUnicode_InternFromString("commit");
    put_encoded_name = PyUnicode_InternFromString("_put_encoded");
    if (data_name == NULL || step_name == NULL || commit_name == NULL || put_encoded_name == NULL) {
        return -1;
    }
    return PyModule_AddType(module, &LogBaseType) < 0 ? -1 : PyModule_AddType(module, &LogMethodType);
}
