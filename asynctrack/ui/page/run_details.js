// Run details: what is known of a run beside its curves: config, summary, environment, backends, writers, log.
import { source } from "./api.js";
import { dateTime, duration, number, plain } from "./format.js";
import { html, useState } from "./html.js";
import { Empty, Fetched, Table } from "./parts.js";

/** @typedef {{run: import("./run_page.js").RunDocument, version: number}} Props */

/** @param {Props} props */
export function Config({ run }) {
  return html`<${Values} values=${run.config} none="The run has no config" />`;
}

/** @param {Props} props */
export function Summary({ run }) {
  return html`<${Values} values=${run.summary} none="The run has no summary" />
    ${run.metrics.length > 0 && html`<h2>Metrics</h2><${Table}
        columns=${["metric", "values", "first", "last", "min", "max", "not finite"]}
        rows=${run.metrics.map(({ key, count, first, last, min, max, not_finite }) => [key, number(count), number(first), number(last), number(min), number(max), not_finite || ""])}
      />`}`;
}

/** Nested values, flat, with a filter. */
function Values({ values, none }) {
  const [filter, setFilter] = useState("");
  const all = flattened(values ?? {});
  if (!all.length) return html`<${Empty} title=${none} />`;
  const shown = all.filter(([name, value]) => `${name} ${plain(value)}`.toLowerCase().includes(filter.toLowerCase()));
  return html`<div class="values">
    ${all.length > 12 && html`<input type="search" placeholder="Filter" aria-label="Filter" onInput=${(event) => setFilter(event.target.value)} />`}
    <${Pairs} pairs=${shown.map(([name, value]) => [name, plain(value)])} />
  </div>`;
}

/** @returns {[string, any][]} */
function flattened(values, prefix = "") {
  return Object.entries(values).flatMap(([name, value]) =>
    isNested(value) ? flattened(value, `${prefix}${name}/`) : [[`${prefix}${name}`, value]],
  );
}

function isNested(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
}

/** Names and values. @param {{pairs: [string, any][]}} props */
function Pairs({ pairs }) {
  return html`<dl class="pairs">${pairs.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

/** @param {Props} props */
export function Environment({ run }) {
  const { packages, traceback: _, ...rest } = run.environment ?? {};
  const [isDiffOpen, setDiffOpen] = useState(false);
  if (!Object.keys(rest).length) return html`<${Empty} title="Nothing is known of where this run came from" />`;
  const diffUrl = source.url("diff", { run: run.run });
  return html`<${Values} values=${rest} none="" />
    ${run.diff && html`<h2>Uncommitted changes</h2>
      <p><button onClick=${() => setDiffOpen(!isDiffOpen)}>${isDiffOpen ? "Hide" : "Show"}</button> ${diffUrl && html`<a href=${diffUrl} download>Save</a>`}</p>
      ${isDiffOpen && html`<${Fetched} path="diff" query=${{ run: run.run }} show=${(text) => html`<${Diff} text=${text} />`} />`}`}
    ${packages && html`<details class="packages"><summary>${Object.keys(packages).length} packages</summary><${Values} values=${packages} none="" /></details>`}`;
}

function Diff({ text }) {
  const kind = (line) => ({ "+": "added", "-": "removed", "@": "place" })[line[0]];
  return html`<pre class="diff">${text.split("\n").map((line) => html`<span data-kind=${kind(line)}>${line}\n</span>`)}</pre>`;
}

/** @param {Props} props */
export function Backends({ run }) {
  const { offered, accepted, journaled, queued, dropped = {} } = run.stats ?? {};
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  const backends = Object.entries(run.backends ?? {});
  return html`<h2>Records</h2>
    <${Table} columns=${["offered", "accepted", "journaled", "queued", "dropped"]} rows=${[[offered, accepted, journaled, queued, lost].map((count) => number(count))]} />
    ${lost > 0 && html`<p class="bad">Dropped: ${Object.entries(dropped).map(([reason, count]) => `${number(count)} ${reason}`).join(", ")}</p>`}
    <h2>Deliveries</h2>
    ${backends.length
      ? html`<${Table} columns=${["backend", "delivered", "behind", "skipped", "rejected", "rate", "standing"]} rows=${backends.map(backendRow)} />`
      : html`<p class="muted">The run has its journal alone: no backend was asked for.</p>`}`;
}

function backendRow([name, backend]) {
  const { delivered, behind, skipped = {}, rejected, records_per_s, known } = backend;
  const count = (value) => (known === false ? "–" : number(value));
  const left = Object.values(skipped).reduce((sum, one) => sum + one, 0);
  return [
    name, count(delivered), count(behind), html`<span title=${plain(skipped)}>${count(left)}</span>`,
    html`<span class=${rejected ? "bad" : ""}>${count(rejected)}</span>`, records_per_s ? `${number(records_per_s, 3)}/s` : "", standing(backend),
  ];
}

/** How a backend is doing, in a few words. */
function standing({ last_error, paused, closed, behind, next_try_at, retries, known }) {
  if (last_error) return html`<span class="bad">${last_error}${retries ? html` <span class="muted">(tried ${retries} times${next_try_at ? `, next ${dateTime(next_try_at)}` : ""})</span>` : ""}</span>`;
  if (known === false) return "private to who ran it";
  if (paused) return "paused";
  return behind ? "on its way" : closed ? "complete" : "up to date";
}

/** @param {Props} props */
export function Writers({ run }) {
  const { writers = [], hosts = [] } = run;
  return html`${rowsOf("Writers", writers)}${rowsOf("Hosts", hosts)}
    ${!writers.length && !hosts.length && html`<${Empty} title="One process has written this run" />`}`;
}

/** A table of records of one kind, with the columns that they have. */
function rowsOf(title, records) {
  const rows = Array.isArray(records) ? records : Object.entries(records).map(([name, record]) => ({ name, ...record }));
  if (!rows.length) return null;
  const flat = rows.map((row) => Object.fromEntries(flattened(row).filter(([, value]) => value !== null && value !== "" && !isEmpty(value))));
  const columns = [...new Set(flat.flatMap(Object.keys))];
  return html`<h2>${title}</h2><${Table} columns=${columns} rows=${flat.map((row) => columns.map((column) => shown(column, row[column])))} />`;
}

function isEmpty(value) {
  return typeof value === "object" && Object.keys(value).length === 0;
}

function shown(column, value) {
  if (value === undefined) return "";
  if (column.endsWith("_at")) return dateTime(value);
  return column.endsWith("_s") && typeof value === "number" ? duration(value) : plain(value);
}

/** @param {Props} props */
export function Log({ run, version }) {
  const show = (text) => (text ? html`<pre class="log" tabindex="0">${text}</pre>` : html`<${Empty} title="The worker has written no log" />`);
  return html`<${Fetched} path="log" query=${{ run: run.run, bytes: 65536 }} version=${version} show=${show} />`;
}
