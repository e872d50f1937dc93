// Metric names: the metrics of the compared runs. The row of a run has its first ones; of one that has more, the server is asked.
import { source } from "./api.js";
import { useMemo } from "./html.js";
import { useLoaded } from "./parts.js";

/** @typedef {import("./columns.js").Row} Row */

/** As many names a row has, and as many letters of each: `ui/run_rows.py` cuts them. */
const MOST_NAMES = 500;
const LONGEST_NAME = 300;
/** Of so many runs at most all names are asked for: the others have the same, or no curve comes. Arbitrary. */
const MOST_ASKED = 8;

/** Returns the metrics of each run. @param {Row[]} rows @returns {Map<string, Set<string>>} */
export function useMetricNames(rows) {
  const cut = rows.filter(isCut).map((row) => row.run);
  const asked = cut.slice(0, MOST_ASKED);
  const { data } = useLoaded(async (abort) => (asked.length ? source.json("metrics", { run: asked }, abort) : undefined), [asked.join("\n")]);
  return useMemo(() => {
    const whole = new Map(Object.entries(data?.runs ?? {}).map(([run, metrics]) => [run, metrics.map(({ key }) => key)]));
    const all = [...whole.values()].flat();
    const namesOf = ({ run, last }) => whole.get(run) ?? [...Object.keys(last ?? {}).filter(isWhole), ...(cut.includes(run) ? all : [])];
    return new Map(rows.map((row) => [row.run, new Set(namesOf(row))]));
  }, [rows, data]);
}

const isWhole = (name) => name.length < LONGEST_NAME;

/** @param {Row} row */
function isCut({ last = {} }) {
  const names = Object.keys(last);
  return names.length >= MOST_NAMES || !names.every(isWhole);
}
