/* two_threads.c: one thread stores frames in a ring, another takes them, as a caller and its worker do. ThreadSanitizer watches.

   It fails where a frame is seen before its bytes, where one is missing or changed, and where TSan finds a race. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../asynctrack/_native/store.h"

#define CAPACITY 4096
#define FRAMES 300000
#define TAIL 16 /* the index of a word; see `asynctrack/queue/layout.py` */
#define LONGEST 200

static ring_t ring = {.length = HEADER_BYTES + CAPACITY, .mask = CAPACITY - 1};

static uint64_t length_of(uint64_t number) {
    return number * 2654435761u % LONGEST;
}

/* Skips the end of the ring where a frame does not fit before it, and sets the limit anew, as `producer.py` does. */
static void make_room(uint64_t size) {
    uint64_t boundary = (ring.head | ring.mask) + 1;
    uint64_t tail = atomic_load_explicit(word_of(&ring, TAIL), memory_order_acquire);
    uint64_t free_until = tail + CAPACITY;
    if (ring.head + size + FRAME_HEADER_BYTES > boundary && boundary + size <= free_until) {
        uint64_t header[2] = {UINT64_MAX, boundary};
        memcpy(ring.base + HEADER_BYTES + (ring.head & ring.mask), header, sizeof header);
        ring.head = boundary;
        atomic_store_explicit(word_of(&ring, WORD_HEAD), boundary, memory_order_release);
        boundary += CAPACITY;
    }
    ring.limit = boundary - FRAME_HEADER_BYTES < free_until ? boundary - FRAME_HEADER_BYTES : free_until;
}

static void *put_all(void *nothing) {
    uint8_t payload[LONGEST];
    for (uint64_t number = 0; number < FRAMES; number++) {
        uint64_t length = length_of(number);
        memset(payload, (int)(number & 0xff), length);
        while (!store_frame(&ring, payload, length, 0, 1)) {
            make_room(frame_size(length));
        }
    }
    return nothing;
}

static void fail(const char *what, uint64_t number) {
    fprintf(stderr, "frame %llu: %s\n", (unsigned long long)number, what);
    exit(1);
}

/* Looks at one frame, and returns the position behind it. */
static uint64_t take(uint64_t tail, uint64_t *number) {
    const uint8_t *frame = ring.base + HEADER_BYTES + (tail & ring.mask);
    uint64_t header[2];
    memcpy(header, frame, sizeof header);
    if (header[0] == UINT64_MAX) {
        return header[1];
    }
    if (header[1] != *number || header[0] != length_of(*number)) {
        fail("another number or length", *number);
    }
    for (uint64_t i = 0; i < header[0]; i++) {
        if (frame[FRAME_HEADER_BYTES + i] != (*number & 0xff)) {
            fail("another payload", *number);
        }
    }
    ++*number;
    return tail + frame_size(header[0]);
}

static void *take_all(void *nothing) {
    for (uint64_t tail = 0, number = 0; number < FRAMES;) {
        uint64_t head = atomic_load_explicit(word_of(&ring, WORD_HEAD), memory_order_acquire);
        while (tail != head) {
            tail = take(tail, &number);
        }
        atomic_store_explicit(word_of(&ring, TAIL), tail, memory_order_release);
    }
    return nothing;
}

int main(void) {
    pthread_t threads[2];
    ring.base = aligned_alloc(64, ring.length);
    if (ring.base == NULL) {
        return 1;
    }
    memset(ring.base, 0, ring.length);
    if (pthread_create(&threads[0], NULL, put_all, NULL) || pthread_create(&threads[1], NULL, take_all, NULL)) {
        return 1;
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    free(ring.base);
    printf("%d frames, in order\n", FRAMES);
    return 0;
}
