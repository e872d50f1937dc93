/* encode.h: what `encode.c` offers the other parts. */

#ifndef ASYNCTRACK_ENCODE_H
#define ASYNCTRACK_ENCODE_H

#include "native.h"
#include "write.h"

/* The longest payload that is encoded here. `snapshot.py` cuts a record of 32,768 containers, of which none takes less than a byte: so what fits here is never cut. */
#define MOST_PAYLOAD_BYTES 32768

/* Writes `[time, step or nil, data]`, with the time of this moment, into a buffer of at least 64 bytes. Returns where it ends; NULL where it takes Python:
   the record is too long, or has a value of another type.

   Nothing in it can call Python, or raise: it makes no object, so the garbage collector does not run, and no other thread comes in. */
uint8_t *encode_record(uint8_t *at, const uint8_t *end, PyObject *data, PyObject *step);

#endif
