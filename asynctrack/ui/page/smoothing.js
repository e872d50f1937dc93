// Smoothing: by the x axis and not by sample, so that dense stretches do not outweigh sparse ones. As `CurveBuckets.smoothed` does it.

/** @typedef {Float64Array | Float32Array} Numbers */

/**
 * Forgets all but a 2.7th over `width`. Values that are not finite stay out.
 * @param {Numbers} x @param {Numbers} y @param {number} width on the x axis @returns {Float64Array}
 */
export function exponential(x, y, width) {
  const smooth = new Float64Array(y.length).fill(NaN);
  let total = 0;
  let weight = 0;
  let before = NaN;
  for (let at = 0; at < y.length; at++) {
    if (!Number.isFinite(y[at])) continue;
    const isFirst = Number.isNaN(before);
    const kept = isFirst ? 0 : Math.exp((before - x[at]) / width);
    const share = isFirst ? 1 : 1 - kept;
    total = kept * total + share * y[at];
    weight = kept * weight + share;
    smooth[at] = total / weight;
    before = x[at];
  }
  return smooth;
}

/**
 * The mean of all within half a `width` to the left and to the right.
 * @param {Numbers} x @param {Numbers} y @param {number} width on the x axis @returns {Float64Array}
 */
export function windowMean(x, y, width) {
  const smooth = new Float64Array(y.length).fill(NaN);
  let begin = 0;
  let end = 0;
  let total = 0;
  let count = 0;
  for (let at = 0; at < y.length; at++) {
    for (; end < y.length && x[end] <= x[at] + width / 2; end++) {
      if (Number.isFinite(y[end])) [total, count] = [total + y[end], count + 1];
    }
    for (; x[begin] < x[at] - width / 2; begin++) {
      if (Number.isFinite(y[begin])) [total, count] = [total - y[begin], count - 1];
    }
    if (Number.isFinite(y[at])) smooth[at] = total / count;
  }
  return smooth;
}
