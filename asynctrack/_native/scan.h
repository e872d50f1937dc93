/* scan.h: a scan for other parts of the core, which take the records that it reads. */

#ifndef ASYNCTRACK_SCAN_H
#define ASYNCTRACK_SCAN_H

#include "native.h"

#include "columns.h"

typedef struct {
    PyObject_HEAD
    PyObject *objects; /* what was put and has no tag of its own */
    columns all;
    bool broken; /* memory ran out half-way */
} scan;

bool is_scan(PyObject *object);

/* Returns the flat name of a column. */
PyObject *scan_name(const column *of);

#endif
