// Legend: which line is which, with its value under the cursor or else its last; and the box that goes with the cursor.
import { css } from "./colours.js";
import { html } from "./html.js";
import { number, place } from "./format.js";
import { indexAfter, indexAt } from "./model.js";
import { scalesOf } from "./paint.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Drawn} Drawn */
/** @typedef {import("./plot.js").Hover} Hover */

// More lines have no room for a name each.
const MOST_NAMES = 12;
const MOST_IN_BOX = 10;
// Pixels between the cursor and a mark that it means.
const NEAR = 4;
// Pixels between the cursor and the box.
const BESIDE = 12;

/** @param {{model: Model, lines: import("./model.js").Line[], hover: {value: Hover | null}, onToggle: (label: string) => void}} props */
export function Legend({ model, lines, hover, onToggle }) {
  if (lines.length > MOST_NAMES) return html`<${ManyLines} lines=${lines} />`;
  const at = hover.value;
  const curves = new Map(model.curves.map((curve) => [curve.line, curve]));
  return html`<div class="legend">
    ${lines.map((line) => {
      const curve = curves.get(line);
      const value = curve ? valueOf(curve, model.x[1], at) : "";
      return html`<button
        key=${line.label} class="plain" aria-pressed=${line.isHidden ? "false" : "true"} title="Show or hide ${line.label}"
        onClick=${() => onToggle(line.label)}
      >
        <${Swatch} line=${line} /><span class="name">${line.label}</span><span class="number">${value}</span>
      </button>`;
    })}
  </div>`;
}

/** Of many lines, only which metric has which dash. */
function ManyLines({ lines }) {
  const first = [...new Map(lines.toReversed().map((line) => [line.key, line])).values()].reverse();
  const dashed = (line) => (line.dash?.length ? "" : undefined);
  return html`<div class="legend muted many">
    ${first.length > 1 && first.map((line) => html`<span key=${line.key}><i class="swatch" data-dashed=${dashed(line)}></i> ${line.key}</span>`)}
    <span>${lines.length} lines</span>
  </div>`;
}

/** A bit of a line, as it is drawn. */
function Swatch({ line }) {
  return html`<i class="swatch" data-dashed=${line.dash?.length ? "" : undefined} style=${{ color: css(line.colour) }}></i>`;
}

/** The value under the cursor, or else the last that is seen. @param {Drawn} curve @param {number} end @param {Hover | null} hover */
function valueOf({ x, mean, last, smooth, notFinite }, end, hover) {
  const at = hover ? indexAt(x, hover.x) : Math.max(0, indexAfter(x, end) - 1);
  const value = (hover ? smooth ?? mean : last)[at];
  return Number.isNaN(value) && notFinite?.[at] ? "not finite" : number(value);
}

/** @param {{model: Model, hover: {value: Hover | null}}} props */
export function Tooltip({ model, hover }) {
  const at = hover.value;
  if (!at?.isOver || model.isEmpty) return null;
  const { toX } = scalesOf(model, { ...at, left: 0 });
  const near = model.marks.filter(({ x }) => Math.abs(toX(x) - at.left) < NEAR);
  const side = at.left < at.width / 2 ? { left: `${at.offset + at.left + BESIDE}px` } : { right: `${at.width - at.left + 2 * BESIDE}px` };
  return html`<div class="tooltip" style=${side}>
    <b>${model.settings.x} ${place(model.settings.x, snapped(model, at.x))}</b>
    ${near.map(({ title }) => html`<div>${title}</div>`)}
    ${nearest(model, at).map((curve) => html`<${Row} curve=${curve} at=${indexAt(curve.x, at.x)} />`)}
  </div>`;
}

/** The place of a value, where values have places: there is no step between two. @param {Model} model @param {number} at */
function snapped({ curves, settings }, at) {
  const [{ x }] = curves;
  return settings.x === "step" ? Math.round(x[indexAt(x, at)]) : at;
}

function Row({ curve, at }) {
  const { line, mean, low, high, smooth, notFinite, exact } = curve;
  return html`<div class="row">
    <${Swatch} line=${line} /><span class="name">${line.label}</span>
    <span class="number">
      ${exact && notFinite?.[at] ? "not finite" : number(mean[at])}
      ${smooth && html` <span class="muted">~ ${number(smooth[at])}</span>`}
    </span>
    ${!exact && low[at] !== high[at] && html`<span class="number muted">${number(low[at], 3)} to ${number(high[at], 3)}</span>`}
    ${notFinite?.[at] > 0 && !exact && html`<span class="muted">${notFinite[at]} not finite</span>`}
  </div>`;
}

/** The lines that are nearest to the cursor, by name's order where all have room. @param {Model} model @param {Hover} at @param {number} [most] */
export function nearest(model, at, most = MOST_IN_BOX) {
  if (model.curves.length <= most) return model.curves;
  const { toY } = scalesOf(model, { ...at, top: 0 });
  const away = ({ x, mean }) => {
    const distance = Math.abs(toY(mean[indexAt(x, at.x)]) - at.top);
    return Number.isFinite(distance) ? distance : Infinity;
  };
  const found = model.curves.map((curve) => ({ curve, distance: away(curve) })).sort((one, other) => one.distance - other.distance);
  return found.slice(0, most).map(({ curve }) => curve);
}
