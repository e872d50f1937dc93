/* encode.c: encodes the values that users log most: dicts, lists, tuples, texts, numbers, bytes, and NumPy's scalars of types once met.

   `asynctrack/records/` is the specification: for what is encoded here, the bytes are the same. All else is left to it, and it is told so by
   NULL: subclasses, integers beyond 64 bits, texts that are not Unicode, keys that are no texts, values of other types, what is deep or long. */

#include "encode.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

/* Deeper containers are left to Python, and so is what contains itself. */
#define MOST_DEPTH 16

/* NumPy's scalars. A scalar's number lies in the object itself, at an offset that its buffer shows. The type is stored last, and releases the rest:
   without an interpreter lock another thread may look for it meanwhile. */
typedef struct {
    _Atomic(PyTypeObject *) type;
    uint16_t offset;
    char format;
} scalar_type_t;

/* A power of two, and far more than NumPy has types of numbers. */
#define SCALAR_SLOTS 64
static scalar_type_t scalar_types[SCALAR_SLOTS];
static int scalar_count;
#ifdef Py_GIL_DISABLED
static PyMutex learning; /* guards the slots against a second writer */
#define LOCK() PyMutex_Lock(&learning)
#define UNLOCK() PyMutex_Unlock(&learning)
#else
#define LOCK()
#define UNLOCK()
#endif

static inline size_t slot_of(const PyTypeObject *type) {
    return ((uintptr_t)type >> 6) * 0x9e3779b1u >> 8 & (SCALAR_SLOTS - 1);
}

/* Finds the slot of a type, or the empty one where it would be. */
static inline scalar_type_t *find_scalar_type(const PyTypeObject *type) {
    for (size_t at = slot_of(type);; at = (at + 1) & (SCALAR_SLOTS - 1)) {
        const PyTypeObject *here = atomic_load_explicit(&scalar_types[at].type, memory_order_acquire);
        if (here == NULL || here == type) {
            return &scalar_types[at];
        }
    }
}

#define READ_AS(kind)                                                                                                                                          \
    kind value;                                                                                                                                                \
    memcpy(&value, at, sizeof value)

static uint8_t *write_scalar(uint8_t *to, const uint8_t *end, const char *at, char format) {
    switch (format) {
    case '?': {
        READ_AS(uint8_t);
        return write_byte(to, end, value ? 0xc3 : 0xc2);
    }
    case 'b': {
        READ_AS(signed char);
        return write_signed(to, end, value);
    }
    case 'B': {
        READ_AS(unsigned char);
        return write_unsigned(to, end, value);
    }
    case 'h': {
        READ_AS(short);
        return write_signed(to, end, value);
    }
    case 'H': {
        READ_AS(unsigned short);
        return write_unsigned(to, end, value);
    }
    case 'i': {
        READ_AS(int);
        return write_signed(to, end, value);
    }
    case 'I': {
        READ_AS(unsigned int);
        return write_unsigned(to, end, value);
    }
    case 'l': {
        READ_AS(long);
        return write_signed(to, end, value);
    }
    case 'L': {
        READ_AS(unsigned long);
        return write_unsigned(to, end, value);
    }
    case 'q': {
        READ_AS(long long);
        return write_signed(to, end, value);
    }
    case 'Q': {
        READ_AS(unsigned long long);
        return write_unsigned(to, end, value);
    }
    case 'e': {
        double value = PyFloat_Unpack2(at, __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
        return value != value ? NULL : write_double(to, end, value); /* the bits of a NaN are kept by NumPy, and lost here */
    }
    case 'f': {
        READ_AS(float);
        return write_double(to, end, value);
    }
    case 'd': {
        READ_AS(double);
        return write_double(to, end, value);
    }
    default:
        return NULL;
    }
}

static size_t size_of_format(char format) {
    switch (format) {
    case '?':
    case 'b':
    case 'B':
        return 1;
    case 'h':
    case 'H':
    case 'e':
        return 2;
    case 'i':
    case 'I':
    case 'f':
        return 4;
    case 'l':
    case 'L':
        return sizeof(long);
    case 'q':
    case 'Q':
    case 'd':
        return 8;
    default:
        return 0;
    }
}

/* Counts the bytes of a text in UTF-8; -1 where it is no Unicode. */
static Py_ssize_t utf8_length(int kind, const void *data, Py_ssize_t count) {
    Py_ssize_t length = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_UCS4 letter = PyUnicode_READ(kind, data, i);
        if (letter >= 0xd800 && letter < 0xe000) {
            return -1;
        }
        length += letter < 0x80 ? 1 : letter < 0x800 ? 2 : letter < 0x10000 ? 3 : 4;
    }
    return length;
}

