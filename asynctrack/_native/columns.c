/* The columns of a run: see columns.h. */
#include "columns.h"

#include "siphash.h"

#include <stdlib.h>
#include <string.h>

/* Levels of maps that are followed here. Arbitrary: records are flat, or nested once or twice. */
#define DEEPEST 16

/* A name at one level: a column, the beginning of other names, or both. */
struct node {
    node *parent;
    node *bucket; /* the next of its bucket */
    node *guess;  /* what came after it in the record before */
    node *within; /* what came first below it in the record before */
    column *column;
    uint64_t hash, seen;
    uint32_t length;      /* of its own part of the name, the last of its flat name */
    uint32_t flat_length; /* of its flat name, which is nowhere whole: a long beginning would be kept for each that follows */
    char own[];           /* UTF-8 */
};

/* Names may be anybody's, and many of one hash would take long to tell apart. */
static uint64_t hash_of(const columns *all, const node *parent, const void *bytes, size_t length)
{
    return siphash13(all->seed, ~all->seed ^ (uint64_t)(uintptr_t)parent, bytes, length);
}

/* Makes room for one item more; false without memory. */
static bool grow(void **items, size_t *room, size_t count, size_t size)
{
    if (count < *room) return true;
    size_t wanted = *room ? *room * 2 : 16;
    void *more = wanted > SIZE_MAX / size ? NULL : realloc(*items, wanted * size);
    if (!more) return false;
    *items = more;
    *room = wanted;
    return true;
}

bool columns_begin(columns *all, uint64_t seed)
{
    memset(all, 0, sizeof *all);
    all->seed = seed;
    all->stores = true;
    all->column_buckets_count = all->node_buckets_count = 64;
    all->column_buckets = calloc(all->column_buckets_count, sizeof *all->column_buckets);
    all->node_buckets = calloc(all->node_buckets_count, sizeof *all->node_buckets);
    all->root = calloc(1, sizeof *all->root + 1);
    return all->column_buckets && all->node_buckets && all->root;
}

static void forget_values(column *of)
{
    free(of->tags);
    free(of->values);
    free(of->rows);
    of->tags = NULL;
    of->values = NULL;
    of->rows = NULL;
    of->count = of->room = 0;
    of->tags_met = 0;
    of->last_text = 0;
    of->first_number = 0;
    of->place = -1;
}

void columns_free(columns *all)
{
    for (size_t at = 0; all->column_buckets && at < all->column_buckets_count; at++)
        for (column *of = all->column_buckets[at], *next; of; of = next) {
            next = of->bucket;
            forget_values(of);
            free(of->name);
            free(of);
        }
    for (size_t at = 0; all->node_buckets && at < all->node_buckets_count; at++)
        for (node *of = all->node_buckets[at], *next; of; of = next) {
            next = of->bucket;
            free(of);
        }
    free(all->column_buckets);
    free(all->node_buckets);
    free(all->root);
    free(all->steps);
    free(all->times);
    free(all->listed);
    free(all->texts);
    free(all->cells);
    free(all->flat);
    memset(all, 0, sizeof *all);
}

void columns_clear(columns *all)
{
    for (size_t at = 0; at < all->listed_count; at++) forget_values(all->listed[at]);
    all->listed_count = all->rows = all->text_bytes = 0;
}

void columns_begin_session(columns *all)
{
    for (size_t at = 0; at < all->column_buckets_count; at++)
        for (column *of = all->column_buckets[at]; of; of = of->bucket) of->has_first = of->has_cut = false;
}

static bool widen_columns(columns *all)
{
    size_t wanted = all->column_buckets_count * 2;
    column **buckets = calloc(wanted, sizeof *buckets);
    if (!buckets) return false;
    for (size_t at = 0; at < all->column_buckets_count; at++)
        for (column *of = all->column_buckets[at], *next; of; of = next) {
            next = of->bucket;
            of->bucket = buckets[of->hash & (wanted - 1)];
            buckets[of->hash & (wanted - 1)] = of;
        }
    free(all->column_buckets);
    all->column_buckets = buckets;
    all->column_buckets_count = wanted;
    return true;
}

/* Finds where the part of a node's flat name begins that is its own. */
static inline size_t own_begins(const node *of) { return of->flat_length - of->length; }

void columns_name(const column *of, char *name)
{
    if (of->name) memcpy(name, of->name, of->name_length);
    for (const node *part = of->name ? NULL : of->node; part && part->parent; part = part->parent) {
        size_t begins = own_begins(part);
        memcpy(name + begins, part->own, part->length);
        if (begins) name[begins - 1] = '/';
    }
}

