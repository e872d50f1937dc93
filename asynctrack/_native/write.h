/* write.h: writes MessagePack into a buffer of fixed size, as msgspec does: each number in its shortest form. Plain C.

   A function writes from `at` on, and returns where it has ended; NULL where there is no room before `end`, and then what was written is of no use.
   The place is a value, not a field of a struct: a byte that is written could be a part of that, and the compiler would load it anew each time. */

#ifndef ASYNCTRACK_WRITE_H
#define ASYNCTRACK_WRITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What a tag and a number take at most. Who writes one makes sure of so many bytes, also where it takes fewer. */
#define MOST_NUMBER_BYTES 9

/* Writes the lowest `count` bytes of a number, the highest first; up to 8 bytes are written over. */
static inline uint8_t *write_digits(uint8_t *at, uint64_t value, int count) {
    value <<= 64 - 8 * count;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    memcpy(at, &value, sizeof value);
    return at + count;
}

static inline uint8_t *write_byte(uint8_t *at, const uint8_t *end, uint8_t byte) {
    if (at == end) {
        return NULL;
    }
    *at = byte;
    return at + 1;
}

/* Writes a tag and a number of 1, 2, 4 or 8 bytes behind it. */
static inline uint8_t *write_tagged(uint8_t *at, const uint8_t *end, uint8_t tag, uint64_t value, int count) {
    if (end - at < MOST_NUMBER_BYTES) {
        return NULL;
    }
    *at = tag;
    return write_digits(at + 1, value, count);
}

static inline uint8_t *write_unsigned(uint8_t *at, const uint8_t *end, uint64_t value) {
    if (value < 0x80) {
        return write_byte(at, end, (uint8_t)value);
    }
    if (value <= UINT8_MAX) {
        return write_tagged(at, end, 0xcc, value, 1);
    }
    if (value <= UINT16_MAX) {
        return write_tagged(at, end, 0xcd, value, 2);
    }
    if (value <= UINT32_MAX) {
        return write_tagged(at, end, 0xce, value, 4);
    }
    return write_tagged(at, end, 0xcf, value, 8);
}

static inline uint8_t *write_signed(uint8_t *at, const uint8_t *end, int64_t value) {
    if (value >= 0) {
        return write_unsigned(at, end, (uint64_t)value);
    }
    if (value >= -32) {
        return write_byte(at, end, (uint8_t)value);
    }
    if (value >= INT8_MIN) {
        return write_tagged(at, end, 0xd0, (uint64_t)value, 1);
    }
    if (value >= INT16_MIN) {
        return write_tagged(at, end, 0xd1, (uint64_t)value, 2);
    }
    if (value >= INT32_MIN) {
        return write_tagged(at, end, 0xd2, (uint64_t)value, 4);
    }
    return write_tagged(at, end, 0xd3, (uint64_t)value, 8);
}

static inline uint8_t *write_double(uint8_t *at, const uint8_t *end, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return write_tagged(at, end, 0xcb, bits, 8);
}

/* Writes how many items an array or a map has: `tag` is that of a short one, and `long_tag` that of one with 16 bits. */
static inline uint8_t *write_count(uint8_t *at, const uint8_t *end, uint8_t tag, uint8_t long_tag, uint64_t count) {
    if (count < 16) {
        return write_byte(at, end, (uint8_t)(tag | count));
    }
    if (count <= UINT16_MAX) {
        return write_tagged(at, end, long_tag, count, 2);
    }
    return count <= UINT32_MAX ? write_tagged(at, end, (uint8_t)(long_tag + 1), count, 4) : NULL;
}

static inline uint8_t *write_array(uint8_t *at, const uint8_t *end, uint64_t count) {
    return write_count(at, end, 0x90, 0xdc, count);
}

static inline uint8_t *write_map(uint8_t *at, const uint8_t *end, uint64_t count) {
    return write_count(at, end, 0x80, 0xde, count);
}

/* Makes sure that there is room for a head and so many bytes. */
static inline int lacks_room(const uint8_t *at, const uint8_t *end, size_t length) {
    return length > UINT32_MAX || (size_t)(end - at) < MOST_NUMBER_BYTES + length;
}

/* Writes the head of a text of so many bytes, and makes sure that there is room for these. */
static inline uint8_t *write_text_head(uint8_t *at, const uint8_t *end, size_t length) {
    if (lacks_room(at, end, length)) {
        return NULL;
    }
    if (length < 32) {
        *at = (uint8_t)(0xa0 | length);
        return at + 1;
    }
    int digits = length <= UINT8_MAX ? 1 : length <= UINT16_MAX ? 2 : 4;
    *at = digits == 1 ? 0xd9 : digits == 2 ? 0xda : 0xdb;
    return write_digits(at + 1, length, digits);
}

/* Copies bytes, of which there are few as a rule: a call for these would take longer. */
static inline uint8_t *copy_few(uint8_t *at, const uint8_t *from, size_t length) {
    if (length > 16) {
        memcpy(at, from, length);
    } else if (length >= 8) {
        memcpy(at, from, 8);
        memcpy(at + length - 8, from + length - 8, 8);
    } else if (length >= 4) {
        memcpy(at, from, 4);
        memcpy(at + length - 4, from + length - 4, 4);
    } else if (length > 0) {
        at[0] = from[0];
        at[length / 2] = from[length / 2];
        at[length - 1] = from[length - 1];
    }
    return at + length;
}

static inline uint8_t *write_bytes(uint8_t *at, const uint8_t *end, const void *bytes, size_t length) {
    if (lacks_room(at, end, length)) {
        return NULL;
    }
    int digits = length <= UINT8_MAX ? 1 : length <= UINT16_MAX ? 2 : 4;
    *at = digits == 1 ? 0xc4 : digits == 2 ? 0xc5 : 0xc6;
    at = write_digits(at + 1, length, digits);
    memcpy(at, bytes, length);
    return at + length;
}

#endif
