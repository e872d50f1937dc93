// Embedded: the data of an exported file in place of a server: it answers the same questions with what is there. `ui/html_export.py` writes it.
import { groupOf } from "./embedded_groups.js";
import { flattened } from "./nested.js";
import { columnBytes, decodeBlock, headerEnd, headerOf } from "./wire.js";

/**
 * A run in the file. Each number is a line of the run's part.
 * @typedef {object} EmbeddedRun
 * @property {any} row as `api/runs` lists it
 * @property {number | null} origin seconds since the epoch at which it begins
 * @property {number} document
 * @property {Record<"step" | "time", [string, number][]>} curves
 * @property {[string, number][]} media
 * @property {[string, string, number][]} files hash, type and line
 */

/** @typedef {import("./wire.js").Block} Block */

const index = JSON.parse(document.getElementById("asynctrack-index").textContent);
const runs = new Map(index.runs.map((/** @type {EmbeddedRun} */ run, at) => [run.row.run, { ...run, at, lines: undefined }]));

/** @param {any} value @returns {any[]} */
const listOf = (value) => (value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]);

async function refusal(message, status = 404) {
  const { ApiError } = await import("./api.js");
  return new ApiError(message, status);
}

async function runOf(name) {
  const run = runs.get(name);
  if (!run) throw await refusal("This file does not have that run.");
  return run;
}

