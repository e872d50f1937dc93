/* Fuzzes what reads bytes that anybody may have written: frames, MessagePack, the columns that are gathered from them, the lines that are made of them, and the curves.

   The first byte of an input chooses what else happens; the rest are frames. `.ci/fuzz` builds it, with libFuzzer where clang is, else with `fuzz_main.c`. */

#include "../../asynctrack/_native/columns.h"
#include "../../asynctrack/_native/json.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz_curves.h"

#define CHECK(condition)               \
    do {                               \
        if (!(condition)) __builtin_trap(); \
    } while (0)

enum { ONLY_WANTED = 1, HAS_TIMES = 2, SESSIONS = 4, CLEARS = 8, SMALL_PIECES = 16 };

/* A record that is left to the caller, who puts something in its place. */
static void put_odd(columns *all, const mp_frame *stopped)
{
    columns_begin_row(all);
    size_t length = stopped->length < 5 ? stopped->length : 5;
    column *of = columns_named(all, (const char *)stopped->payload, length);
    CHECK(of);
    cell text = {.column = of, .tag = TAG_TEXT, .text = stopped->payload, .length = stopped->length};
    cell object = {.column = of, .tag = TAG_OBJECT, .is_number = stopped->length & 1};
    CHECK(columns_add(all, stopped->length & 2 ? text : object));
    if (stopped->length & 4) CHECK(columns_add(all, object));
    CHECK(columns_commit(all, (int64_t)stopped->number, 0));
}

static void check_text(const columns *all, const column *of, size_t at)
{
    uint32_t length;
    CHECK(of->values[at] + 4 <= all->text_bytes);
    memcpy(&length, all->texts + of->values[at], 4);
    CHECK(of->values[at] + 4 + length <= all->text_bytes);
}

static void check_column(const columns *all, const column *of)
{
    CHECK(of->count <= of->room && of->wanted);
    int64_t before = 0;
    for (size_t at = 0; at < of->count; at++) {
        value_tag tag = tag_of(of, at);
        CHECK(of->tags_met >> tag & 1);
        CHECK(row_of(of, at) >= before && (size_t)row_of(of, at) < all->rows);
        before = row_of(of, at);
        if (tag == TAG_TEXT) check_text(all, of, at);
        if (tag == TAG_INT) CHECK((int64_t)of->values[at] >= of->low && (int64_t)of->values[at] <= of->high);
        if (tag == TAG_INT || tag == TAG_FLOAT) CHECK(of->first_number);
    }
}

static void check_name(const column *of)
{
    uint8_t *name = malloc(of->name_length + 1);
    CHECK(name);
    columns_name(of, (char *)name);
    CHECK(of->name || mp_is_utf8(name, of->name_length)); /* a name of its own is the caller's affair */
    free(name);
}

static void check(const columns *all)
{
    for (size_t at = 0; at < all->listed_count; at++) {
        CHECK(all->listed[at]->place == (ptrdiff_t)at);
        check_name(all->listed[at]);
        check_column(all, all->listed[at]);
    }
}

static void feed(columns *all, const uint8_t *frames, size_t size, int options)
{
    size_t at = 0;
    mp_frame stopped;
    while (at < size) {
        size_t before = at, stop = options & SMALL_PIECES ? at + 40 : size;
        feed_result result = columns_feed(all, frames, &at, stop < size ? stop : size, size, &stopped);
        CHECK(at > before && at <= size);
        if (result == FEED_DONE) continue;
        CHECK(stopped.payload >= frames && stopped.payload + stopped.length <= frames + size && stopped.end == at);
        CHECK(result == FEED_ODD || result == FEED_OTHER || result == FEED_WIDE);
        if (result == FEED_ODD) put_odd(all, &stopped);
        if (result == FEED_OTHER && options & SESSIONS) columns_begin_session(all);
        if (result == FEED_OTHER && options & CLEARS) columns_clear(all);
        if (result == FEED_OTHER) all->stores = !(options & SESSIONS) || stopped.kind & 1;
    }
    check(all);
}

static void gather(const uint8_t *frames, size_t size, int options)
{
    columns all;
    CHECK(columns_begin(&all, (uint64_t)options * 77));
    all.only_wanted = options & ONLY_WANTED;
    all.has_times = options & HAS_TIMES;
    if (options & ONLY_WANTED) {
        column *of = columns_named(&all, "a/b", 3);
        CHECK(of);
        of->wanted = of->has_cut = true;
        of->cut = 5;
    }
    feed(&all, frames, size, options);
    columns_clear(&all);
    feed(&all, frames, size, options);
    columns_free(&all);
}

static const powers_of_ten *known_powers(void)
{
    static powers_of_ten powers;
    if (!powers.of[0].high) powers_begin(&powers);
    return &powers;
}

/* A double is written as digits that read back as the same. */
static void write_double(double value)
{
    char digits[MOST_DECIMAL_BYTES + 1];
    if (value - value != 0) return;
    char *end = decimal_of_double(digits, known_powers(), value);
    CHECK(end - digits <= 24);
    *end = 0;
    CHECK(strtod(digits, NULL) == value);
}

/* Checks a line: UTF-8, and no end of a line but its own. */
static void check_line(const char *line, size_t length)
{
    CHECK(length > 2 && line[0] == '{' && !memcmp(line + length - 2, "}\n", 2));
    CHECK(mp_is_utf8((const uint8_t *)line, length));
    for (size_t at = 0; at < length - 1; at++) CHECK((uint8_t)line[at] >= ' ');
}

/* Makes lines of the records; those that come again are the same, also by names that were met. */
static void make_lines(const uint8_t *frames, size_t size, int options)
{
    json_lines all;
    CHECK(json_begin(&all, known_powers(), (uint64_t)options * 77, options & 1));
    mp_frame frame;
    for (size_t at = 0; mp_read_frame(frames, at, size, &frame); at = frame.end) {
        size_t before = all.length;
        if (!json_add(&all, &frame)) {
            CHECK(all.length == before);
            continue;
        }
        size_t length = all.length - before;
        check_line(all.lines + before, length);
        CHECK(json_add(&all, &frame) && all.length - before == 2 * length);
        CHECK(!memcmp(all.lines + before, all.lines + before + length, length));
        if (options & 2) json_clear(&all);
    }
    json_free(&all);
}

/* Reads the bytes as values, one after the other; what is stepped over by `mp_next` and by `mp_skip` ends alike. */
static void read_values(const uint8_t *bytes, size_t size)
{
    mp_input in = {bytes, bytes + size};
    while (in.at < in.end) {
        mp_input from = in;
        mp_item item;
        bool is_one = mp_next(&from, &item);
        if (!mp_skip(&in, MP_MAX_DEPTH)) break;
        CHECK(is_one && from.at <= in.at && in.at <= in.end);
        if (item.kind == MP_FLOAT) write_double(item.f);
        if (item.kind == MP_STR || item.kind == MP_BIN || item.kind == MP_EXT) {
            CHECK(item.bytes >= bytes && item.bytes + item.length <= bytes + size);
            mp_is_utf8(item.bytes, item.length);
        }
    }
    mp_is_utf8(bytes, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    uint8_t *frames = malloc(size); /* so that a byte too far is seen, in front of it too */
    if (!frames) return 0;
    memcpy(frames, data + 1, size - 1);
    frames = realloc(frames, size - 1 ? size - 1 : 1);
    CHECK(frames);
    gather(frames, size - 1, data[0]);
    make_lines(frames, size - 1, data[0]);
    read_values(frames, size - 1);
    fuzz_curves(frames, size - 1, data[0]);
    free(frames);
    return 0;
}
