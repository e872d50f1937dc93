// Parts: small components that all pages have: status, empty, error and loading states, and data that are fetched.
import { ApiError, source } from "./api.js";
import { number } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { href } from "./state.js";

/** A dialog above the page, open while it is there. @param {{label: string, kind: string, onClose: () => void, children?: any}} props */
export function Dialog({ label, kind, onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} class=${kind} aria-label=${label} onClose=${onClose}>${children}</dialog>`;
}

/** What closes a dialog. */
export const CloseButton = () => html`<form method="dialog"><button>Close</button></form>`;

/**
 * A choice of one value.
 * @param {{label: string, value: string, options: [value: string, text: string][], onChoose: (value: string) => void}} props
 */
export function Choice({ label, value, options, onChoose }) {
  return html`<label class="choice">${label}
    <select value=${value} onChange=${(event) => onChoose(event.target.value)}>
      ${options.map(([id, text]) => html`<option key=${id} value=${id}>${text}</option>`)}
    </select>
  </label>`;
}

/** A run's status as a word with its colour. @param {{status: string}} props */
export const Status = ({ status }) => html`<span class="status" data-status=${status.split(" ")[0]}>${status}</span>`;

/** Says that there is nothing, and what to do about it. */
export const Empty = ({ title, children = null }) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

/** Says what went wrong. @param {{error: Error, retry?: () => void}} props */
export function Failure({ error, retry = undefined }) {
  return html`<div class="empty failure" role="alert">
    <h2 class="bad">${error instanceof ApiError ? "This cannot be shown" : "The page has an error"}</h2>
    <p>${error.message}</p>
    <p>${retry && html`<button onClick=${retry}>Try again</button>`} <a href=${href("runs")}>All runs</a></p>
  </div>`;
}

/** Says that something is on its way, in the room that it will take. */
export const Loading = ({ what = "Loading" }) => html`<div class="empty loading" role="status"><span class="muted">${what}…</span></div>`;

/**
 * Fetches data, and again when `on` changes; what was there stays until the new is there.
 * @template T @param {(abort: AbortSignal) => Promise<T>} load @param {any[]} on
 * @returns {{data: T | undefined, error: Error | undefined, reload: () => void}}
 */
export function useLoaded(load, on) {
  const [state, setState] = useState(/** @type {{data: any, error: any}} */ ({ data: undefined, error: undefined }));
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    load(abort.signal).then(
      (data) => abort.signal.aborted || setState({ data, error: undefined }),
      (error) => abort.signal.aborted || setState((old) => ({ data: old.data, error })),
    );
    return () => abort.abort();
  }, [...on, attempt]);
  return { ...state, reload: () => setAttempt((number) => number + 1) };
}

/** @typedef {{name: string, title: string, count?: number | null, isBad?: boolean}} Tab */

/** Tabs, of which the arrow keys choose too. @param {{tabs: Tab[], value: string, label: string, onChoose: (name: string) => void}} props */
export function Tabs({ tabs, value, label, onChoose }) {
  const turn = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.findIndex(({ name }) => name === value) + by + tabs.length) % tabs.length];
    onChoose(next.name);
    event.currentTarget.querySelector(`[data-name="${next.name}"]`).focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} onKeyDown=${turn}>
    ${tabs.map(({ name, title, count, isBad }) => html`<button key=${name} role="tab" data-name=${name}
      aria-selected=${name === value ? "true" : "false"} tabindex=${name === value ? 0 : -1} onClick=${() => onChoose(name)}>
      ${title}${count ? html`<span class=${isBad ? "count bad" : "count"}>${count}</span>` : ""}
    </button>`)}
  </div>`;
}

/** A text of the server. */
export function Fetched({ path, query, show, version = 0 }) {
  const { data, error, reload } = useLoaded((abort) => source.text(path, query, abort), [path, JSON.stringify(query), version]);
  if (data === undefined) return error ? html`<${Failure} error=${error} retry=${reload} />` : html`<${Loading} />`;
  return show(data);
}

/** A table. Numbers are numbers, and stand to the right. @param {{columns: string[], rows: any[][]}} props */
export function Table({ columns, rows }) {
  const kind = (value) => (typeof value === "number" ? "right" : "");
  const cell = (value) => (typeof value === "number" ? number(value, 6) : value);
  return html`<div class="scrolls"><table>
    <thead><tr>${columns.map((column, at) => html`<th scope="col" class=${kind(rows[0]?.[at])}>${column}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${row.map((value) => html`<td class=${kind(value)}>${cell(value)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}
