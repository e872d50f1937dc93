// Chart menu: the axes of one chart, its files, and its numbers as a table.
import { source } from "./api.js";
import { AxisChoice } from "./controls.js";
import { number, place } from "./format.js";
import { html, useRef, useState } from "./html.js";
import { indexFrom, keysOf, runsOf } from "./model.js";
import { CloseButton, Dialog } from "./parts.js";
import { savePng, saveSvg } from "./picture.js";
import { hasOwn, setAxis, toggleLog } from "./settings.js";
import { param, update } from "./state.js";

/** What can be done with a chart. It is made when it is opened: there may be thousands of metrics to choose from. */
export function Menu(props) {
  const { name, title, model } = props;
  const [isOpen, setOpen] = useState(false);
  const [hasTable, setTable] = useState(false);
  const summary = useRef(null);
  const close = () => {
    summary.current.focus();
    setOpen(false);
  };
  const leave = (event) => event.currentTarget.contains(event.relatedTarget) || setOpen(false);
  const escape = (event) => {
    if (!isOpen || event.key !== "Escape") return;
    event.preventDefault();
    close();
  };
  return html`<details class="menu" open=${isOpen} onToggle=${(event) => setOpen(event.currentTarget.open)} onFocusOut=${leave} onKeyDown=${escape}>
      <summary ref=${summary} title="Axes and files (e)" aria-label="Axes and files of ${title}" data-own=${hasOwn(name) ? "" : undefined}>
        ⋯
      </summary>
      ${isOpen && html`<${MenuItems} ...${props} openTable=${() => setTable(true)} onChosen=${close} />`}
    </details>
    ${hasTable && html`<${DataTable} title=${title} model=${model} onClose=${() => setTable(false)} />`}`;
}

function MenuItems({ name, title, lines, metrics, settings, plot, openTable, onChosen }) {
  const isFull = param("full") === name;
  const csv = source.url("csv", { run: runsOf(lines), key: keysOf(lines) });
  const item = (text, act) => html`<button class="plain" onClick=${() => (act(), onChosen())}>${text}</button>`;
  return html`<div>
    <label>x <${AxisChoice} value=${settings.x} metrics=${metrics} label="x axis of this chart" onChoose=${(axis) => setAxis(axis, name)} /></label>
    ${item(settings.logX ? "Linear x" : "Logarithmic x", () => toggleLog("x", name))}
    ${item(settings.logY ? "Linear y" : "Logarithmic y", () => toggleLog("y", name))}
    ${item(isFull ? "Leave full screen" : "Full screen", () => update({ full: isFull ? null : name }))}
    ${item("Table of what is drawn", openTable)}
    ${item("Save as SVG", () => saveSvg(plot.current, title))}
    ${item("Save as PNG", () => savePng(plot.current, title))}
    ${csv && html`<a href=${csv} download onClick=${onChosen}>Save all values as CSV</a>`}
  </div>`;
}

/** The numbers that are drawn, for those who read and do not see. */
function DataTable({ title, model, onClose }) {
  return html`<${Dialog} kind="table-dialog" label="Table of ${title}" onClose=${onClose}>
    <header><h2>${title}</h2><${CloseButton} /></header>
    <table>
      <thead><tr>${["line", model.settings.x, "mean", "min", "max"].map((column) => html`<th scope="col">${column}</th>`)}</tr></thead>
      <tbody>${model.curves.flatMap((curve) => rowsOf(curve, model))}</tbody>
    </table>
  <//>`;
}

function rowsOf({ line, x, mean, low, high }, { x: [from, to], settings }) {
  const rows = [];
  for (let at = indexFrom(x, from); at < x.length && x[at] <= to; at++) {
    rows.push(html`<tr>
      <th scope="row">${line.label}</th><td>${place(settings.x, x[at])}</td>
      <td>${number(mean[at], 6)}</td><td>${number(low[at], 6)}</td><td>${number(high[at], 6)}</td>
    </tr>`);
  }
  return rows;
}
