/* buffer.c: memory that came from C, and goes with its last view. */

#include "buffer.h"

#include <stdlib.h>

typedef struct {
    PyObject_HEAD
    void *bytes;
    Py_ssize_t shape, item_size;
    char format[2];
} buffer;

static int get_buffer(buffer *self, Py_buffer *view, int flags) {
    (void)flags; /* it is contiguous, and may be written to */
    view->obj = Py_NewRef((PyObject *)self);
    view->buf = self->bytes;
    view->len = self->shape * self->item_size;
    view->itemsize = self->item_size;
    view->readonly = 0;
    view->ndim = 1;
    view->format = flags & PyBUF_FORMAT ? self->format : NULL;
    view->shape = &self->shape;
    view->strides = &self->item_size;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

static void free_buffer(buffer *self) {
    PyTypeObject *own = Py_TYPE(self);
    free(self->bytes);
    own->tp_free(self);
    Py_DECREF(own);
}

static Py_ssize_t length_of(buffer *self) {
    return self->shape;
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "Numbers of one type, for whoever takes a buffer."},
    {Py_bf_getbuffer, get_buffer},
    {Py_tp_dealloc, free_buffer},
    {Py_sq_length, length_of},
    {0, NULL},
};

static PyTypeObject *type;

static PyType_Spec spec = {
    .name = "asynctrack._native.Buffer",
    .basicsize = sizeof(buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyObject *wrap_buffer(void *bytes, size_t count, Py_ssize_t item_size, char format) {
    buffer *made = bytes == NULL ? NULL : PyObject_New(buffer, type);
    if (made == NULL) {
        free(bytes);
        return bytes == NULL ? PyErr_NoMemory() : NULL;
    }
    made->bytes = bytes;
    made->shape = (Py_ssize_t)count;
    made->item_size = item_size;
    made->format[0] = format;
    made->format[1] = 0;
    return (PyObject *)made;
}

int buffer_exec(PyObject *module) {
    Py_XSETREF(type, (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL));
    return type == NULL ? -1 : PyModule_AddType(module, type);
}
