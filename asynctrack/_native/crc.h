/* crc.h: CRC-32 of the blocks of a batch, as zlib computes it. Plain C.

   Eight tables take eight bytes at a step ("slicing by eight": Kounavis and Berry, 2005). A step waits for the one before, so blocks are taken four at
   a time: each has a checksum of its own, and a core does the steps of four side by side. */

#ifndef ASYNCTRACK_CRC_H
#define ASYNCTRACK_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Fills the tables; before the first checksum. */
void crc_set_up(void);

/* Continues a checksum, as `zlib.crc32(data, before)`. */
uint32_t crc_of(uint32_t before, const uint8_t *data, size_t length);

/* Writes the checksum of each block of `size` bytes, the last of which may be shorter, as little-endian words. */
void crc_of_blocks(uint32_t before, const uint8_t *data, size_t length, size_t size, uint8_t *table);

#endif
