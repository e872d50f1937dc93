// Measures: what of a run a scatter plot or an axis of parallel coordinates can show: config, summary, and statistics of metrics.
import { columnsOf, titleOf, tookOf, valueOf } from "./columns.js";
import { html } from "./html.js";
import { Choice } from "./parts.js";
import { update } from "./state.js";

/**
 * @typedef {import("./columns.js").Row} Row
 * @typedef {{id: string, title: string, of: (row: Row) => any}} Measure
 * @typedef {Map<string, Map<string, Object<string, number>>>} Stats for each run and metric first, last, min, max, mean
 */

const AGGREGATES = ["last", "min", "max", "mean"];

/** @param {import("./columns.js").Column} column @returns {Measure} */
const measureOf = (column) => ({ id: column.id, title: titleOf(column), of: (row) => valueOf(column, row) });

/** Returns what the runs were given, what differs first. @param {Row[]} rows @param {boolean} [differing] only that which differs @returns {Measure[]} */
export const configMeasures = (rows, differing = false) =>
  columnsOf(rows).filter((column) => column.room === "config" && (column.differs || !differing)).map(measureOf);

/** Returns what came out of the runs: summary, then statistics of each metric. @param {Row[]} rows @param {Stats} stats @returns {Measure[]} */
export function resultMeasures(rows, stats) {
  const columns = columnsOf(rows);
  const statistic = (/** @type {import("./columns.js").Column} */ column) => AGGREGATES.map((aggregate) => ({
    id: `${aggregate}/${column.key}`,
    title: `${aggregate}(${column.key})`,
    of: (/** @type {Row} */ row) => stats.get(row.run)?.get(column.key)?.[aggregate] ?? (aggregate === "last" ? valueOf(column, row) : undefined),
  }));
  return [
    ...columns.filter((column) => column.room === "summary").map(measureOf),
    ...columns.filter((column) => column.room === "last").flatMap(statistic),
    { id: "run/records", title: "records", of: (row) => row.records },
    { id: "run/duration", title: "duration in s", of: tookOf },
  ];
}

/**
 * Returns the measure with an id, else the first that fits, else the first.
 * @param {Measure[]} measures
 * @param {string | undefined} id
 * @param {RegExp} [likely]
 */
export const chosenMeasure = (measures, id, likely = /^/) =>
  measures.find((measure) => measure.id === id) ?? measures.find((measure) => likely.test(measure.id)) ?? measures[0];

/** A choice of a measure. @param {{label: string, name: string, measures: Measure[], chosen: Measure}} props  name: of the view's parameter */
export function MeasureChoice({ label, name, measures, chosen }) {
  const options = measures.map(({ id, title }) => [id, title]);
  return html`<${Choice} label=${label} value=${chosen.id} options=${options} onChoose=${(id) => update({ [name]: id })} />`;
}