static bool has_name(const column *of, const char *name)
{
    if (of->name) return !memcmp(of->name, name, of->name_length);
    for (const node *part = of->node; part->parent; part = part->parent) {
        size_t begins = own_begins(part);
        if (memcmp(name + begins, part->own, part->length) || (begins && name[begins - 1] != '/')) return false;
    }
    return true;
}

/* Finds or makes the column of a flat name; where it is that of a node, it needs no copy. */
static column *column_of(columns *all, const char *name, size_t length, const node *of_node)
{
    uint64_t hash = hash_of(all, NULL, name, length);
    for (column *of = all->column_buckets[hash & (all->column_buckets_count - 1)]; of; of = of->bucket)
        if (of->hash == hash && of->name_length == length && has_name(of, name)) return of;
    if (length > UINT32_MAX || (all->column_count >= all->column_buckets_count && !widen_columns(all))) return NULL;
    column *made = calloc(1, sizeof *made);
    char *copy = of_node ? NULL : malloc(length + 1);
    if (!made || !(copy || of_node)) {
        free(made);
        free(copy);
        return NULL;
    }
    if (copy) memcpy(copy, name, length);
    made->name = copy;
    made->node = of_node;
    made->name_length = (uint32_t)length;
    made->hash = hash;
    made->wanted = !all->only_wanted;
    made->place = -1;
    column **bucket = &all->column_buckets[hash & (all->column_buckets_count - 1)];
    made->bucket = *bucket;
    *bucket = made;
    all->column_count++;
    return made;
}

column *columns_named(columns *all, const char *name, size_t length) { return column_of(all, name, length, NULL); }

static bool widen_nodes(columns *all)
{
    size_t wanted = all->node_buckets_count * 2;
    node **buckets = calloc(wanted, sizeof *buckets);
    if (!buckets) return false;
    for (size_t at = 0; at < all->node_buckets_count; at++)
        for (node *of = all->node_buckets[at], *next; of; of = next) {
            next = of->bucket;
            of->bucket = buckets[of->hash & (wanted - 1)];
            buckets[of->hash & (wanted - 1)] = of;
        }
    free(all->node_buckets);
    all->node_buckets = buckets;
    all->node_buckets_count = wanted;
    return true;
}

static inline bool is_named(const node *of, const node *parent, const mp_item *key)
{
    return of->parent == parent && of->length == key->length &&
           !memcmp(of->own, key->bytes, key->length);
}

static node *make_node(columns *all, node *parent, const mp_item *key, uint64_t hash)
{
    if (all->node_count >= all->node_buckets_count && !widen_nodes(all)) return NULL;
    size_t above = parent == all->root ? 0 : (size_t)parent->flat_length + 1;
    if (above + key->length > UINT32_MAX) return NULL;
    node *made = calloc(1, sizeof *made + key->length + 1);
    if (!made) return NULL;
    memcpy(made->own, key->bytes, key->length);
    made->parent = parent;
    made->hash = hash;
    made->length = key->length;
    made->flat_length = (uint32_t)(above + key->length);
    node **bucket = &all->node_buckets[hash & (all->node_buckets_count - 1)];
    made->bucket = *bucket;
    *bucket = made;
    all->node_count++;
    return made;
}

/* Finds or makes the node of a key; `*guess` is what came here in the record before, and is corrected. */
static feed_result find_node(columns *all, node *parent, const mp_item *key, node **guess, node **found)
{
    if (*guess && is_named(*guess, parent, key)) {
        *found = *guess;
        return FEED_DONE;
    }
    uint64_t hash = hash_of(all, parent, key->bytes, key->length);
    node *of = all->node_buckets[hash & (all->node_buckets_count - 1)];
    while (of && !(of->hash == hash && is_named(of, parent, key))) of = of->bucket;
    if (!of) {
        if (!mp_is_utf8(key->bytes, key->length)) return FEED_ODD;
        of = make_node(all, parent, key, hash);
        if (!of) return FEED_NO_MEMORY;
    }
    *found = *guess = of;
    return FEED_DONE;
}

bool columns_add(columns *all, cell value)
{
    if (!grow((void **)&all->cells, &all->cell_room, all->cell_count, sizeof *all->cells)) return false;
    all->cells[all->cell_count++] = value;
    return true;
}

/* Finds or makes the column of a node. */
static column *column_at(columns *all, const node *of)
{
    if (of->flat_length >= all->flat_room) {
        char *more = realloc(all->flat, (size_t)of->flat_length + 1);
        if (!more) return NULL;
        all->flat = more;
        all->flat_room = (size_t)of->flat_length + 1;
    }
    column named = {.node = of, .name_length = of->flat_length};
    columns_name(&named, all->flat);
    return column_of(all, all->flat, of->flat_length, of);
}

