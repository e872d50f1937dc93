// Run legend: the compared runs, or groups of them, as a list: which colour each has, whether it is drawn, and which one stands out.
import { css } from "./colours.js";
import { colours, compared, drawFirst, drawn, FIRST_SHOWN, flip, highlighted, hovered, isDrawn, labels, missing, pick } from "./compared.js";
import { groupColours, groups } from "./groups.js";
import { html, useComputed, useEffect, useRef } from "./html.js";
import { Status } from "./parts.js";
import { href, update } from "./state.js";

/** @param {{canHide: boolean}} props canHide: whether the view draws only some of the runs */
export function RunLegend({ canHide }) {
  const rows = compared.value;
  const count = canHide ? drawn.value.length : rows.length;
  return html`<aside class="run-legend" aria-label="Compared runs">
    <header>
      <b>${rows.length} ${rows.length === 1 ? "run" : "runs"}</b>
      <span class="muted">${count < rows.length && `${count} shown`}</span>
      ${count < rows.length && html`<button class="plain" onClick=${() => drawFirst(rows.length)}>all</button>`}
      ${canHide && rows.length > FIRST_SHOWN && count !== FIRST_SHOWN &&
      html`<button class="plain" onClick=${() => drawFirst(FIRST_SHOWN)}>first ${FIRST_SHOWN}</button>`}
      ${canHide && count > 0 && html`<button class="plain" onClick=${() => drawFirst(0)}>none</button>`}
    </header>
    ${missing.value > 0 && html`<p class="muted">${missing.value} that this address names ${missing.value === 1 ? "is" : "are"} not here.</p>`}
    <ul onMouseLeave=${() => (hovered.value = null)}>${rows.map((row) => html`<${LegendRow} key=${row.run} row=${row} canHide=${canHide} />`)}</ul>
  </aside>`;
}

function LegendRow({ row, canHide }) {
  const { run } = row;
  const isOn = useComputed(() => isDrawn(run)).value;
  const isAbove = useComputed(() => highlighted.value === run).value;
  const label = labels.value.get(run);
  const line = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => void (isAbove && bringIntoView(/** @type {HTMLElement} */ (line.current))), [isAbove]);
  const pickLine = (event) => event.target.closest("input, a, button") || pick(run);
  return html`<li ref=${line} class=${isAbove ? "above" : undefined} onMouseEnter=${() => (hovered.value = run)} onClick=${pickLine}>
    ${canHide && html`<label title="Show or hide"><input type="checkbox" checked=${isOn} onChange=${() => flip(run)} aria-label=${`Show ${label}`} /></label>`}
    <i class="swatch" style=${{ color: css(colours.value.get(run)) }}></i>
    <a href=${href("run", run)} title=${`${label} (${row.status})`}>${label}</a>
    ${row.status !== "finished" && html`<${Status} status=${row.status} />`}
    <button class="plain" title="Leave it out" aria-label=${`Leave ${label} out`} onClick=${() => leaveOut(run)}>×</button>
  </li>`;
}

/** Scrolls the list, and not the page, to a line that a chart has stand out. @param {HTMLElement} line */
function bringIntoView(line) {
  const list = /** @type {HTMLElement} */ (line.parentElement);
  if (list.matches(":hover")) return;
  const [first, last] = [line.offsetTop + line.offsetHeight - list.clientHeight, line.offsetTop];
  list.scrollTop = Math.max(first, Math.min(last, list.scrollTop));
}

function leaveOut(run) {
  update({ run: compared.peek().map((row) => row.run).filter((one) => one !== run) }, { push: true });
}

/** The groups that runs are drawn in; each leads to the comparison of its runs alone. */
export function GroupLegend() {
  const all = groups.value ?? [];
  return html`<aside class="run-legend" aria-label="Groups of runs">
    <header><b>${all.length} groups</b><span class="muted">of ${compared.value.length} runs</span></header>
    <ul onMouseLeave=${() => (hovered.value = null)}>
      ${all.map(({ label, runs }) => html`<li key=${label} class=${highlighted.value === label ? "above" : undefined} onMouseEnter=${() => (hovered.value = label)}>
        <i class="swatch" style=${{ color: css(groupColours.value.get(label)) }}></i>
        <a href=${href("compare", "", { run: runs })} title="Compare these runs alone">${label}</a><span class="muted number">${runs.length}</span>
      </li>`)}
    </ul>
  </aside>`;
}
