/* json.h: makes lines of JSON of the frames of records, as `encode_lines` of `backends/files/jsonl.py` does. No Python here, so that a fuzzer reaches all of it directly.

   A record whose values are numbers, texts, truths, nil and lists of these, flat or in maps, becomes a line in one pass over its bytes. Any other ("odd") is left to
   the caller. */
#ifndef ASYNCTRACK_JSON_H
#define ASYNCTRACK_JSON_H

#include "decimal.h"
#include "mp.h"

/* Longer flat names are left to the caller, and so are records with one. Arbitrary. */
#define JSON_LONGEST_NAME 1024

/* A flat name that was met. Offsets are of bytes in `texts`. */
typedef struct {
    uint64_t hash;
    uint64_t met; /* the last record that had it */
    uint32_t raw, raw_length;
    uint32_t json, json_length; /* `,"name":` */
    uint32_t next;              /* the name that came after it last, plus 1 */
} json_name;

typedef struct {
    uint64_t seed; /* of the hash of names: they may be anybody's */
    bool gaps;     /* a float that is not finite becomes null; else "NaN", "Infinity" or "-Infinity" */
    const powers_of_ten *powers; /* the caller's */

    json_name *names;
    uint32_t name_count, name_room;
    uint32_t *slots; /* of a hash table: a name's index, plus 1 */
    uint32_t slot_count;
    char *texts;
    uint32_t text_bytes, text_room;
    bool full;                    /* there were too many names: they are forgotten before the next record */
    uint64_t record;              /* counts what was read */
    uint32_t first;               /* the name that came first last, plus 1 */
    char path[JSON_LONGEST_NAME]; /* the flat name that is being read */

    char *lines; /* those that are made */
    size_t length, room;
} json_lines;

/* False without memory. */
bool json_begin(json_lines *all, const powers_of_ten *powers, uint64_t seed, bool gaps);
void json_free(json_lines *all);

/* Adds the line of a record; false where it is odd, or there is no memory for it: then nothing is added. */
bool json_add(json_lines *all, const mp_frame *frame);

/* Forgets the lines. */
void json_clear(json_lines *all);

#endif