static uint8_t *write_utf8(uint8_t *at, int kind, const void *data, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_UCS4 letter = PyUnicode_READ(kind, data, i);
        if (letter < 0x80) {
            *at++ = (uint8_t)letter;
        } else if (letter < 0x800) {
            *at++ = (uint8_t)(0xc0 | letter >> 6);
            *at++ = (uint8_t)(0x80 | (letter & 0x3f));
        } else {
            if (letter < 0x10000) {
                *at++ = (uint8_t)(0xe0 | letter >> 12);
            } else {
                *at++ = (uint8_t)(0xf0 | letter >> 18);
                *at++ = (uint8_t)(0x80 | (letter >> 12 & 0x3f));
            }
            *at++ = (uint8_t)(0x80 | (letter >> 6 & 0x3f));
            *at++ = (uint8_t)(0x80 | (letter & 0x3f));
        }
    }
    return at;
}

/* Writes a text that is not ASCII. CPython's own conversion would keep its result with the text, and raise for half a surrogate pair. */
static uint8_t *write_wide_text(uint8_t *at, const uint8_t *end, PyObject *text) {
    Py_ssize_t count = PyUnicode_GET_LENGTH(text);
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    Py_ssize_t length = count > MOST_PAYLOAD_BYTES ? -1 : utf8_length(kind, data, count);
    at = length < 0 ? NULL : write_text_head(at, end, (size_t)length);
    return at == NULL ? NULL : write_utf8(at, kind, data, count);
}

static inline uint8_t *write_text(uint8_t *at, const uint8_t *end, PyObject *text) {
    if (!PyUnicode_IS_COMPACT_ASCII(text)) {
#if PY_VERSION_HEX < 0x030c0000
        if (!PyUnicode_IS_READY(text)) {
            return NULL;
        }
#endif
        return write_wide_text(at, end, text);
    }
    size_t length = (size_t)PyUnicode_GET_LENGTH(text);
    at = write_text_head(at, end, length);
    return at == NULL ? NULL : copy_few(at, (const uint8_t *)((PyASCIIObject *)text + 1), length);
}

static inline uint8_t *write_integer(uint8_t *at, const uint8_t *end, PyObject *integer) {
#if PY_VERSION_HEX >= 0x030c0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)integer)) {
        return write_signed(at, end, PyUnstable_Long_CompactValue((PyLongObject *)integer));
    }
#else
    Py_ssize_t digits = Py_SIZE(integer);
    if (digits >= -1 && digits <= 1) {
        return write_signed(at, end, digits * (int64_t)((PyLongObject *)integer)->ob_digit[0]);
    }
#endif
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(integer, &overflow);
    return overflow ? NULL : write_signed(at, end, value);
}

static uint8_t *write_rarer(uint8_t *at, const uint8_t *end, PyObject *value, int depth);

static inline uint8_t *write_value(uint8_t *at, const uint8_t *end, PyObject *value, int depth) {
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyFloat_Type) {
        return write_double(at, end, PyFloat_AS_DOUBLE(value));
    }
    if (type == &PyLong_Type) {
        return write_integer(at, end, value);
    }
    if (type == &PyUnicode_Type) {
        return write_text(at, end, value);
    }
    return write_rarer(at, end, value, depth);
}

static uint8_t *write_items(uint8_t *at, const uint8_t *end, PyObject *const *items, Py_ssize_t count, int depth) {
    at = depth > MOST_DEPTH ? NULL : write_array(at, end, (uint64_t)count);
    for (Py_ssize_t i = 0; i < count && at != NULL; i++) {
        at = write_value(at, end, items[i], depth);
    }
    return at;
}

static uint8_t *write_dict(uint8_t *at, const uint8_t *end, PyObject *dict, int depth) {
    at = depth > MOST_DEPTH ? NULL : write_map(at, end, (uint64_t)PyDict_GET_SIZE(dict));
    PyObject *key, *value;
    for (Py_ssize_t next = 0; at != NULL && PyDict_Next(dict, &next, &key, &value);) {
        at = PyUnicode_CheckExact(key) ? write_text(at, end, key) : NULL;
        at = at == NULL ? NULL : write_value(at, end, value, depth);
    }
    return at;
}

/* Writes what may change under another thread where there is no interpreter lock: there it takes Python's copy. */
static uint8_t *write_container(uint8_t *at, const uint8_t *end, PyObject *value, int depth) {
#ifdef Py_GIL_DISABLED
    (void)at, (void)end, (void)value, (void)depth;
    return NULL;
#else
    if (PyDict_CheckExact(value)) {
        return write_dict(at, end, value, depth);
    }
    return write_items(at, end, ((PyListObject *)value)->ob_item, PyList_GET_SIZE(value), depth);
#endif
}

