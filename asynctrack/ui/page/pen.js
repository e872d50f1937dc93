// Pen: one way to draw on a canvas and into an SVG file, so that what is exported is what was seen.

/** @typedef {{colour: string, width?: number, dash?: number[], alpha?: number}} Ink */
/** @typedef {{colour: string, size: number, align?: "left" | "center" | "right", bold?: boolean}} TextStyle */

/** Traces straight lines, each through its points. @param {CanvasPen | SvgPen} pen @param {[x: number, y: number][][]} lines */
export function traced(pen, ...lines) {
  const path = pen.path();
  for (const [[left, top], ...rest] of lines) {
    path.moveTo(left, top);
    for (const [x, y] of rest) path.lineTo(x, y);
  }
  return path;
}

/**
 * Empties a canvas, and has it take pixels of the page.
 * @param {HTMLCanvasElement} canvas @param {number} width @param {number} height
 */
export function emptied(canvas, width, height) {
  const dots = devicePixelRatio || 1;
  Object.assign(canvas, { width: width * dots, height: height * dots });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(dots, dots);
  return context;
}

/** Draws on a canvas. */
export class CanvasPen {
  /** @param {CanvasRenderingContext2D} context @param {number} scale pixels of the canvas for one of the picture */
  constructor(context, scale = 1) {
    this.context = context;
    this.scale = scale;
  }

  path() {
    return new Path2D();
  }

  /** Has `draw` draw inside a box only, in the box's own pixels. */
  inside(box, draw) {
    const { context, scale } = this;
    context.save();
    context.scale(scale, scale);
    context.beginPath();
    context.rect(box.left, box.top, box.width, box.height);
    context.clip();
    draw();
    context.restore();
  }

  /** @param {any} path of this pen @param {Ink} ink */
  stroke(path, { colour, width = 1, dash = [], alpha = 1 }) {
    Object.assign(this.context, { strokeStyle: colour, lineWidth: width, globalAlpha: alpha, lineJoin: "round" });
    this.context.setLineDash(dash);
    this.context.stroke(path);
  }

  /** @param {any} path of this pen @param {Ink} ink */
  fill(path, { colour, alpha = 1 }) {
    Object.assign(this.context, { fillStyle: colour, globalAlpha: alpha });
    this.context.fill(path);
  }

  /** @param {string} text @param {number} x @param {number} y @param {TextStyle} style */
  text(text, x, y, { colour, size, align = "left", bold = false }) {
    Object.assign(this.context, { fillStyle: colour, globalAlpha: 1, textAlign: align, font: `${bold ? "600 " : ""}${size}px ${FONT}` });
    this.context.fillText(text, x, y);
  }
}

const FONT = "system-ui, sans-serif";
const ANCHORS = { left: "start", center: "middle", right: "end" };

/** The commands of a path, as SVG writes them. */
class SvgPath {
  commands = [];

  moveTo(x, y) {
    this.commands.push(`M${rounded(x)} ${rounded(y)}`);
  }

  lineTo(x, y) {
    this.commands.push(`L${rounded(x)} ${rounded(y)}`);
  }

  rect(x, y, width, height) {
    this.commands.push(`M${rounded(x)} ${rounded(y)}h${rounded(width)}v${rounded(height)}h${rounded(-width)}Z`);
  }

  closePath() {
    this.commands.push("Z");
  }
}

const rounded = (value) => Math.round(value * 100) / 100;

/** Draws into the text of an SVG file. */
export class SvgPen {
  parts = [];
  clips = 0;

  path() {
    return new SvgPath();
  }

  inside({ left, top, width, height }, draw) {
    const id = `inside${this.clips++}`;
    this.parts.push(`<clipPath id="${id}"><rect x="${left}" y="${top}" width="${width}" height="${height}"/></clipPath>`);
    this.parts.push(`<g clip-path="url(#${id})">`);
    draw();
    this.parts.push("</g>");
  }

  stroke(path, { colour, width = 1, dash = [], alpha = 1 }) {
    const dashes = dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : "";
    this.#add(path, `fill="none" stroke="${colour}" stroke-width="${width}" stroke-opacity="${alpha}" stroke-linejoin="round"${dashes}`);
  }

  fill(path, { colour, alpha = 1 }) {
    this.#add(path, `fill="${colour}" fill-opacity="${alpha}"`);
  }

  text(text, x, y, { colour, size, align = "left", bold = false }) {
    const weight = bold ? ' font-weight="600"' : "";
    const attributes = `fill="${colour}" font-size="${size}" text-anchor="${ANCHORS[align]}"${weight}`;
    this.parts.push(`<text x="${rounded(x)}" y="${rounded(y)}" ${attributes}>${escaped(text)}</text>`);
  }

  #add(path, attributes) {
    if (path.commands.length) this.parts.push(`<path d="${path.commands.join("")}" ${attributes}/>`);
  }

  /** @param {number} width @param {number} height @returns {string} the file */
  file(width, height) {
    const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="${FONT}">${this.parts.join("\n")}</svg>\n`;
  }
}

function escaped(text) {
  return text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd").replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);
}
