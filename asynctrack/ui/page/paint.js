// Paint: the curves of a model, drawn with a pen into a box: bands, lines, marks, and arrows to what lies beyond.
import { pick } from "./colours.js";
import { indexFrom } from "./model.js";
import { traced } from "./pen.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {{left: number, top: number, width: number, height: number}} Box */
/** @typedef {{text: string, muted: string, line: string, surface: string}} Theme */

// Pixels between arrows, and between other marks at an edge.
const APART = 9;
// Single points are drawn where they have so much room.
const ROOM_OF_A_POINT = 7;

/**
 * @param {import("./pen.js").CanvasPen | import("./pen.js").SvgPen} pen @param {Model} model @param {Box} box
 * @param {Theme} theme
 */
export function paint(pen, model, box, theme) {
  const scales = scalesOf(model, box);
  pen.inside(box, () => {
    paintMarks(pen, model.marks, scales, box, theme);
    for (const curve of model.curves) paintCurve(pen, curve, model, scales, box);
    paintEdges(pen, model, scales, box);
  });
}

/** Where numbers lie in a box. @param {Model} model @param {Box} box */
export function scalesOf({ x, y, settings }, { left, top, width, height }) {
  const toX = scale(x, settings.logX, left, width);
  const toY = scale([y[1], y[0]], settings.logY, top, height);
  return { toX, toY };
}

function scale([from, to], isLog, start, length) {
  if (!isLog) return (value) => start + ((value - from) / (to - from)) * length;
  const [first, last] = [Math.log10(from), Math.log10(to)];
  return (value) => (value > 0 ? start + ((Math.log10(value) - first) / (last - first)) * length : NaN);
}

function paintMarks(pen, marks, { toX }, box, theme) {
  for (const { x, kind } of marks) {
    const path = traced(pen, [[toX(x), box.top], [toX(x), box.top + box.height]]);
    pen.stroke(path, { colour: theme.muted, width: 1, dash: kind === "resume" ? [2, 2] : [], alpha: kind === "resume" ? 0.8 : 0.35 });
  }
}

function paintCurve(pen, curve, model, scales, box) {
  const { x, mean, low, high, deviation, smooth, exact, line } = curve;
  const colour = pick(line.colour);
  const many = model.curves.length > 12;
  // One more at either side, so that the line goes on to the edge.
  const from = Math.max(0, indexFrom(x, model.x[0]) - 1);
  const to = Math.min(x.length, indexFrom(x, model.x[1]) + 2);
  if (!exact) {
    const band = pen.path();
    traceBand(band, x, low, high, scales, box, from, to);
    // Of many curves the edges say enough, and to fill them is an eighth of the page's work.
    if (!many) pen.fill(band, { colour, alpha: deviation ? 0.06 : 0.18 });
    pen.stroke(band, { colour, width: 0.75, alpha: many ? 0.2 : deviation ? 0.16 : 0.35 });
  }
  if (deviation) {
    const inner = pen.path();
    traceBand(inner, x, mean.map((value, at) => value - deviation[at]), mean.map((value, at) => value + deviation[at]), scales, box, from, to);
    pen.fill(inner, { colour, alpha: 0.22 });
  }
  const path = pen.path();
  traceLine(path, x, mean, scales, from, to);
  pen.stroke(path, { colour, width: many || smooth ? 1 : 1.4, dash: line.dash, alpha: smooth ? 0.35 : 1 });
  if (smooth) {
    const smoothed = pen.path();
    traceLine(smoothed, x, smooth, scales, from, to);
    pen.stroke(smoothed, { colour, width: 1.8, dash: line.dash });
  }
  if (exact && to - from < box.width / ROOM_OF_A_POINT) paintPoints(pen, curve, scales, from, to, { colour });
}

function traceLine(path, x, y, { toX, toY }, from, to) {
  let isDown = false;
  for (let at = from; at < to; at++) {
    const [px, py] = [toX(x[at]), toY(y[at])];
    if (!Number.isFinite(px) || !Number.isFinite(py)) isDown = false;
    else if (isDown) path.lineTo(px, py);
    else {
      // A value between two gaps is a stroke of its own.
      path.moveTo(px - 0.7, py);
      path.lineTo(px, py);
      isDown = true;
    }
  }
}

/** Traces a band stretch by stretch: there and back again. */
function traceBand(path, x, low, high, { toX, toY }, box, from, to) {
  const bottom = box.top + box.height;
  const isThere = (at) => Number.isFinite(toX(x[at])) && Number.isFinite(toY(high[at]));
  for (let at = from; at < to; at++) {
    if (!isThere(at)) continue;
    const begin = at;
    path.moveTo(toX(x[at]), toY(high[at]));
    while (at + 1 < to && isThere(at + 1)) path.lineTo(toX(x[++at]), toY(high[at]));
    for (let back = at; back >= begin; back--) path.lineTo(toX(x[back]), orElse(toY(low[back]), bottom));
    path.closePath();
  }
}

const orElse = (value, other) => Number.isFinite(value) ? value : other;

function paintPoints(pen, { x, mean }, { toX, toY }, from, to, ink) {
  const path = pen.path();
  for (let at = from; at < to; at++) {
    const [px, py] = [toX(x[at]), toY(mean[at])];
    if (Number.isFinite(px) && Number.isFinite(py)) path.rect(px - 1.75, py - 1.75, 3.5, 3.5);
  }
  pen.fill(path, ink);
}

/** Marks what has no place in the box: arrows to outliers, crosses for NaN and infinities. */
function paintEdges(pen, model, { toX }, box) {
  const taken = { top: new Set(), bottom: new Set() };
  const isFree = (edge, px) => !taken[edge].has(Math.round(px / APART)) && taken[edge].add(Math.round(px / APART));
  for (const { x, low, high, notFinite, line } of model.curves) {
    const ink = { colour: pick(line.colour) };
    for (let at = indexFrom(x, model.x[0]); at < x.length && x[at] <= model.x[1]; at++) {
      const px = toX(x[at]);
      if (high[at] > model.y[1] && isFree("top", px)) pen.fill(arrow(pen, px, box.top + 1, 1), ink);
      if (low[at] < model.y[0] && isFree("bottom", px)) pen.fill(arrow(pen, px, box.top + box.height - 1, -1), ink);
      if (notFinite?.[at] && isFree("bottom", px)) pen.stroke(cross(pen, px, box.top + box.height - 6), { ...ink, width: 1.6 });
    }
  }
}

const arrow = (pen, x, tip, down) => traced(pen, [[x, tip], [x - 4, tip + 7 * down], [x + 4, tip + 7 * down], [x, tip]]);

const cross = (pen, x, y) => traced(pen, [[x - 3, y - 3], [x + 3, y + 3]], [[x - 3, y + 3], [x + 3, y - 3]]);
