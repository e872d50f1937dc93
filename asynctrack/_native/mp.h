/* MessagePack and frames, read from bytes that anybody may have written. No Python here, so that a fuzzer reaches all of it directly.

   Every length is checked before it is read. Nothing is allocated. */
#ifndef ASYNCTRACK_MP_H
#define ASYNCTRACK_MP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Levels of containers within a record's data that are followed here; deeper ones are left to Python. Arbitrary, above `MAX_DEPTH` of
   `records/media_types.py`, so that it takes whatever our own encoder has written. */
#define MP_MAX_DEPTH 70

typedef enum {
    MP_NIL,
    MP_BOOL,
    MP_INT,   /* fits a signed integer of 64 bits: `i` */
    MP_UINT,  /* beyond that, without a sign: `u` */
    MP_FLOAT, /* `f` */
    MP_STR,   /* `bytes`, `length` */
    MP_BIN,   /* `bytes`, `length` */
    MP_ARRAY, /* `length` items follow */
    MP_MAP,   /* `length` pairs follow */
    MP_EXT,   /* `bytes`, `length` */
} mp_kind;

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} mp_input;

typedef struct {
    mp_kind kind;
    uint32_t length;
    const uint8_t *bytes;
    union {
        int64_t i;
        uint64_t u;
        double f;
    };
} mp_item;

/* Reads the next item, of a container its head alone; false where it is cut short, or no MessagePack. What a container says that
   it holds has room in the rest of the input. */
bool mp_next(mp_input *in, mp_item *item);

/* Steps over the next value; false where it is cut short, no MessagePack, or nested more than `depth` levels deep. */
bool mp_skip(mp_input *in, int depth);

/* Tells whether bytes are UTF-8 as Python reads it: no surrogates, nothing longer than need be. */
bool mp_is_utf8(const uint8_t *bytes, size_t length);

/* The head of a record's payload, `[time_ns, step or nil, data]`; the input is then before the first key of `data`. */
typedef struct {
    mp_item time; /* MP_INT or MP_UINT */
    mp_item step; /* MP_INT, MP_UINT or MP_NIL */
    uint32_t pairs;
} mp_record;

bool mp_begin_record(mp_input *in, mp_record *record);

/* A frame of a batch, as `queue/layout.py` says. */
typedef struct {
    size_t end; /* the byte behind it */
    const uint8_t *payload;
    uint32_t length;
    uint32_t lost;
    uint64_t number;
    uint8_t kind;
} mp_frame;

enum { MP_RECORD = 0, MP_START = 1, MP_JOIN = 7, MP_PAD = 255, MP_FRAME_HEADER = 16 };

/* Reads the frame at byte `at` of frames that end at byte `end`. False where there is none: no room for a header, or a length that
   leads beyond the end, since the caller's process wrote over its own ring. */
bool mp_read_frame(const uint8_t *frames, size_t at, size_t end, mp_frame *frame);

#endif
