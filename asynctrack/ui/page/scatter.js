// Scatter: each run as a point, between any two of its measures.
import { axisOf, spansDecades } from "./axes.js";
import { valueText } from "./cells.js";
import { css } from "./colours.js";
import { colours, highlighted, hovered, labels } from "./compared.js";
import { useWidth } from "./elements.js";
import { html, useMemo, useRef } from "./html.js";
import { MeasureChoice, chosenMeasure, configMeasures, resultMeasures } from "./measures.js";
import { href, param, update } from "./state.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./axes.js").Axis} Axis */

const HEIGHT = 460;
const MARGIN = { left: 80, right: 40, top: 32, bottom: 56 };
/** Points stay so far from the corners. */
const INSET = 14;
/** More points of one value would hide each other. */
const CROWDED = 24;
/** Of what a result is likely called that people look at first. */
const LIKELY = /best|acc|min\/.*loss/;

/** @param {{rows: Row[], stats: import("./measures.js").Stats}} props */
export function Scatter({ rows, stats }) {
  const room = useRef(null);
  const width = useWidth(room);
  const given = useMemo(() => configMeasures(rows), [rows]);
  const results = useMemo(() => resultMeasures(rows, stats), [rows, stats]);
  const all = [...given, ...results];
  const x = chosenMeasure(all, param("sx"));
  const y = chosenMeasure([...results, ...given], param("sy"), LIKELY);
  const [across, up] = [axisFor(x, rows, "lx"), axisFor(y, rows, "ly")];
  return html`<div class="line">
      <${MeasureChoice} label="x" name="sx" measures=${all} chosen=${x} /><${LogSwitch} axis=${across} name="lx" />
      <${MeasureChoice} label="y" name="sy" measures=${all} chosen=${y} /><${LogSwitch} axis=${up} name="ly" />
    </div>
    <figure class="scatter" ref=${room}>
      ${width > 0 && html`<${Points} rows=${rows} x=${x} y=${y} across=${across} up=${up} width=${width} />`}
    </figure>`;
}

/** An axis is logarithmic where that shows more, or as the view says. */
function axisFor(measure, rows, name) {
  const values = rows.map(measure.of);
  const asked = param(name);
  return axisOf(measure.title, values, asked === null ? spansDecades(values) : asked === "1");
}

function LogSwitch({ axis, name }) {
  return html`<button disabled=${axis.kind === "text"} aria-pressed=${axis.log} onClick=${() => update({ [name]: axis.log ? "0" : "1" })}>log</button>`;
}

function Points({ rows, x, y, across, up, width }) {
  const placeX = (at) => MARGIN.left + INSET + at * (width - MARGIN.left - MARGIN.right - 2 * INSET);
  const placeY = (at) => HEIGHT - MARGIN.bottom - INSET - at * (HEIGHT - MARGIN.top - MARGIN.bottom - 2 * INSET);
  const isCrowded = across.few && rows.length > CROWDED;
  const all = rows.map((row, index) => ({ row, px: across.at(x.of(row)), py: up.at(y.of(row)), aside: isCrowded ? asideOf(index) : 0 }));
  const points = all.filter(({ px, py }) => px !== undefined && py !== undefined);
  const above = points.find(({ row }) => row.run === highlighted.value);
  return html`<svg width=${width} height=${HEIGHT} role="group" aria-label=${`${y.title} by ${x.title}, ${points.length} runs`}>
    ${across.ticks.map(({ at, label }) => html`<g key=${`x${at}`}><line x1=${placeX(at)} x2=${placeX(at)} y1=${MARGIN.top} y2=${HEIGHT - MARGIN.bottom} />
      <text x=${placeX(at)} y=${HEIGHT - MARGIN.bottom + 16} text-anchor="middle">${valueText(label)}</text></g>`)}
    ${up.ticks.map(({ at, label }) => html`<g key=${`y${at}`}><line x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${placeY(at)} y2=${placeY(at)} />
      <text x=${MARGIN.left - 8} y=${placeY(at) + 4} text-anchor="end">${valueText(label)}</text></g>`)}
    <text class="title" x=${width - MARGIN.right} y=${HEIGHT - 8} text-anchor="end">${x.title}</text>
    <text class="title" x="8" y="12">${y.title}</text>
    ${[...points.filter((point) => point !== above), ...(above ? [above] : [])].map(({ row, px, py, aside }) => html`<a key=${row.run} href=${href("run", row.run)}
      onMouseEnter=${() => (hovered.value = row.run)} onMouseLeave=${leave} onFocus=${() => (hovered.value = row.run)} onBlur=${leave}>
      <circle cx=${placeX(px) + aside} cy=${placeY(py)} r=${row.run === highlighted.value ? 8 : 5} style=${{ fill: css(colours.value.get(row.run)) }}>
        <title>${`${labels.value.get(row.run)}\n${x.title}: ${valueText(x.of(row))}\n${y.title}: ${valueText(y.of(row))}`}</title>
      </circle>
    </a>`)}
    ${above && html`<text class="label" x=${placeX(above.px) + above.aside} y=${placeY(above.py) - 12} text-anchor=${anchorOf(above.px)}>
      ${`${labels.value.get(above.row.run)}: ${valueText(y.of(above.row))}`}
    </text>`}
  </svg>
  <figcaption class="muted" hidden=${points.length === rows.length}>
    No place here: ${rows.length - points.length} of ${rows.length} runs, which lack a value, or whose value is not finite.
  </figcaption>`;
}

const anchorOf = (place) => (place > 0.6 ? "end" : place < 0.2 ? "start" : "middle");

/** Pixels to the side, so that points of one value do not hide each other; the same each time. @param {number} index */
const asideOf = (index) => ((index * 7) % 13) - 6;

const leave = () => (hovered.value = null);
