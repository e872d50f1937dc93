/* crc.c: see crc.h. */

#include "crc.h"

#include <string.h>

#define POLYNOMIAL 0xEDB88320u
#define LANES 4

static uint32_t tables[8][256];

void crc_set_up(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1 ? POLYNOMIAL : 0) ^ (crc >> 1);
        }
        tables[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = tables[k - 1][byte];
            tables[k][byte] = (crc >> 8) ^ tables[0][crc & 255];
        }
    }
}

static inline uint32_t word_at(const uint8_t *data) {
    return data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

static inline uint32_t step(uint32_t crc, const uint8_t *data) {
    uint32_t low = word_at(data) ^ crc, high = word_at(data + 4);
    return tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^ tables[3][high & 255] ^
           tables[2][high >> 8 & 255] ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
}

uint32_t crc_of(uint32_t before, const uint8_t *data, size_t length) {
    uint32_t crc = ~before;
    for (; length >= 8; data += 8, length -= 8) {
        crc = step(crc, data);
    }
    for (; length > 0; data++, length--) {
        crc = (crc >> 8) ^ tables[0][(crc ^ *data) & 255];
    }
    return ~crc;
}

static void write_word(uint8_t *at, uint32_t word) {
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(word >> 8 * i);
    }
}

void crc_of_blocks(uint32_t before, const uint8_t *data, size_t length, size_t size, uint8_t *table) {
    size_t whole = size % 8 == 0 ? length / size / LANES * LANES : 0, block = 0;
    for (; block < whole; block += LANES) {
        uint32_t crc[LANES] = {~before, ~before, ~before, ~before};
        for (const uint8_t *at = data + block * size, *end = at + size; at < end; at += 8) {
            for (int lane = 0; lane < LANES; lane++) {
                crc[lane] = step(crc[lane], at + (size_t)lane * size);
            }
        }
        for (int lane = 0; lane < LANES; lane++) {
            write_word(table + 4 * (block + (size_t)lane), ~crc[lane]);
        }
    }
    for (size_t at = block * size; at < length; at += size, block++) {
        write_word(table + 4 * block, crc_of(before, data + at, length - at < size ? length - at : size));
    }
}
