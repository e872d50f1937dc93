// Legend: which line is which, with its value under the cursor or else its last; and the box that goes with the cursor.
import { css } from "./colours.js";
import { html } from "./html.js";
import { number, place } from "./format.js";
import { indexAt } from "./model.js";
import { scalesOf } from "./paint.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Drawn} Drawn */
/** @typedef {{x: number, left: number, top: number, height: number, isOver: boolean}} Hover */

// More lines have no room for a name each.
const MOST_NAMES = 12;
const MOST_IN_BOX = 10;
// Pixels between the cursor and a mark that it means.
const NEAR = 4;

/** @param {{model: Model, lines: import("./model.js").Line[], hover: {value: Hover | null}, onToggle: (label: string) => void}} props */
export function Legend({ model, lines, hover, onToggle }) {
  if (lines.length > MOST_NAMES) return html`<${ManyLines} lines=${lines} />`;
  const at = hover.value;
  const curves = new Map(model.curves.map((curve) => [curve.line, curve]));
  return html`<div class="legend">
    ${lines.map((line) => {
      const curve = curves.get(line);
      return html`<button
        key=${line.label} class="plain" aria-pressed=${line.isHidden ? "false" : "true"} title="Show or hide ${line.label}" onClick=${() => onToggle(line.label)}
      >
        <${Swatch} line=${line} /><span class="name">${line.label}</span><span class="number">${curve ? number(valueOf(curve, at)) : ""}</span>
      </button>`;
    })}
  </div>`;
}

/** Of many lines, only which metric has which dash. */
function ManyLines({ lines }) {
  const first = new Map(lines.toReversed().map((line) => [line.key, line]));
  return html`<div class="legend muted many">
    ${first.size > 1 && [...first.values()].reverse().map((line) => html`<span key=${line.key}><i class="swatch" data-dashed=${line.dash?.length ? "" : undefined}></i> ${line.key}</span>`)}
    <span>${lines.length} lines</span>
  </div>`;
}

/** A bit of a line, as it is drawn. */
export function Swatch({ line }) {
  return html`<i class="swatch" data-dashed=${line.dash?.length ? "" : undefined} style=${{ color: css(line.colour) }}></i>`;
}

/** @param {Drawn} curve @param {Hover | null} hover */
function valueOf({ x, mean, last, smooth }, hover) {
  if (hover) return (smooth ?? mean)[indexAt(x, hover.x)];
  return last[last.length - 1];
}

/** @param {{model: Model, hover: {value: Hover | null}, width: number}} props */
export function Tooltip({ model, hover, width }) {
  const at = hover.value;
  if (!at?.isOver || model.isEmpty) return null;
  const box = { left: 0, top: 0, width, height: 1 };
  const near = model.marks.filter(({ x }) => Math.abs(scalesOf(model, box).toX(x) - at.left) < NEAR);
  const isRight = at.left < width / 2;
  return html`<div class="tooltip" style=${isRight ? { left: `${at.left + 64}px` } : { right: `${width - at.left + 24}px` }}>
    <b>${model.settings.x} ${place(model.settings.x, snapped(model, at.x))}</b>
    ${near.map(({ title }) => html`<div>${title}</div>`)}
    ${nearest(model, at, width).map((curve) => html`<${Row} curve=${curve} at=${indexAt(curve.x, at.x)} />`)}
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
    <span class="number">${number(mean[at])}${smooth && html` <span class="muted">~ ${number(smooth[at])}</span>`}</span>
    ${!exact && low[at] !== high[at] && html`<span class="number muted">${number(low[at], 3)} to ${number(high[at], 3)}</span>`}
    ${notFinite?.[at] > 0 && !exact && html`<span class="muted">${notFinite[at]} not finite</span>`}
  </div>`;
}

/** The lines that are nearest to the cursor, by name's order where all have room. @param {Model} model @param {Hover} at @param {number} width @param {number} [most] */
export function nearest(model, at, width, most = MOST_IN_BOX) {
  if (model.curves.length <= most) return model.curves;
  const { toY } = scalesOf(model, { left: 0, top: 0, width, height: at.height });
  const away = ({ x, mean }) => {
    const distance = Math.abs(toY(mean[indexAt(x, at.x)]) - at.top);
    return Number.isFinite(distance) ? distance : Infinity;
  };
  return model.curves.map((curve) => ({ curve, distance: away(curve) })).sort((one, other) => one.distance - other.distance).slice(0, most).map(({ curve }) => curve);
}
