/* Numbers as decimals: see decimal.h.

   The digits of a double are found by Schubfach: Raffaello Giulietti, "The Schubfach way to render doubles" (2020), whose names for quantities are used here. */
#include "decimal.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Decimals whose first digit stands for 10^-5 to 10^15 are written without an exponent, as msgspec does. */
#define LEAST_PLAIN (-5)
#define MOST_PLAIN 15

#define FRACTION_BITS 52
#define EXPONENT_MASK 0x7ff
/* The exponent of a double's last bit, where it is written as 0. */
#define EXPONENT_BIAS 1075

/* Words of 32 bits of a number that is multiplied and divided by 5: 5^324 takes 753 bits, and 2^BITS / 5^292 has to leave 128. */
#define WORDS 36
#define BITS (32 * (WORDS - 1))

typedef unsigned __int128 wide;

/* Takes the first 128 bits of a number, the highest of them set, rounded up. `exact` says that nothing comes behind its words. */
static power first_bits(const uint32_t *words, bool exact)
{
    int top = WORDS - 1;
    while (!words[top]) top--;
    int shift = __builtin_clz(words[top]);
    uint32_t first[5];
    for (int at = 0; at < 5; at++) first[at] = top - at >= 0 ? words[top - at] : 0;
    for (int at = top - 4; exact && at >= 0; at--) exact = !words[at] || (at == top - 4 && !(uint32_t)((uint64_t)words[at] << shift));
    wide bits = 0;
    for (int at = 0; at < 4; at++) bits = bits << 32 | (uint32_t)(((uint64_t)first[at] << 32 | first[at + 1]) >> (32 - shift));
    bits += !exact;
    return (power){(uint64_t)(bits >> 64), (uint64_t)bits};
}

static void multiply_by_5(uint32_t *words)
{
    uint64_t carry = 0;
    for (int at = 0; at < WORDS; at++) {
        carry += (uint64_t)words[at] * 5;
        words[at] = (uint32_t)carry;
        carry >>= 32;
    }
}

static void divide_by_5(uint32_t *words)
{
    uint64_t rest = 0;
    for (int at = WORDS - 1; at >= 0; at--) {
        rest = rest << 32 | words[at];
        words[at] = (uint32_t)(rest / 5);
        rest %= 5;
    }
}

/* The powers of 10 and of 5 have the same first bits. */
void powers_begin(powers_of_ten *powers)
{
    uint32_t words[WORDS] = {1};
    for (int k = 0; k <= MOST_POWER; k++) {
        powers->of[k - LEAST_POWER] = first_bits(words, true);
        multiply_by_5(words);
    }
    memset(words, 0, sizeof words);
    words[BITS / 32] = 1;
    for (int k = -1; k >= LEAST_POWER; k--) {
        divide_by_5(words);
        powers->of[k - LEAST_POWER] = first_bits(words, false);
    }
}

/* Returns the whole part of a product with a power, its last bit set where anything was cut. */
static uint64_t round_to_odd(power g, uint64_t factor)
{
    wide low = (wide)g.low * factor, high = (wide)g.high * factor + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* The exact values of these for all exponents of doubles. */
static int floor_log2_of_power(int k) { return (k * 1741647) >> 19; }
static int floor_log10_of_power(int q, bool three_quarters) { return (q * 1262611 - (three_quarters ? 524031 : 0)) >> 22; }

/* Chooses among the decimals that read back as c * 2^q: the shortest, then the nearest. Its digits count 10^k; the last is 0 where one less will do.

   Which of them it is is as good as random, so nothing here branches on that. */
static uint64_t shortest_of(const powers_of_ten *powers, uint64_t c, int q, bool lower_is_closer, int k)
{
    bool odd = c & 1;
    int h = q + floor_log2_of_power(-k) + 1;
    power g = powers->of[-k - LEAST_POWER];
    uint64_t lower = round_to_odd(g, (4 * c - 2 + lower_is_closer) << h) + odd;
    uint64_t value = round_to_odd(g, (4 * c) << h);
    uint64_t upper = round_to_odd(g, (4 * c + 2) << h) - odd;
    uint64_t s = value / 4, tens = s / 10, middle = 4 * s + 2;
    bool is_ten_below_inside = lower <= 40 * tens, is_ten_above_inside = 40 * tens + 40 <= upper;
    bool is_below_inside = lower <= 4 * s, is_above_inside = 4 * s + 4 <= upper;
    uint64_t one_less = 10 * (tens + is_ten_above_inside);
    bool is_above_nearer = (value > middle) | ((value == middle) & (bool)(s & 1));
    uint64_t all = s + (is_below_inside != is_above_inside ? is_above_inside : is_above_nearer);
    return (is_ten_below_inside != is_ten_above_inside) & (s >= 10) ? one_less : all;
}

static const uint64_t TENS[] = {
    1u, 10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u, 1000000000u, 10000000000u, 100000000000u, 1000000000000u, 10000000000000u,
    100000000000000u, 1000000000000000u, 10000000000000000u, 100000000000000000u,
};

/* Counts the digits of a number below 10^17; of 0 there are none. */
static int count_digits(uint64_t value)
{
    int guess = (64 - __builtin_clzll(value | 1)) * 1233 >> 12;
    return guess + (value >= TENS[guess]);
}

/* Eight digits, or characters, are a word here, the first of them in its lowest byte, and are written at once: what is written byte by byte and read as a word
   right after that makes the processor wait. */
#define EIGHT_ZEROS 0x3030303030303030u

/* Splits a number below 10^8 into eight digits: halves, pairs, digits. */
static uint64_t eight_digits(uint32_t value)
{
    uint64_t halves = value / 10000 | (uint64_t)(value % 10000) << 32;
    uint64_t hundreds = (halves * 10486 >> 20) & 0x0000007f0000007fu;
    uint64_t pairs = hundreds | (halves - 100 * hundreds) << 16;
    uint64_t tens = (pairs * 103 >> 10) & 0x000f000f000f000fu;
    return tens | (pairs - 10 * tens) << 8;
}

static char *write_eight(char *at, uint64_t characters)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    characters = __builtin_bswap64(characters);
#endif
    memcpy(at, &characters, sizeof characters);
    return at + sizeof characters;
}

