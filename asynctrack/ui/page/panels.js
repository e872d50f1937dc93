// Panels: the charts of a page, in sections by the prefixes of their metrics. Only those that are in view are drawn.
import { Chart } from "./chart.js";
import { useInView } from "./elements.js";
import { html, useMemo, useRef } from "./html.js";
import { useKeys } from "./keys.js";
import { Empty } from "./parts.js";
import { param, paramList, toggleIn, update } from "./state.js";

/** @typedef {{name: string, title: string, section: string, keys: string[]}} Panel */

// As many prefixes are compared in one panel; more are metrics of their own, say of a hundred layers.
const MOST_TOGETHER = 8;
// Panels that get more room than others.
const FEW = 2;

/**
 * Puts metrics that differ only in their prefix into one panel: `train/loss` and `val/loss`.
 * @param {string[]} keys @returns {Panel[]}
 */
export function panelsOf(keys) {
  const byName = Map.groupBy(keys, (key) => key.slice(key.lastIndexOf("/") + 1));
  const panels = [];
  for (const key of keys) {
    const name = key.slice(key.lastIndexOf("/") + 1);
    const together = byName.get(name);
    const isTogether = together.length > 1 && together.length <= MOST_TOGETHER;
    if (isTogether && together[0] !== key) continue;
    panels.push(isTogether ? { name, title: name, section: sectionOf(together), keys: together } : single(key));
  }
  return panels;
}

function single(key) {
  const [first, ...rest] = key.split("/");
  return { name: key, title: rest.length ? rest.join("/") : first, section: rest.length ? first : "", keys: [key] };
}

function sectionOf(keys) {
  return [...new Set(keys.map((key) => (key.includes("/") ? key.slice(0, key.indexOf("/")) : "")))].filter(Boolean).join(" · ");
}

/**
 * @typedef {object} PanelsProps
 * @property {string[]} keys the metrics
 * @property {(panel: Panel) => import("./model.js").Line[]} linesOf
 * @property {number} version
 * @property {ChartProps["marksOn"]} [marksOn]
 * @property {string | null} [highlighted]
 * @property {ChartProps["onHover"]} [onHover]
 * @property {ChartProps["onPick"]} [onPick]
 */
/** @typedef {import("./chart.js").ChartProps} ChartProps */

/** All charts of a page. @param {PanelsProps} props */
export function Panels(props) {
  const { keys } = props;
  const panels = useMemo(() => panelsOf(keys), [keys]);
  const words = (param("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const shown = panels.filter((panel) => panel.keys.some((key) => words.every((word) => key.toLowerCase().includes(word))));
  useKeys({
    j: ["next chart", () => move(1)],
    k: ["chart before", () => move(-1)],
    f: ["chart in full screen", () => update({ full: param("full") ? null : focused()?.dataset.name })],
    e: ["axes and files of a chart", () => openMenu(focused())],
    Escape: ["leave full screen", () => update({ full: null })],
  });
  if (!shown.length) {
    const all = html`<button onClick=${() => update({ q: null })}>Show all</button>`;
    return html`<${Empty} title="No metric has “${param("q")}” in its name">${all}<//>`;
  }
  const sections = [...Map.groupBy(shown, (panel) => panel.section)];
  return html`<div class="sections-room"><div class="sections" data-few=${shown.length <= FEW ? "" : undefined}>
    ${sections.map(([section, some]) => html`<${Section} key=${section} name=${section} panels=${some} charts=${props} />`)}
  </div></div>`;
}

function Section({ name, panels, charts }) {
  const id = name || "/";
  const isOpen = !paramList("closed").includes(id);
  return html`<section class="section" data-size=${panels.length}>
    <h2>
      <button class="plain" aria-expanded=${isOpen ? "true" : "false"} onClick=${() => toggleIn("closed", id)}>
        <span class="chevron"></span>${name || "metrics"} <span class="muted">${panels.length}</span>
      </button>
    </h2>
    ${isOpen && html`<div class="panels">${panels.map((panel) => html`<${PanelPlace} key=${panel.name} panel=${panel} charts=${charts} />`)}</div>`}
  </section>`;
}

/** The place of a chart, which has it only while it is in view. */
function PanelPlace({ panel, charts }) {
  const { keys, linesOf, ...rest } = charts;
  const place = useRef(null);
  const isSeen = useInView(place);
  const lines = useMemo(() => linesOf(panel), [panel, linesOf]);
  const { name, title } = panel;
  const isFull = param("full") === name;
  return html`<article ref=${place} class="panel" data-full=${isFull ? "" : undefined} data-name=${name} tabindex="0" aria-label=${title}>
    ${isSeen
      ? html`<${Chart} ...${rest} name=${name} title=${title} lines=${lines} metrics=${keys} />`
      : html`<header><h3>${title}</h3></header>`}
  </article>`;
}

/** @param {HTMLElement | null} panel */
function openMenu(panel) {
  const summary = panel?.querySelector("summary");
  summary?.focus();
  summary?.click();
}

function focused() {
  return /** @type {HTMLElement | null} */ (document.activeElement?.closest(".panel") ?? document.querySelector(".panel[data-full]"));
}

function move(by) {
  const all = [...document.querySelectorAll(".panel")];
  const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(focused()) + by))];
  /** @type {HTMLElement | undefined} */ (next)?.focus();
}
