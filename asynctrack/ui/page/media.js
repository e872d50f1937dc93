// Media: images, tables, histograms, pages and texts of a run, step by step.
import { html } from "./html.js";
import { Empty } from "./parts.js";

export function Media({ run }) {
  return html`<${Empty} title="No media" />`;
}
