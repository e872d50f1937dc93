// Compare page: several runs beside each other.
import { html } from "./html.js";
import { Empty } from "./parts.js";
import { href, paramList } from "./state.js";

export default function ComparePage() {
  const runs = paramList("run");
  if (!runs.length) return html`<${Empty} title="Choose runs to compare"><a href=${href("runs")}>All runs</a><//>`;
  return html`<ul>${runs.map((run) => html`<li key=${run}><a href=${href("run", run)}>${run}</a></li>`)}</ul>`;
}
