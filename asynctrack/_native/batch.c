/* batch.c: makes a batch of the journal of what lies in a ring: copies it once and computes the checksums, without the interpreter lock. */

#include "native.h"

#include <string.h>

#include "crc.h"

#define BATCH_HEADER_BYTES 64
#define TABLE_CRC_AT 56
#define HEADER_CRC_AT 60
#define MOST_PARTS 2 /* what lies in a ring goes beyond its end once at most */

static void write_crc(uint8_t *at, uint32_t crc) {
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(crc >> 8 * i);
    }
}

/* Fills a batch: header, table and frames. */
static void fill(uint8_t *batch, const uint8_t *header, const Py_buffer *parts, Py_ssize_t count, size_t table_bytes, size_t block, uint32_t salt) {
    uint8_t *table = batch + BATCH_HEADER_BYTES, *frames = table + table_bytes;
    uint8_t *at = frames;
    for (Py_ssize_t i = 0; i < count; i++) {
        memcpy(at, parts[i].buf, (size_t)parts[i].len);
        at += parts[i].len;
    }
    crc_of_blocks(salt, frames, (size_t)(at - frames), block, table);
    memcpy(batch, header, TABLE_CRC_AT);
    write_crc(batch + TABLE_CRC_AT, crc_of(salt, table, table_bytes));
    write_crc(batch + HEADER_CRC_AT, crc_of(salt, batch, HEADER_CRC_AT));
}

static PyObject *pack(const uint8_t *header, const Py_buffer *parts, Py_ssize_t count, size_t block, uint32_t salt) {
    size_t length = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        length += (size_t)parts[i].len;
    }
    size_t table_bytes = 4 * ((length + block - 1) / block);
    PyObject *batch = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(BATCH_HEADER_BYTES + table_bytes + length));
    if (batch != NULL) {
        uint8_t *start = (uint8_t *)PyBytes_AS_STRING(batch);
        Py_BEGIN_ALLOW_THREADS
        fill(start, header, parts, count, table_bytes, block, salt);
        Py_END_ALLOW_THREADS
    }
    return batch;
}

static PyObject *pack_batch(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *header;
    Py_ssize_t header_bytes, block;
    PyObject *given, *batch = NULL;
    unsigned int salt;
    if (!PyArg_ParseTuple(arguments, "y#O!nI:pack_batch", &header, &header_bytes, &PyTuple_Type, &given, &block, &salt)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(given), taken = 0;
    if (header_bytes != BATCH_HEADER_BYTES || count > MOST_PARTS || block < 1) {
        return PyErr_Format(PyExc_ValueError, "expected a header of %d bytes, at most %d parts and blocks of bytes; got %zd, %zd and %zd",
                            BATCH_HEADER_BYTES, MOST_PARTS, header_bytes, count, block);
    }
    Py_buffer parts[MOST_PARTS];
    while (taken < count && PyObject_GetBuffer(PyTuple_GET_ITEM(given, taken), &parts[taken], PyBUF_SIMPLE) == 0) {
        taken++;
    }
    if (taken == count) {
        batch = pack((const uint8_t *)header, parts, count, (size_t)block, (uint32_t)salt);
    }
    while (taken > 0) {
        PyBuffer_Release(&parts[--taken]);
    }
    return batch;
}

static PyMethodDef functions[] = {
    {"pack_batch", pack_batch, METH_VARARGS,
     "pack_batch($module, header, parts, block, salt, /)\n--\n\n"
     "Return the bytes of a whole batch, with a checksum for each block of so many bytes; those of the header are filled in."},
    {NULL, NULL, 0, NULL},
};

int batch_exec(PyObject *module) {
    crc_set_up();
    return PyModule_AddFunctions(module, functions);
}
