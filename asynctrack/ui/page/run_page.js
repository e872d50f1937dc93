// Run page: one run.
import { source } from "./api.js";
import { html } from "./html.js";
import { Failure, Loading, Status, useLoaded } from "./parts.js";
import { route } from "./state.js";

export default function RunPage() {
  const { run } = route.value;
  const { data, error, reload } = useLoaded((abort) => source.json("run", { run }, abort), [run]);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!data) return html`<${Loading} what="Reading the run" />`;
  return html`<h1>${data.name} <${Status} status=${data.status} /></h1>
    <ul>${data.metrics.map((metric) => html`<li key=${metric.key}>${metric.key}: ${metric.last}</li>`)}</ul>`;
}
