/* store.h: stores one frame in a ring. Plain C, so that a test of two threads reaches it without Python.

   The frame's bytes come first, then the head, by a release store: who loads the head by an acquire load, on any core, finds the bytes. */

#ifndef ASYNCTRACK_STORE_H
#define ASYNCTRACK_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "layout.h"

/* A ring, as its one producer has it; see `asynctrack/queue/fast_put.py`, which says what each of these is. */
typedef struct {
    uint8_t *base; /* of the mapping, header and all; NULL before there is one */
    size_t length; /* of the mapping */
    uint64_t mask;
    uint64_t head;
    uint64_t limit;
    uint64_t lost;
    uint64_t number;
} ring_t;

static inline _Atomic uint64_t *word_of(const ring_t *ring, size_t index) {
    return (_Atomic uint64_t *)ring->base + index;
}

/* Stores a frame before the limit; false where it would pass that. One thread at a time. */
static inline bool store_frame(ring_t *ring, const void *payload, uint64_t length, uint64_t kind, uint64_t count) {
    uint64_t size = frame_size(length);
    uint64_t end = ring->head + size;
    uint64_t offset = HEADER_BYTES + (ring->head & ring->mask);
    /* The limit is before the end of the ring. That the mapping goes so far is looked at all the same: Python sets both. */
    if (end > ring->limit || offset + size > ring->length) {
        return false;
    }
    uint64_t header[2] = {length + ring->lost, ring->number + kind};
    memcpy(ring->base + offset, header, sizeof header);
    memcpy(ring->base + offset + FRAME_HEADER_BYTES, payload, length);
    ring->number += count;
    ring->head = end;
    atomic_store_explicit(word_of(ring, WORD_HEAD), end, memory_order_release);
    return true;
}

#endif
