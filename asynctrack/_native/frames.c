/* frames.c: finds the frames of a batch that are no records: a run has millions of records and a dozen of others. */

#include "native.h"

#include "walk.h"

static PyObject *list_others(const uint8_t *frames, size_t at, size_t end) {
    PyObject *found = PyList_New(0);
    mp_frame frame;
    for (; found != NULL && mp_read_frame(frames, at, end, &frame); at = frame.end) {
        if (frame.kind == MP_RECORD || frame.kind == MP_PAD) {
            continue;
        }
        if (append_new(found, other_frame(&frame, frames)) < 0) {
            Py_CLEAR(found);
        }
    }
    return found;
}

static PyObject *other_frames(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer frames;
    Py_ssize_t start, end;
    PyObject *found = NULL;
    if (!PyArg_ParseTuple(arguments, "y*nn:other_frames", &frames, &start, &end)) {
        return NULL;
    }
    if (start < 0 || end > frames.len) {
        PyErr_Format(PyExc_ValueError, "expected a stretch of %zd bytes; got %zd to %zd", frames.len, start, end);
    } else {
        found = list_others(frames.buf, (size_t)start, end < start ? (size_t)start : (size_t)end);
    }
    PyBuffer_Release(&frames);
    return found;
}

static PyMethodDef functions[] = {
    {"other_frames", other_frames, METH_VARARGS,
     "other_frames($module, frames, start, end, /)\n--\n\n"
     "Find the frames between two bytes that are no records: of each its end, kind, number, lost, and begin and end of the payload."},
    {NULL, NULL, 0, NULL},
};

int frames_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
