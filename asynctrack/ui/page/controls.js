// Controls: the bar above charts: filter, axes, smoothing, outliers and zoom; and their keys.
import { html, useRef } from "./html.js";
import { useKeys } from "./keys.js";
import { AXES, setAxis, settingsOf, toggleLog, WIDTHS } from "./settings.js";
import { param, update } from "./state.js";

const SESSIONS = "Show what was logged again after a resume, too";

/** @param {{metrics: string[], isResumed?: boolean, children?: any}} props metrics: what can be an x axis */
export function Controls({ metrics, isResumed = false, children = null }) {
  const filter = useRef(null);
  const { x, logX, logY, smoothing, byWindow, all } = settingsOf();
  const zoom = param("zoom");
  const isAll = param("history") === "all";
  const toggleOutliers = () => update({ o: all ? null : "1" });
  useKeys({
    "/": ["filter metrics", () => filter.current.focus()],
    t: ["x axis: step, time, relative time", () => setAxis(AXES[(AXES.indexOf(x) + 1) % AXES.length])],
    l: ["logarithmic y axis", () => toggleLog("y")],
    s: ["smoothing", () => update({ s: WIDTHS.find((width) => width > smoothing + 1e-9) ?? null })],
    o: ["scale on all values, outliers too", toggleOutliers],
    z: ["zoom out", () => update({ zoom: null })],
  });
  return html`<div class="controls" role="toolbar" aria-label="Charts">
    <input ref=${filter} type="search" placeholder="Filter metrics  /" aria-label="Filter metrics" value=${param("q") ?? ""}
      onInput=${(event) => update({ q: event.target.value })} onKeyDown=${({ key, target }) => (key === "Escape" || key === "Enter") && target.blur()} />
    <label>x <${AxisChoice} value=${x} metrics=${metrics} onChoose=${setAxis} /></label>
    <span class="together">
      <${Toggle} isOn=${logX} onToggle=${() => toggleLog("x")} title="Logarithmic x axis">log x<//>
      <${Toggle} isOn=${logY} onToggle=${() => toggleLog("y")} title="Logarithmic y axis (l)">log y<//>
    </span>
    <label title="How much of the x axis smooths a value (s). The band stays as it is.">
      smooth
      <input type="range" min="0" max="0.3" step="0.005" value=${smoothing} aria-label="Smoothing, as a share of the x axis"
        onInput=${(event) => update({ s: Number(event.target.value) || null })} />
      <output class="number">${smoothing ? `${Number((smoothing * 100).toFixed(1))} %` : "off"}</output>
    </label>
    <select aria-label="How to smooth" hidden=${!smoothing} value=${byWindow ? "window" : ""}
      onChange=${(event) => update({ how: event.target.value })}>
      <option value="">exponential</option>
      <option value="window">window mean</option>
    </select>
    <${Toggle} isOn=${all} onToggle=${toggleOutliers} title="Scale on all values, outliers too (o)">outliers<//>
    ${isResumed && html`<${Toggle} isOn=${isAll} onToggle=${() => update({ history: isAll ? null : "all" })} title=${SESSIONS}>all sessions<//>`}
    <button disabled=${!zoom} onClick=${() => update({ zoom: null })} title="Zoom out (z)">zoom out</button>
    ${children}
  </div>`;
}

function Toggle({ isOn, onToggle, title, children }) {
  return html`<button aria-pressed=${isOn ? "true" : "false"} onClick=${onToggle} title=${title}>${children}</button>`;
}

/** A choice of what is the x axis. @param {{value: string, metrics: string[], onChoose: (axis: string) => void, label?: string}} props */
export function AxisChoice({ value, metrics, onChoose, label = "x axis" }) {
  return html`<select aria-label=${label} value=${value} onChange=${(event) => onChoose(event.target.value)}>
    ${AXES.map((axis) => html`<option value=${axis}>${axis}</option>`)}
    <optgroup label="metrics">
      ${metrics.map((metric) => html`<option value=${metric}>${metric}</option>`)}
    </optgroup>
  </select>`;
}
