/* MessagePack and frames: see mp.h. */
#include "mp.h"

#include <string.h>

static uint16_t big16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static uint32_t big32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t big64(const uint8_t *at) { return (uint64_t)big32(at) << 32 | big32(at + 4); }

static uint64_t little64(const uint8_t *at)
{
    return (uint64_t)at[7] << 56 | (uint64_t)at[6] << 48 | (uint64_t)at[5] << 40 | (uint64_t)at[4] << 32 |
           (uint64_t)at[3] << 24 | (uint64_t)at[2] << 16 | (uint64_t)at[1] << 8 | at[0];
}

static inline size_t left(const mp_input *in) { return (size_t)(in->end - in->at); }

static inline bool integer(mp_item *item, int64_t value)
{
    item->kind = MP_INT;
    item->i = value;
    return true;
}

/* Takes `length` bytes that belong to the item. */
static inline bool blob(mp_input *in, mp_item *item, mp_kind kind, uint32_t length)
{
    if (length > left(in)) return false;
    item->kind = kind;
    item->length = length;
    item->bytes = in->at;
    in->at += length;
    return true;
}

/* Each item of a container takes a byte at least: a longer one is a lie, for which nobody should make room. */
static inline bool container(mp_input *in, mp_item *item, mp_kind kind, uint32_t length)
{
    if ((uint64_t)length * (kind == MP_MAP ? 2 : 1) > left(in)) return false;
    item->kind = kind;
    item->length = length;
    return true;
}

/* Reads a length of `bytes` bytes. */
static bool take_length(mp_input *in, size_t bytes, uint32_t *length)
{
    if (bytes > left(in)) return false;
    *length = bytes == 1 ? in->at[0] : bytes == 2 ? big16(in->at) : big32(in->at);
    in->at += bytes;
    return true;
}

static bool extension(mp_input *in, mp_item *item, uint32_t length)
{
    if (left(in) < 1) return false;
    in->at++; /* its code */
    return blob(in, item, MP_EXT, length);
}

static bool number(mp_input *in, mp_item *item, uint8_t head)
{
    static const uint8_t sizes[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8};
    const uint8_t *at = in->at;
    size_t size = sizes[head - 0xca];
    if (size > left(in)) return false;
    in->at += size;
    switch (head) {
    case 0xca: {
        uint32_t bits = big32(at);
        float value;
        memcpy(&value, &bits, 4);
        item->kind = MP_FLOAT;
        item->f = (double)value;
        return true;
    }
    case 0xcb: {
        uint64_t bits = big64(at);
        item->kind = MP_FLOAT;
        memcpy(&item->f, &bits, 8);
        return true;
    }
    case 0xcc: return integer(item, at[0]);
    case 0xcd: return integer(item, big16(at));
    case 0xce: return integer(item, big32(at));
    case 0xcf: {
        uint64_t value = big64(at);
        item->kind = value <= INT64_MAX ? MP_INT : MP_UINT;
        item->u = value;
        return true;
    }
    case 0xd0: return integer(item, (int8_t)at[0]);
    case 0xd1: return integer(item, (int16_t)big16(at));
    case 0xd2: return integer(item, (int32_t)big32(at));
    default: return integer(item, (int64_t)big64(at));
    }
}

/* Reads what has no short form: 0xc0 to 0xdf. */
static bool long_form(mp_input *in, mp_item *item, uint8_t head)
{
    uint32_t length = 0;
    switch (head) {
    case 0xc0: item->kind = MP_NIL; return true;
    case 0xc2:
    case 0xc3:
        item->kind = MP_BOOL;
        item->i = head & 1;
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6: return take_length(in, (size_t)1 << (head - 0xc4), &length) && blob(in, item, MP_BIN, length);
    case 0xc7:
    case 0xc8:
    case 0xc9: return take_length(in, (size_t)1 << (head - 0xc7), &length) && extension(in, item, length);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return extension(in, item, 1u << (head - 0xd4));
    case 0xd9:
    case 0xda:
    case 0xdb: return take_length(in, (size_t)1 << (head - 0xd9), &length) && blob(in, item, MP_STR, length);
    case 0xdc:
    case 0xdd: return take_length(in, (size_t)2 << (head - 0xdc), &length) && container(in, item, MP_ARRAY, length);
    case 0xde:
    case 0xdf: return take_length(in, (size_t)2 << (head - 0xde), &length) && container(in, item, MP_MAP, length);
    default: return head != 0xc1 && number(in, item, head);
    }
}

