// Axes: where a value of any kind lies between 0 and 1: a number, linear or by its logarithm, or one of several texts.
import { asNumber } from "./columns.js";
import { evenTicks, extentOf, logTicks } from "./scales.js";

/**
 * few: whether it has few different values, each with its label.
 * @typedef {{title: string, kind: "number" | "text", log: boolean, few: boolean,
 *   at: (value: any) => number | undefined, ticks: {at: number, label: any}[]}} Axis
 */

/** More texts than this stand on an axis without a label each. */
const LABELLED = 24;
/** So few different numbers are the labels themselves, if they are so far apart. */
const FEW = 9;
const APART = 0.04;
/** A factor between numbers from which a logarithm shows them better. Arbitrary. */
const DECADES = 50;

/**
 * Returns an axis that has room for these values.
 * @param {string} title
 * @param {any[]} values
 * @param {boolean} [log] wanted by its logarithm; values that are not positive then have no place
 * @returns {Axis}
 */
export function axisOf(title, values, log = false) {
  const there = values.filter((value) => value !== undefined && value !== null);
  const numbers = there.map(asNumber);
  return numbers.every((number) => number !== undefined) ? numberAxis(title, /** @type {number[]} */ (numbers), log) : textAxis(title, there);
}

/** @param {string} title @param {number[]} numbers @param {boolean} log @returns {Axis} */
function numberAxis(title, numbers, log) {
  const scale = log ? Math.log10 : (number) => number;
  let [lo, hi] = extentOf(numbers.map(scale));
  if (lo > hi) [lo, hi] = [0, 1];
  if (lo === hi) [lo, hi] = [lo - (Math.abs(lo) / 10 || 1), hi + (Math.abs(hi) / 10 || 1)];
  const at = (value) => {
    const place = (scale(/** @type {number} */ (asNumber(value))) - lo) / (hi - lo);
    return Number.isFinite(place) ? place : undefined;
  };
  const few = fewNumbers(numbers, at);
  const labels = few ?? (log ? logTicks(10 ** lo, 10 ** hi) : evenTicks(lo, hi, 5));
  const ticks = labels.map((label) => ({ at: /** @type {number} */ (at(label)), label }));
  return { title, kind: "number", log, few: few !== null, at, ticks };
}

/** @param {string} title @param {any[]} values @returns {Axis} */
function textAxis(title, values) {
  const texts = [...new Set(values.map(textOf))].sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
  const places = new Map(texts.map((text, index) => [text, (index + 0.5) / texts.length]));
  const every = Math.ceil(texts.length / LABELLED);
  const ticks = texts.flatMap((text, index) => (index % every ? [] : [{ at: /** @type {number} */ (places.get(text)), label: text }]));
  const at = (value) => (value === undefined || value === null ? undefined : places.get(textOf(value)));
  return { title, kind: "text", log: false, few: texts.length <= LABELLED, at, ticks };
}

/** @param {any} value */
const textOf = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

/** Returns the different numbers, if they are few and far apart. */
function fewNumbers(numbers, at) {
  const found = [...new Set(numbers)].filter((number) => at(number) !== undefined).sort((one, other) => one - other);
  const isApart = found.every((number, index) => !index || /** @type {number} */ (at(number)) - /** @type {number} */ (at(found[index - 1])) >= APART);
  return found.length <= FEW && isApart ? found : null;
}

/** Returns true where numbers are positive and differ by a large factor: a logarithm shows them better. @param {any[]} values */
export function spansDecades(values) {
  const [least, most] = extentOf(/** @type {number[]} */ (values.map(asNumber)));
  return least > 0 && most / least >= DECADES;
}
