// Chart: a panel with one chart: asks for its curves while it is in view, and has its legend, menu and files.
import { source } from "./api.js";
import { isDark } from "./colours.js";
import { AxisChoice } from "./controls.js";
import { askForCurves } from "./curve_store.js";
import { number, place } from "./format.js";
import { html, useEffect, useMemo, useRef, useSignal, useState } from "./html.js";
import { Legend, nearest, Tooltip } from "./legend.js";
import { blockId, modelOf } from "./model.js";
import { savePng, saveSvg } from "./picture.js";
import { Plot } from "./plot.js";
import { hasOwn, setOwnAxis, settingsOf, toggleOwnLog, zoom } from "./settings.js";
import { param, paramList, update } from "./state.js";

/** @typedef {import("./model.js").Line} Line */

// Buckets of a chart: somewhat more than its pixels, less where many lines share them. The same for all charts, so that they share a request.
const BUCKETS = 400;
// Of all lines of a chart together, in hundreds: charts of about as many lines share a request.
const BUCKETS_IN_ALL = 20_000;
const BUCKETS_IN_FULL = 1600;
// While a zoom goes on, the server is asked when it rests so long.
const REST_MS = 120;
// While many curves come, they are drawn so often: each time is the work of all of them.
const SHOW_MS = 300;

/**
 * @typedef {object} ChartProps
 * @property {string} name which the fragment has for its settings
 * @property {string} title
 * @property {Line[]} lines
 * @property {(axis: string) => import("./model.js").Mark[]} [marksOn]
 * @property {string[]} metrics what can be its x axis
 * @property {number} version changes when there may be more data
 * @property {string | null} [highlighted] a run that stands out
 * @property {(line: Line | null) => void} [onHover] which line the mouse is at
 * @property {(line: Line) => void} [onPick]
 */

/** One chart, drawn. @param {ChartProps} props */
export function Chart(props) {
  const { name, title, metrics } = props;
  const root = useRef(null);
  const plot = useRef(/** @type {Plot | null} */ (null));
  const settings = settingsOf(name);
  const hidden = paramList("hide");
  const lines = useMemo(() => props.lines.map((line) => ({ ...line, isHidden: hidden.includes(line.label) })), [props.lines, hidden.join("\n")]);
  const { blocks, change, error, isLoading } = useCurves(lines, settings, props.version, param("full") === name);
  const marks = props.marksOn?.(settings.x) ?? [];
  const model = useMemo(() => modelOf(lines, blocks, settings, marks), [lines, change, JSON.stringify(settings), marks]);
  const hover = useSignal(null);
  usePlot(root, plot, model, props, hover);
  const toggle = (label) => update({ hide: hidden.includes(label) ? hidden.filter((one) => one !== label) : [...hidden, label] });
  return html`<header>
      <h3 title=${title}>${title}</h3>
      <${Notes} model=${model} isLoading=${isLoading} />
      <${Menu} name=${name} title=${title} lines=${lines} metrics=${metrics} settings=${settings} plot=${plot} model=${model} />
    </header>
    <div class="plot-room">
      <div ref=${root} class="plot" role="img" aria-label=${inWords(title, model)}></div>
      ${model.isEmpty && html`<div class="plot-message">${error ? error.message : isLoading ? "" : "No numbers here"}</div>`}
      <${Tooltip} model=${model} hover=${hover} width=${(root.current?.clientWidth ?? 300) - 60} />
    </div>
    <${Legend} model=${model} lines=${lines} hover=${hover} onToggle=${toggle} />`;
}

