// Plot: one chart on the page, on uPlot's axes and cursor: draws a model, and says what the mouse does.
import uPlot from "./vendor/uplot.js";
import { clockTick, duration, tick } from "./format.js";
import { paint } from "./paint.js";
import { CanvasPen } from "./pen.js";
import { logTicks } from "./scales.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Range} Range */
/** @typedef {{at: number, text: string}[]} Ticks */

/**
 * Where a cursor is: its own, or that of another chart.
 * @typedef {object} Hover
 * @property {number} x on the axis
 * @property {number} left in pixels of the box that has the curves, as are all others
 * @property {number} top
 * @property {number} width of the box
 * @property {number} height
 * @property {number} offset of the box in the chart
 * @property {boolean} isOver whether the mouse is over this chart
 */

/**
 * @typedef {object} Listener
 * @property {(range: Range | null) => void} zoom null: all
 * @property {(hover: Hover | null) => void} hover
 * @property {(hover: Hover) => void} pick
 */

const AXIS_FONT = "11px system-ui, sans-serif";
const Y_AXIS_WIDTH = 50;
const LETTER_WIDTH = 6.5;
const RIGHT_MARGIN = 12;
const X_AXIS_HEIGHT = 24;
// Steps between ticks that read well as durations, from milliseconds to months.
const DURATIONS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
  86400, 172800, 432000, 864000, 1728000, 4320000,
];
const WHEEL = 1.25;
// How much is hidden of the lines that do not stand out.
const VEIL = 0.8;
// Pixels: less is a click.
const LEAST_DRAG = 4;

/** @param {HTMLElement} root @returns {import("./paint.js").Theme} as the style says */
function themeOf(root) {
  const style = getComputedStyle(root);
  return { text: style.caretColor, muted: style.color, line: style.borderTopColor, surface: style.backgroundColor };
}

export class Plot {
  /** @type {{x: Ticks, y: Ticks}} as they stand on the axes */
  ticks = { x: [], y: [] };
  /** @type {string | null} a run that stands out */
  highlighted = null;
  /** @type {HTMLCanvasElement | undefined} where it is drawn */
  above;
  isOver = false;

  /** @param {HTMLElement} root @param {Model} model @param {Listener} listener */
  constructor(root, model, listener) {
    this.root = root;
    this.model = model;
    this.listener = listener;
    this.theme = themeOf(root);
    this.frame = new /** @type {any} */ (uPlot)(this.#options(), this.#data(), root);
    this.#listen(this.frame.over);
    this.resizing = new ResizeObserver(() => this.#fit());
    this.resizing.observe(root);
  }

  /** @param {Model} model */
  show(model) {
    this.model = model;
    this.frame.setData(this.#data());
  }

  /** Has a run stand out: it is drawn once more, above a veil over all others. @param {string | null} run */
  highlight(run) {
    this.highlighted = run;
    this.#paintAbove();
  }

  /** Draws again, after the theme has changed. */
  redraw() {
    this.theme = themeOf(this.root);
    this.frame.redraw(false, true);
  }

  end() {
    this.resizing.disconnect();
    this.frame.destroy();
  }

  // The frame needs to know no more than the corners: the curves are drawn by us.
  #data() {
    return [this.model.x, this.model.y];
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.root;
    if (width && height && (width !== this.frame.width || height !== this.frame.height)) this.frame.setSize({ width, height });
  }

  #options() {
    const { logX, logY, x } = this.model.settings;
    return {
      width: this.root.clientWidth || 300,
      height: this.root.clientHeight || 150,
      padding: [6, RIGHT_MARGIN, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: x === "time" && !logX, distr: logX ? 3 : 1, range: () => this.model.x },
        y: { distr: logY ? 3 : 1, range: () => this.model.y },
      },
      series: [{}, { paths: () => null, points: { show: false } }],
      axes: [
        this.#axis("x", logX, { size: X_AXIS_HEIGHT, ...(x === "relative" && !logX ? { incrs: DURATIONS } : {}) }),
        this.#axis("y", logY, { size: (_, labels) => Math.max(Y_AXIS_WIDTH, ...(labels ?? []).map((text) => text.length * LETTER_WIDTH + 14)) }),
      ],
      cursor: {
        x: true,
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false },
        sync: { key: `x:${x}`, scales: ["x", null] },
        bind: { mousedown: (_, __, act) => (event) => (event.shiftKey ? null : act(event)), dblclick: () => () => this.listener.zoom(null) },
      },
      hooks: {
        draw: [() => this.#paint()],
        setCursor: [() => this.#hover()],
        setSelect: [(frame) => this.#select(frame)],
      },
    };
  }

  #axis(name, isLog, more) {
    const isX = name === "x";
    return {
      stroke: () => this.theme.muted,
      font: AXIS_FONT,
      gap: 4,
      space: isX ? 70 : 32,
      grid: { stroke: () => this.theme.line, width: 1, show: !isX },
      ticks: { stroke: () => this.theme.line, width: 1, size: 4, show: isX },
      values: (_, splits, __, ___, step) => this.#labels(name, splits, isLog ? 0 : step),
      ...(isLog ? { splits: (_, __, low, high) => logTicks(low, high), filter: (_, splits) => splits } : {}),
      ...more,
    };
  }

  #labels(name, splits, step) {
    const axis = name === "x" ? this.model.settings.x : "";
    const [low, high] = this.model.x;
    const width = this.root.clientWidth - Y_AXIS_WIDTH - RIGHT_MARGIN;
    const room = (at) => (name === "y" ? Infinity : ((high - at) / (high - low)) * width + RIGHT_MARGIN);
    const labels = splits.map((at) => {
      const text = label(axis, at, step || Math.abs(at));
      return room(at) < (text.length * LETTER_WIDTH) / 2 ? "" : text;
    });
    this.ticks[name] = splits.map((at, index) => ({ at, text: labels[index] })).filter(({ text }) => text);
    return labels;
  }

