// Picture: a chart as a file: SVG with real shapes, or PNG.
import { pick } from "./colours.js";
import { save } from "./download.js";
import { paint, scalesOf } from "./paint.js";
import { CanvasPen, SvgPen, traced } from "./pen.js";

/** @typedef {import("./plot.js").Plot} Plot */

const WIDTH = 800;
const HEIGHT = 420;
const BOX = { left: 64, top: 44, width: WIDTH - 84, height: HEIGHT - 44 - 64 };
const LEGEND_ROW = 16;
const MOST_NAMES = 24;
const PNG_SCALE = 2;

/** Draws the chart with its title, axes and legend. @param {CanvasPen | SvgPen} pen @param {Plot} plot @param {string} title */
function draw(pen, { model, ticks, theme }, title) {
  const ground = pen.path();
  ground.rect(0, 0, WIDTH, heightOf(model));
  const everything = { left: 0, top: 0, width: WIDTH, height: heightOf(model) };
  pen.inside(everything, () => {
    pen.fill(ground, { colour: theme.surface });
    pen.text(title, BOX.left, 26, { colour: theme.text, size: 15, bold: true });
    drawAxes(pen, model, ticks, theme);
    drawLegend(pen, model, theme);
  });
  paint(pen, model, BOX, theme);
}

function drawAxes(pen, model, ticks, theme) {
  const { toX, toY } = scalesOf(model, BOX);
  const bottom = BOX.top + BOX.height;
  const across = ticks.y.map(({ at }) => [[BOX.left, toY(at)], [BOX.left + BOX.width, toY(at)]]);
  const below = ticks.x.map(({ at }) => [[toX(at), bottom], [toX(at), bottom + 4]]);
  pen.stroke(traced(pen, ...across, ...below), { colour: theme.line });
  for (const { at, text } of ticks.y) {
    pen.text(text, BOX.left - 8, toY(at) + 4, { colour: theme.muted, size: 12, align: "right" });
  }
  for (const { at, text } of ticks.x) {
    pen.text(text, toX(at), bottom + 18, { colour: theme.muted, size: 12, align: "center" });
  }
  pen.text(model.settings.x, BOX.left + BOX.width / 2, bottom + 36, { colour: theme.muted, size: 12, align: "center" });
}

function drawLegend(pen, model, theme) {
  named(model).forEach(({ line }, index) => {
    const [x, y] = [BOX.left + (index % 2) * (BOX.width / 2), BOX.top + BOX.height + 58 + Math.floor(index / 2) * LEGEND_ROW];
    pen.stroke(traced(pen, [[x, y - 4], [x + 18, y - 4]]), { colour: pick(line.colour), width: 2, dash: line.dash });
    pen.text(line.label, x + 24, y, { colour: theme.text, size: 12 });
  });
}

const named = (model) => model.curves.slice(0, MOST_NAMES);

const heightOf = (model) => HEIGHT + Math.ceil(named(model).length / 2) * LEGEND_ROW;

/** @param {Plot} plot @param {string} title */
export function saveSvg(plot, title) {
  const pen = new SvgPen();
  draw(pen, plot, title);
  save(new Blob([pen.file(WIDTH, heightOf(plot.model))], { type: "image/svg+xml" }), `${title}.svg`);
}

/** @param {Plot} plot @param {string} title */
export async function savePng(plot, title) {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH * PNG_SCALE;
  canvas.height = heightOf(plot.model) * PNG_SCALE;
  draw(new CanvasPen(canvas.getContext("2d"), PNG_SCALE), plot, title);
  const blob = await new Promise((done) => canvas.toBlob(done));
  save(blob, `${title}.png`);
}
