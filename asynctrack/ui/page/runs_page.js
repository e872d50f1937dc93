// Runs page: all runs in a table, which is filtered, sorted and selected from, and changes while they run.
import { tableValues } from "./cells.js";
import { isDark } from "./colours.js";
import { ColumnChooser } from "./column_chooser.js";
import { columnsOf, shownColumns, sorted } from "./columns.js";
import { saveTable } from "./download.js";
import { FilterBar, useFilter } from "./filter_bar.js";
import { number } from "./format.js";
import { html, useMemo, useState } from "./html.js";
import { useKeys } from "./keys.js";
import { Choice, Empty, Failure, Loading } from "./parts.js";
import { directory, failure, isComplete, problems, refresh, runs, useRuns } from "./runs_list.js";
import { RunsTable } from "./runs_table.js";
import { clear, selected, toggle, toggleAll } from "./selection.js";
import { want } from "./sparklines.js";
import { open, param, paramList, update } from "./state.js";

/** More runs cannot be told apart in a chart. */
const MOST_COMPARED = 200;
const EXAMPLE = `import asynctrack

run = asynctrack.init(project="demo", config={"lr": 1e-3})
for step in range(1000):
    run.log({"loss": 1 / (step + 1)})
run.finish()`;

export default function RunsPage() {
  useRuns();
  const known = runs.value;
  if (!known && failure.value) return html`<${Failure} error=${failure.value} retry=${refresh} />`;
  if (!known) return html`<${Loading} what="Reading runs" />`;
  if (known.size) return html`<${Runs} known=${known} />`;
  return isComplete.value ? html`<${NoRuns} />` : html`<${Loading} what="Looking for runs" />`;
}

function NoRuns() {
  return html`<${Empty} title="There are no runs yet">
    ${problems.value.map((problem) => html`<p class="bad">${problem}</p>`)}
    <p class="muted">This page shows them as soon as one is in <code>${directory.value}</code>:</p>
    <pre class="example">${EXAMPLE}</pre>
  <//>`;
}

function Runs({ known }) {
  const rows = useMemo(() => [...known.values()], [known]);
  const columns = useMemo(() => columnsOf(rows), [rows]);
  const sort = param("sort") ?? "";
  const { found, fitting, error } = useFilter(rows);
  const ordered = useMemo(() => sorted(fitting, columns.find(({ id }) => id === sort.replace(/^-/, "")), sort.startsWith("-")), [fitting, columns, sort]);
  const pinned = paramList("pin");
  const chosen = paramList("col");
  const shown = useMemo(() => shownColumns(columns, chosen, pinned), [columns, chosen.join("\n"), pinned.join("\n")]);
  return html`<div class="runs-page">
    <${Table} ...${{ rows: ordered, columns, shown, pinned, sort, found, error, total: rows.length }} />
  </div>`;
}

function Table({ rows, columns, shown, pinned, sort, found, error, total }) {
  const [cursor, setCursor] = useState(/** @type {string | null} */ (null));
  const [isChoosing, setChoosing] = useState(false);
  const order = useMemo(() => rows.map((row) => row.run), [rows]);
  const metric = param("curve") ?? "";
  const select = (run, event) => (setCursor(run), toggle(order, run, event.shiftKey));
  const saveRuns = () => saveTable(...tableValues(shown, rows), "runs.csv");
  const compare = () => order.length && open("compare", "", { run: comparedOf(order) });
  const see = (view) => shown.some(({ id }) => id === "curve") && want(view, metric);
  useTableKeys({ order, cursor, setCursor, compare });
  return html`
    <${FilterBar} found=${found} error=${error}>
      <${CurveChoice} columns=${columns} metric=${metric} />
      <button onClick=${() => setChoosing(true)}>Columns</button>
      <button onClick=${saveRuns} title="This table, with all its rows, as a file">CSV</button>
      <${CompareButton} order=${order} compare=${compare} />
    <//>
    <p class="counts muted" role="status">${countsOf(rows.length, total)}${!isComplete.value && " so far…"}
      ${problems.value.map((problem) => html`<span class="bad"> · ${problem}</span>`)}
      ${selected.value.size > 0 && html`<span> · ${number(selected.value.size)} selected <button class="plain" onClick=${clear}>none</button></span>`}
    </p>
    ${rows.length
      ? html`<${RunsTable} rows=${rows} columns=${shown} pinned=${pinned} sort=${sort} onSort=${(id) => update({ sort: nextSort(sort, id) })}
          selected=${selected.value} onSelect=${select} onSelectAll=${() => toggleAll(order)} cursor=${cursor} onCursor=${setCursor}
          onOpen=${(run) => open("run", run)} theme=${isDark.value ? "dark" : "light"} onView=${see} />`
      : html`<${Empty} title="No run fits"><button onClick=${() => update({ q: "", status: [], tag: [] })}>Show all runs</button><//>`}
    ${isChoosing && html`<${ColumnChooser} columns=${columns} shown=${shown} pinned=${pinned} onShown=${(ids) => update({ col: ids })}
      onPinned=${(ids) => update({ pin: ids })} onClose=${() => setChoosing(false)} />`}`;
}

const countsOf = (shown, total) =>
  shown === total ? `${number(total)} ${total === 1 ? "run" : "runs"}` : `${number(shown)} of ${number(total)} runs`;

/** A column sorts upwards, then downwards, then no longer. */
const nextSort = (sort, id) => (sort === id ? `-${id}` : sort === `-${id}` ? "" : id);

/** What is compared: the selected runs, or without any all that are shown. @param {string[]} order */
function comparedOf(order) {
  const chosen = selected.peek().size ? order.filter((run) => selected.peek().has(run)) : order;
  return chosen.slice(0, MOST_COMPARED);
}

function CompareButton({ order, compare }) {
  const count = selected.value.size || order.length;
  const text = count > MOST_COMPARED ? `Compare first ${MOST_COMPARED}` : selected.value.size ? `Compare ${count}` : "Compare all";
  return html`<button class="primary" disabled=${!count} onClick=${compare} title="Compare the selected runs, or all that are shown (c)">${text}</button>`;
}

function CurveChoice({ columns, metric }) {
  const keys = columns.filter((column) => column.room === "last").map((column) => column.key);
  const options = [["", "first metric"], ...keys.map((key) => [key, key])];
  return html`<${Choice} label="Curve" value=${metric} options=${options} onChoose=${(key) => update({ curve: key })} />`;
}

function useTableKeys({ order, cursor, setCursor, compare }) {
  const move = (by) => {
    const at = order.indexOf(cursor);
    setCursor(order[Math.max(0, Math.min(order.length - 1, at < 0 ? 0 : at + by))] ?? null);
  };
  useKeys({
    "/": ["filter", () => document.getElementById("filter")?.focus()],
    j: ["next run", () => move(1)],
    k: ["run before", () => move(-1)],
    ArrowDown: ["next run", () => move(1)],
    ArrowUp: ["run before", () => move(-1)],
    x: ["select the run", () => cursor && toggle(order, cursor, false)],
    X: ["select all to this run", () => cursor && toggle(order, cursor, true)],
    a: ["select all that are shown", () => toggleAll(order)],
    c: ["compare", compare],
    Enter: ["open the run", () => cursor && open("run", cursor)],
  });
}
