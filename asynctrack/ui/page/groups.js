// Groups: runs that have the same value of a config key, drawn as one line with the deviation of all of them.
import { valueText } from "./cells.js";
import { coloursOf, DASHES } from "./colours.js";
import { sorted, titleOf, valueOf } from "./columns.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./columns.js").Column} Column @typedef {{label: string, runs: string[]}} Group */

/** More groups cannot be told apart. */
const MOST_GROUPS = 24;

/** What runs can be grouped by: keys of the config, and labels. @param {Column[]} columns */
export const groupings = (columns) =>
  columns.filter((column) => column.differs && (column.room === "config" || ["group", "job_type", "project"].includes(column.id)));

/** Groups runs by what they have in a column. @param {Row[]} rows @param {Column} column @returns {Group[]} in the order of the values */
export function groupsOf(rows, column) {
  const found = Map.groupBy(sorted(rows, column, false), (row) => valueText(valueOf(column, row)) || "none");
  return [...found].slice(0, MOST_GROUPS).map(([value, some]) => ({ label: `${titleOf(column)} = ${value}`, runs: some.map((row) => row.run) }));
}

/** Returns the lines of a panel: one for each group and metric. @param {Group[]} groups @returns {(panel: {keys: string[]}) => import("./model.js").Line[]} */
export function linesOfGroups(groups) {
  const colours = coloursOf(groups.map(({ label }) => label));
  return ({ keys }) => groups.flatMap(({ label, runs }) =>
    keys.map((key, at) => ({
      run: label, runs, key, dash: DASHES[at % DASHES.length], colour: /** @type {any} */ (colours.get(label)),
      label: `${label} (${runs.length})${keys.length > 1 ? ` ${key}` : ""}`,
    })),
  );
}