  #paint() {
    paint(new CanvasPen(this.frame.ctx, uPlot.pxRatio), this.model, this.#box(), this.theme);
    this.#paintAbove();
  }

  #box() {
    const { left, top, width, height } = this.frame.bbox;
    return { left: left / uPlot.pxRatio, top: top / uPlot.pxRatio, width: width / uPlot.pxRatio, height: height / uPlot.pxRatio };
  }

  // On a canvas of its own: a line stands out at once, however many others there are.
  #paintAbove() {
    const { canvas } = this.frame.ctx;
    const curves = this.model.curves.filter(({ line }) => line.run === this.highlighted);
    if (curves.length && !this.above) canvas.after((this.above = document.createElement("canvas")));
    if (!this.above) return;
    Object.assign(this.above, { width: curves.length ? canvas.width : 0, height: curves.length ? canvas.height : 0, className: "above" });
    if (!curves.length) return;
    const pen = new CanvasPen(this.above.getContext("2d"), uPlot.pxRatio);
    const box = this.#box();
    const veil = pen.path();
    veil.rect(box.left, box.top, box.width, box.height);
    pen.inside(box, () => pen.fill(veil, { colour: this.theme.surface, alpha: VEIL }));
    paint(pen, { ...this.model, curves }, box, this.theme);
  }

  #hover() {
    const { left, idx } = this.frame.cursor;
    this.listener.hover(left < 0 || idx === null ? null : this.#cursor());
  }

  /** @returns {Hover} */
  #cursor() {
    const { cursor, over } = this.frame;
    const { left, top } = cursor;
    const { clientWidth: width, clientHeight: height, offsetLeft: offset } = over;
    return { x: this.frame.posToVal(left, "x"), left, top, width, height, offset, isOver: this.isOver };
  }

  #select(frame) {
    const { left, width } = frame.select;
    if (width < LEAST_DRAG) return;
    frame.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.listener.zoom([frame.posToVal(left, "x"), frame.posToVal(left + width, "x")]);
  }

  #listen(over) {
    over.addEventListener("mouseenter", () => (this.isOver = true));
    over.addEventListener("mouseleave", () => (this.isOver = false));
    over.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    let pressedAt = 0;
    over.addEventListener("pointerdown", (event) => {
      pressedAt = event.clientX;
      if (event.shiftKey) this.#pan(event);
    });
    over.addEventListener("click", (event) => Math.abs(event.clientX - pressedAt) < LEAST_DRAG && this.listener.pick(this.#cursor()));
  }

  // The page scrolls over a chart, unless it is the one in use.
  #wheel(event) {
    if (!event.ctrlKey && !this.root.closest(":focus-within")?.matches(".panel")) return;
    event.preventDefault();
    const { left } = this.frame.cursor;
    const share = event.deltaY > 0 ? WHEEL : 1 / WHEEL;
    const width = this.frame.over.clientWidth;
    this.#zoomTo(left - left * share, left + (width - left) * share);
  }

  #zoomTo(left, right) {
    this.listener.zoom([this.frame.posToVal(left, "x"), this.frame.posToVal(right, "x")]);
  }

  #pan(event) {
    const { over } = this.frame;
    let before = event.clientX;
    over.setPointerCapture(event.pointerId);
    const move = ({ clientX }) => {
      const by = before - clientX;
      before = clientX;
      this.#zoomTo(by, over.clientWidth + by);
    };
    over.addEventListener("pointermove", move);
    over.addEventListener("lostpointercapture", () => over.removeEventListener("pointermove", move), { once: true });
  }
}

function label(axis, at, step) {
  if (axis === "time") return clockTick(at, step);
  return axis === "relative" ? duration(at) : tick(at, step);
}

