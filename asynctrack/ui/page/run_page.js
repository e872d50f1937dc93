// Run page: one run: its charts, and beside them all else that is known of it.
import { source } from "./api.js";
import { PALETTE } from "./colours.js";
import { tookOf } from "./columns.js";
import { Controls } from "./controls.js";
import { age, bytes, dateTime, duration, number } from "./format.js";
import { html, useMemo, useRef } from "./html.js";
import { Media } from "./media.js";
import { Panels, panelsOf } from "./panels.js";
import { Empty, Failure, Loading, Status, Tabs, useLoaded } from "./parts.js";
import { Backends, Config, Environment, Log, Summary, Writers } from "./run_details.js";
import { useNews } from "./run_news.js";
import { param, route, update } from "./state.js";

/** What `api/run` answers. @typedef {Record<string, any>} RunDocument */

// Without what every object has: a name comes from the address.
const TABS = {
  __proto__: null,
  charts: ["Charts", Charts],
  config: ["Config", Config],
  summary: ["Summary", Summary],
  environment: ["Environment", Environment],
  backends: ["Backends", Backends],
  writers: ["Writers", Writers],
  media: ["Media", Media],
  log: ["Log", Log],
};

export default function RunPage() {
  const { run } = route.value;
  const known = useRef(/** @type {RunDocument | undefined} */ (undefined));
  const { curves, document, told } = useNews(run, known);
  const { data, error, reload } = useLoaded((abort) => source.json("run", { run }, abort), [run, document]);
  known.current = data;
  if (!data || data.run !== run) return error ? html`<${Failure} error=${error} retry=${reload} />` : html`<${Loading} what="Reading the run" />`;
  const tab = TABS[param("tab")] ? param("tab") : "charts";
  const [, Shown] = TABS[tab];
  return html`<${RunHead} run=${{ ...data, ...told }} />
    <${Tabs} tabs=${tabsOf(data)} value=${tab} label="Parts of the run" onChoose=${(name) => update({ tab: name === "charts" ? null : name })} />
    <div role="tabpanel" aria-label=${TABS[tab][0]}><${Shown} run=${data} version=${curves} /></div>`;
}

function tabsOf(run) {
  const counts = {
    charts: run.metrics.length,
    backends: Object.values(run.backends ?? {}).filter((backend) => backend.rejected || backend.last_error).length || null,
    media: run.media?.length || null,
  };
  return Object.entries(TABS).map(([name, [title]]) => ({ name, title, count: counts[name], isBad: name === "backends" }));
}

function RunHead({ run }) {
  const facts = [
    run.project,
    run.created_at && html`<time dateTime=${run.created_at} title=${dateTime(run.created_at)}>${age(run.created_at)} ago</time>`,
    run.ended_at && `took ${duration(tookOf(run))}`,
    run.records !== undefined && `${number(run.records)} ${run.records === 1 ? "record" : "records"}`,
    run.status === "running" && run.records_per_s && `${number(run.records_per_s, 3)}/s`,
    run.step !== undefined && run.step !== null && `step ${number(run.step)}`,
    run.bytes && bytes(run.bytes),
    run.group && `group ${run.group}`,
  ];
  return html`<div class="run-head">
      <h1 title=${run.run}>${run.name || run.id}</h1>
      <${Status} status=${run.status} />
      ${(run.tags ?? []).map((tag) => html`<span class="tag">${tag}</span>`)}
      <span class="facts number">${facts.filter(Boolean).map((fact) => html`<span>${fact}</span>`)}</span>
    </div>
    ${run.notes && html`<p class="run-notes">${run.notes}</p>`}
    <${Trouble} run=${run} />`;
}

/** What went wrong, before anything else. */
function Trouble({ run }) {
  const damage = [...new Set([run.problem, ...(run.damage ?? [])])].filter(Boolean);
  return html`${run.error && html`<details class="trouble" open>
      <summary>${run.error}</summary>
      ${run.traceback && html`<pre>${run.traceback}</pre>`}
    </details>`}
    ${damage.length > 0 && html`<details class="trouble" open=${!run.metrics.length}>
      <summary>Part of this run cannot be read</summary>
      <pre>${damage.join("\n")}</pre>
    </details>`}`;
}

function Charts({ run, version }) {
  const id = run.metrics.map(({ key }) => key).join("\n");
  const keys = useMemo(() => run.metrics.map(({ key }) => key), [id]);
  const linesOf = useMemo(() => linesByPrefix(run.run, keys), [run.run, keys]);
  const marksOn = useMemo(() => marksOf(run), [run.run, run.checkpoints?.at(-1)?.time, run.sessions?.length]);
  if (!keys.length) return html`<${NoNumbers} run=${run} />`;
  return html`<${Controls} metrics=${keys} isResumed=${(run.sessions?.length ?? 0) > 1} />
    <${Panels} keys=${keys} linesOf=${linesOf} marksOn=${marksOn} version=${version} />`;
}

function NoNumbers({ run }) {
  if (run.problem || run.damage?.length) return html`<${Empty} title="No numbers can be read" />`;
  return html`<${Empty} title="No numbers were logged">${run.ended_at ? "" : html`<p class="muted">Charts come as soon as the run logs a number.</p>`}<//>`;
}

/** Gives each prefix a colour that it has in all panels, if there are colours enough. */
function linesByPrefix(run, keys) {
  const prefix = (key) => key.slice(0, Math.max(0, key.lastIndexOf("/")));
  const shared = panelsOf(keys).filter((panel) => panel.keys.length > 1);
  const prefixes = [...new Set(shared.flatMap((panel) => panel.keys.map(prefix)))];
  const isEnough = prefixes.length <= PALETTE.length;
  return (panel) =>
    panel.keys.map((key, at) => {
      const colour = isEnough && panel.keys.length > 1 ? prefixes.indexOf(prefix(key)) : at;
      return { run, key, label: key, colour: PALETTE[colour % PALETTE.length] };
    });
}

/** Where the run was kept and taken up again, on an axis. */
function marksOf({ checkpoints = [], sessions = [] }) {
  const begin_s = sessions[0]?.time;
  const kept = checkpoints.map(({ counters = {}, ...at }) => ({ ...at, title: `checkpoint ${inWords(counters)}`, kind: "checkpoint" }));
  const all = [...kept, ...sessions.slice(1).map((at) => ({ ...at, title: "resumed", kind: "resume" }))];
  const place = { step: ({ step }) => step, time: ({ time }) => time, relative: ({ time }) => time - begin_s };
  const on = (axis) => all.map((mark) => ({ ...mark, x: place[axis](mark) })).filter(({ x }) => Number.isFinite(x));
  const found = Object.fromEntries(Object.keys(place).map((axis) => [axis, on(axis)]));
  return (axis) => (Object.hasOwn(found, axis) ? found[axis] : NO_MARKS);
}

const inWords = (counters) => Object.entries(counters).map(([name, count]) => `${name} ${count}`).join(", ");

const NO_MARKS = [];
