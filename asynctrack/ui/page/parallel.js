// Parallel coordinates: each run as a line over its config and one result; brushes on the axes choose among them.
import { axisOf, spansDecades } from "./axes.js";
import { isDark } from "./colours.js";
import { highlighted, hovered, labels, pick } from "./compared.js";
import { useWidth } from "./elements.js";
import { html, useEffect, useMemo, useRef, useSignal } from "./html.js";
import { MeasureChoice, chosenMeasure, configMeasures, resultMeasures } from "./measures.js";
import { drawAxes, drawLines, frameOf, lineNear, placeOf } from "./parallel_lines.js";
import { emptied } from "./pen.js";
import { open, param, paramList, toggled, update } from "./state.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./measures.js").Measure} Measure @typedef {[number, number]} Range */

const HEIGHT = 440;
/** An axis takes at least so many pixels: then the picture is wider than its room, and scrolls. */
const AXIS_PX = 88;
const MOST_AXES = 14;
const NEAR_AXIS_PX = 14;
/** Of an axis, what lines of one value take. */
const SPREAD = 0.045;
const PIXELS_A_LETTER = 8;
const LIKELY = /best|acc|min\/.*loss/;
/** From low to high: lightness and hue both change, so that it can be read without telling colours apart. */
const SCALE = { light: [[68, 1, 84], [59, 82, 139], [33, 145, 140], [190, 160, 20]], dark: [[120, 94, 200], [70, 140, 200], [60, 190, 150], [245, 225, 70]] };

/** @param {{rows: Row[], stats: import("./measures.js").Stats}} props */
export function ParallelCoordinates({ rows, stats }) {
  const results = useMemo(() => resultMeasures(rows, stats), [rows, stats]);
  const result = chosenMeasure(results, param("py"), LIKELY);
  const given = useMemo(() => configMeasures(rows, true), [rows]);
  const chosen = paramList("axis");
  const measures = useMemo(() => [...axesOf(given, chosen), result], [given, chosen.join("\n"), result]);
  const axes = useMemo(() => measures.map((measure) => axisOf(measure.title, rows.map(measure.of), spansDecades(rows.map(measure.of)))), [measures, rows]);
  const brushes = brushesOf(measures);
  const lines = useMemo(() => linesOf(rows, measures, axes, brushes, isDark.value), [rows, measures, axes, JSON.stringify(brushes), isDark.value]);
  const inside = lines.filter((line) => line.inside);
  return html`<div class="line">
      <${MeasureChoice} label="result and colour" name="py" measures=${results} chosen=${result} />
      <${AxisChooser} given=${given} shown=${measures} />
      <span class="muted" role="status">${inside.length} of ${rows.length} runs</span>
      ${inside.length < rows.length && inside.length > 0 && html`<button onClick=${() => compareOnly(inside)}>Compare only these</button>`}
      ${brushes.some(Boolean) && html`<button onClick=${() => update({ brush: [] })}>Clear the brushes</button>`}
    </div>
    <${Picture} measures=${measures} axes=${axes} lines=${lines} brushes=${brushes} />`;
}

const compareOnly = (lines) => open("compare", "", { run: lines.map((line) => line.run) });

/** @param {Measure[]} given @param {string[]} chosen ids; none for the first of them */
const axesOf = (given, chosen) => (chosen.length ? given.filter(({ id }) => chosen.includes(id)) : given.slice(0, MOST_AXES));

function AxisChooser({ given, shown }) {
  const ids = shown.map(({ id }) => id).filter((id) => given.some((measure) => measure.id === id));
  const toggle = (id) => update({ axis: toggled(ids, id) });
  return html`<details class="menu axes">
    <summary>Axes</summary>
    <div>
      ${given.map(({ id, title }) => html`<label key=${id}><input type="checkbox" checked=${ids.includes(id)} onChange=${() => toggle(id)} /> ${title}</label>`)}
    </div>
  </details>`;
}

/** Brushes as the view has them: an axis, and from where to where, between 0 and 1. @param {Measure[]} measures @returns {(Range | undefined)[]} */
function brushesOf(measures) {
  const said = new Map(paramList("brush").map((text) => {
    const [id, lo, hi] = text.split("~");
    return [id, /** @type {Range} */ ([Number(lo), Number(hi)])];
  }));
  return measures.map(({ id }) => said.get(id));
}

/** @param {Measure[]} measures @param {(Range | undefined)[]} brushes */
function writeBrushes(measures, brushes) {
  update({ brush: measures.flatMap(({ id }, at) => (brushes[at] ? `${id}~${brushes[at].map((place) => place.toFixed(4)).join("~")}` : [])) });
}

function linesOf(rows, measures, axes, brushes, dark) {
  return rows.map((row) => {
    const places = measures.map((measure, at) => axes[at].at(measure.of(row)));
    const inside = brushes.every((brush, at) => !brush || (places[at] !== undefined && places[at] >= brush[0] && places[at] <= brush[1]));
    return { run: row.run, places: places.map((place, at) => spread(place, axes[at], places.at(-1))), inside, colour: colourAt(places.at(-1), dark) };
  });
}