function lineOf(run, line) {
  run.lines ??= document.getElementById(`asynctrack-part-${run.at}`).textContent.split("\n");
  return run.lines[line];
}

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function unpacked(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const unpackedJson = async (text) => JSON.parse(new TextDecoder().decode(await unpacked(text)));

/** Brings the bytes of each number together again. @param {Uint8Array} packed @returns {Block} */
function unpackedBlock(packed) {
  const bytes = packed.slice();
  let at = headerEnd(packed);
  const { rows, columns } = headerOf(packed, at);
  for (const [, type] of columns) {
    const [size, width] = [columnBytes(type, rows), Number(type[1])];
    const count = size / width;
    for (let byte = 0; byte < width; byte++)
      for (let row = 0; row < count; row++) bytes[at + row * width + byte] = packed[at + byte * count + row];
    at += size;
  }
  return decodeBlock(bytes);
}

/** Returns a whole curve by step, time or relative time; undefined where the run has none. @returns {Promise<Block | undefined>} */
async function curveOf(run, key, axis) {
  const line = run.curves[axis === "relative" ? "time" : axis].find(([name]) => name === key)?.[1];
  if (line === undefined) return undefined;
  const found = unpackedBlock(await unpacked(lineOf(run, line)));
  if (axis !== "relative") return found;
  const shifted = found.columns.x.map((x) => x - run.origin);
  const range = found.x_range && /** @type {[number, number]} */ (found.x_range.map((x) => x - run.origin));
  return { ...found, axis, x_range: range, columns: { ...found.columns, x: shifted } };
}

/** Returns a curve by another metric: where both have all their numbers in the file, those of one step belong together. */
async function curveAgainst(run, key, axis) {
  const [over, found] = await Promise.all([curveOf(run, axis, "step"), curveOf(run, key, "step")]);
  if (!over || !found) return undefined;
  if (!over.exact || !found.exact)
    throw await refusal(`An exported file has no curve by ${axis}: ${key} has too many numbers. \`asynctrack ui\` shows it.`);
  const places = new Map(Array.from(over.columns.x, (step, at) => [step, over.columns.mean[at]]));
  const rows = Array.from(found.columns.x, (step, at) => [places.get(step), found.columns.mean[at]]);
  const known = rows.filter(([x]) => x !== undefined && !Number.isNaN(x)).sort(([one], [other]) => one - other);
  const columns = { x: Float64Array.from(known, ([x]) => x), mean: Float64Array.from(known, ([, y]) => y) };
  const range = known.length ? [columns.x[0], columns.x[known.length - 1]] : null;
  return { ...found, axis, rows: known.length, x_range: range, columns };
}

/** Returns the part of a curve in a window, with one row on each side of it. @param {Block} curve @returns {Block} */
function within(curve, x0, x1) {
  const { x } = curve.columns;
  let [first, end] = [0, curve.rows];
  if (x0 !== undefined) while (first + 1 < end && x[first + 1] < x0) first++;
  if (x1 !== undefined) while (end - 2 >= first && x[end - 2] > x1) end--;
  const columns = Object.fromEntries(Object.entries(curve.columns).map(([name, column]) => [name, column.slice(first, end)]));
  return { ...curve, rows: end - first, columns };
}

/** Sums neighbours up until there are few enough. @param {Block} curve @param {number} most @returns {Block} */
function summedUp(curve, most) {
  const each = Math.ceil(curve.rows / most);
  if (each < 2) return curve;
  const rows = Math.ceil(curve.rows / each);
  const { x, mean, min = mean, max = mean, last = mean, not_finite } = curve.columns;
  const columns = Object.fromEntries(["x", "min", "max", "mean", "last"].map((name) => [name, new Float64Array(rows).fill(NaN)]));
  if (not_finite) columns.not_finite = Uint32Array.from(columns.x, (_, row) => total(not_finite.subarray(row * each, (row + 1) * each)));
  for (let row = 0; row < rows; row++) {
    const [first, end] = [row * each, Math.min(curve.rows, (row + 1) * each)];
    const places = Array.from({ length: end - first }, (_, nth) => first + nth).filter((at) => !Number.isNaN(mean[at]));
    columns.x[row] = (x[first] + x[end - 1]) / 2;
    if (!places.length) continue;
    columns.min[row] = Math.min(...places.map((at) => min[at]));
    columns.max[row] = Math.max(...places.map((at) => max[at]));
    columns.mean[row] = total(places.map((at) => mean[at])) / places.length;
    columns.last[row] = last[places.at(-1)];
  }
  return { ...curve, exact: false, rows, columns };
}

const total = (numbers) => numbers.reduce((sum, one) => sum + one, 0);

const numberOf = (value) => (value === undefined || value === null || value === "" ? undefined : Number(value));

async function* curves({ run, key, x = "step", x0, x1, buckets = 300, history = "last" }) {
  if (history === "all") throw await refusal("An exported file has nothing of what was logged again after a resume.");
  const window = [numberOf(x0), numberOf(x1)];
  for (const name of listOf(run)) {
    const found = await runOf(name);
    for (const metric of listOf(key)) {
      const curve = await (Object.hasOwn(found.curves, x) || x === "relative" ? curveOf(found, metric, x) : curveAgainst(found, metric, x));
      if (!curve) continue;
      const part = within(curve, window[0], window[1]);
      yield curve.exact ? part : summedUp(part, Number(buckets));
    }
  }
}

async function* sparklines({ run, key }) {
  for (const name of listOf(run)) {
    const found = runs.get(name);
    const [metric] = listOf(key).length ? listOf(key) : (found?.curves.step[0] ?? []);
    const curve = found && metric !== undefined && (await curveOf(found, metric, "step"));
    if (curve) yield summedUp(curve, 40);
  }
}

async function* groups({ run, key, x = "step", x0, x1, buckets = 300 }) {
  for (const metric of listOf(key)) {
    const found = [];
    for await (const curve of curves({ run, key: metric, x, buckets: Infinity })) found.push(curve);
    yield groupOf(metric, x, found, numberOf(x0), numberOf(x1), Number(buckets));
  }
}

/** Returns what differs of several, each a map. @param {Map<string, any>[]} all */
function differing(all) {
  const names = [...new Set(all.flatMap((values) => [...values.keys()]))];
  const found = names.map((name) => [name, all.map((values) => values.get(name) ?? null)]);
  return Object.fromEntries(found.filter(([, values]) => new Set(values.map((value) => JSON.stringify(value))).size > 1));
}

const documentOf = async (name) => {
  const run = await runOf(name);
  return unpackedJson(lineOf(run, run.document));
};

// Fields of an environment that are of its file, and no property of the run.
const OF_THE_FILE = ["version", "collected_at", "opened_at"];

async function compare({ run }) {
  const documents = await Promise.all(listOf(run).map(documentOf));
  const rooms = ["config", "summary", "environment"];
  const found = Object.fromEntries(rooms.map((room) => [room, differing(documents.map((one) => new Map(flattened(one[room] ?? {}))))]));
  for (const name of OF_THE_FILE) delete found.environment[name];
  return found;
}

async function metrics({ run }) {
  const names = listOf(run);
  const documents = await Promise.all(names.map(documentOf));
  return { runs: Object.fromEntries(names.map((name, at) => [name, documents[at].metrics])) };
}

async function media({ run, key, from = 0, n = 100 }) {
  const found = await runOf(run);
  const line = found.media.find(([name]) => name === key)?.[1];
  if (line === undefined) return { items: [], count: 0 };
  const { items, count } = await unpackedJson(lineOf(found, line));
  return { items: items.slice(Number(from), Number(from) + Number(n)), count };
}

const JSON_ANSWERS = {
  runs: async () => ({ version: 1, reset: true, runs: [...runs.values()].map((run) => run.row), removed: [], directory: "", asynctrack: index.asynctrack }),
  run: ({ run }) => documentOf(run),
  compare,
  metrics,
  media,
  select: async () => {
    throw await refusal("An exported file has no expressions. Filter by plain words, or run `asynctrack ui`.", 400);
  },
};
const BLOCK_ANSWERS = { curves, sparklines, groups };

/** Returns the file of a medium; undefined where it is not in this file. @returns {{type: string, text: string} | undefined} */
function fileOf({ run, sha256 }) {
  const found = runs.get(run);
  const [, type, line] = found?.files.find(([hash]) => hash === sha256) ?? [];
  return line === undefined ? undefined : { type, text: lineOf(found, line) };
}

const urls = new Map();

function urlOf(path, query = {}) {
  const file = path === "media/file" ? fileOf(query) : undefined;
  if (!file) return null;
  const id = `${query.run}\n${query.sha256}`;
  if (!urls.has(id)) urls.set(id, URL.createObjectURL(new Blob([bytesOf(file.text)], { type: file.type })));
  return urls.get(id);
}

async function textOf(path, query = {}) {
  const file = path === "media/file" ? fileOf(query) : undefined;
  if (!file) throw await refusal("An exported file has no logs and no changes of code.");
  return new TextDecoder().decode(bytesOf(file.text));
}

/** @type {import("./api.js").Source} */
globalThis.asynctrackData = {
  isLive: false,
  note: index.note,
  start: index.start,
  json: async (path, query = {}) => {
    if (!JSON_ANSWERS[path]) throw await refusal("An exported file does not have this.");
    return JSON_ANSWERS[path](query);
  },
  text: textOf,
  async *blocks(path, query = {}) {
    yield* BLOCK_ANSWERS[path](query);
  },
  url: urlOf,
  watch: () => () => {},
};
