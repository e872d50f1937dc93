// Differences: tables of what differs between the compared runs: config, summary, last values and environment.
import { source } from "./api.js";
import { valueText } from "./cells.js";
import { columnsOf, valueOf } from "./columns.js";
import { css } from "./colours.js";
import { colours, compared, highlighted, hovering, labels } from "./compared.js";
import { saveTable } from "./download.js";
import { html, useComputed, useMemo } from "./html.js";
import { useLoaded } from "./parts.js";
import { href, param, update } from "./state.js";

/** @typedef {import("./columns.js").Row} Row */
/** @typedef {{title: string, keys: {key: string, differs: boolean, values: any[], best: number}[]}} Part  best: the index of the best value, else -1 */

const TITLES = { config: "Config", summary: "Summary", last: "Last values" };
/** More runs are easier read as lines than as columns. */
const MOST_COLUMNS = 6;

export function Differences() {
  const rows = compared.value;
  const runs = rows.map((row) => row.run);
  const { data } = useLoaded((abort) => source.json("compare", { run: runs }, abort), [runs.join("\n")]);
  const isAll = param("all") === "1";
  const there = useMemo(() => {
    const parts = [...partsOf(rows), environmentPart(data, runs)].map((part) => chosenOf(part, isAll));
    return parts.filter((part) => part.keys.length);
  }, [rows, data, isAll]);
  return html`<div class="differences">
    <div class="line">
      <label><input type="checkbox" checked=${isAll} onChange=${() => update({ all: isAll ? null : "1" })} /> also what is the same</label>
      <button onClick=${() => saveCompared(rows, there)}>CSV</button>
    </div>
    ${!there.length && html`<p class="muted">Nothing differs.</p>`}
    ${rows.length > MOST_COLUMNS
      ? html`<${RunsDown} parts=${there} rows=${rows} />`
      : there.map((part) => html`<${KeysDown} key=${part.title} part=${part} rows=${rows} />`)}
  </div>`;
}

/** @param {Row[]} rows @returns {Part[]} */
function partsOf(rows) {
  const columns = columnsOf(rows);
  return Object.keys(TITLES).map((room) => ({
    title: TITLES[room],
    keys: columns.filter((column) => column.room === room).map((column) => {
      const { key, differs } = column;
      const values = rows.map((row) => valueOf(column, row));
      return { key, differs, values, best: room === "last" ? bestOf(values, goalOf(rows, key)) : -1 };
    }),
  }));
}

function environmentPart(data, runs) {
  const found = Object.entries(data?.environment ?? {});
  return { title: "Environment", keys: found.map(([key, values]) => ({ key, differs: true, values: runs.map((_, at) => values[at] ?? undefined), best: -1 })) };
}

const chosenOf = (part, isAll) => ({ ...part, keys: part.keys.filter(({ differs }) => differs || isAll) });

/** Whether less or more of a metric is better, as any run says by its name, or by the longest pattern that fits it. */
function goalOf(rows, key) {
  const said = Object.assign({}, ...rows.map((row) => row.goals ?? {}));
  const patterns = Object.keys(said).filter((name) => name.endsWith("*") && key.startsWith(name.slice(0, -1)));
  const found = Object.hasOwn(said, key) ? key : patterns.sort((one, other) => other.length - one.length)[0];
  return found === undefined ? undefined : said[found];
}

/** @param {any[]} values @param {string | undefined} goal */
function bestOf(values, goal) {
  const numbers = values.filter((value) => typeof value === "number");
  if (!goal || numbers.length < 2) return -1;
  return values.indexOf(goal === "minimize" ? Math.min(...numbers) : Math.max(...numbers));
}

/** Few runs: a table for each part, with a line for each key. */
function KeysDown({ part, rows }) {
  return html`<section>
    <h2>${part.title} <span class="muted">${part.keys.length}</span></h2>
    <div class="wide"><table class="values keys-down">
      <thead><tr><th scope="col">key</th>${rows.map((row) => html`<th scope="col" key=${row.run} ...${follows(row.run)}><${RunName} row=${row} /></th>`)}</tr></thead>
      <tbody>${part.keys.map((one) => html`<tr key=${one.key} data-same=${one.differs ? undefined : ""}>
        <th scope="row" title=${one.key}>${one.key}</th>${rows.map((row, at) => valueCell(one, at, follows(row.run)))}
      </tr>`)}</tbody>
    </table></div>
  </section>`;
}

/** Many runs: one table with a line for each run. */
function RunsDown({ parts, rows }) {
  const keys = useMemo(() => parts.flatMap((part) => part.keys), [parts]);
  return html`<div class="wide"><table class="values">
    <thead>
      <tr><td></td>${parts.map((part) => html`<th scope="colgroup" key=${part.title} colspan=${part.keys.length}>${part.title}</th>`)}</tr>
      <tr><th scope="col">run</th>${keys.map(({ key, values }, at) => html`<th scope="col" key=${at} class=${kindOf(values[0])} title=${key}>${key}</th>`)}</tr>
    </thead>
    <tbody>${rows.map((row, at) => html`<${RunLine} key=${row.run} row=${row} at=${at} keys=${keys} />`)}</tbody>
  </table></div>`;
}

function RunLine({ row, at, keys }) {
  const isAbove = useComputed(() => highlighted.value === row.run).value;
  return html`<tr class=${isAbove ? "above" : undefined} ...${hovering(row.run)}>
    <th scope="row"><${RunName} row=${row} /></th>${keys.map((one) => valueCell(one, at))}
  </tr>`;
}

function RunName({ row }) {
  return html`<i class="swatch" style=${{ color: css(colours.value.get(row.run)) }}></i><a href=${href("run", row.run)} title=${labels.value.get(row.run)}>${labels.value.get(row.run)}</a>`;
}

/** What makes a column stand out together with its run. */
const follows = (run) => ({ class: highlighted.value === run ? "above" : undefined, ...hovering(run) });

const kindOf = (value) => (value === undefined ? "muted" : typeof value === "number" ? "number" : "");

function valueCell({ key, values, best }, at, more = {}) {
  const value = values[at];
  const text = valueText(value);
  return html`<td key=${key + at} ...${more} class=${`${more.class ?? ""} ${kindOf(value)}`} title=${text} data-best=${best === at ? "" : undefined}>
    ${value === undefined ? "–" : text}${best === at && html`<span class="hidden-visually"> (best)</span>`}
  </td>`;
}

function saveCompared(rows, parts) {
  const keys = parts.flatMap((part) => part.keys.map((one) => ({ ...one, title: `${part.title.toLowerCase()}/${one.key}` })));
  const lines = rows.map((row, at) => [row.run, row.name, row.status, ...keys.map(({ values }) => values[at])]);
  saveTable(["run", "name", "status", ...keys.map(({ title }) => title)], lines, "compared.csv");
}