/** Where an axis has few values, lines lie beside each other by their result, and not over each other. */
const spread = (place, axis, result) => (axis.few && place !== undefined && result !== undefined ? place * (1 - SPREAD) + result * SPREAD : place);

/** The colour of a place between 0 and 1; grey without one. @param {number | undefined} place @param {boolean} dark */
function colourAt(place, dark) {
  if (place === undefined) return "#888";
  const stops = dark ? SCALE.dark : SCALE.light;
  const at = Math.min(stops.length - 1.001, Math.max(0, place * (stops.length - 1)));
  const [low, high, share] = [stops[Math.floor(at)], stops[Math.floor(at) + 1], at % 1];
  return `rgb(${low.map((value, index) => Math.round(value + share * (high[index] - value))).join(" ")})`;
}

function Picture({ measures, axes, lines, brushes }) {
  const room = useRef(/** @type {HTMLElement | null} */ (null));
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const width = Math.max(useWidth(room), axes.length * AXIS_PX);
  const frame = useMemo(() => frameOf(width, HEIGHT, axes.length), [width, axes.length]);
  const drag = useSignal(/** @type {{at: number, from: number, to: number} | null} */ (null));
  const shown = drag.value ? brushes.with(drag.value.at, sorted([drag.value.from, drag.value.to])) : brushes;
  useEffect(() => {
    paint(/** @type {HTMLCanvasElement} */ (canvas.current), frame, axes, lines, shown);
  }, [frame, axes, lines, JSON.stringify(shown), highlighted.value, isDark.value]);
  const act = actions(canvas, frame, lines, drag, (at, range) => writeBrushes(measures, brushes.with(at, range)));
  return html`<div class="parallel" ref=${room}>
    <div class="titles" style=${{ width: `${width}px` }}>
      ${axes.map((axis, at) => html`<span key=${measures[at].id} style=${{ left: `${frame.xs[at]}px` }} title=${axis.title}>
        ${shortened(axis.title, width / axes.length)}${axis.log && html`<small> log</small>`}
      </span>`)}
    </div>
    <canvas ref=${canvas} style=${{ width: `${width}px`, height: `${HEIGHT}px` }} role="img"
      aria-label=${`${lines.length} runs over ${axes.map(({ title }) => title).join(", ")}. The view “Differences” has them as a table.`}
      onPointerDown=${act.down} onPointerMove=${act.move} onPointerUp=${act.up} onPointerLeave=${() => drag.peek() || (hovered.value = null)}></canvas>
    <p class="muted">${highlighted.value ? labels.value.get(highlighted.value) : "Drag along an axis to choose runs; a click on the axis frees it."}</p>
  </div>`;
}

/** The end of a long name says more than its beginning. */
function shortened(title, pixels) {
  const hasRoom = title.length * PIXELS_A_LETTER < pixels - 16;
  return hasRoom || title.includes("(") ? title : title.slice(title.lastIndexOf("/", title.length - 2) + 1);
}

const sorted = (/** @type {Range} */ [one, other]) => /** @type {Range} */ (one < other ? [one, other] : [other, one]);

/** What the mouse does: along an axis it brushes, elsewhere it finds runs. */
function actions(canvas, frame, lines, drag, brush) {
  const axisNear = (x) => frame.xs.findIndex((at) => Math.abs(at - x) < NEAR_AXIS_PX);
  return {
    down: (event) => {
      const at = axisNear(event.offsetX);
      if (at < 0) return hovered.peek() && pick(hovered.peek());
      canvas.current.setPointerCapture(event.pointerId);
      const place = placeOf(frame, event.offsetY);
      drag.value = { at, from: place, to: place };
    },
    move: (event) => {
      if (drag.peek()) drag.value = { ...drag.peek(), to: placeOf(frame, event.offsetY) };
      else hovered.value = lineNear(frame, lines, event.offsetX, event.offsetY)?.run ?? null;
      canvas.current.classList.toggle("on-axis", axisNear(event.offsetX) >= 0);
    },
    up: () => {
      const { at, from, to } = drag.peek() ?? { at: -1, from: 0, to: 0 };
      drag.value = null;
      if (at >= 0) brush(at, Math.abs(from - to) > 0.01 ? sorted([from, to]) : undefined);
    },
  };
}

function paint(canvas, frame, axes, lines, brushes) {
  const context = emptied(canvas, frame.width, frame.height);
  const style = getComputedStyle(canvas);
  const inks = { ink: style.color, quiet: style.borderTopColor, accent: style.caretColor, paper: style.backgroundColor };
  drawLines(context, frame, lines, highlighted.peek(), inks.quiet);
  drawAxes(context, frame, axes, brushes, inks);
}
