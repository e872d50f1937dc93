/* A fuzzer for where libFuzzer is not: it changes the inputs of a corpus at random, the same way each time, for as long as it is told.

     fuzz SECONDS FILE...
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LONGEST 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 88172645463325252u;

static uint64_t below(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

typedef struct {
    size_t size;
    uint8_t bytes[LONGEST];
} input;

/* Changes a byte, a bit, the length, or puts a stretch of another input in. */
static void change(input *of, const input *other)
{
    size_t at = of->size ? below(of->size) : 0, length = below(24) + 1;
    switch (below(5)) {
    case 0: if (of->size) of->bytes[at] = (uint8_t)below(256); break;
    case 1: if (of->size) of->bytes[at] ^= (uint8_t)(1u << below(8)); break;
    case 2: of->size = at; break;
    case 3:
        if (of->size + length > LONGEST) break;
        memmove(of->bytes + at + length, of->bytes + at, of->size - at);
        of->size += length;
        break;
    default:
        if (other->size <= length || at + length > LONGEST) break;
        memcpy(of->bytes + at, other->bytes + below(other->size - length), length);
        if (at + length > of->size) of->size = at + length;
    }
}

static void load(input *of, const char *path)
{
    FILE *file = fopen(path, "rb");
    of->size = file ? fread(of->bytes, 1, LONGEST, file) : 0;
    if (file) fclose(file);
    LLVMFuzzerTestOneInput(of->bytes, of->size);
}

int main(int count, char **words)
{
    int inputs = count - 2;
    if (inputs < 1) {
        fprintf(stderr, "expected SECONDS FILE...\n");
        return 2;
    }
    input *corpus = calloc((size_t)inputs, sizeof *corpus);
    if (!corpus) return 2;
    for (int at = 0; at < inputs; at++) load(&corpus[at], words[at + 2]);
    time_t end = time(NULL) + atoi(words[1]);
    unsigned long long tried = 0;
    for (; tried % 1024 || time(NULL) < end; tried++) {
        input one = corpus[below((uint64_t)inputs)];
        for (uint64_t changes = below(6) + 1; changes; changes--) change(&one, &corpus[below((uint64_t)inputs)]);
        LLVMFuzzerTestOneInput(one.bytes, one.size);
    }
    printf("Done %llu runs in %s second(s)\n", tried, words[1]);
    free(corpus);
    return 0;
}