/** Asks for the curves, again when the view or the data change. What is there stays until the new has come. */
function useCurves(lines, settings, version, isFull) {
  const [state, setState] = useState({ change: 0, isLoading: true, error: undefined });
  const blocks = useRef(new Map());
  const id = JSON.stringify([lines.map((line) => [blockId(line), line.runs]), settings.x, param("history")]);
  const asked = useRef("");
  const how = { x: settings.x, history: param("history") ?? "last", ...windowOf(settings), buckets: bucketsOf(lines, isFull, settings) };
  useEffect(() => {
    if (asked.current !== id) blocks.current = new Map();
    asked.current = id;
    const mine = blocks.current;
    let showing = 0;
    let drop = () => {};
    const show = () => {
      showing = 0;
      setState((old) => ({ change: old.change + 1, isLoading: false, error: undefined }));
    };
    const ask = () => {
      const give = (block) => {
        mine.set(blockId(block), block);
        showing ||= setTimeout(show, mine.size > 1 ? SHOW_MS : 0);
      };
      const wishes = wishesOf(lines);
      let left = wishes.length;
      const end = (error) => setState((old) => ({ change: old.change + 1, isLoading: --left > 0, error: error ?? old.error }));
      const drops = wishes.map(({ name, ...wish }) => askForCurves({ ...wish, how }, (block) => give(name ? { ...block, run: name } : block), end));
      drop = () => drops.forEach((one) => one());
    };
    const timer = setTimeout(ask, mine.size && settings.zoom ? REST_MS : 0);
    return () => {
      clearTimeout(timer);
      clearTimeout(showing);
      drop();
    };
  }, [id, JSON.stringify(how), version]);
  return { ...state, blocks: blocks.current };
}

/** What to ask for: the curves of all runs together, and for each group of runs that of all of them. @param {Line[]} lines */
function wishesOf(lines) {
  const keys = keysOf(lines);
  const runs = runsOf(lines.filter((line) => !line.runs));
  const groups = new Map(lines.filter((line) => line.runs).map((line) => [line.run, line.runs]));
  const wishes = [...groups].map(([name, runs]) => ({ name, path: /** @type {const} */ ("groups"), runs, keys }));
  return runs.length ? [{ name: "", path: /** @type {const} */ ("curves"), runs, keys }, ...wishes] : wishes;
}

/** The window to ask for: somewhat more to the left where a smoothed line has to begin before it. */
function windowOf({ zoom: range, smoothing, logX }) {
  if (!range) return { x0: null, x1: null };
  const more = logX ? 0 : 2 * smoothing * (range[1] - range[0]);
  return { x0: range[0] - more, x1: range[1] };
}

function bucketsOf(lines, isFull, { zoom: range, smoothing }) {
  const buckets = isFull ? BUCKETS_IN_FULL : Math.min(BUCKETS, Math.max(100, Math.floor(BUCKETS_IN_ALL / lines.length / 100) * 100));
  return Math.ceil(buckets * (range ? 1 + 2 * smoothing : 1));
}

/** Keeps the drawing up to date. A drawing has one kind of axes: others need another. */
function usePlot(root, plot, model, props, hover) {
  const { x, logX, logY } = model.settings;
  const current = useRef(null);
  current.current = { model, props };
  const lineAt = (at) => {
    const height = root.current.clientHeight - 30;
    return nearest(current.current.model, { ...at, height }, root.current.clientWidth, 1)[0]?.line ?? null;
  };
  useEffect(() => {
    plot.current = new Plot(root.current, model, {
      zoom: (range) => zoom(props.name, range),
      hover: (at) => {
        hover.value = at && { ...at, height: root.current.clientHeight - 30 };
        current.current.props.onHover?.(at?.isOver ? lineAt(at) : null);
      },
      pick: (at) => {
        const line = current.current.props.onPick && lineAt(at);
        if (line) current.current.props.onPick(line);
      },
    });
    return () => plot.current.end();
  }, [x, logX, logY]);
  useEffect(() => plot.current.show(model), [model]);
  useEffect(() => {
    plot.current.highlighted = props.highlighted ?? null;
    plot.current.redraw();
  }, [isDark.value, props.highlighted]);
}

