// Runs list: all runs as the server lists them, kept up to date while a page shows them; only what changed is fetched.
import { source, watch } from "./api.js";
import { batch, signal, useEffect } from "./html.js";

/** @typedef {import("./columns.js").Row} Row */

/** The runs by their keys: a new map at each change, in which rows that did not change are the same objects. */
export const runs = signal(/** @type {Map<string, Row> | null} */ (null));
export const failure = signal(/** @type {Error | null} */ (null));
export const directory = signal("");
/** Whether each run has been looked at: more may come. */
export const isComplete = signal(true);
/** What is wrong with the directories. */
export const problems = signal(/** @type {string[]} */ ([]));

/** While runs are looked at for the first time, the list is asked for so often. */
const AGAIN_MS = 300;

let version = /** @type {number | null} */ (null);
let fetching = /** @type {Promise<void> | null} */ (null);
let isStale = false;

/** Fetches what has changed. While a fetch is under way, another follows it. */
export function refresh() {
  if (fetching) isStale = true;
  else fetching = fetchChanges().finally(fetchAgain);
}

function fetchAgain() {
  fetching = null;
  if (isStale) refresh();
}

async function fetchChanges() {
  isStale = false;
  try {
    apply(await source.json("runs", { since: version }));
  } catch (error) {
    failure.value = error;
  }
}

function apply(answer) {
  version = answer.version;
  const isFirst = !runs.peek() || answer.reset;
  batch(() => {
    failure.value = null;
    isComplete.value = answer.complete ?? true;
    if (answer.problems?.join() !== problems.peek().join()) problems.value = answer.problems ?? [];
    directory.value = answer.directory;
    if (isFirst || answer.runs.length || answer.removed.length) runs.value = changed(answer, isFirst);
  });
  if (!isComplete.peek()) setTimeout(refresh, AGAIN_MS);
}

/** Returns the runs with what has changed. */
function changed(answer, isFirst) {
  const next = new Map(isFirst ? [] : runs.peek());
  for (const run of answer.removed) next.delete(run);
  for (const row of answer.runs) next.set(row.run, row);
  return next;
}

/** Keeps the runs up to date while a component is there. */
export function useRuns() {
  useEffect(() => {
    refresh();
    return watch([], { onRuns: refresh, onReturn: refresh });
  }, []);
}