static feed_result read_value(columns *all, node *of, const mp_item *item)
{
    cell value = {.tag = TAG_NIL};
    switch (item->kind) {
    case MP_NIL: break;
    case MP_BOOL: value.tag = TAG_BOOL; break;
    case MP_INT: value.tag = TAG_INT; break;
    case MP_FLOAT: value.tag = TAG_FLOAT; break;
    case MP_STR:
        if (!mp_is_utf8(item->bytes, item->length)) return FEED_ODD;
        value.tag = TAG_TEXT;
        value.text = item->bytes;
        value.length = item->length;
        break;
    default: return FEED_ODD;
    }
    if (!of->column && !(of->column = column_at(all, of))) return FEED_NO_MEMORY;
    if (of->column->seen == all->record) return FEED_ODD; /* by another way: `a/b` beside `b` in `a` */
    of->column->seen = all->record;
    value.column = of->column;
    value.bits = value.tag == TAG_NIL || value.tag == TAG_TEXT ? 0 : item->u;
    return columns_add(all, value) ? FEED_DONE : FEED_NO_MEMORY;
}

static feed_result read_map(columns *all, mp_input *in, node *parent, uint32_t pairs, int depth)
{
    node **guess = &parent->within;
    for (; pairs; pairs--) {
        mp_item key, item;
        node *of;
        if (!mp_next(in, &key) || key.kind != MP_STR) return FEED_ODD;
        feed_result result = find_node(all, parent, &key, guess, &of);
        if (result != FEED_DONE) return result;
        if (of->seen == all->record) return FEED_ODD; /* twice in a map: the later counts */
        of->seen = all->record;
        guess = &of->guess;
        if (!mp_next(in, &item)) return FEED_ODD;
        if (item.kind != MP_MAP)
            result = read_value(all, of, &item);
        else if (item.length && depth < DEEPEST)
            result = read_map(all, in, of, item.length, depth + 1);
        else
            result = FEED_ODD;
        if (result != FEED_DONE) return result;
    }
    return FEED_DONE;
}

void columns_begin_row(columns *all)
{
    all->record++;
    all->cell_count = 0;
}

/* Keeps a text, unless it is the one that the column had last. */
static bool keep_text(columns *all, column *of, const cell *value, uint64_t *begin)
{
    if (of->last_text) {
        const uint8_t *before = all->texts + of->last_text - 1;
        uint32_t length;
        memcpy(&length, before, 4);
        if (length == value->length && (!length || !memcmp(before + 4, value->text, length))) {
            *begin = of->last_text - 1;
            return true;
        }
    }
    size_t wanted = all->text_bytes + 4 + value->length;
    if (wanted > all->text_room) {
        size_t room = wanted * 2;
        uint8_t *more = realloc(all->texts, room);
        if (!more) return false;
        all->texts = more;
        all->text_room = room;
    }
    memcpy(all->texts + all->text_bytes, &value->length, 4);
    if (value->length) memcpy(all->texts + all->text_bytes + 4, value->text, value->length);
    *begin = all->text_bytes;
    of->last_text = all->text_bytes + 1;
    all->text_bytes = wanted;
    return true;
}

/* Makes room for one value more in each array that the column has. */
static bool grow_column(column *of)
{
    if (of->count < of->room) return true;
    size_t room = of->room ? of->room * 2 : 16;
    if (room > SIZE_MAX / 8) return false;
    uint64_t *values = realloc(of->values, room * sizeof *values);
    if (!values) return false;
    of->values = values;
    if (of->tags) {
        uint8_t *tags = realloc(of->tags, room);
        if (!tags) return false;
        of->tags = tags;
    }
    if (of->rows) {
        int64_t *rows = realloc(of->rows, room * sizeof *rows);
        if (!rows) return false;
        of->rows = rows;
    }
    of->room = room;
    return true;
}

/* Gives each value a row of its own, or a tag, once they differ. */
static bool tell_rows(column *of)
{
    of->rows = malloc((of->room ? of->room : 1) * sizeof *of->rows);
    for (size_t at = 0; of->rows && at < of->count; at++) of->rows[at] = (int64_t)at;
    return of->rows != NULL;
}

static bool tell_tags(column *of)
{
    of->tags = malloc(of->room ? of->room : 1);
    if (of->tags && of->count) memset(of->tags, __builtin_ctz(of->tags_met), of->count);
    return of->tags != NULL;
}

