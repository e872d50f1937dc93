// Media: images, tables, histograms, pages and texts of a run, each step by step.
import { source } from "./api.js";
import { useInView } from "./elements.js";
import { bytes, number, plain } from "./format.js";
import { html, useRef, useState } from "./html.js";
import { Empty, Failure, Fetched, Loading, Table, useLoaded } from "./parts.js";
import { param, update } from "./state.js";

/**
 * @typedef {object} Item what was logged at a step
 * @property {string} kind
 * @property {number | null} step
 * @property {string | null} sha256 by which the file is asked for; null where it is not there
 * @property {string} [caption]
 * @property {string} [name]
 * @property {number} [size] in bytes
 * @property {string[]} [columns] of a table
 * @property {any[][]} [rows]
 * @property {number[]} [edges] of a histogram
 * @property {number[]} [counts]
 */

const KINDS = { image: Picture, table: Rows, histogram: Bars, html: Page, text: Words, artifact: File };

/** @param {{run: import("./run_page.js").RunDocument, version: number}} props */
export function Media({ run, version }) {
  if (!run.media?.length) return html`<${Empty} title="No images, tables, histograms or files were logged" />`;
  return html`<div class="media">
    ${run.media.map((medium) => html`<${Medium} key=${medium.key} run=${run.run} medium=${medium} version=${version} />`)}
  </div>`;
}

/** One key, with a slider to the steps at which it was logged. */
function Medium({ run, medium, version }) {
  const { key, kind, count } = medium;
  const place = useRef(null);
  const isSeen = useInView(place);
  const chosen = param(`m.${key}`);
  const at = Math.min(count - 1, chosen === null ? count - 1 : Number(chosen) || 0);
  const choose = (event) => update({ [`m.${key}`]: Number(event.target.value) === count - 1 ? null : event.target.value });
  return html`<article ref=${place} class="medium" data-kind=${kind} aria-label=${key}>
    <header>
      <h2 title=${key}>${key}</h2>
      ${count > 1 && html`<input type="range" min="0" max=${count - 1} value=${at} aria-label="Which step of ${key}" onInput=${choose} />`}
      <span class="muted number">${count > 1 ? `${at + 1} of ${count}` : ""}</span>
    </header>
    ${isSeen && html`<${Shown} run=${run} name=${key} at=${at} version=${at === count - 1 ? version : 0} />`}
  </article>`;
}

function Shown({ run, name, at, version }) {
  const { data, error, reload } = useLoaded((abort) => source.json("media", { run, key: name, from: at, n: 1 }, abort), [run, name, at, version]);
  if (!data) return error ? html`<${Failure} error=${error} retry=${reload} />` : html`<${Loading} />`;
  /** @type {Item | undefined} */
  const item = data.items[0];
  const Kind = item && KINDS[item.kind];
  if (!Kind) return html`<p class="muted">There is nothing that this page can show.</p>`;
  const facts = [item.step !== null && item.step !== undefined && `step ${number(item.step)}`, item.name, item.size && bytes(item.size)];
  const url = fileOf(run, item);
  if (!url && !item.rows && !item.counts) return html`<p class="muted">Its file is not there.</p>`;
  return html`<${Kind} run=${run} item=${item} url=${url} />
    ${item.caption && html`<p class="caption">${item.caption}</p>`}
    <p class="muted number">${facts.filter(Boolean).join(" · ")}</p>`;
}

/** @returns {string | null} where the file of an item is */
const fileOf = (run, { sha256 }, how = {}) => sha256 ? source.url("media/file", { run, sha256, ...how }) : null;

function Picture({ item, url }) {
  return html`<a href=${url} target="_blank" rel="noreferrer"><img src=${url} alt=${item.caption || `image of step ${item.step}`} /></a>`;
}

function Rows({ item }) {
  const shown = (cell) => (typeof cell === "number" ? cell : plain(cell ?? ""));
  return html`<${Table} columns=${item.columns} rows=${item.rows.map((row) => row.map(shown))} />`;
}

function Bars({ item: { edges, counts } }) {
  const [first, last] = [edges[0], edges[edges.length - 1]];
  const most = Math.max(1, ...counts);
  const x = (edge) => ((edge - first) / (last - first || 1)) * 400;
  const [from, to] = [number(first), number(last)];
  return html`<svg class="bars" viewBox="0 0 400 150" preserveAspectRatio="none" role="img" aria-label="Histogram from ${from} to ${to}">
      ${counts.map((count, at) => {
        const width = Math.max(0.5, x(edges[at + 1]) - x(edges[at]) - 0.5);
        const height = (count / most) * 146;
        return html`<rect x=${x(edges[at])} y=${150 - height} width=${width} height=${height}>
          <title>${number(edges[at])} to ${number(edges[at + 1])}: ${number(count)}</title>
        </rect>`;
      })}
    </svg>
    <p class="ends muted number"><span>${from}</span><span>${number(counts.reduce((sum, one) => sum + one, 0))} values</span><span>${to}</span></p>`;
}

/** A page of the run: it gets no origin and nothing of ours, and scripts only if somebody wants them. */
function Page({ run, item }) {
  const [runs, setRuns] = useState(false);
  const url = fileOf(run, item, runs ? { scripts: 1 } : {});
  return html`<iframe key=${url} sandbox=${runs ? "allow-scripts" : ""} src=${url} title="page of step ${item.step}" loading="lazy"></iframe>
    ${source.isLive && !runs && html`<p><button onClick=${() => setRuns(true)}>Run its scripts</button></p>`}`;
}

function Words({ run, item }) {
  const show = (text) => html`<pre class="log" tabindex="0">${text}</pre>`;
  return html`<${Fetched} path="media/file" query=${{ run, sha256: item.sha256 }} show=${show} />`;
}

function File({ item, url }) {
  return html`<p><a href=${url} download=${item.name || ""}>Save ${item.name || "the file"}</a></p>`;
}