function Notes({ model, isLoading }) {
  return html`<span class="notes">
    ${isLoading && html`<span class="spinner" role="status" aria-label="Loading"></span>`}
    ${model.beyond > 0 && html`<button class="plain warn" onClick=${() => update({ o: "1" })} title="Values beyond the scale: arrows mark them. Show them all (o)">
      ${model.beyond} beyond
    </button>`}
    ${model.exact && html`<span class="muted" title="Each point is one value, as it was logged">exact</span>`}
    ${model.settings.zoom && !model.exact && source.note && html`<span class="muted" title=${source.note}>as exported</span>`}
  </span>`;
}

/** What can be done with a chart. It is made when it is opened: there may be thousands of metrics to choose from. */
function Menu(props) {
  const { name, title, model } = props;
  const [isOpen, setOpen] = useState(false);
  const [hasTable, setTable] = useState(false);
  const summary = useRef(null);
  const leave = (event) => event.currentTarget.contains(event.relatedTarget) || setOpen(false);
  return html`<details class="menu" open=${isOpen} onToggle=${(event) => setOpen(event.currentTarget.open)} onFocusOut=${leave}>
      <summary ref=${summary} title="Axes and files (e)" aria-label="Axes and files of ${title}" data-own=${hasOwn(name) ? "" : undefined}>⋯</summary>
      ${isOpen && html`<${MenuItems} ...${props} openTable=${() => setTable(true)} onChosen=${() => [summary.current.focus(), setOpen(false)]} />`}
    </details>
    ${hasTable && html`<${DataTable} title=${title} model=${model} onClose=${() => setTable(false)} />`}`;
}

function MenuItems({ name, title, lines, metrics, settings, plot, openTable, onChosen }) {
  const isFull = param("full") === name;
  const csv = source.url("csv", { run: runsOf(lines), key: keysOf(lines) });
  const item = (text, act) => html`<button class="plain" onClick=${() => [act(), onChosen()]}>${text}</button>`;
  const setAxis = (axis) => setOwnAxis(name, axis === settingsOf().x ? null : axis);
  return html`<div>
    <label>x <${AxisChoice} value=${settings.x} metrics=${metrics} label="x axis of this chart" onChoose=${setAxis} /></label>
    ${item(settings.logX ? "Linear x" : "Logarithmic x", () => toggleOwnLog(name, "x"))}
    ${item(settings.logY ? "Linear y" : "Logarithmic y", () => toggleOwnLog(name, "y"))}
    ${item(isFull ? "Leave full screen" : "Full screen", () => update({ full: isFull ? null : name }))}
    ${item("Table of what is drawn", openTable)}
    ${item("Save as SVG", () => saveSvg(plot.current, title))}
    ${item("Save as PNG", () => savePng(plot.current, title))}
    ${csv && html`<a href=${csv} download onClick=${onChosen}>Save all values as CSV</a>`}
  </div>`;
}

function runsOf(lines) {
  return [...new Set(lines.flatMap((line) => line.runs ?? line.run))];
}

function keysOf(lines) {
  return [...new Set(lines.map((line) => line.key))];
}

/** The numbers that are drawn, for those who read and do not see. */
function DataTable({ title, model, onClose }) {
  const { x: axis } = model.settings;
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} class="table-dialog" aria-label="Table of ${title}" onClose=${onClose}>
    <form method="dialog"><h2>${title}</h2><button>Close</button></form>
    <table>
      <thead><tr>${["line", axis, "mean", "min", "max"].map((column) => html`<th scope="col">${column}</th>`)}</tr></thead>
      <tbody>
        ${model.curves.flatMap(({ line, x, mean, low, high }) =>
          Array.from(x, (at, index) => html`<tr>
            <th scope="row">${line.label}</th><td>${place(axis, at)}</td>
            <td>${number(mean[index], 6)}</td><td>${number(low[index], 6)}</td><td>${number(high[index], 6)}</td>
          </tr>`),
        )}
      </tbody>
    </table>
  </dialog>`;
}

function inWords(title, { curves, settings }) {
  const lines = curves.slice(0, 8).map(({ line, mean }) => `${line.label} ends at ${number(mean[mean.length - 1])}`);
  return `${title} by ${settings.x}. ${lines.join(", ")}. Its menu has a table.`;
}
