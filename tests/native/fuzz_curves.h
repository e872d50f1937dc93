/* fuzz_curves.h: the part of the fuzzer for what sums records up and draws them. */

#ifndef FUZZ_CURVES_H
#define FUZZ_CURVES_H

#include <stddef.h>
#include <stdint.h>

void fuzz_curves(const uint8_t *bytes, size_t size, int options);

#endif
