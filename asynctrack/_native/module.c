/* module.c: makes `asynctrack._native` of its parts. A part is a line in `slots`. */

#include "native.h"

#ifndef NATIVE_API
#error "setup.py defines NATIVE_API: the number that asynctrack/_system/native.py expects"
#endif

static int api_exec(PyObject *module) {
    PyObject *api = PyLong_FromUnsignedLong(NATIVE_API);
    int result = PyModule_AddObjectRef(module, "API", api);
    Py_XDECREF(api);
    return result;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, api_exec},
    {Py_mod_exec, words_exec},
    {Py_mod_exec, ring_exec},
    {Py_mod_exec, encode_exec},
    {Py_mod_exec, log_exec},
    {Py_mod_exec, batch_exec},
    {Py_mod_exec, frames_exec},
    {Py_mod_exec, decode_exec},
    {Py_mod_exec, buffer_exec},
    {Py_mod_exec, scan_exec},
    {Py_mod_exec, lines_exec},
    {Py_mod_exec, buckets_exec},
    {Py_mod_exec, points_exec},
    {Py_mod_exec, pyramid_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "asynctrack._native",
    .m_doc = "The native core: the loops that every record passes.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&definition);
}
