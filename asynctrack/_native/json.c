/* Lines of JSON: see json.h. */
#include "json.h"

#include "siphash.h"

#include <stdlib.h>
#include <string.h>

/* Levels of maps and lists that are followed here. Arbitrary, and less than what `to_json` of `records/media_types.py` follows. */
#define DEEPEST 16
/* Longer records are left to the caller: each byte of one may become six, or the name of a value. Arbitrary. */
#define LONGEST_RECORD (1 << 20)
#define LONGEST_LINE ((size_t)8 << 20)
/* Names that are remembered, as in `FlatNames` of `backends/files/reserved.py`, and their bytes: a run may make up a name per record. Arbitrary. */
#define MOST_NAMES 50000
#define MOST_TEXT (16 << 20)
/* What a byte of a value becomes at most, a comma in front of it included: an empty list, a nil, an escaped byte. */
#define MOST_PER_BYTE 7
/* Room for the beginning of a line, for its end, and for what is written over behind a value. */
#define SPARE 128
/* Room for lines that is kept. Arbitrary: the lines of some batches. */
#define KEPT_ROOM ((size_t)2 << 20)

/* Reads the next item as `mp_next` does; those that most records have without a call. */
static inline bool next(mp_input *in, mp_item *item)
{
    const uint8_t *at = in->at;
    if (in->end - at < 9) return mp_next(in, item);
    if (*at == 0xcb) {
        uint64_t bits;
        memcpy(&bits, at + 1, sizeof bits);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        bits = __builtin_bswap64(bits);
#endif
        item->kind = MP_FLOAT;
        memcpy(&item->f, &bits, sizeof bits);
        in->at = at + 9;
        return true;
    }
    uint32_t length = *at & 0x1f;
    if ((*at & 0xe0) != 0xa0 || length > (size_t)(in->end - at - 1)) return mp_next(in, item);
    item->kind = MP_STR;
    item->length = length;
    item->bytes = at + 1;
    in->at = at + 1 + length;
    return true;
}

static const char RESERVED[][10] = {"step", "timestamp"};

bool json_begin(json_lines *all, const powers_of_ten *powers, uint64_t seed, bool gaps)
{
    memset(all, 0, sizeof *all);
    all->powers = powers;
    all->seed = seed;
    all->gaps = gaps;
    all->slot_count = 256;
    all->slots = calloc(all->slot_count, sizeof *all->slots);
    return all->slots;
}

void json_free(json_lines *all)
{
    free(all->names);
    free(all->slots);
    free(all->texts);
    free(all->lines);
    memset(all, 0, sizeof *all);
}

void json_clear(json_lines *all)
{
    all->length = 0;
    if (all->room > KEPT_ROOM) {
        free(all->lines);
        all->lines = NULL;
        all->room = 0;
    }
}

/* Makes room for so many bytes behind those that are used; returns where they go, NULL without memory. */
static inline char *make_room(json_lines *all, size_t used, size_t wanted)
{
    if (all->room - used >= wanted) return all->lines + used;
    size_t room = all->room ? all->room : 1 << 16;
    while (room - used < wanted) room *= 2;
    char *more = realloc(all->lines, room);
    if (!more) return NULL;
    all->lines = more;
    all->room = room;
    return more + used;
}

/* Tells whether eight bytes are all ASCII that JSON takes as it is. */
static bool is_plain(uint64_t eight)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t quotes = eight ^ '"' * ones, slashes = eight ^ '\\' * ones;
    return !(((eight - ' ' * ones) | (quotes - ones) | (slashes - ones) | eight) & tops);
}

static char *write_escaped(char *at, uint8_t byte)
{
    static const char digits[] = "0123456789abcdef", letters[] = "btn\0fr";
    *at++ = '\\';
    if (byte == '"' || byte == '\\') {
        *at++ = (char)byte;
    } else if (byte >= '\b' && byte <= '\r' && letters[byte - '\b']) {
        *at++ = letters[byte - '\b'];
    } else {
        memcpy(at, "u00", 3);
        at[3] = digits[byte >> 4];
        at[4] = digits[byte & 15];
        at += 5;
    }
    return at;
}

