/* native.h: what the parts of the core share. Each part adds its functions and types to the module in a step of its own.

   A part `x.c` has `int x_exec(PyObject *module)`, declared here and listed in `module.c`. It returns -1 with an exception set.
   What needs no Python is plain C over bytes, in files that do not include this one, so that a fuzzer reaches it. */

#ifndef ASYNCTRACK_NATIVE_H
#define ASYNCTRACK_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int words_exec(PyObject *module);
int ring_exec(PyObject *module);
int encode_exec(PyObject *module);
int log_exec(PyObject *module);
int batch_exec(PyObject *module);
int frames_exec(PyObject *module);
int decode_exec(PyObject *module);
int buffer_exec(PyObject *module);
int scan_exec(PyObject *module);
int lines_exec(PyObject *module);
int buckets_exec(PyObject *module);
int points_exec(PyObject *module);
int pyramid_exec(PyObject *module);

#endif