/* Writes a positive number below 10^8. */
static char *write_few(char *at, uint32_t value)
{
    uint64_t digits = eight_digits(value);
    int zeros = __builtin_ctzll(digits) & ~7;
    return write_eight(at, (digits | EIGHT_ZEROS) >> zeros) - zeros / 8;
}

static char *write_last_eight(char *at, uint64_t value)
{
    return write_eight(at, eight_digits((uint32_t)(value % TENS[8])) | EIGHT_ZEROS);
}

char *decimal_of_unsigned(char *at, uint64_t value)
{
    if (value < 10) {
        *at = (char)('0' + value);
        return at + 1;
    }
    if (value < TENS[8]) return write_few(at, (uint32_t)value);
    if (value < TENS[16]) return write_last_eight(write_few(at, (uint32_t)(value / TENS[8])), value);
    return write_last_eight(write_last_eight(write_few(at, (uint32_t)(value / TENS[16])), value / TENS[8]), value);
}

char *decimal_of_signed(char *at, int64_t value)
{
    if (value >= 0) return decimal_of_unsigned(at, (uint64_t)value);
    *at = '-';
    return decimal_of_unsigned(at + 1, 0 - (uint64_t)value);
}

/* The 17 digits of a double, the last of which may be 0. */
typedef struct {
    int power;   /* the first digit stands for 10^power */
    char first;
    wide others; /* 16 characters, the first of them in its lowest byte */
    int count;   /* without the zeros at the end; at least 1 */
} decimal;

static inline decimal decimal_of_digits(uint64_t digits, int power)
{
    uint64_t high = digits / TENS[8];
    uint64_t first = high / TENS[8];
    uint64_t middle = eight_digits((uint32_t)(high - first * TENS[8])), last = eight_digits((uint32_t)(digits - high * TENS[8]));
    int zeros = last ? __builtin_clzll(last) / 8 : 8 + (middle ? __builtin_clzll(middle) / 8 : 8);
    return (decimal){power, (char)('0' + first), (wide)(last | EIGHT_ZEROS) << 64 | (middle | EIGHT_ZEROS), 17 - zeros};
}

/* Makes 17 digits of fewer that count 10^k. */
static decimal decimal_of_few(uint64_t digits, int k)
{
    int count = count_digits(digits);
    return decimal_of_digits(digits * TENS[17 - count], k + count - 1);
}

/* Finds the decimal of a positive double. */
static inline decimal decimal_of_bits(const powers_of_ten *powers, uint64_t bits)
{
    uint64_t fraction = bits & (((uint64_t)1 << FRACTION_BITS) - 1);
    int exponent = (int)(bits >> FRACTION_BITS);
    uint64_t c = exponent ? fraction | (uint64_t)1 << FRACTION_BITS : fraction;
    int q = (exponent ? exponent : 1) - EXPONENT_BIAS;
    if (q <= 0 && q > -FRACTION_BITS - 1 && !(c & (((uint64_t)1 << -q) - 1))) return decimal_of_few(c >> -q, 0);
    bool lower_is_closer = !fraction && exponent > 1;
    int k = floor_log10_of_power(q, lower_is_closer);
    uint64_t digits = shortest_of(powers, c, q, lower_is_closer, k);
    if (!exponent) return decimal_of_few(digits, k);
    bool is_long = digits >= TENS[16]; /* else it has 16 */
    return decimal_of_digits(is_long ? digits : digits * 10, k + 15 + is_long);
}

static void write_sixteen(char *at, wide characters) { write_eight(write_eight(at, (uint64_t)characters), (uint64_t)(characters >> 64)); }

/* Writes a point behind the first digit, and how far it has to move. */
static char *write_with_exponent(char *at, const decimal *of)
{
    at[0] = of->first;
    at[1] = '.';
    write_sixteen(at + 2, of->others);
    at += of->count > 1 ? of->count + 1 : 1;
    *at = 'e';
    return decimal_of_signed(at + 1, of->power);
}

static inline char *write_plain(char *at, const decimal *of)
{
    int power = of->power;
    if (power < 0) {
        write_eight(at, EIGHT_ZEROS);
        at[1] = '.';
        at[1 - power] = of->first;
        write_sixteen(at + 2 - power, of->others);
        return at + 1 - power + of->count;
    }
    at[0] = of->first;
    write_sixteen(at + 1, of->others);
    write_sixteen(at + 2 + power, of->others >> 8 * power);
    at[1 + power] = '.';
    return at + 2 + (of->count > power + 1 ? of->count - 1 : power + 1);
}

char *decimal_of_double(char *at, const powers_of_ten *powers, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    *at = '-';
    at += bits >> 63;
    bits &= UINT64_MAX >> 1;
    if (!bits) {
        memcpy(at, "0.0", 3);
        return at + 3;
    }
    decimal found = decimal_of_bits(powers, bits);
    return found.power < LEAST_PLAIN || found.power > MOST_PLAIN ? write_with_exponent(at, &found) : write_plain(at, &found);
}
