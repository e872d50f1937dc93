// Measures: what of a run a scatter plot or an axis of parallel coordinates can show: config, summary, and statistics of metrics.
import { columnsOf } from "./columns.js";

/**
 * @typedef {import("./columns.js").Row} Row
 * @typedef {{id: string, title: string, of: (row: Row) => any}} Measure
 * @typedef {Object<string, Object<string, Object<string, number>>>} Stats for each run and metric first, last, min, max, mean
 */

const AGGREGATES = ["last", "min", "max", "mean"];

/**
 * Return what the runs were given, what differs first.
 * @param {Row[]} rows
 * @returns {Measure[]}
 */
export function configMeasures(rows) {
  const keys = columnsOf(rows).filter((column) => column.room === "config");
  return keys.map(({ id, key }) => ({ id, title: key, of: (row) => row.config?.[key] }));
}

/**
 * Return what came out of the runs: summary, then statistics of each metric.
 * @param {Row[]} rows
 * @param {Stats} stats
 * @returns {Measure[]}
 */
export function resultMeasures(rows, stats) {
  const columns = columnsOf(rows);
  const summary = columns.filter((column) => column.room === "summary");
  const metrics = columns.filter((column) => column.room === "last");
  return [
    ...summary.map(({ id, key }) => ({ id, title: key, of: (/** @type {Row} */ row) => row.summary?.[key] })),
    ...metrics.flatMap(({ key }) =>
      AGGREGATES.map((aggregate) => ({
        id: `${aggregate}/${key}`,
        title: `${aggregate}(${key})`,
        of: (/** @type {Row} */ row) => stats[row.run]?.[key]?.[aggregate] ?? (aggregate === "last" ? row.last?.[key] : undefined),
      })),
    ),
    { id: "run/records", title: "records", of: (row) => row.records },
    { id: "run/duration", title: "duration in s", of: durationOf },
  ];
}

/** @param {Row} row */
const durationOf = (row) => (row.ended_at ? (Date.parse(row.ended_at) - Date.parse(row.created_at)) / 1000 : undefined);

/**
 * Return the measure with an id, else the first that fits, else the first.
 * @param {Measure[]} measures
 * @param {string | undefined} id
 * @param {RegExp} [likely]
 */
export const chosenMeasure = (measures, id, likely = /^/) =>
  measures.find((measure) => measure.id === id) ?? measures.find((measure) => likely.test(measure.id)) ?? measures[0];
