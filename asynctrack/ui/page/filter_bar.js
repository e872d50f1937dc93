// Filter bar: the box for words and expressions, with what is wrong with one below it, and chips for statuses and tags.
import { source } from "./api.js";
import { html, useMemo, useRef } from "./html.js";
import { useLoaded } from "./parts.js";
import { counted, isExpression, withChips, withWords } from "./row_filter.js";
import { param, paramList, toggleIn, update } from "./state.js";
import { useCalm, useRested } from "./timing.js";

/** @typedef {import("./columns.js").Row} Row @typedef {{message: string, at?: number | null}} Problem */

/** How long typing rests before the server is asked, and how often at most while runs change. */
const REST_MS = 250;
const AGAIN_MS = 2000;
const MOST_TAGS = 12;
const HINT = 'Filter: part of a name, or  lr < 1e-3 and min(loss) < 0.2';

/**
 * Returns the rows that fit the view's filter. @param {Row[]} rows
 * @returns {{found: Row[], fitting: Row[], error: Problem | undefined}} found: all; fitting: those that also have the chips
 */
export function useFilter(rows) {
  const text = useRested(param("q") ?? "", REST_MS);
  const asked = isExpression(text) ? text : "";
  const round = useCalm(rows, AGAIN_MS);
  const { data, error } = useLoaded(async (abort) => ({ asked, ...(asked ? await matching(asked, abort) : {}) }), [asked, round]);
  const answer = data?.asked === asked ? data : {};
  const found = useMemo(() => (!asked ? withWords(rows, text) : answer.runs ? rows.filter((row) => answer.runs.has(row.run)) : rows), [rows, text, answer.runs]);
  const [statuses, tags] = [paramList("status"), paramList("tag")];
  const fitting = useMemo(() => withChips(found, statuses, tags), [found, statuses.join("\n"), tags.join("\n")]);
  return { found, fitting, error: asked ? (error ?? (answer.missing && { message: answer.missing })) : undefined };
}

async function matching(where, abort) {
  const { runs, missing } = await source.json("select", { where }, abort);
  return { runs: new Set(runs), missing };
}

/** @param {{found: Row[], error: Problem | undefined, children?: any}} props */
export function FilterBar({ found, error, children }) {
  const text = param("q") ?? "";
  const box = useRef(/** @type {HTMLInputElement | null} */ (null));
  const leave = ({ key }) => {
    if (key === "Escape" && text) update({ q: "" });
    else if (key === "Escape" || key === "Enter") box.current?.blur();
  };
  return html`<div class="filter">
    <div class="line">
      <input ref=${box} id="filter" type="search" value=${text} placeholder=${HINT} aria-label="Filter runs" spellcheck="false" autocomplete="off"
        aria-invalid=${Boolean(error)} aria-describedby="filter-error" onInput=${(event) => update({ q: event.target.value })} onKeyDown=${leave} />
      ${children}
    </div>
    <${ProblemLine} text=${text} error=${error} />
    <${Chips} found=${found} />
  </div>`;
}

/** Says what is wrong with the expression, and marks where. */
function ProblemLine({ text, error }) {
  const at = error?.at ?? 0;
  return html`<div id="filter-error" class="problem" role="status" hidden=${!error}>
    ${at > 0 && html`<code aria-hidden="true">${text.slice(0, at - 1)}<mark>${text[at - 1] ?? " "}</mark>${text.slice(at)}</code>`}
    ${error?.message}
  </div>`;
}

function Chips({ found }) {
  const statuses = counted(found.map((row) => row.status));
  const tags = counted(found.flatMap((row) => row.tags ?? [])).slice(0, MOST_TAGS);
  return html`<div class="chips">
    ${statuses.length > 1 || paramList("status").length ? withChosen(statuses, paramList("status")).map((one) => chip("status", one)) : null}
    ${withChosen(tags, paramList("tag")).map((one) => chip("tag", one))}
  </div>`;
}

/** Chips that are pressed stay, also where nothing has them any more. */
const withChosen = (counts, chosen) => [
  ...counts,
  ...chosen.filter((value) => !counts.some(([one]) => one === value)).map((value) => [value, 0]),
];

function chip(name, [value, count]) {
  const isChosen = paramList(name).includes(value);
  const kind = name === "status" ? "chip status" : "chip of-tag";
  return html`<button key=${`${name} ${value}`} class=${kind} aria-pressed=${isChosen} data-status=${value} onClick=${() => toggleIn(name, value)}>
    <span>${value}</span><small>${count.toLocaleString("en")}</small>
  </button>`;
}
