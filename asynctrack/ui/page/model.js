// Model: what one chart shows, worked out from its curves and settings: smoothed lines, the scales, and what lies beyond them.
import { exponential, windowMean } from "./smoothing.js";

/** @typedef {import("./smoothing.js").Numbers} Numbers */
/** @typedef {[low: number, high: number]} Range */

/**
 * @typedef {object} Line
 * @property {string} run for a group of runs its name
 * @property {string[]} [runs] of a group: those that it is made of
 * @property {string} key
 * @property {string} label
 * @property {import("./colours.js").Colour} colour
 * @property {number[]} [dash]
 * @property {boolean} [isHidden]
 */

/**
 * A line with its numbers.
 * @typedef {object} Drawn
 * @property {Line} line
 * @property {Numbers} x
 * @property {Numbers} mean
 * @property {Numbers} low
 * @property {Numbers} high
 * @property {Numbers} last
 * @property {Numbers | null} deviation of a group
 * @property {Numbers | null} smooth
 * @property {Uint32Array | null} notFinite
 * @property {boolean} exact
 */

/** @typedef {{x: number, title: string, kind: "checkpoint" | "resume"}} Mark */

/**
 * @typedef {object} Settings
 * @property {string} x the axis: step, time, relative or a metric
 * @property {boolean} logX
 * @property {boolean} logY
 * @property {number} smoothing a share of the x axis that is seen, 0 for none
 * @property {boolean} byWindow
 * @property {boolean} all scale on all, outliers too
 * @property {Range | null} zoom
 */

/**
 * @typedef {object} Model
 * @property {Drawn[]} curves
 * @property {Range} x
 * @property {Range} y
 * @property {boolean} exact
 * @property {number} beyond how many buckets lie beyond the scale
 * @property {boolean} isEmpty nothing to draw
 * @property {Settings} settings
 * @property {Mark[]} marks
 */

// The scale leaves out no more than this at either end, and only where that gives the rest four times the room.
const OUTLIERS = 0.005;
const WORTH = 4;
// Of a scale, beyond the numbers at either end.
const MARGIN = 0.06;

/**
 * @param {Line[]} lines @param {Map<string, import("./wire.js").Block>} blocks by `blockId` @param {Settings} settings @param {Mark[]} marks
 * @returns {Model}
 */
export function modelOf(lines, blocks, settings, marks) {
  const found = lines.map((line) => ({ line, block: blocks.get(blockId(line)) })).filter(({ line, block }) => block?.rows && !line.isHidden);
  const whole = rangeOf(found.flatMap(({ block }) => endsOf(block, settings.logX)), settings.logX);
  const x = spread(zoomOf(settings, whole));
  const curves = found.map(({ line, block }) => drawnOf(line, block, settings, x));
  const { y, beyond } = scaleOf(curves, x, settings);
  return { curves, x, y, beyond, settings, marks, exact: curves.length > 0 && curves.every((curve) => curve.exact), isEmpty: !curves.length };
}

/** What is seen; of a logarithmic axis, no more than it can have. @param {Settings} settings @param {Range} whole @returns {Range} */
function zoomOf({ zoom, logX }, whole) {
  if (!zoom || !logX || zoom[0] > 0) return zoom ?? whole;
  return zoom[1] > whole[0] ? [whole[0], zoom[1]] : whole;
}

/** A range in which numbers can tell places apart: no fewer than some hundred. @param {Range} range @returns {Range} */
function spread([low, high]) {
  const least = Math.max(Math.abs(low), Math.abs(high)) * 2 ** -44;
  const more = Math.max(0, least - (high - low)) / 2;
  return [low - more, high + more];
}

/** Where a curve begins and ends; on a logarithmic axis, at its first place there. @param {import("./wire.js").Block} block @param {boolean} isLog */
function endsOf({ x_range: range, columns }, isLog) {
  const { x } = columns;
  if (range && !isLog) return range;
  return [isLog ? x.find((at) => at > 0) ?? NaN : x[0], x[x.length - 1]];
}

/** @param {{run: string, key: string}} line */
export const blockId = ({ run, key }) => `${run}\n${key}`;

/** The runs of lines, those of groups too. @param {Line[]} lines */
export const runsOf = (lines) => [...new Set(lines.flatMap((line) => line.runs ?? line.run))];

