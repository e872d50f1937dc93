// Embedded groups: one curve of several runs, as the server makes it, from the curves in an exported file.

/** @typedef {import("./wire.js").Block} Block */

/**
 * Returns one curve of several: of the means, as they are drawn, in so many places.
 * @param {string} key @param {string} axis @param {Block[]} curves @param {number | undefined} x0 @param {number | undefined} x1 @param {number} buckets
 * @returns {Block}
 */
export function groupOf(key, axis, curves, x0, x1, buckets) {
  const begin = x0 ?? Math.min(...curves.map(({ columns }) => columns.x[0]));
  const end = x1 ?? Math.max(...curves.map(({ columns, rows }) => columns.x[rows - 1]));
  const cells = curves.map((curve) => cellsOf(curve, begin, end, buckets));
  const rows = [];
  for (let at = 0; at < buckets; at++) {
    const means = cells.map(({ mean }) => mean[at]).filter((value) => !Number.isNaN(value));
    if (!means.length) continue;
    const mean = means.reduce((total, value) => total + value / means.length, 0);
    const square = means.reduce((total, value) => total + (value - mean) ** 2, 0);
    rows.push({
      x: begin + ((at + 0.5) * (end - begin)) / buckets,
      mean,
      deviation: means.length > 1 ? Math.sqrt(square / (means.length - 1)) : 0,
      min: least(cells.map(({ min }) => min[at]), Infinity, Math.min),
      max: least(cells.map(({ max }) => max[at]), -Infinity, Math.max),
      runs: means.length,
    });
  }
  const columns = Object.fromEntries(["x", "mean", "deviation", "min", "max", "runs"].map((name) => [name, Float64Array.from(rows, (row) => row[name])]));
  return { run: null, key, axis, kind: "group", exact: false, rows: rows.length, x_range: rows.length ? [begin, end] : null, columns };
}

function least(values, nothing, pick) {
  const found = values.reduce((one, other) => (Number.isNaN(other) ? one : pick(one, other)), nothing);
  return found === nothing ? NaN : found;
}

/** Puts a curve into cells; those without a number, between others, are on the straight line between these. */
function cellsOf({ columns, rows }, begin, end, buckets) {
  const { x, mean, min = mean, max = mean } = columns;
  const [totals, counts] = [new Float64Array(buckets), new Uint32Array(buckets)];
  const [low, high] = [new Float64Array(buckets).fill(NaN), new Float64Array(buckets).fill(NaN)];
  for (let row = 0; row < rows; row++) {
    if (x[row] < begin || x[row] > end || Number.isNaN(mean[row])) continue;
    const at = Math.min(buckets - 1, Math.floor(((x[row] - begin) / (end - begin || 1)) * buckets));
    totals[at] += mean[row];
    counts[at]++;
    low[at] = low[at] <= min[row] ? low[at] : min[row];
    high[at] = high[at] >= max[row] ? high[at] : max[row];
  }
  const means = totals.map((total, at) => (counts[at] ? total / counts[at] : NaN));
  join(means);
  return { mean: means, min: low, max: high };
}

function join(means) {
  let left = -1;
  for (let right = 0; right < means.length; right++) {
    if (Number.isNaN(means[right])) continue;
    for (let at = left + 1; left >= 0 && at < right; at++) {
      const share = (at - left) / (right - left);
      means[at] = means[left] * (1 - share) + means[right] * share;
    }
    left = right;
  }
}
