// Groups: runs that have the same value of a config key, drawn as one line with the deviation of all of them.
import { coloursOf } from "./colours.js";
import { valueText } from "./cells.js";
import { DASHES } from "./colours.js";

/** @typedef {import("./columns.js").Row} Row @typedef {{label: string, runs: string[]}} Group */

/** More groups cannot be told apart. */
const MOST_GROUPS = 24;

/** What runs can be grouped by: keys of the config, and labels. @param {import("./columns.js").Column[]} columns */
export const groupings = (columns) =>
  columns.filter((column) => column.differs && (column.room === "config" || ["group", "job_type", "project"].includes(column.id)));

/**
 * Groups runs by what they have in a column. @param {Row[]} rows @param {import("./columns.js").Column} column @returns {Group[]} in the order of the values
 */
export function groupsOf(rows, column) {
  const found = Map.groupBy(rows, (row) => valueText(column.room === "run" ? row[column.key] : row[column.room]?.[column.key]) || "none");
  const names = [...found.keys()].sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
  return names.slice(0, MOST_GROUPS).map((name) => ({ label: `${column.key} = ${name}`, runs: (found.get(name) ?? []).map((row) => row.run) }));
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
