// Sparklines: small curves of the rows in view: fetched for many at once when scrolling rests, kept, and drawn on canvases.
import { source } from "./api.js";
import { html, signal, useEffect, useRef } from "./html.js";
import { emptied } from "./pen.js";
import { extentOf } from "./scales.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./wire.js").Block} Block */
/** @typedef {{records: number | undefined, at: number, curve: {value: Block | null}}} Kept */

/** How long scrolling rests before curves are fetched, and after how long that of a growing run is fetched again. */
const REST_MS = 90;
const AGAIN_MS = 4000;
/** So many curves are kept at most; arbitrary, some 4 MB. */
const MOST_KEPT = 3000;
const WIDTH = 116;
const HEIGHT = 20;

const kept = /** @type {Map<string, Kept>} */ (new Map());
let keptKey = "";
let timer = 0;

/** @param {string} run */
function keptOf(run) {
  let found = kept.get(run);
  if (!found) kept.set(run, (found = { records: undefined, at: -Infinity, curve: signal(null) }));
  return found;
}

/**
 * Has the curves of these rows fetched soon, those that are not known or have grown.
 * @param {Row[]} rows those in view @param {string} key a metric, or "" for the first of each run
 */
export function want(rows, key) {
  if (key !== keptKey) for (const one of kept.values()) reset(one);
  keptKey = key;
  if (kept.size > MOST_KEPT) keepOnly(rows);
  clearTimeout(timer);
  timer = setTimeout(() => {
    const grown = rows.filter((row) => row.records && keptOf(row.run).records !== row.records);
    const due = grown.filter((row) => performance.now() - keptOf(row.run).at > AGAIN_MS);
    fetchCurves(due, key);
    if (due.length < grown.length) timer = setTimeout(() => want(rows, key), AGAIN_MS);
  }, REST_MS);
}

/** @param {Kept} one */
function reset(one) {
  Object.assign(one, { records: undefined, at: -Infinity });
  one.curve.value = null;
}

/** @param {Row[]} rows */
function keepOnly(rows) {
  const seen = new Set(rows.map((row) => row.run));
  for (const run of kept.keys()) if (!seen.has(run)) kept.delete(run);
}

async function fetchCurves(rows, key) {
  if (!rows.length) return;
  const now = performance.now();
  for (const row of rows) Object.assign(keptOf(row.run), { records: row.records, at: now });
  const query = { run: rows.map((row) => row.run), key: key || undefined };
  try {
    for await (const block of source.blocks("sparklines", query)) if (key === keptKey) keptOf(block.run).curve.value = block;
  } catch {
    // A table without curves is still a table; the banner says that the server does not answer.
    for (const row of rows) keptOf(row.run).records = undefined;
  }
}

/** A run's curve. @param {{run: string, theme: string}} props */
export function Sparkline({ run, theme }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const block = keptOf(run).curve.value;
  useEffect(() => draw(/** @type {HTMLCanvasElement} */ (canvas.current), block), [block, theme]);
  return html`<canvas ref=${canvas} class="sparkline" role="img" aria-label=${block ? labelOf(block) : "no curve"} title=${block?.key ?? ""}></canvas>`;
}

/** @param {Block} block */
function labelOf({ key, rows, columns }) {
  const { mean } = columns;
  return rows ? `${key} from ${mean[0].toPrecision(3)} to ${mean[rows - 1].toPrecision(3)}` : `${key}: no values`;
}

/** @param {HTMLCanvasElement} canvas @param {Block | null} block */
function draw(canvas, block) {
  const context = emptied(canvas, WIDTH, HEIGHT);
  if (!block?.rows) return;
  context.fillStyle = context.strokeStyle = getComputedStyle(canvas).color;
  const { rows, columns } = block;
  const { x, mean, min = mean, max = mean } = columns;
  const [lo, hi] = [extentOf(min)[0], extentOf(max)[1]];
  const [first, last] = [x[0], x[rows - 1]];
  const across = (/** @type {number} */ at) => 1 + ((x[at] - first) / (last - first || 1)) * (WIDTH - 2);
  const down = (/** @type {number} */ value) => HEIGHT - 2 - ((value - lo) / (hi - lo || 1)) * (HEIGHT - 4);
  const trace = (/** @type {ArrayLike<number>} */ values, isBack = false) => {
    for (let nth = 0, at = isBack ? rows - 1 : 0; nth < rows; nth++, at += isBack ? -1 : 1) context.lineTo(across(at), down(values[at]));
  };
  paint(context, 0.22, () => [trace(max), trace(min, true), context.fill()]);
  paint(context, 1, () => [trace(mean), context.stroke()]);
}

/** @param {CanvasRenderingContext2D} context @param {number} alpha @param {() => void} act */
function paint(context, alpha, act) {
  Object.assign(context, { globalAlpha: alpha, lineWidth: 1.25, lineJoin: "round" });
  context.beginPath();
  act();
}
