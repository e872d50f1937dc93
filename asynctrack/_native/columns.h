/* The columns of a run, gathered from the frames of its records. No Python here, so that a fuzzer reaches all of it directly.

   A record whose values are numbers, texts, truths and nil, flat or in maps, becomes a row in one pass over its bytes. Any other
   ("odd") is left to the caller, who makes it plain and puts it. Nested names are joined by `/`. */
#ifndef ASYNCTRACK_COLUMNS_H
#define ASYNCTRACK_COLUMNS_H

#include "mp.h"

/* What a value is; `1 << tag` is its bit in `column.tags_met`. */
typedef enum { TAG_NIL, TAG_BOOL, TAG_INT, TAG_FLOAT, TAG_TEXT, TAG_OBJECT } value_tag;

typedef struct node node;

typedef struct column {
    char *name;       /* UTF-8; NULL where it is that of a node: see `columns_name` */
    const node *node; /* that it is of, or NULL */
    uint32_t name_length;
    uint64_t hash;
    struct column *bucket; /* the next of its bucket */
    bool wanted;
    ptrdiff_t place; /* among the columns with values, in the order of their first; -1 before that */

    unsigned tags_met;
    uint8_t *tags; /* of each value; NULL while all are of one */
    uint64_t *values; /* the bits of a number; where a text begins in `texts`; what the caller gave for an object */
    int64_t *rows; /* of each value; NULL while value i is of row i */
    size_t count, room;
    int64_t low, high; /* of its integers */
    uint64_t first_number; /* counts all values that were kept up to its first number, that one included; 0 before that */
    size_t last_text; /* where the last text begins, plus 1 */

    uint64_t seen; /* the last record that had it */
    bool has_first, has_cut;
    int64_t first; /* the least step of this session */
    int64_t cut;   /* in this session, values from this step on are left out */
    uint32_t metric; /* of the taker: its number there, plus 1; 0 where it has none */
} column;

/* A value of the record that is being read. */
typedef struct {
    column *column;
    value_tag tag;
    bool is_number; /* an object that is one: an integer beyond 64 bits */
    uint64_t bits;
    const uint8_t *text;
    uint32_t length;
} cell;

typedef struct columns {
    uint64_t seed; /* of the hash of names: they may be anybody's */
    bool only_wanted;
    bool stores; /* values are kept; else only the first steps */
    bool has_times;

    size_t rows, row_room;
    int64_t *steps, *times;

    column **listed; /* those with values */
    size_t listed_count, listed_room;

    uint8_t *texts; /* each with its length in 4 bytes before it */
    size_t text_bytes, text_room;

    column **column_buckets;
    size_t column_count, column_buckets_count;
    node **node_buckets;
    size_t node_count, node_buckets_count;
    node *root;

    char *flat; /* room for the flat name of a node */
    size_t flat_room;

    uint64_t kept;   /* counts values */
    size_t cut_rows, cut_values; /* records that were left out whole, and values of others */
    uint64_t record; /* counts what was read */
    cell *cells;
    size_t cell_count, cell_room;

    uint64_t number; /* of the last frame that was read, and where it begins */
    size_t begins;
    bool (*take)(void *taker, struct columns *all, int64_t step, int64_t time_ns); /* gets each record in place of the rows; false without memory */
    void *taker;
} columns;

typedef enum {
    FEED_DONE,      /* all frames are read */
    FEED_ODD,       /* this record is left to the caller */
    FEED_OTHER,     /* a frame of another kind */
    FEED_WIDE,      /* a step or time that no signed integer of 64 bits holds */
    FEED_NO_MEMORY, /* the last row may lack values */
} feed_result;

bool columns_begin(columns *all, uint64_t seed);
void columns_free(columns *all);

/* Reads the frames that begin from byte `*at` up to byte `stop`, of those that end at byte `end`; `*at` is then behind what was read, and
   `stopped` the frame that was read last. */
feed_result columns_feed(columns *all, const uint8_t *frames, size_t *at, size_t stop, size_t end, mp_frame *stopped);

/* Finds or makes the column of a flat name; NULL without memory. */
column *columns_named(columns *all, const char *name, size_t length);

/* Writes the flat name of a column, of `name_length` bytes. */
void columns_name(const column *of, char *name);

/* Puts a record that the caller has made plain: begin, add each value, commit. False without memory. */
void columns_begin_row(columns *all);
bool columns_add(columns *all, cell value);
bool columns_commit(columns *all, int64_t step, int64_t time_ns);

/* Forgets rows and values, and keeps the names. */
void columns_clear(columns *all);

/* Begins another session: its first steps are not known, and nothing is cut. */
void columns_begin_session(columns *all);

static inline value_tag tag_of(const column *of, size_t at)
{
    return of->tags ? (value_tag)of->tags[at] : (value_tag)__builtin_ctz(of->tags_met);
}

static inline int64_t row_of(const column *of, size_t at) { return of->rows ? of->rows[at] : (int64_t)at; }

#endif
