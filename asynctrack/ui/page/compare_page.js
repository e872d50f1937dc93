// Compare page: several runs beside each other: their curves over one another, what differs, and how config and results go together.
import { source } from "./api.js";
import { DASHES } from "./colours.js";
import { titleOf } from "./columns.js";
import { colours, compared, drawn, highlighted, hovered, labels, pick } from "./compared.js";
import { Controls } from "./controls.js";
import { Differences } from "./differences.js";
import { groupings, groups, linesOfGroups } from "./groups.js";
import { computed, html, useMemo } from "./html.js";
import { useMetricNames } from "./metric_names.js";
import { Panels } from "./panels.js";
import { ParallelCoordinates } from "./parallel.js";
import { Choice, Empty, Failure, Loading, Tabs, useLoaded } from "./parts.js";
import { GroupLegend, RunLegend } from "./run_legend.js";
import { failure, refresh, runs, useRuns } from "./runs_list.js";
import { Scatter } from "./scatter.js";
import { href, param, paramList, update } from "./state.js";
import { useCalm } from "./timing.js";

/** @typedef {import("./columns.js").Row} Row */

/** While runs go on, what is drawn of them is asked for so often at most. */
const LIVE_MS = 2000;
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
    ${groups.value && view === "charts" ? html`<${GroupLegend} />` : html`<${RunLegend} canHide=${view === "charts"} />`}
    <div class="view">${view === "charts" ? html`<${Overlay} />` : view === "differences" ? html`<${Differences} />` : html`<${Results} view=${view} />`}</div>
  </div>`;
}

/** The curves of all runs that are drawn, or of groups of all runs. */
function Overlay() {
  const rows = compared.value;
  const names = useMetricNames(rows);
  const all = JSON.stringify([...new Set([...names.values()].flatMap((some) => [...some]))]);
  const metrics = useMemo(() => JSON.parse(all), [all]);
  const linesOf = useMemo(() => (groups.value ? linesOfGroups(groups.value) : linesOfRuns(drawn.value, names)), [groups.value, drawn.value, names]);
  return html`<${Controls} metrics=${metrics}><${GroupChoice} /><//>
    <${Panels} keys=${metrics} linesOf=${linesOf} version=${useCalm(recordsOf(groups.value ? rows : drawn.value), LIVE_MS)} highlighted=${above.value}
      onHover=${(line) => (hovered.value = line?.run ?? null)} onPick=${(line) => pick(line.run)} />`;
}

/** What stands out, if it is drawn. */
const above = computed(() => {
  const names = groups.value ? groups.value.map(({ label }) => label) : drawn.value.map(({ run }) => run);
  return names.includes(highlighted.value ?? "") ? highlighted.value : null;
});

/** @param {Row[]} rows */
const recordsOf = (rows) => rows.reduce((sum, row) => sum + (row.records ?? 0), 0);

/** A run has one colour, and each metric of a panel its own dash. @param {Row[]} rows @param {Map<string, Set<string>>} names of the metrics of each */
function linesOfRuns(rows, names) {
  return ({ keys }) => rows.flatMap((row) =>
    keys.filter((key) => names.get(row.run)?.has(key)).map((key) => ({
      run: row.run, key, colour: colours.value.get(row.run), dash: DASHES[keys.indexOf(key) % DASHES.length],
      label: keys.length > 1 ? `${labels.value.get(row.run)} ${key}` : labels.value.get(row.run),
    })),
  );
}

function GroupChoice() {
  const options = [["", "nothing"], ...groupings.value.map((column) => [column.id, titleOf(column)])];
  return html`<${Choice} label="group by" value=${param("group") ?? ""} options=${options} onChoose=${(id) => update({ group: id })} />`;
}

/** Views that need the statistics of all metrics. */
function Results({ view }) {
  const rows = compared.value;
  const runs = rows.map((row) => row.run);
  const records = useCalm(recordsOf(rows), LIVE_MS);
  const { data, error } = useLoaded((abort) => source.json("metrics", { run: runs }, abort), [runs.join("\n"), records]);
  const stats = useMemo(() => statsOf(data), [data]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!data) return html`<${Loading} what="Reading metrics" />`;
  return view === "scatter" ? html`<${Scatter} rows=${rows} stats=${stats} />` : html`<${ParallelCoordinates} rows=${rows} stats=${stats} />`;
}

/** @returns {import("./measures.js").Stats} */
const statsOf = (data) =>
  new Map(Object.entries(data?.runs ?? {}).map(([run, metrics]) => [run, new Map(metrics.map((metric) => [metric.key, metric]))]));
