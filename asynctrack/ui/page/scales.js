// Scales: ranges of numbers, and round numbers between two for the ticks of an axis.

/** @typedef {[low: number, high: number]} Range */

/** Returns the range of finite numbers; from infinity to minus infinity without any. @param {ArrayLike<number>} numbers @returns {Range} */
export function extentOf(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (let at = 0; at < numbers.length; at++) {
    const number = numbers[at];
    if (Number.isFinite(number)) [low, high] = [Math.min(low, number), Math.max(high, number)];
  }
  return [low, high];
}

/** Returns about so many round numbers between two. @param {number} low @param {number} high @param {number} count */
export function evenTicks(low, high, count) {
  const rough = (high - low) / count;
  if (!Number.isFinite(rough)) return [low, high];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, at) => rounded((first + at) * step));
}

/** Returns decades, or 1, 2 and 5 of each; of less than a decade, even steps. @param {number} low @param {number} high */
export function logTicks(low, high) {
  const decades = Math.log10(high / low);
  if (decades < 1) return evenTicks(low, high, 4);
  const every = Math.ceil(decades / 6);
  const found = [];
  for (let power = Math.floor(Math.log10(low) / every) * every; 10 ** power <= high; power += every) {
    for (const times of decades < 2 ? [1, 2, 5] : [1]) found.push(rounded(times * 10 ** power));
  }
  return found.filter((at) => at >= low && at <= high);
}

const rounded = (number) => Number(number.toPrecision(12));
