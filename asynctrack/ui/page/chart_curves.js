// Chart curves: asks for what a chart draws, again when the view or the data change. What is there stays until the new has come.
import { askForCurves } from "./curve_store.js";
import { useEffect, useRef, useState } from "./html.js";
import { blockId, keysOf, runsOf } from "./model.js";
import { param } from "./state.js";

/** @typedef {import("./model.js").Line} Line */
/** @typedef {import("./model.js").Settings} Settings */

// Buckets of a chart: somewhat more than its pixels, less where many lines share them. The same for all charts, so that they share a request.
const BUCKETS = 400;
// Of all lines of a chart together, in hundreds: charts of about as many lines share a request.
const BUCKETS_IN_ALL = 20_000;
const BUCKETS_IN_FULL = 1600;
// Of what is seen, asked for at either side.
const BESIDE = 0.1;
// While a zoom goes on, the server is asked when it rests so long.
const REST_MS = 120;
// While many curves come, they are drawn so often: each time is the work of all of them.
const SHOW_MS = 700;

/**
 * @param {Line[]} lines @param {Settings} settings @param {number} version changes when there may be more data @param {boolean} isFull
 * @returns {{blocks: Map<string, import("./wire.js").Block>, change: number, error: Error | undefined, isLoading: boolean}} change: of the blocks
 */
export function useCurves(lines, settings, version, isFull) {
  const [state, setState] = useState({ change: 0, isLoading: true, error: undefined });
  const blocks = useRef(new Map());
  const id = JSON.stringify([lines.map((line) => [blockId(line), line.runs]), settings.x, param("history")]);
  const asked = useRef("");
  const how = { x: settings.x, history: param("history") ?? "last", ...windowOf(settings), buckets: bucketsOf(lines, isFull, settings) };
  useEffect(() => {
    if (asked.current !== id) blocks.current = new Map();
    asked.current = id;
    const mine = blocks.current;
    let [showing, fresh] = [0, 0];
    let drop = () => {};
    const show = (left, error) => {
      const by = fresh;
      clearTimeout(showing);
      showing = fresh = 0;
      setState((old) => ({ change: old.change + by, isLoading: old.isLoading && left > 0, error: error ?? (by ? undefined : old.error) }));
    };
    const ask = () => {
      const wishes = wishesOf(lines);
      let left = wishes.length;
      const give = (block) => {
        mine.set(blockId(block), block);
        fresh++;
        showing ||= setTimeout(show, mine.size > 1 ? SHOW_MS : 0, left);
      };
      const end = (error) => {
        if (!--left || error) show(left, error);
      };
      const drops = wishes.map(({ name, ...wish }) => askForCurves({ ...wish, how }, (block) => give(name ? { ...block, run: name } : block), end));
      drop = () => drops.forEach((one) => one());
    };
    const timer = setTimeout(ask, mine.size && settings.zoom ? REST_MS : 0);
    return () => {
      clearTimeout(timer);
      clearTimeout(showing);
      drop();
    };
  }, [id, JSON.stringify(how), version]);
  return { ...state, blocks: blocks.current };
}

/** What to ask for: the curves of all runs together, and for each group of runs that of all of them. @param {Line[]} lines */
function wishesOf(lines) {
  const keys = keysOf(lines);
  const runs = runsOf(lines.filter((line) => !line.runs));
  const groups = new Map(lines.filter((line) => line.runs).map((line) => [line.run, line.runs]));
  const wishes = [...groups].map(([name, runs]) => ({ name, path: /** @type {const} */ ("groups"), runs, keys }));
  return runs.length ? [{ name: "", path: /** @type {const} */ ("curves"), runs, keys }, ...wishes] : wishes;
}

/** The window to ask for: somewhat more than is seen, so that lines go on to its edges, and smoothed ones begin before it. */
function windowOf({ zoom: range, smoothing }) {
  if (!range) return { x0: null, x1: null };
  const [low, high] = range;
  return { x0: low - (BESIDE + 2 * smoothing) * (high - low), x1: high + BESIDE * (high - low) };
}

function bucketsOf(lines, isFull, { zoom: range, smoothing }) {
  const buckets = isFull ? BUCKETS_IN_FULL : Math.min(BUCKETS, Math.max(100, Math.floor(BUCKETS_IN_ALL / lines.length / 100) * 100));
  return Math.ceil(buckets * (range ? 1 + 2 * (BESIDE + smoothing) : 1));
}