/** The metrics of lines. @param {Line[]} lines */
export const keysOf = (lines) => [...new Set(lines.map((line) => line.key))];

function drawnOf(line, { columns, exact }, settings, seen) {
  const { x, mean, min = mean, max = mean, last = mean, deviation = null, not_finite: notFinite = null } = columns;
  return { line, x, mean, low: min, high: max, last, deviation, notFinite, exact, smooth: smoothOf(x, mean, settings, seen) };
}

function smoothOf(x, mean, { smoothing, byWindow, logX }, [low, high]) {
  if (!smoothing) return null;
  const along = logX ? x.map(Math.log10) : x;
  const width = smoothing * (logX ? Math.log10(high / low) : high - low);
  return width > 0 ? (byWindow ? windowMean : exponential)(along, mean, width) : null;
}

/** The range of the numbers, or of those that a logarithmic axis can have. @returns {Range} */
function rangeOf(numbers, isLog) {
  const usable = numbers.filter((one) => Number.isFinite(one) && (!isLog || one > 0));
  if (!usable.length) return isLog ? [1, 10] : [0, 1];
  const [low, high] = [Math.min(...usable), Math.max(...usable)];
  if (low < high) return [low, high];
  return isLog ? [low / 2, high * 2] : [low - (Math.abs(low) * 0.01 || 1), high + (Math.abs(high) * 0.01 || 1)];
}

/** The range of y: of the middle of what is seen, if the rest would squash it. */
function scaleOf(curves, seen, { logY, all }) {
  const lows = sortedWithin(curves, ({ low }) => low, seen, logY);
  const highs = sortedWithin(curves, ({ high }) => high, seen, logY);
  const beside = (sorted) => Math.min(sorted.length - 1, Math.ceil(OUTLIERS * sorted.length));
  const [low, middleLow] = [lows[0], lows[beside(lows)]];
  const [high, middleHigh] = [highs.at(-1), highs.at(-1 - beside(highs))];
  const scaled = logY ? Math.log10 : (value) => value;
  const [span, middle] = [scaled(high) - scaled(low), scaled(middleHigh) - scaled(middleLow)];
  const isSquashed = !all && middle > 0 && span > WORTH * middle;
  const shown = isSquashed ? [reach(middleLow, low, middle, -1, scaled), reach(middleHigh, high, middle, 1, scaled)] : [low, high];
  const y = spread(widened(rangeOf(shown, logY), logY));
  return { y, beyond: indexFrom(lows, y[0]) + highs.length - indexAfter(highs, y[1]) };
}

/** The numbers of all curves that are seen and that a logarithmic axis can have, the least first. */
function sortedWithin(curves, numbersOf, [from, to], isLog) {
  const found = new Float64Array(curves.reduce((sum, { x }) => sum + x.length, 0));
  let count = 0;
  for (const curve of curves) {
    const { x } = curve;
    const numbers = numbersOf(curve);
    for (let at = indexFrom(x, from); at < x.length && x[at] <= to; at++) {
      if (Number.isFinite(numbers[at]) && (!isLog || numbers[at] > 0)) found[count++] = numbers[at];
    }
  }
  return found.subarray(0, count).sort();
}

/** The end of all where it is near the middle, else the end of the middle. */
function reach(middleEnd, end, middle, direction, scaled) {
  return direction * (scaled(end) - scaled(middleEnd)) <= middle * 0.25 ? end : middleEnd;
}

/** @param {Range} range @param {boolean} isLog @returns {Range} */
function widened([low, high], isLog) {
  if (isLog) return [low / (high / low) ** MARGIN, high * (high / low) ** MARGIN];
  const margin = (high - low) * MARGIN;
  return [low - margin, high + margin];
}

/** The first index whose x is not less. @param {Numbers} x @param {number} value */
export function indexFrom(x, value) {
  let [low, high] = [0, x.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The first index whose x is greater. @param {Numbers} x @param {number} value */
export function indexAfter(x, value) {
  let at = indexFrom(x, value);
  while (x[at] === value) at++;
  return at;
}

/** The index whose x is nearest. @param {Numbers} x @param {number} value */
export function indexAt(x, value) {
  const right = Math.min(indexFrom(x, value), x.length - 1);
  return right > 0 && value - x[right - 1] < x[right] - value ? right - 1 : right;
}
