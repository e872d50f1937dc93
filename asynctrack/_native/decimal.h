/* decimal.h: writes numbers as decimals, a double as the shortest that reads back as the same, in the form that msgspec gives it. Plain C. */

#ifndef ASYNCTRACK_DECIMAL_H
#define ASYNCTRACK_DECIMAL_H

#include <stdint.h>

/* Bytes that a number takes at most, and those behind it that may be written over. */
#define MOST_DECIMAL_BYTES 40

/* The powers of ten that doubles need. */
#define LEAST_POWER (-292)
#define MOST_POWER 324

typedef struct {
    uint64_t high, low;
} power;

/* The first 128 bits of each power of ten, rounded up. */
typedef struct {
    power of[MOST_POWER - LEAST_POWER + 1];
} powers_of_ten;

/* Computes them; this takes about 50 microseconds. */
void powers_begin(powers_of_ten *powers);

/* Each writes a number, and returns where it has ended. A double has to be finite. */
char *decimal_of_unsigned(char *at, uint64_t value);
char *decimal_of_signed(char *at, int64_t value);
char *decimal_of_double(char *at, const powers_of_ten *powers, double value);

#endif