bool mp_next(mp_input *in, mp_item *item)
{
    if (in->at >= in->end) return false;
    uint8_t head = *in->at++;
    if (head < 0x80) return integer(item, head);
    if (head < 0x90) return container(in, item, MP_MAP, head & 0x0f);
    if (head < 0xa0) return container(in, item, MP_ARRAY, head & 0x0f);
    if (head < 0xc0) return blob(in, item, MP_STR, head & 0x1f);
    if (head < 0xe0) return long_form(in, item, head);
    return integer(item, (int8_t)head);
}

bool mp_skip(mp_input *in, int depth)
{
    mp_item item;
    if (depth < 0 || !mp_next(in, &item)) return false;
    if (item.kind != MP_ARRAY && item.kind != MP_MAP) return true;
    uint64_t items = (uint64_t)item.length * (item.kind == MP_MAP ? 2 : 1);
    while (items--)
        if (!mp_skip(in, depth - 1)) return false;
    return true;
}

/* Returns the length of the character that begins with a byte beyond ASCII; 0 where it is none. */
static size_t character(const uint8_t *at, size_t room)
{
    uint8_t first = at[0];
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || room < length) return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    bool longer_than_need_be = (first == 0xe0 && at[1] < 0xa0) || (first == 0xf0 && at[1] < 0x90);
    bool surrogate = first == 0xed && at[1] >= 0xa0;
    bool beyond = first == 0xf4 && at[1] >= 0x90;
    return longer_than_need_be || surrogate || beyond ? 0 : length;
}

bool mp_is_utf8(const uint8_t *bytes, size_t length)
{
    size_t at = 0;
    while (at < length) {
        if (length - at >= 8) {
            uint64_t eight;
            memcpy(&eight, bytes + at, 8);
            if (!(eight & 0x8080808080808080u)) {
                at += 8;
                continue;
            }
        }
        size_t size = bytes[at] < 0x80 ? 1 : character(bytes + at, length - at);
        if (!size) return false;
        at += size;
    }
    return true;
}

bool mp_begin_record(mp_input *in, mp_record *record)
{
    mp_item data;
    if (in->at >= in->end || *in->at++ != 0x93) return false;
    if (!mp_next(in, &record->time) || (record->time.kind != MP_INT && record->time.kind != MP_UINT)) return false;
    if (!mp_next(in, &record->step)) return false;
    if (record->step.kind != MP_INT && record->step.kind != MP_UINT && record->step.kind != MP_NIL) return false;
    if (!mp_next(in, &data) || data.kind != MP_MAP) return false;
    record->pairs = data.length;
    return true;
}

bool mp_read_frame(const uint8_t *frames, size_t at, size_t end, mp_frame *frame)
{
    if (at > end || end - at < MP_FRAME_HEADER) return false;
    uint64_t first = little64(frames + at), second = little64(frames + at + 8);
    uint64_t length = first & 0xffffffffu;
    uint64_t size = (length + MP_FRAME_HEADER + 7) & ~(uint64_t)7;
    if (size > end - at) return false;
    frame->end = at + (size_t)size;
    frame->payload = frames + at + MP_FRAME_HEADER;
    frame->length = (uint32_t)length;
    frame->lost = (uint32_t)(first >> 32);
    frame->number = second & (((uint64_t)1 << 56) - 1);
    frame->kind = (uint8_t)(second >> 56);
    return true;
}
