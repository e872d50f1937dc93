// Chart: one chart with its title, notes and legend, drawn while it is in view.
import { source } from "./api.js";
import { useCurves } from "./chart_curves.js";
import { Menu } from "./chart_menu.js";
import { isDark } from "./colours.js";
import { number } from "./format.js";
import { html, useEffect, useMemo, useRef, useSignal } from "./html.js";
import { Legend, nearest, Tooltip } from "./legend.js";
import { modelOf } from "./model.js";
import { Plot } from "./plot.js";
import { settingsOf, zoom } from "./settings.js";
import { param, paramList, toggleIn, update } from "./state.js";

/** @typedef {import("./model.js").Line} Line */

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

const NO_MARKS = [];
const BEYOND = "Values beyond the scale: arrows mark them. Show them all (o)";

/** One chart, drawn. @param {ChartProps} props */
export function Chart(props) {
  const { name, title, metrics } = props;
  const root = useRef(null);
  const plot = useRef(/** @type {Plot | null} */ (null));
  const settings = settingsOf(name);
  const hidden = paramList("hide");
  const lines = useMemo(() => props.lines.map((line) => ({ ...line, isHidden: hidden.includes(line.label) })), [props.lines, hidden.join("\n")]);
  const { blocks, change, error, isLoading } = useCurves(lines, settings, props.version, param("full") === name);
  const marks = props.marksOn?.(settings.x) ?? NO_MARKS;
  const model = useMemo(() => modelOf(lines, blocks, settings, marks), [lines, change, JSON.stringify(settings), marks]);
  const hover = useSignal(null);
  usePlot(root, plot, model, props, hover);
  return html`<header>
      <h3 title=${title}>${title}</h3>
      <${Notes} model=${model} isLoading=${isLoading} />
      <${Menu} name=${name} title=${title} lines=${lines} metrics=${metrics} settings=${settings} plot=${plot} model=${model} />
    </header>
    <div class="plot-room">
      <div ref=${root} class="plot" role="img" aria-label=${inWords(title, model)}></div>
      ${model.isEmpty && html`<div class="plot-message">${error ? error.message : isLoading ? "" : "No numbers here"}</div>`}
      <${Tooltip} model=${model} hover=${hover} />
    </div>
    <${Legend} model=${model} lines=${lines} hover=${hover} onToggle=${(label) => toggleIn("hide", label)} />`;
}

/** Keeps the drawing up to date. A drawing has one kind of axes: others need another. */
function usePlot(root, plot, model, props, hover) {
  const { x, logX, logY } = model.settings;
  const current = useRef(null);
  current.current = { model, props };
  const isOver = useRef(false);
  const lineAt = (at) => nearest(current.current.model, at, 1)[0]?.line ?? null;
  useEffect(() => {
    plot.current = new Plot(root.current, model, {
      zoom: (range) => zoom(props.name, range),
      hover: (at) => {
        hover.value = at;
        // The cursors of all charts move together: only the one under the mouse says which line that is at.
        if (at?.isOver || isOver.current) current.current.props.onHover?.(at?.isOver ? lineAt(at) : null);
        isOver.current = at?.isOver ?? false;
      },
      pick: (at) => {
        const line = current.current.props.onPick && lineAt(at);
        if (line) current.current.props.onPick(line);
      },
    });
    return () => plot.current.end();
  }, [x, logX, logY]);
  useEffect(() => plot.current.show(model), [model]);
  useEffect(() => plot.current.redraw(), [isDark.value]);
  useEffect(() => plot.current.highlight(props.highlighted ?? null), [props.highlighted, x, logX, logY]);
}

function Notes({ model, isLoading }) {
  return html`<span class="notes">
    ${isLoading && html`<span class="spinner" role="status" aria-label="Loading"></span>`}
    ${model.beyond > 0 && html`<button class="plain warn" onClick=${() => update({ o: "1" })} title=${BEYOND}>${model.beyond} beyond</button>`}
    ${model.exact && html`<span class="muted" title="Each point is one value, as it was logged">exact</span>`}
    ${model.settings.zoom && !model.exact && source.note && html`<span class="muted" title=${source.note}>as exported</span>`}
  </span>`;
}

function inWords(title, { curves, settings }) {
  const lines = curves.slice(0, 8).map(({ line, last }) => `${line.label} ends at ${number(last[last.length - 1])}`);
  return `${title} by ${settings.x}. ${lines.join(", ")}. Its menu has a table.`;
}
