// Curve store: has the charts that are in view ask for their curves together, in one request.
import { source } from "./api.js";

/**
 * @typedef {object} Wish
 * @property {"curves" | "groups"} path
 * @property {string[]} runs
 * @property {string[]} keys
 * @property {Record<string, string | number | null>} how axis, window, buckets and history
 */

/** @typedef {(block: import("./wire.js").Block) => void} Give */
/** @typedef {Wish & {give: Give, end: (error?: Error) => void, isDropped: boolean, drop?: () => void}} Waiting */

/** @type {Waiting[]} */
let waiting = [];

/**
 * Asks for curves. `give` is called with each as it comes, `end` once.
 * @param {Wish} wish @param {Waiting["give"]} give @param {Waiting["end"]} end @returns {() => void} to drop the wish
 */
export function askForCurves(wish, give, end) {
  /** @type {Waiting} */
  const mine = { ...wish, give, end, isDropped: false };
  if (!waiting.length) setTimeout(sendAll);
  waiting.push(mine);
  return () => {
    mine.isDropped = true;
    mine.drop?.();
  };
}

function sendAll() {
  const together = Map.groupBy(waiting.filter((one) => !one.isDropped), ({ path, runs, how }) => JSON.stringify([path, runs, how]));
  waiting = [];
  for (const wishes of together.values()) send(wishes);
}

async function send(wishes) {
  const abort = new AbortController();
  for (const wish of wishes) wish.drop = () => wishes.every((one) => one.isDropped) && abort.abort();
  const [{ path, runs, how }] = wishes;
  const keys = [...new Set(wishes.flatMap((wish) => wish.keys))];
  const end = (error) => wishes.forEach((wish) => wish.isDropped || wish.end(error));
  try {
    for await (const block of source.blocks(path, { run: runs, key: keys, ...how }, abort.signal)) {
      for (const wish of wishes) if (!wish.isDropped && wish.keys.includes(block.key)) wish.give(block);
    }
    end();
  } catch (error) {
    end(error);
  }
}