/* Writes a text between quotes; NULL where it is not UTF-8. */
static char *write_text(char *at, const uint8_t *bytes, uint32_t length)
{
    bool wide = false;
    *at++ = '"';
    for (uint32_t i = 0; i < length;) {
        uint64_t eight;
        if (length - i >= sizeof eight) {
            memcpy(&eight, bytes + i, sizeof eight);
            if (is_plain(eight)) {
                memcpy(at, &eight, sizeof eight);
                at += sizeof eight;
                i += sizeof eight;
                continue;
            }
        }
        uint8_t byte = bytes[i++];
        wide |= byte >= 0x80;
        if (byte < ' ' || byte == '"' || byte == '\\') {
            at = write_escaped(at, byte);
        } else {
            *at++ = (char)byte;
        }
    }
    *at++ = '"';
    return wide && !mp_is_utf8(bytes, length) ? NULL : at;
}

static char *write_bytes(char *at, const char *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

#define WRITE(at, literal) write_bytes(at, literal, sizeof(literal) - 1)

static char *write_float(const json_lines *all, char *at, double value)
{
    if (value - value == 0) return decimal_of_double(at, all->powers, value);
    if (all->gaps) return WRITE(at, "null");
    if (value != value) return WRITE(at, "\"NaN\"");
    return value > 0 ? WRITE(at, "\"Infinity\"") : WRITE(at, "\"-Infinity\"");
}

static char *write_list(const json_lines *all, char *at, mp_input *in, uint32_t length, int depth);

/* Writes a value of which the head was read; NULL where it is odd. */
static char *write_value(const json_lines *all, char *at, mp_input *in, const mp_item *item, int depth)
{
    switch (item->kind) {
    case MP_FLOAT: return write_float(all, at, item->f);
    case MP_INT: return decimal_of_signed(at, item->i);
    case MP_UINT: return decimal_of_unsigned(at, item->u);
    case MP_STR: return write_text(at, item->bytes, item->length);
    case MP_BOOL: return item->i ? WRITE(at, "true") : WRITE(at, "false");
    case MP_NIL: return WRITE(at, "null");
    case MP_ARRAY: return write_list(all, at, in, item->length, depth - 1);
    case MP_MAP: return item->length ? NULL : WRITE(at, "{}");
    default: return NULL;
    }
}

static char *write_list(const json_lines *all, char *at, mp_input *in, uint32_t length, int depth)
{
    if (depth < 0) return NULL;
    *at++ = '[';
    for (uint32_t i = 0; i < length; i++) {
        mp_item item;
        if (i) *at++ = ',';
        if (!next(in, &item)) return NULL;
        at = write_value(all, at, in, &item, depth);
        if (!at) return NULL;
    }
    *at++ = ']';
    return at;
}

/* Tells whether a flat name is one of the line's own, with any number of underscores in front. */
static bool is_reserved(const char *name, size_t length)
{
    size_t begin = 0;
    while (begin < length && name[begin] == '_') begin++;
    for (size_t i = 0; begin && i < sizeof RESERVED / sizeof *RESERVED; i++)
        if (length - begin == strlen(RESERVED[i]) && !memcmp(name + begin, RESERVED[i], length - begin)) return true;
    return false;
}

/* Tells whether two stretches are alike; of names, for which a call would take longer. */
static inline bool are_alike(const char *one, const char *other, uint32_t length)
{
    uint64_t first, second;
    if (length < 8) {
        for (uint32_t at = 0; at < length; at++)
            if (one[at] != other[at]) return false;
        return true;
    }
    for (uint32_t at = 0; at < length - 8; at += 8) {
        memcpy(&first, one + at, 8);
        memcpy(&second, other + at, 8);
        if (first != second) return false;
    }
    memcpy(&first, one + length - 8, 8);
    memcpy(&second, other + length - 8, 8);
    return first == second;
}

static void put_in_slot(json_lines *all, uint32_t index)
{
    uint32_t slot = (uint32_t)all->names[index].hash;
    while (all->slots[slot & (all->slot_count - 1)]) slot++;
    all->slots[slot & (all->slot_count - 1)] = index + 1;
}

/* Makes room for another name whose texts take so many bytes; false without memory, or where there are too many. */
static bool make_name_room(json_lines *all, uint32_t bytes)
{
    all->full = all->name_count >= MOST_NAMES || all->text_bytes + bytes > MOST_TEXT;
    if (all->full) return false;
    if (all->name_count == all->name_room) {
        uint32_t room = all->name_room ? 2 * all->name_room : 64;
        json_name *more = realloc(all->names, room * sizeof *more);
        if (!more) return false;
        all->names = more;
        all->name_room = room;
    }
    if (all->text_room - all->text_bytes < bytes) {
        uint32_t room = 2 * all->text_room + bytes;
        char *more = realloc(all->texts, room);
        if (!more) return false;
        all->texts = more;
        all->text_room = room;
    }
    if (2 * all->name_count < all->slot_count) return true;
    uint32_t *wider = calloc(2 * (size_t)all->slot_count, sizeof *wider);
    if (!wider) return false;
    free(all->slots);
    all->slots = wider;
    all->slot_count *= 2;
    for (uint32_t at = 0; at < all->name_count; at++) put_in_slot(all, at);
    return true;
}

/* Remembers a flat name; returns its index, plus 1, and 0 where that cannot be done. */
static uint32_t add_name(json_lines *all, const char *name, uint32_t length, uint64_t hash)
{
    uint32_t most = length + 6 * length + SPARE;
    if (!make_name_room(all, most)) return 0;
    char *raw = all->texts + all->text_bytes, *json = raw + length;
    memcpy(raw, name, length);
    char *end = write_text(json + 1 + is_reserved(name, length), (const uint8_t *)name, length);
    if (!end) return 0;
    if (is_reserved(name, length)) json[2] = '_';
    memcpy(json, ",\"", 2);
    *end++ = ':';
    all->names[all->name_count] = (json_name){
        .hash = hash,
        .raw = all->text_bytes,
        .raw_length = length,
        .json = all->text_bytes + length,
        .json_length = (uint32_t)(end - json),
    };
    all->text_bytes += (uint32_t)(end - raw);
    put_in_slot(all, all->name_count);
    return ++all->name_count;
}

static bool is_named(const json_lines *all, uint32_t index, const char *name, uint32_t length)
{
    const json_name *of = &all->names[index];
    return of->raw_length == length && are_alike(all->texts + of->raw, name, length);
}

/* Finds or remembers a flat name; returns as `add_name` does. */
static uint32_t find_name(json_lines *all, const char *name, uint32_t length)
{
    uint64_t hash = siphash13(all->seed, ~all->seed, name, length);
    for (uint32_t slot = (uint32_t)hash;; slot++) {
        uint32_t found = all->slots[slot & (all->slot_count - 1)];
        if (!found) return add_name(all, name, length, hash);
        if (all->names[found - 1].hash == hash && is_named(all, found - 1, name, length)) return found;
    }
}

/* Finds the flat name of a key below a path; NULL where it is odd, or this record had it before: then the later one counts. */
static const json_name *name_of(json_lines *all, const mp_item *key, size_t path, uint32_t *last)
{
    const char *name = (const char *)key->bytes;
    if (path + key->length > JSON_LONGEST_NAME) return NULL;
    if (path) {
        memcpy(all->path + path, key->bytes, key->length);
        name = all->path;
    }
    uint32_t length = (uint32_t)(path + key->length), *guess = *last ? &all->names[*last - 1].next : &all->first;
    uint32_t found = *guess;
    if (!found || !is_named(all, found - 1, name, length)) {
        found = find_name(all, name, length);
        if (!found) return NULL;
        *(*last ? &all->names[*last - 1].next : &all->first) = found; /* the names may have moved */
    }
    json_name *of = &all->names[found - 1];
    if (of->met == all->record) return NULL;
    of->met = all->record;
    *last = found;
    return of;
}

/* Writes the name of a value; behind a name both `texts` and `lines` have room for what is copied beyond it. */
static inline char *write_name(const json_lines *all, char *at, const json_name *name)
{
    const char *from = all->texts + name->json;
    for (uint32_t copied = 0; copied < name->json_length; copied += 16) memcpy(at + copied, from + copied, 16);
    return at + name->json_length;
}

static char *add_pairs(json_lines *all, char *at, mp_input *in, uint32_t pairs, size_t path, int depth, uint32_t *last);

/* Adds the values of a map within the record, of which the head was read. */
static char *add_map(json_lines *all, char *at, mp_input *in, const mp_item *key, uint32_t pairs, size_t path, int depth, uint32_t *last)
{
    size_t behind = path + key->length + 1;
    if (depth == 0 || behind > JSON_LONGEST_NAME) return NULL;
    memcpy(all->path + path, key->bytes, key->length);
    all->path[behind - 1] = '/';
    return add_pairs(all, at, in, pairs, behind, depth - 1, last);
}

/* Adds the pairs of a map; returns where they end, NULL where one is odd or there is no memory. */
static char *add_pairs(json_lines *all, char *at, mp_input *in, uint32_t pairs, size_t path, int depth, uint32_t *last)
{
    for (; at && pairs; pairs--) {
        mp_item key, item;
        if (!next(in, &key) || key.kind != MP_STR) return NULL;
        const json_name *name = name_of(all, &key, path, last);
        size_t left = (size_t)(in->end - in->at);
        if (!name || !next(in, &item)) return NULL;
        if (item.kind == MP_MAP && item.length) {
            at = add_map(all, at, in, &key, item.length, path, depth, last);
            continue;
        }
        size_t used = (size_t)(at - all->lines);
        if (used - all->length > LONGEST_LINE) return NULL;
        at = make_room(all, used, name->json_length + MOST_PER_BYTE * left + SPARE);
        if (!at) return NULL;
        at = write_name(all, at, name);
        at = write_value(all, at, in, &item, depth);
    }
    return at;
}

static void forget_names(json_lines *all)
{
    memset(all->slots, 0, all->slot_count * sizeof *all->slots);
    all->name_count = all->text_bytes = all->first = 0;
    all->full = false;
}

static char *write_integer(char *at, const mp_item *item)
{
    return item->kind == MP_INT ? decimal_of_signed(at, item->i) : decimal_of_unsigned(at, item->u);
}

/* Writes the beginning of a line. */
static char *write_head(const json_lines *all, char *at, const mp_record *head, uint64_t number)
{
    double time_ns = head->time.kind == MP_INT ? (double)head->time.i : (double)head->time.u;
    at = WRITE(at, "{\"_step\":");
    at = head->step.kind == MP_NIL ? decimal_of_unsigned(at, number) : write_integer(at, &head->step);
    return decimal_of_double(WRITE(at, ",\"_timestamp\":"), all->powers, time_ns / 1e9);
}

bool json_add(json_lines *all, const mp_frame *frame)
{
    mp_input in = {frame->payload, frame->payload + frame->length};
    mp_record head;
    if (frame->length > LONGEST_RECORD || !mp_begin_record(&in, &head)) return false;
    if (all->full) forget_names(all);
    all->record++;
    char *at = make_room(all, all->length, SPARE);
    uint32_t last = 0;
    if (at) at = add_pairs(all, write_head(all, at, &head, frame->number), &in, head.pairs, 0, DEEPEST, &last);
    if (!at || in.at != in.end) return false;
    at = WRITE(at, "}\n");
    all->length = (size_t)(at - all->lines);
    return true;
}
