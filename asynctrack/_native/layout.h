/* layout.h: the parts of `asynctrack/queue/layout.py` that the core needs. Plain C. */

#ifndef ASYNCTRACK_LAYOUT_H
#define ASYNCTRACK_LAYOUT_H

#include <stdint.h>

#define HEADER_BYTES 8192
#define FRAME_HEADER_BYTES 16

/* Words of a ring's header. */
#define WORD_FIRST 4
#define WORD_HEAD 8

#define LOST_SHIFT 32
#define LOST_MASK ((((uint64_t)1 << 32) - 1) << LOST_SHIFT)

/* Says how many bytes a frame with a payload of this length takes. */
static inline uint64_t frame_size(uint64_t length) {
    return (length + FRAME_HEADER_BYTES + 7) & ~(uint64_t)7;
}

#endif
