/* Fuzzes what sums records up and draws them: rows and entries of records that anybody may have written, and of bytes that anybody may have left in the cache. */

#include "../../asynctrack/_native/canvas.h"
#include "../../asynctrack/_native/series.h"
#include "../../asynctrack/_native/sums.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz_curves.h"

#define CHECK(condition)               \
    do {                               \
        if (!(condition)) __builtin_trap(); \
    } while (0)

enum { ROW_RECORDS = 4, MOST_METRICS = 5, CELLS = 3 };

/* Sums up what a batch has, the frames by turns in two lanes. */
static void feed(columns *all, sums *to, const uint8_t *frames, size_t size)
{
    size_t at = 0, turn = 0;
    mp_frame stopped;
    CHECK(sums_begin(to, 0, 1, 64));
    while (at < size) {
        size_t stop = at + 200;
        if (columns_feed(all, frames, &at, stop < size ? stop : size, size, &stopped) == FEED_DONE && at >= size) break;
        to->row_count = to->entry_count = 0; /* taken, as `take` does */
        turn = (turn + 1) % 2;
        CHECK(sums_begin(to, turn <= to->lane_count ? turn : 0, 1, (uint32_t)at));
    }
}

/* Each number counts once: in its metric, and while nothing was taken in an entry of it. */
static void check_sums(const sums *of)
{
    CHECK(of->metric_count <= MOST_METRICS);
    for (size_t at = 0; at < of->metric_count; at++) {
        const metric *one = &of->metrics[at];
        CHECK(one->count && one->broken <= one->count && one->of->metric == at + 1);
        if (one->count > one->broken) CHECK(!is_less(one->high.value, one->low.value));
    }
    for (size_t at = 0; at < of->lane_count; at++) {
        const lane *in = &of->lanes[at];
        CHECK(in->open.records < ROW_RECORDS && in->count <= MOST_METRICS);
        CHECK(!in->open.records || in->open.step_low <= in->open.step_high);
        for (size_t each = 0; each < in->count; each++) CHECK(in->entries[each].metric < of->metric_count);
    }
    for (size_t at = 0; at < of->entry_count; at++) {
        const bucket_entry *one = &of->entries[at].entry;
        CHECK(one->count + one->broken > 0 && one->row < of->lanes[of->current].rows);
        if (one->count) CHECK(one->low <= one->high);
    }
}

static void check_cells(const drawn_cell *cells)
{
    for (size_t at = 0; at < CELLS; at++) {
        if (!cells[at].count && !cells[at].broken) continue;
        CHECK(cells[at].x_low <= cells[at].x_high || cells[at].x_low != cells[at].x_low || cells[at].x_high != cells[at].x_high);
    }
}

/* Draws bytes as rows, entries, points and cells, whatever they are; they lie where they lie. */
static void draw_anything(const uint8_t *bytes, size_t size, int options)
{
    double window[2] = {0, 100};
    if (size > 16 && options & 1) memcpy(window, bytes, sizeof window);
    drawn_cell *cells = calloc(CELLS, sizeof *cells);
    bucket_entry *lifted = malloc(size + sizeof *lifted);
    uint8_t *rows = malloc(size + 1);
    CHECK(cells && lifted && rows);
    canvas on = {cells, CELLS, window[0], window[1]};
    size_t row_count = size / sizeof(bucket_row), count = size / sizeof(bucket_entry);
    int64_t origin = 0;
    if (size >= 8) memcpy(&origin, bytes + size - 8, 8);
    lift_four_rows(bytes, row_count, rows);
    CHECK(lift_row_entries(bytes, count, lifted) <= count);
    draw_row_entries(&on, bytes, row_count, bytes, count, options & 2 ? AXIS_TIME : AXIS_STEP, options & 4 ? origin : 0);
    draw_row_entries(&on, rows, row_count / 4, lifted, count ? 1 : 0, AXIS_STEP, origin);
    draw_entries_against(&on, lifted, count ? 1 : 0, bytes, count);
    draw_entries_against(&on, bytes, count, bytes, count);
    draw_single_points(&on, bytes, size / 16);
    draw_other_cells(&on, bytes, size / sizeof(drawn_cell));
    free(cells);
    free(lifted);
    free(rows);
}

/* Draws what was summed up: all of it lies in the cells. */
static void draw_sums(const sums *of, size_t metric_index)
{
    drawn_cell cells[CELLS] = {0};
    canvas on = {cells, CELLS, -1e300, 1e300};
    uint64_t wanted = 0, found = 0;
    bucket_entry *entries = malloc((of->entry_count + 1) * sizeof *entries);
    CHECK(entries);
    size_t count = 0;
    uint32_t first = of->lanes[of->current].rows - (uint32_t)of->row_count;
    for (size_t at = 0; at < of->entry_count; at++) {
        if (of->entries[at].metric != metric_index) continue;
        entries[count] = of->entries[at].entry;
        entries[count].row -= first;
        wanted += entries[count].count + entries[count].broken;
        count++;
    }
    draw_row_entries(&on, of->rows, of->row_count, entries, count, AXIS_STEP, 0);
    for (size_t at = 0; at < CELLS; at++) found += cells[at].count + cells[at].broken;
    CHECK(found == wanted);
    check_cells(cells);
    free(entries);
}

static void take_numbers(const uint8_t *frames, size_t size, int options)
{
    columns all;
    CHECK(columns_begin(&all, (uint64_t)options * 77));
    series two[2] = {0};
    number_series self = {.of = &all, .keys = 2, .kind = options & 1 ? BY_KEY : options & 2 ? BY_TIME : BY_STEP, .origin = options, .begin = -1e18, .end = 1e18};
    self.all = calloc(2, sizeof *two);
    column *loss = columns_named(&all, "loss", 4), *deep = columns_named(&all, "a/b", 3);
    CHECK(self.all && loss && deep);
    loss->metric = 1;
    deep->metric = 2;
    self.against = columns_named(&all, "n", 1);
    CHECK(self.against);
    series_begin(&self);
    mp_frame stopped;
    for (size_t at = 0; at < size;) columns_feed(&all, frames, &at, size, size, &stopped);
    for (size_t at = 0; at < 2; at++) {
        for (size_t each = 0; each < self.all[at].count; each++) CHECK(self.all[at].pairs[2 * each] >= -1e18 && self.all[at].pairs[2 * each] <= 1e18);
    }
    series_free(&self);
    columns_free(&all);
}

void fuzz_curves(const uint8_t *bytes, size_t size, int options)
{
    columns all;
    CHECK(columns_begin(&all, (uint64_t)options * 77));
    sums to = {.of = &all, .most = MOST_METRICS, .records = ROW_RECORDS};
    feed(&all, &to, bytes, size);
    check_sums(&to);
    for (size_t at = 0; at < to.metric_count; at++) draw_sums(&to, at);
    sums_free(&to);
    columns_free(&all);
    take_numbers(bytes, size, options);
    draw_anything(bytes, size, options);
}
