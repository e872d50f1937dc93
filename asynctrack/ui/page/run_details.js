// Run details: what is known of a run beside its curves: config, summary, environment, backends, writers, log.
import { source } from "./api.js";
import { bytes, dateTime, duration, number, plain } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { flattened } from "./nested.js";
import { Empty, Fetched, Table } from "./parts.js";

/** @typedef {{run: import("./run_page.js").RunDocument, version: number}} Props */

const DELIVERY_COLUMNS = ["backend", "delivered", "behind", "skipped", "rejected", "records/s", "standing"];
/** Names of numbers with a unit. */
const UNIT = /_(at|s|bytes)$/;

/** @param {Props} props */
export const Config = ({ run }) => html`<${Values} values=${run.config} none="The run has no config" />`;

/** @param {Props} props */
export function Summary({ run }) {
  return html`<${Values} values=${run.summary} none="The run has no summary" />
    ${run.metrics.length > 0 && html`<h2>Metrics</h2><${Table}
        columns=${["metric", "values", "first", "last", "min", "max", "not finite"]}
        rows=${run.metrics.map(({ key, count, first, last, min, max, not_finite }) => [key, count, first, last, min, max, not_finite])}
      />`}`;
}

/** Nested values, flat, with a filter. @param {{values: object, none?: string, show?: (value: any, name: string) => string}} props */
function Values({ values, none = "", show = plain }) {
  const [filter, setFilter] = useState("");
  const all = flattened(values ?? {});
  if (!all.length) return html`<${Empty} title=${none} />`;
  const shown = all.filter(([name, value]) => `${name} ${plain(value)}`.toLowerCase().includes(filter.toLowerCase()));
  return html`<div class="values">
    ${all.length > 12 && html`<input type="search" placeholder="Filter" aria-label="Filter" onInput=${(event) => setFilter(event.target.value)} />`}
    <dl class="pairs">${shown.map(([name, value]) => html`<dt>${name}</dt><dd>${show(value, name)}</dd>`)}</dl>
  </div>`;
}

/** @param {Props} props */
export function Environment({ run }) {
  const { packages, traceback: _, ...rest } = run.environment ?? {};
  const [isDiffOpen, setDiffOpen] = useState(false);
  if (!Object.keys(rest).length) return html`<${Empty} title="Nothing is known of where this run came from" />`;
  const diffUrl = source.url("diff", { run: run.run });
  const known = Object.fromEntries(flattened(rest).filter(([, value]) => !isEmpty(value)));
  return html`<${Values} values=${known} show=${byUnit} />
    ${run.diff && html`<h2>Uncommitted changes</h2>
      <p>
        <button onClick=${() => setDiffOpen(!isDiffOpen)}>${isDiffOpen ? "Hide" : "Show"}</button>${" "}
        ${diffUrl && html`<a href=${diffUrl} download>Save</a>`}
      </p>
      ${isDiffOpen && html`<${Fetched} path="diff" query=${{ run: run.run }} show=${(text) => html`<${Diff} text=${text} />`} />`}`}
    ${packages && html`<details class="packages">
      <summary>${Object.keys(packages).length} packages</summary>
      <${Values} values=${packages} />
    </details>`}`;
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
    <${Table} columns=${["offered", "accepted", "journaled", "queued", "dropped"]} rows=${[[offered, accepted, journaled, queued, lost]]} />
    ${lost > 0 && html`<p class="bad">Dropped: ${Object.entries(dropped).map(([reason, count]) => `${number(count)} ${reason}`).join(", ")}</p>`}
    <h2>Deliveries</h2>
    ${backends.length
      ? html`<${Table} columns=${DELIVERY_COLUMNS} rows=${backends.map(backendRow)} />`
      : html`<p class="muted">The run has its journal alone: no backend was asked for.</p>`}`;
}

function backendRow([name, backend]) {
  const { delivered, behind, skipped = {}, rejected, records_per_s, known } = backend;
  const left = Object.values(skipped).reduce((sum, one) => sum + one, 0);
  const counts = known === false ? ["–", "–", "–", "–"] : [delivered, behind, left, rejected];
  return [name, ...counts, records_per_s ? Math.round(records_per_s) : "", standing(backend)];
}

/** How a backend is doing, in a few words, and why it has left out records. */
function standing({ last_error, paused, closed, behind, next_try_at, retries, known, skipped = {} }) {
  const reasons = Object.entries(skipped).map(([reason, count]) => `${number(count)} skipped: ${reason}`);
  const again = retries ? `tried ${retries} times${next_try_at ? `, next ${dateTime(next_try_at)}` : ""}` : "";
  const state = known === false ? "private to who ran it" : paused ? "paused" : behind ? "on its way" : closed ? "complete" : "up to date";
  const more = [again, ...reasons].filter(Boolean).join("; ");
  return html`${last_error ? html`<span class="bad">${last_error}</span>` : state} <span class="muted">${more}</span>`;
}

/** @param {Props} props */
export function Writers({ run }) {
  const { writers = [], hosts = [], failed_children = [], conflicts = [] } = run;
  const tables = { Writers: writers, Hosts: hosts, "Child processes that failed": failed_children, "Names set to different values": conflicts };
  const shown = Object.entries(tables).map(([title, records]) => rowsOf(title, records));
  return shown.some(Boolean) ? shown : html`<${Empty} title="Nothing is known of who has written this run" />`;
}

/** A table of records of one kind, with the columns that they have. */
function rowsOf(title, records) {
  const rows = Array.isArray(records) ? records : Object.entries(records).map(([name, record]) => ({ name, ...record }));
  if (!rows.length) return null;
  const flat = rows.map((row) => Object.fromEntries(flattened(row).filter(([, value]) => !isEmpty(value))));
  const columns = [...new Set(flat.flatMap(Object.keys))];
  const isPlain = (value, column) => typeof value === "number" && !UNIT.test(column);
  const cells = (row) => columns.map((column) => (isPlain(row[column], column) ? row[column] : byUnit(row[column], column)));
  return html`<h2>${title}</h2><${Table} columns=${columns.map((column) => column.replaceAll("_", " "))} rows=${flat.map(cells)} />`;
}

const isEmpty = (value) => value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);

/** A value by the unit that its name ends with. */
function byUnit(value, name) {
  if (value === undefined) return "";
  if (name.endsWith("_at")) return dateTime(value);
  if (typeof value === "number" && name.endsWith("_s")) return duration(value);
  return typeof value === "number" && name.endsWith("_bytes") ? bytes(value) : plain(value);
}

/** @param {Props} props */
export function Log({ run, version }) {
  const show = (text) => (text ? html`<${EndOfText} text=${text} />` : html`<${Empty} title="The worker has written no log" />`);
  return html`<${Fetched} path="log" query=${{ run: run.run, bytes: 65536 }} version=${version} show=${show} />`;
}

/** A text of which the end is seen, also as it grows. */
function EndOfText({ text }) {
  const place = useRef(null);
  useEffect(() => place.current.scrollTo(0, place.current.scrollHeight), [text]);
  return html`<pre ref=${place} class="log" tabindex="0">${text}</pre>`;
}
