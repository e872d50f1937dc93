/* ring.h: what `ring.c` offers the other parts. */

#ifndef ASYNCTRACK_RING_H
#define ASYNCTRACK_RING_H

#include "native.h"

#include "store.h"

/* Stores frames in a ring; `asynctrack/queue/fast_put.py` does the same. */
typedef struct {
    PyObject_HEAD
    ring_t store;
    Py_buffer buffer; /* keeps the mapping */
    PyObject *ring;
    PyObject *words;
    PyObject *data;
    PyObject *lock;
    PyObject *side;
#ifdef Py_GIL_DISABLED
    PyMutex mutex; /* guards the store */
#endif
} FastPut;

/* Places one frame; false where the ring is claimed or full, or something has to be looked at. Nothing in it can call Python. */
bool place(FastPut *self, const void *payload, uint64_t length, uint64_t kind, uint64_t count);

/* Puts what came in between while Python made room, if there is anything; -1 with an exception set. */
int put_side(FastPut *self);

/* Returns the producer whose own `put` a bound method is, borrowed; NULL where it is any other. */
FastPut *producer_of(PyObject *method);

#endif
