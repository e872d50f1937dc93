// Compare page: several runs beside each other: their curves over one another, what differs, and how config and results go together.
import { source } from "./api.js";
import { columnsOf } from "./columns.js";
import { DASHES } from "./colours.js";
import { colours, compared, drawn, highlighted, hovered, labels, pick } from "./compared.js";
import { Controls } from "./controls.js";
import { Differences } from "./differences.js";
import { groupings, groupsOf, linesOfGroups } from "./groups.js";
import { html, useMemo } from "./html.js";
import { Panels } from "./panels.js";
import { ParallelCoordinates } from "./parallel.js";
import { Empty, Failure, Loading, Tabs, useLoaded } from "./parts.js";
import { RunLegend } from "./run_legend.js";
import { failure, refresh, runs, useRuns } from "./runs_list.js";
import { Scatter } from "./scatter.js";
import { href, param, paramList, update } from "./state.js";

/** @typedef {import("./columns.js").Row} Row */

const VIEWS = [
  { name: "charts", title: "Charts" },
  { name: "differences", title: "Differences" },
  { name: "scatter", title: "Scatter" },
  { name: "parallel", title: "Parallel coordinates" },
];

export default function ComparePage() {
  useRuns();
  if (!paramList("run").length) return html`<${Empty} title="Choose runs to compare"><a href=${href("runs")}>All runs</a><//>`;
  if (!runs.value && failure.value) return html`<${Failure} error=${failure.value} retry=${refresh} />`;
  if (!runs.value) return html`<${Loading} what="Reading runs" />`;
  if (!compared.value.length) return html`<${Empty} title="None of these runs is here"><a href=${href("runs")}>All runs</a><//>`;
  const view = VIEWS.some(({ name }) => name === param("view")) ? param("view") : "charts";
  return html`<div class="compare-page">
    <${Tabs} tabs=${VIEWS} value=${view} label="Views" onChoose=${(name) => update({ view: name === "charts" ? null : name })} />
    <${RunLegend} />
    <div class="view">${view === "charts" ? html`<${Overlay} />` : view === "differences" ? html`<${Differences} />` : html`<${Results} view=${view} />`}</div>
  </div>`;
}

/** The curves of all runs that are drawn, or of groups of all runs. */
function Overlay() {
  const rows = compared.value;
  const columns = useMemo(() => columnsOf(rows), [rows]);
  const choices = useMemo(() => groupings(columns), [columns]);
  const grouping = choices.find(({ id }) => id === param("group"));
  const names = metricsOf(rows).join("\n");
  const metrics = useMemo(() => names.split("\n").filter(Boolean), [names]);
  const linesOf = useMemo(() => (grouping ? linesOfGroups(groupsOf(rows, grouping)) : linesOfRuns(drawn.value)), [grouping?.id, grouping ? rows : drawn.value]);
  const hover = (line) => (hovered.value = line && !line.runs ? line.run : null);
  return html`<${Controls} metrics=${metrics}><${GroupChoice} choices=${choices} chosen=${grouping?.id ?? ""} /><//>
    <${Panels} keys=${metrics} linesOf=${linesOf} version=${recordsOf(rows)} highlighted=${grouping ? null : highlighted.value} onHover=${hover} onPick=${(line) => line.runs || pick(line.run)} />`;
}

/** The metrics that any of the runs has, in the order of the first that has them. @param {Row[]} rows */
const metricsOf = (rows) => [...new Set(rows.flatMap((row) => Object.keys(row.last ?? {})))];

/** @param {Row[]} rows */
const recordsOf = (rows) => rows.reduce((sum, row) => sum + (row.records ?? 0), 0);

/** A run has one colour, and each metric of a panel its own dash. @param {Row[]} rows */
function linesOfRuns(rows) {
  return ({ keys }) => rows.flatMap((row) =>
    keys.filter((key) => row.last && key in row.last).map((key) => ({
      run: row.run, key, colour: colours.value.get(row.run), dash: DASHES[keys.indexOf(key) % DASHES.length],
      label: keys.length > 1 ? `${labels.value.get(row.run)} ${key}` : labels.value.get(row.run),
    })),
  );
}

function GroupChoice({ choices, chosen }) {
  return html`<label>group by
    <select value=${chosen} onChange=${(event) => update({ group: event.target.value })}>
      <option value="">nothing</option>
      ${choices.map(({ id, key }) => html`<option key=${id} value=${id}>${key}</option>`)}
    </select>
  </label>`;
}

/** Views that need the statistics of all metrics. */
function Results({ view }) {
  const rows = compared.value;
  const { data, error } = useLoaded((abort) => source.json("metrics", { run: rows.map((row) => row.run) }, abort), [rows.map((row) => row.run).join("\n"), recordsOf(rows)]);
  const stats = useMemo(() => statsOf(data), [data]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!data) return html`<${Loading} what="Reading metrics" />`;
  return view === "scatter" ? html`<${Scatter} rows=${rows} stats=${stats} />` : html`<${ParallelCoordinates} rows=${rows} stats=${stats} />`;
}

/** @returns {import("./measures.js").Stats} */
const statsOf = (data) =>
  Object.fromEntries(Object.entries(data?.runs ?? {}).map(([run, metrics]) => [run, Object.fromEntries(metrics.map((metric) => [metric.key, metric]))]));
