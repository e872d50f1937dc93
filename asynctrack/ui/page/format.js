// Format: numbers, times, sizes and any other value as short text.

const UNITS = ["", "k", "M", "G", "T", "P"];

/** A number with so many digits. Not finite ones come as words from the server. @param {any} value @param {number} [digits] */
export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return value === "nan" ? "NaN" : String(value);
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en-US");
  if (size >= 1e7 || (size < 1e-3 && size > 0)) return shortened(value.toExponential(digits - 1));
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))));
}

const shortened = (exponential) => exponential.replace(/\.?0*e\+?/, "e");

/** A place on an axis, with as many digits as tell it from its neighbours. @param {number} value @param {number} step */
export function tick(value, step) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e18)) {
    const digits = Math.round(Math.log10(size / step));
    return shortened(value.toExponential(Math.max(0, Math.min(6, digits))));
  }
  const group = size < 1e4 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(size) / 3));
  const unit = 1000 ** group;
  if (group && decimals(step / unit) > 2) return value.toLocaleString("en-US", { maximumFractionDigits: decimals(step) });
  return `${(value / unit).toFixed(decimals(step / unit))}${UNITS[group]}`;
}

/** How many decimals a step needs: 0.25 has two. */
function decimals(step) {
  let digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  while (digits < 9 && Math.abs(step - Number(step.toFixed(digits))) > step * 1e-6) digits++;
  return Math.min(9, digits);
}

/** A place on an axis of time. @param {number} at_s since the epoch @param {number} step_s */
export function clockTick(at_s, step_s) {
  const at = new Date(at_s * 1000);
  if (step_s >= 86400) return at.toLocaleDateString(undefined, { month: "short", day: "numeric" });
  const seconds = step_s < 60 ? { second: "2-digit" } : {};
  const text = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", .../** @type {any} */ (seconds) });
  return step_s < 1 ? `${text}.${String(at.getMilliseconds()).padStart(3, "0")}` : text;
}

/** How long something took, in its two greatest units. @param {number} seconds */
export function duration(seconds) {
  if (!(Math.abs(seconds) >= 1)) return seconds ? `${number(seconds * 1000, 3)} ms` : "0 s";
  if (Math.abs(seconds) < 60) return `${number(seconds, 3)} s`;
  const whole = Math.round(seconds);
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "m"], [whole % 60, "s"]];
  const first = parts.findIndex(([count]) => count);
  return parts.slice(first, first + 2).filter(([count]) => count).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

/** @param {string} iso */
export const age = (iso) => duration(Math.max(1, Math.floor((Date.now() - Date.parse(iso)) / 1000)));

/** @param {string | number | null | undefined} at as ISO text, or in seconds since the epoch */
export function dateTime(at) {
  if (at === null || at === undefined) return "–";
  return new Date(typeof at === "number" ? at * 1000 : at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** @param {number} count */
export function bytes(count) {
  const group = count < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(count) / 3));
  return `${group ? (count / 1000 ** group).toPrecision(3) : count} ${UNITS[group]}B`;
}

/** A value on an axis, in full. @param {string} axis @param {number} value */
export function place(axis, value) {
  if (axis === "time") return dateTime(value);
  return axis === "relative" ? duration(value) : number(value, 7);
}

/** Any value of a config or a summary, in full. @param {any} value */
export const plain = (value) => typeof value === "string" ? value : JSON.stringify(value) ?? "–";
