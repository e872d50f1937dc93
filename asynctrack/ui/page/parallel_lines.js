// Parallel lines: draws runs as lines over parallel axes on a canvas, and finds the line near a point.
import { valueText } from "./cells.js";

/**
 * @typedef {import("./axes.js").Axis} Axis
 * @typedef {{run: string, places: (number | undefined)[], colour: string, inside: boolean}} Line
 * @typedef {{width: number, height: number, xs: number[], top: number, bottom: number}} Frame
 */

const MARGIN = { top: 46, bottom: 30, side: 56 };
/** Where a line passes an axis on which its run has no value, in pixels below it. */
const MISSING = 16;
const TICK = 4;

/** Returns where axes stand. @param {number} width @param {number} height @param {number} count of axes @returns {Frame} */
export function frameOf(width, height, count) {
  const step = count > 1 ? (width - 2 * MARGIN.side) / (count - 1) : 0;
  const xs = Array.from({ length: count }, (_, index) => MARGIN.side + index * step);
  return { width, height, xs, top: MARGIN.top, bottom: height - MARGIN.bottom };
}

/** @param {Frame} frame @param {number | undefined} place */
const yOf = (frame, place) => (place === undefined ? frame.bottom + MISSING : frame.bottom - place * (frame.bottom - frame.top));

/** Returns the place on an axis of a height in pixels, within it. @param {Frame} frame @param {number} y */
export const placeOf = (frame, y) => Math.min(1, Math.max(0, (frame.bottom - y) / (frame.bottom - frame.top)));

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {Line[]} lines
 * @param {string | null} highlighted a run
 * @param {string} muted the colour of lines outside of the brushes
 */
export function drawLines(context, frame, lines, highlighted, muted) {
  context.lineJoin = "round";
  for (const inside of [false, true]) {
    for (const line of lines) if (line.inside === inside) stroke(context, frame, line, inside ? line.colour : muted, inside ? 0.75 : 0.07, 1.3);
  }
  const above = lines.find((line) => line.run === highlighted);
  if (above) stroke(context, frame, above, above.colour, 1, 3.5);
}

function stroke(context, frame, line, colour, alpha, width) {
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  line.places.forEach((place, index) => context.lineTo(frame.xs[index], yOf(frame, place)));
  context.stroke();
  context.globalAlpha = 1;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {Axis[]} axes
 * @param {([number, number] | undefined)[]} brushes
 * @param {{ink: string, quiet: string, accent: string, paper: string}} colours
 */
export function drawAxes(context, frame, axes, brushes, colours) {
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  axes.forEach((axis, index) => {
    const x = frame.xs[index];
    context.fillStyle = colours.quiet;
    context.fillRect(x - 0.5, frame.top, 1, frame.bottom - frame.top);
    drawBrush(context, frame, x, brushes[index], colours.accent);
    drawTicks(context, frame, x, axis, index === axes.length - 1 ? 1 : -1, colours);
  });
}

function drawBrush(context, frame, x, brush, colour) {
  if (!brush) return;
  context.fillStyle = colour;
  context.globalAlpha = 0.25;
  context.fillRect(x - 7, yOf(frame, brush[1]), 14, yOf(frame, brush[0]) - yOf(frame, brush[1]));
  context.globalAlpha = 1;
}

function drawTicks(context, frame, x, axis, side, colours) {
  context.textAlign = side < 0 ? "right" : "left";
  for (const tick of axis.ticks) {
    const y = yOf(frame, tick.at);
    context.fillStyle = colours.quiet;
    context.fillRect(x, y - 0.5, side * TICK, 1);
    const text = shortened(valueText(tick.label));
    context.lineWidth = 3;
    context.strokeStyle = colours.paper;
    context.strokeText(text, x + side * (TICK + 3), y);
    context.fillStyle = colours.ink;
    context.fillText(text, x + side * (TICK + 3), y);
  }
}

const shortened = (text) => (text.length > 14 ? `${text.slice(0, 13)}…` : text);

/**
 * Returns the line that passes nearest to a point, within some pixels; null where none does.
 * @param {Frame} frame
 * @param {Line[]} lines
 * @param {number} x
 * @param {number} y
 * @param {number} [within]
 */
export function lineNear(frame, lines, x, y, within = 8) {
  const left = Math.max(0, frame.xs.findLastIndex((at) => at <= x));
  const right = Math.min(frame.xs.length - 1, left + 1);
  const share = right === left ? 0 : (x - frame.xs[left]) / (frame.xs[right] - frame.xs[left]);
  let best = null;
  for (const line of lines) {
    if (!line.inside) continue;
    const there = yOf(frame, line.places[left]) * (1 - share) + yOf(frame, line.places[right]) * share;
    if (Math.abs(there - y) < within) [best, within] = [line, Math.abs(there - y)];
  }
  return best;
}
