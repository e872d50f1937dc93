/* SipHash-1-3, keyed: who does not know the key finds no two names of one hash, however they are chosen. J.-P. Aumasson and D. J. Bernstein,
   "SipHash: a fast short-input PRF", 2012; one round for each word and three at the end, as CPython hashes its strings. */
#ifndef ASYNCTRACK_SIPHASH_H
#define ASYNCTRACK_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t sip_rotate(uint64_t word, int bits) { return word << bits | word >> (64 - bits); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = sip_rotate(v[1], 13) ^ v[0];
    v[3] = sip_rotate(v[3], 16) ^ v[2];
    v[0] = sip_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = sip_rotate(v[1], 17) ^ v[2];
    v[3] = sip_rotate(v[3], 21) ^ v[0];
    v[2] = sip_rotate(v[2], 32);
}

static inline void sip_take(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

static inline uint64_t siphash13(uint64_t first_key, uint64_t second_key, const void *bytes, size_t length)
{
    uint64_t v[4] = {first_key ^ 0x736f6d6570736575u, second_key ^ 0x646f72616e646f6du, first_key ^ 0x6c7967656e657261u,
                     second_key ^ 0x7465646279746573u};
    const uint8_t *at = bytes;
    size_t left = length;
    for (; left >= 8; at += 8, left -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        sip_take(v, word);
    }
    uint64_t last = 0;
    if (left) memcpy(&last, at, left);
    sip_take(v, last | (uint64_t)length << 56);
    v[2] ^= 0xff;
    for (int round = 0; round < 3; round++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
