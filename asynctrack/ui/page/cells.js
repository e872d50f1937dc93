// Cells: how a run's values look in tables.
import { asNumber, valueOf } from "./columns.js";
import { age, bytes, duration, number } from "./format.js";
import { html, signal } from "./html.js";
import { Status } from "./parts.js";
import { Sparkline } from "./sparklines.js";
import { href } from "./state.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./columns.js").Column} Column */

const TICK_MS = 5000;

/** The time, for what says how long ago something was. */
const tick = signal(0);
setInterval(() => document.hidden || tick.value++, TICK_MS);

/** Returns any value as a text. @param {any} value */
export function valueText(value) {
  if (value === undefined) return "";
  return typeof value === "object" && value !== null ? JSON.stringify(value) : asNumber(value) === undefined ? String(value ?? "none") : number(value);
}

/** Only the first unit of a time span. @param {string} text */
const coarse = (text) => text.split(" ").slice(0, 2).join(" ");

const TEXTS = {
  age: (/** @type {number} */ seconds) => coarse(duration(Math.max(1, seconds))),
  duration,
  bytes,
  records_per_s: (/** @type {number} */ rate) => (rate < 1e4 ? `${number(rate, 3)}/s` : `${number(rate / 1000, 3)}k/s`),
  tags: (/** @type {string[]} */ tags) => tags.join(" "),
};

/** Returns what a cell says. @param {Column} column @param {Row} row */
function cellText(column, row) {
  const value = valueOf(column, row);
  return value !== undefined && column.room === "run" && TEXTS[column.key] ? TEXTS[column.key](value) : valueText(value);
}

/** Returns what is in a cell. @param {Column} column @param {Row} row @param {{theme: string, link: boolean}} look */
export function cellContent(column, row, look) {
  if (column.room === "run" && CONTENTS[column.key]) return CONTENTS[column.key](row, look);
  return cellText(column, row);
}

const CONTENTS = {
  status: (/** @type {Row} */ row) => html`<${Status} status=${row.status} />`,
  name: (/** @type {Row} */ row) => html`<a href=${href("run", row.run)} tabindex="-1">${row.name || row.id}</a>`,
  curve: (/** @type {Row} */ row, /** @type {{theme: string}} */ { theme }) => html`<${Sparkline} run=${row.run} theme=${theme} />`,
  age: (/** @type {Row} */ row) => html`<${Ago} at=${row.created_at} />`,
  tags: (/** @type {Row} */ row) => (row.tags ?? []).map((tag) => html`<span class="tag" key=${tag}>${tag}</span>`),
};

/** How long ago something was, which changes by itself. @param {{at: string}} props */
function Ago({ at }) {
  tick.value;
  return html`<time datetime=${at} title=${at}>${coarse(age(at))}</time>`;
}

/** What a file has instead of what is on the page: values that stay true. */
const SAVED = {
  age: (/** @type {Row} */ row) => row.created_at,
  tags: (/** @type {Row} */ row) => (row.tags ?? []).join(" "),
};

/** Returns the cells of a table as values, for a file. @param {Column[]} columns @param {Row[]} rows @returns {[string[], any[][]]} */
export function tableValues(columns, rows) {
  const there = columns.filter((column) => column.id !== "curve");
  const titles = there.map((column) => (column.id === "age" ? "created_at" : column.id));
  return [["run", ...titles], rows.map((row) => [row.run, ...there.map((column) => SAVED[column.id]?.(row) ?? valueOf(column, row))])];
}