static uint8_t *write_rarer(uint8_t *at, const uint8_t *end, PyObject *value, int depth) {
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyBool_Type) {
        return write_byte(at, end, value == Py_True ? 0xc3 : 0xc2);
    }
    if (value == Py_None) {
        return write_byte(at, end, 0xc0);
    }
    if (type == &PyDict_Type || type == &PyList_Type) {
        return write_container(at, end, value, depth + 1);
    }
    if (type == &PyTuple_Type) {
        return write_items(at, end, ((PyTupleObject *)value)->ob_item, PyTuple_GET_SIZE(value), depth + 1);
    }
    if (type == &PyBytes_Type) {
        return write_bytes(at, end, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
    }
    /* NumPy's float64. A class of Python's may be an enumeration. */
    if (PyFloat_Check(value) && !(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        return write_double(at, end, PyFloat_AS_DOUBLE(value));
    }
    const scalar_type_t *scalar = find_scalar_type(type);
    return atomic_load_explicit(&scalar->type, memory_order_acquire) != type ? NULL : write_scalar(at, end, (const char *)value + scalar->offset, scalar->format);
}

uint8_t *encode_record(uint8_t *at, const uint8_t *end, PyObject *data, PyObject *step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at = write_array(at, end, 3);
    at = write_signed(at, end, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    at = step == Py_None ? write_byte(at, end, 0xc0) : write_integer(at, end, step);
    if (at == NULL) {
        return NULL;
    }
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(data);
#endif
    at = write_dict(at, end, data, 0);
#ifdef Py_GIL_DISABLED
    Py_END_CRITICAL_SECTION();
#endif
    return at;
}

/* Where a scalar's number lies, as its buffer shows it; false where that is not in the object, or no format that is known here. */
static bool look_at(PyObject *scalar, uint16_t *place, char *kind) {
    Py_buffer buffer;
    if (PyObject_GetBuffer(scalar, &buffer, PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        return false;
    }
    const char *format = buffer.format != NULL ? buffer.format : "B";
    Py_ssize_t offset = (const char *)buffer.buf - (const char *)scalar;
    size_t size = size_of_format(format[0]);
    bool known = format[0] != '\0' && format[1] == '\0' && size != 0 && (size_t)buffer.len == size && offset >= (Py_ssize_t)sizeof(PyObject) &&
                 offset + (Py_ssize_t)size <= Py_TYPE(scalar)->tp_basicsize;
    *place = (uint16_t)offset;
    *kind = format[0];
    PyBuffer_Release(&buffer);
    return known;
}

/* Keeps what `look_at` has found; false where there are too many types. */
static bool keep_type(PyTypeObject *type, uint16_t offset, char format) {
    LOCK();
    scalar_type_t *slot = find_scalar_type(type);
    bool known = atomic_load_explicit(&slot->type, memory_order_relaxed) != NULL;
    bool fits = known || scalar_count < SCALAR_SLOTS / 2;
    if (fits && !known) {
        slot->offset = offset;
        slot->format = format;
        Py_INCREF(type);
        atomic_store_explicit(&slot->type, type, memory_order_release);
        scalar_count++;
    }
    UNLOCK();
    return fits;
}

static PyObject *learn(PyObject *module, PyObject *scalar) {
    (void)module;
    PyTypeObject *type = Py_TYPE(scalar);
    uint16_t offset;
    char format;
    /* A class of Python's may have a `__float__` of its own, and what has items is no scalar. */
    if (type->tp_flags & Py_TPFLAGS_HEAPTYPE || type->tp_itemsize != 0 || !look_at(scalar, &offset, &format)) {
        Py_RETURN_FALSE;
    }
    return PyBool_FromLong(keep_type(type, offset, format));
}

static PyObject *encode(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (count != 2 || !PyDict_CheckExact(arguments[0]) || (arguments[1] != Py_None && !PyLong_CheckExact(arguments[1]))) {
        PyErr_SetString(PyExc_TypeError, "encode_record() takes a dict, and a step or None");
        return NULL;
    }
    PyObject *payload = PyBytes_FromStringAndSize(NULL, MOST_PAYLOAD_BYTES);
    if (payload == NULL) {
        return NULL;
    }
    uint8_t *start = (uint8_t *)PyBytes_AS_STRING(payload);
    uint8_t *end = encode_record(start, start + MOST_PAYLOAD_BYTES, arguments[0], arguments[1]);
    if (end == NULL) {
        Py_DECREF(payload);
        Py_RETURN_NONE;
    }
    _PyBytes_Resize(&payload, end - start);
    return payload;
}

static PyMethodDef methods[] = {
    {"encode_record", (PyCFunction)(void (*)(void))encode, METH_FASTCALL,
     "encode_record(data, step, /)\n--\n\nEncode a record at this moment; return None where it takes Python."},
    {"learn", learn, METH_O, "learn(scalar, /)\n--\n\nEncode NumPy's scalars of this type from here on; return False where that cannot be done."},
    {NULL, NULL, 0, NULL},
};

int encode_exec(PyObject *module) {
    return PyModule_AddFunctions(module, methods);
}
