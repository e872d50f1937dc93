/* words.c: loads and stores the words of a ring's header in the order that two processes agree on.

   Who stores a position releases what it wrote before, and who loads it acquires that. Python's own loads and stores of a memoryview promise
   no order on ARM. */

#include "native.h"

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t word_t;

/* Finds a word of a buffer; NULL with an exception set where it has none of that index. The caller releases the buffer. */
static word_t *find_word(PyObject *words, PyObject *index, Py_buffer *buffer) {
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (PyObject_GetBuffer(words, buffer, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if (at < 0 || at >= buffer->len / 8 || (uintptr_t)buffer->buf % 8) {
        PyErr_Format(PyExc_IndexError, "expected the index of a word from 0 to %zd; got %zd", buffer->len / 8 - 1, at);
        PyBuffer_Release(buffer);
        return NULL;
    }
    return (word_t *)buffer->buf + at;
}

static PyObject *load(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "load() takes words and an index; got %zd arguments", count);
    }
    Py_buffer buffer;
    word_t *word = find_word(arguments[0], arguments[1], &buffer);
    if (word == NULL) {
        return NULL;
    }
    uint64_t value = atomic_load_explicit(word, memory_order_acquire);
    PyBuffer_Release(&buffer);
    return PyLong_FromUnsignedLongLong(value);
}

static PyObject *store(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "store() takes words, an index and a value; got %zd arguments", count);
    }
    unsigned long long value = PyLong_AsUnsignedLongLong(arguments[2]);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    Py_buffer buffer;
    word_t *word = find_word(arguments[0], arguments[1], &buffer);
    if (word == NULL) {
        return NULL;
    }
    atomic_store_explicit(word, value, memory_order_release);
    PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"load", (PyCFunction)(void (*)(void))load, METH_FASTCALL,
     "load(words, index, /)\n--\n\nLoad a word, and with it all that was written before it was stored."},
    {"store", (PyCFunction)(void (*)(void))store, METH_FASTCALL,
     "store(words, index, value, /)\n--\n\nStore a word after all that was written before."},
    {NULL, NULL, 0, NULL},
};

int words_exec(PyObject *module) {
    return PyModule_AddFunctions(module, methods);
}
