/* buffer.h: memory of C's that Python takes as a buffer. */

#ifndef ASYNCTRACK_BUFFER_H
#define ASYNCTRACK_BUFFER_H

#include "native.h"

#include <stddef.h>

/* Makes a buffer of `count` items that are in `bytes`, which it owns from here on, also where it fails; NULL for `bytes` is a lack of memory. */
PyObject *wrap_buffer(void *bytes, size_t count, Py_ssize_t item_size, char format);

#endif