static bool make_room(columns *all, const cell *value)
{
    column *of = value->column;
    if (of->place < 0 && !grow((void **)&all->listed, &all->listed_room, all->listed_count, sizeof *all->listed))
        return false;
    if (!grow_column(of)) return false;
    if (!of->rows && of->count != all->rows && !tell_rows(of)) return false;
    unsigned met = of->tags_met | 1u << value->tag;
    return of->tags || !(met & (met - 1)) || tell_tags(of);
}

static bool keep(columns *all, cell *value)
{
    column *of = value->column;
    if (!make_room(all, value)) return false;
    if (value->tag == TAG_TEXT && !keep_text(all, of, value, &value->bits)) return false;
    if (of->place < 0) {
        of->place = (ptrdiff_t)all->listed_count;
        all->listed[all->listed_count++] = of;
        of->low = INT64_MAX;
        of->high = INT64_MIN;
    }
    if (value->tag == TAG_INT) {
        int64_t number = (int64_t)value->bits;
        if (number < of->low) of->low = number;
        if (number > of->high) of->high = number;
    }
    all->kept++;
    if (!of->first_number && (value->tag == TAG_INT || value->tag == TAG_FLOAT || value->is_number))
        of->first_number = all->kept;
    of->tags_met |= 1u << value->tag;
    if (of->tags) of->tags[of->count] = (uint8_t)value->tag;
    if (of->rows) of->rows[of->count] = (int64_t)all->rows;
    of->values[of->count++] = value->bits;
    return true;
}

/* Takes out what is cut, and notes the first steps. Returns true where the record is left out whole. */
static bool cut_row(columns *all, int64_t step)
{
    size_t kept = 0;
    for (size_t at = 0; at < all->cell_count; at++) {
        column *of = all->cells[at].column;
        if (!of->has_first || step < of->first) {
            of->has_first = true;
            of->first = step;
        }
        if (!of->has_cut || step < of->cut) all->cells[kept++] = all->cells[at];
    }
    bool empty = all->cell_count && !kept;
    if (empty) {
        all->cut_rows++;
    } else {
        all->cut_values += all->cell_count - kept;
    }
    all->cell_count = kept;
    return empty;
}

static bool grow_rows(columns *all)
{
    if (all->rows < all->row_room) return true;
    size_t room = all->row_room ? all->row_room * 2 : 1024;
    if (room > SIZE_MAX / 8) return false;
    int64_t *steps = realloc(all->steps, room * sizeof *steps);
    if (!steps) return false;
    all->steps = steps;
    if (all->has_times) {
        int64_t *times = realloc(all->times, room * sizeof *times);
        if (!times) return false;
        all->times = times;
    }
    all->row_room = room;
    return true;
}

bool columns_commit(columns *all, int64_t step, int64_t time_ns)
{
    if (cut_row(all, step) || !all->stores) return true;
    if (all->take) return all->take(all->taker, all, step, time_ns);
    if (!grow_rows(all)) return false;
    bool whole = true;
    for (size_t at = 0; whole && at < all->cell_count; at++)
        if (all->cells[at].column->wanted) whole = keep(all, &all->cells[at]);
    all->steps[all->rows] = step;
    if (all->has_times) all->times[all->rows] = time_ns;
    all->rows++; /* also where memory ran out: no value is of a row that is not there */
    return whole;
}

static feed_result read_record(columns *all, const mp_frame *frame)
{
    mp_input in = {frame->payload, frame->payload + frame->length};
    mp_record record;
    columns_begin_row(all);
    if (!mp_begin_record(&in, &record)) return FEED_ODD;
    feed_result result = read_map(all, &in, all->root, record.pairs, 1);
    if (result != FEED_DONE) return result;
    if (in.at != in.end) return FEED_ODD;
    if (record.step.kind == MP_UINT || record.time.kind == MP_UINT) return FEED_WIDE;
    int64_t step = record.step.kind == MP_NIL ? (int64_t)frame->number : record.step.i;
    return columns_commit(all, step, record.time.i) ? FEED_DONE : FEED_NO_MEMORY;
}

feed_result columns_feed(columns *all, const uint8_t *frames, size_t *at, size_t stop, size_t end, mp_frame *stopped)
{
    while (*at < stop) {
        if (!mp_read_frame(frames, *at, end, stopped)) {
            *at = end;
            break;
        }
        all->begins = *at;
        all->number = stopped->number;
        *at = stopped->end;
        if (stopped->kind == MP_PAD) continue;
        if (stopped->kind != MP_RECORD) return FEED_OTHER;
        feed_result result = read_record(all, stopped);
        if (result != FEED_DONE) return result;
    }
    return FEED_DONE;
}
