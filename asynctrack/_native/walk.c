/* walk.c: see walk.h. */

#include "walk.h"

#include <stdbool.h>

int append_new(PyObject *list, PyObject *item) {
    int failed = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return failed;
}

PyObject *other_frame(const mp_frame *frame, const uint8_t *frames) {
    Py_ssize_t begin = (Py_ssize_t)(frame->payload - frames);
    return Py_BuildValue("(niKInn)", (Py_ssize_t)frame->end, (int)frame->kind, (unsigned long long)frame->number, frame->lost, begin,
                         begin + (Py_ssize_t)frame->length);
}

PyObject *odd_frame(Py_ssize_t place, const mp_frame *frame, const uint8_t *frames) {
    Py_ssize_t begin = (Py_ssize_t)(frame->payload - frames);
    return Py_BuildValue("(nnKInn)", place, (Py_ssize_t)frame->end, (unsigned long long)frame->number, frame->lost, begin,
                         begin + (Py_ssize_t)frame->length);
}

/* The limits of a walk: the byte, and how many records, at which it stops. */
typedef struct {
    size_t stop;
    Py_ssize_t records;
} limits;

/* Takes the frames of a stretch; returns 1 where a limit was met before its end, and -1 with an exception. */
static int walk_stretch(const walk *over, size_t *at, size_t end, limits *left) {
    mp_frame frame;
    while (end >= MP_FRAME_HEADER && *at <= end - MP_FRAME_HEADER) {
        if (*at >= left->stop || left->records <= 0) {
            return 1;
        }
        if (!mp_read_frame(over->frames.buf, *at, end, &frame)) {
            *at = end;
            return 0;
        }
        *at = frame.end;
        left->records -= frame.kind == MP_RECORD;
        if (frame.kind != MP_PAD && over->take(over->to, &frame, over->frames.buf) < 0) {
            return -1;
        }
    }
    return 0;
}

static int walk_all(const walk *over, PyObject *whole, size_t *at, limits *left) {
    for (Py_ssize_t stretch = 0; stretch < PyList_GET_SIZE(whole); stretch++) {
        Py_ssize_t start, end;
        if (!PyArg_Parse(PyList_GET_ITEM(whole, stretch), "(nn)", &start, &end)) {
            return -1;
        }
        if (start < 0 || end < start || end > over->frames.len) {
            PyErr_Format(PyExc_ValueError, "expected a stretch of %zd bytes; got %zd to %zd", over->frames.len, start, end);
            return -1;
        }
        if (*at < (size_t)start) {
            *at = (size_t)start;
        }
        int stopped = walk_stretch(over, at, (size_t)end, left);
        if (stopped) {
            return stopped < 0 ? -1 : 0;
        }
    }
    *at = (size_t)over->frames.len;
    return 0;
}

int begin_alone(atomic_bool *busy, const char *who) {
    if (atomic_exchange(busy, true)) {
        PyErr_Format(PyExc_RuntimeError, "%s for one thread at a time; make one for each", who);
        return -1;
    }
    return 0;
}

int walk_frames(walk *over, PyObject *whole) {
    size_t at = over->inner < 0 ? 0 : (size_t)over->inner;
    limits left = {at + (over->max_bytes < 0 ? 0 : (size_t)over->max_bytes), over->max_records};
    if (over->inner % 8 != 0) {
        PyErr_Format(PyExc_ValueError, "expected the byte where a frame begins, a multiple of 8; got %zd", over->inner);
        return -1;
    }
    int failed = walk_all(over, whole, &at, &left);
    over->inner = (Py_ssize_t)at;
    return failed;
}
