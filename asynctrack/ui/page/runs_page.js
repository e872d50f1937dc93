// Runs page: all runs, each with a link to its page.
import { source } from "./api.js";
import { html } from "./html.js";
import { Empty, Failure, Loading, Status, useLoaded } from "./parts.js";
import { href } from "./state.js";

export default function RunsPage() {
  const { data, error, reload } = useLoaded((abort) => source.json("runs", {}, abort), []);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!data) return html`<${Loading} what="Reading runs" />`;
  if (!data.runs.length) return html`<${Empty} title="There are no runs yet" />`;
  return html`<ul>
    ${data.runs.map((row) => html`<li key=${row.run}><a href=${href("run", row.run)}>${row.run}</a> <${Status} status=${row.status} /></li>`)}
  </ul>`;
}
