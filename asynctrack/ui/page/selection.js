// Selection: which runs of the table are selected, by clicks and keys, while pages come and go.
import { signal } from "./html.js";

/** The keys of the runs that are selected. */
export const selected = signal(/** @type {Set<string>} */ (new Set()));
let anchor = /** @type {string | null} */ (null);

/**
 * Selects a run, or no longer; with `isRange`, all between it and the one before too.
 * @param {string[]} order runs as they are shown @param {string} run @param {boolean} isRange
 */
export function toggle(order, run, isRange) {
  const next = new Set(selected.peek());
  const [from, to] = [order.indexOf(anchor ?? ""), order.indexOf(run)];
  if (isRange && from >= 0) for (const one of order.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(one);
  else if (!next.delete(run)) next.add(run);
  anchor = run;
  selected.value = next;
}

/** Selects all of these, or, where they all are, none of them. @param {string[]} order */
export function toggleAll(order) {
  const next = new Set(selected.peek());
  const isAll = order.every((run) => next.has(run));
  for (const run of order) isAll ? next.delete(run) : next.add(run);
  selected.value = next;
}

export const clear = () => (selected.value = new Set());
