// Groups: runs that have the same value of a config key, drawn as one line with the deviation of all of them.
import { valueText } from "./cells.js";
import { coloursOf, DASHES } from "./colours.js";
import { columnsOf, sorted, titleOf, valueOf } from "./columns.js";
import { compared } from "./compared.js";
import { computed } from "./html.js";
import { param } from "./state.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./columns.js").Column} Column @typedef {{label: string, runs: string[]}} Group */

/** More groups cannot be told apart. */
const MOST_GROUPS = 24;

const LABELS = ["group", "job_type", "project"];

/** What the compared runs can be grouped by: keys of the config, and labels. */
export const groupings = computed(() => columnsOf(compared.value).filter((column) => column.differs && (column.room === "config" || LABELS.includes(column.id))));

/** The groups of the compared runs, if the view has any. */
export const groups = computed(() => {
  const column = groupings.value.find(({ id }) => id === param("group"));
  return column ? groupsOf(compared.value, column) : null;
});

/** The colour of each group. */
export const groupColours = computed(() => coloursOf((groups.value ?? []).map(({ label }) => label)));

/** Groups runs by what they have in a column. @param {Row[]} rows @param {Column} column @returns {Group[]} in the order of the values */
function groupsOf(rows, column) {
  const found = Map.groupBy(sorted(rows, column, false), (row) => valueText(valueOf(column, row)) || "none");
  return [...found].slice(0, MOST_GROUPS).map(([value, some]) => ({ label: `${titleOf(column)} = ${value}`, runs: some.map((row) => row.run) }));
}

/** Returns the lines of a panel: one for each group and metric. @param {Group[]} groups @returns {(panel: {keys: string[]}) => import("./model.js").Line[]} */
export function linesOfGroups(groups) {
  return ({ keys }) => groups.flatMap(({ label, runs }) =>
    keys.map((key, at) => ({
      run: label, runs, key, dash: DASHES[at % DASHES.length], colour: /** @type {any} */ (groupColours.value.get(label)),
      label: keys.length > 1 ? `${label} ${key}` : label,
    })),
  );
}
