// Settings: how charts are drawn, as the fragment says: for all of them, and for one by itself.
import { param, update } from "./state.js";

/** @typedef {import("./model.js").Settings} Settings */
/** @typedef {import("./model.js").Range} Range */

/** Of the smoothing's width, as a share of the x axis; `s` goes from one to the next. */
export const WIDTHS = [0, 0.01, 0.03, 0.1];
export const AXES = ["step", "time", "relative"];

/** @param {string} name @returns {URLSearchParams} what a chart has by itself: x, log and zoom */
const ownOf = (name) => new URLSearchParams(param(`c.${name}`) ?? "");

/** How a chart is drawn; without a name, how all are. @param {string} [name] @returns {Settings} */
export function settingsOf(name = "") {
  const own = ownOf(name);
  const x = own.get("x") ?? param("x") ?? "step";
  const logs = logsOf(name);
  return {
    x,
    logX: logs.includes("x") && x !== "time",
    logY: logs.includes("y"),
    smoothing: Math.min(0.5, Math.max(0, Number(param("s")) || 0)),
    byWindow: param("how") === "window",
    all: param("o") === "1",
    zoom: rangeOf(own.has("x") ? own.get("zoom") : param("zoom")),
  };
}

const logsOf = (name) => ownOf(name).get("log") ?? param("log") ?? "";

function rangeOf(text) {
  const [low, high] = (text ?? "").split(",").map(Number);
  return low < high ? /** @type {Range} */ ([low, high]) : null;
}

/** Changes how one chart is drawn; without a name, how all are. @param {string} name @param {Record<string, string | null>} changes */
function change(name, changes) {
  if (!name) return update(changes);
  const own = ownOf(name);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) own.delete(key);
    else own.set(key, value);
  }
  update({ [`c.${name}`]: own.toString() });
}

/** Shows a part of the x axis, or all: in all charts, but for one that has an axis of its own. @param {string} name @param {Range | null} range */
export function zoom(name, range) {
  const text = range && range.map((value) => Number(value.toPrecision(digitsOf(range)))).join(",");
  change(ownOf(name).has("x") ? name : "", { zoom: text });
}

/** So many digits that the ends of a range are far apart. @param {Range} range */
function digitsOf([low, high]) {
  const digits = Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high)) / (high - low))) + 5;
  return Math.min(17, Math.max(12, digits || 0));
}

/**
 * Gives one chart an axis by itself, or without a name all of them; the usual one is not written down.
 * @param {string} axis @param {string} [name]
 */
export function setAxis(axis, name = "") {
  const usual = name ? settingsOf().x : "step";
  change(name, { x: axis === usual ? null : axis, zoom: null });
}

/** Turns a logarithmic axis of one chart on or off, or without a name of all. @param {"x" | "y"} letter @param {string} [name] */
export function toggleLog(letter, name = "") {
  const letters = logsOf(name);
  change(name, { log: letters.includes(letter) ? letters.replace(letter, "") : letters + letter });
}

/** @returns {boolean} whether a chart differs from all */
export const hasOwn = (name) => Boolean(param(`c.${name}`));
