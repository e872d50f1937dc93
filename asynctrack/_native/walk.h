/* walk.h: goes over frames of a batch, and tells Python of those that the core leaves to it. */

#ifndef ASYNCTRACK_WALK_H
#define ASYNCTRACK_WALK_H

#include "native.h"

#include "mp.h"

#include <stdatomic.h>

/* What is gone over: frames from byte `inner` on, about `max_bytes`, at most so many records. */
typedef struct {
    Py_buffer frames;
    Py_ssize_t inner, max_bytes, max_records;
    int (*take)(void *to, const mp_frame *frame, const uint8_t *frames); /* takes one that is no padding; returns 0, and -1 with an exception */
    void *to;
} walk;

/* Begins what one thread does at a time, until it sets `busy` to false again; returns -1 with an exception, which names `who`, where another does so. */
int begin_alone(atomic_bool *busy, const char *who);

/* Takes the frames of the stretches in `whole`; `inner` is then the byte behind them. Returns -1 with an exception. */
int walk_frames(walk *over, PyObject *whole);

/* Describes a frame: the byte behind it, its kind, number, lost, and begin and end of its payload. */
PyObject *other_frame(const mp_frame *frame, const uint8_t *frames);

/* Describes a record's frame, which belongs at a place: that, the byte behind it, its number, lost, and begin and end of its payload. */
PyObject *odd_frame(Py_ssize_t place, const mp_frame *frame, const uint8_t *frames);

/* Appends an object, which may be NULL with an exception, and lets go of it. Returns -1 with an exception. */
int append_new(PyObject *list, PyObject *item);

#endif
