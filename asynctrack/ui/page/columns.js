// Columns: what the table of runs may show, which of it differs between the runs, and in which order rows come.

/**
 * A run as `api/runs` lists it.
 * @typedef {{run: string, project: string, id: string, name: string, status: string, created_at: string, ended_at?: string,
 *   records?: number, records_per_s?: number, step?: number, last?: Object<string, any>, tags?: string[], group?: string,
 *   job_type?: string, notes?: string, config?: Object<string, any>, summary?: Object<string, any>, error?: string,
 *   problem?: string, behind?: Object<string, ?string>, bytes?: number}} Row
 *
 * @typedef {{id: string, room: "run" | "config" | "summary" | "last", key: string, differs: boolean, numeric: boolean, width: number}} Column
 */

/** What each run has by itself: its key, the pixels it takes, and whether it is a number. */
const OF_RUNS = /** @type {[string, number, boolean][]} */ ([
  ["status", 104, false], ["name", 240, false], ["curve", 132, false], ["age", 62, true], ["records_per_s", 82, true],
  ["step", 82, true], ["tags", 140, false], ["project", 110, false], ["id", 130, false], ["group", 100, false],
  ["job_type", 100, false], ["records", 90, true], ["duration", 80, true], ["bytes", 84, true], ["problem", 260, false],
  ["notes", 220, false],
]);
const ALWAYS_SHOWN = ["status", "name", "curve", "age", "records_per_s", "step"];
const TITLES = { records_per_s: "rate", bytes: "size", job_type: "job type" };
/** How many keys of each room are shown before anybody has chosen. Arbitrary: as many as fit twice on a screen. */
const SHOWN = { config: 10, summary: 6, last: 8 };
const ROOMS = /** @type {("config" | "summary" | "last")[]} */ (["config", "summary", "last"]);
const PIXELS_A_LETTER = 8;

/** @param {Column} column */
export const titleOf = (column) => (column.room === "run" ? (TITLES[column.key] ?? column.key) : column.key);

/** Splits a title into what stands small above it, and its last part. @param {Column} column @returns {[string, string]} */
export function titleParts(column) {
  const title = titleOf(column);
  const end = column.room === "run" ? -1 : title.lastIndexOf("/", title.length - 2);
  return [title.slice(0, end + 1), title.slice(end + 1)];
}

/** Returns the value of a row in a column; undefined where it has none. @param {Column} column @param {Row} row */
export function valueOf(column, row) {
  if (column.room !== "run") return Object.hasOwn(row[column.room] ?? {}, column.key) ? row[column.room][column.key] : undefined;
  if (column.key === "age") return ageOf(row);
  if (column.key === "duration") return tookOf(row) ?? (row.status === "running" ? ageOf(row) : undefined);
  if (column.key === "problem") return problemOf(row);
  return row[column.key];
}

/** @param {Row} row */
export const problemOf = (row) => row.problem ?? row.error ?? behindOf(row);

/** @param {Row} row */
function behindOf(row) {
  const behind = Object.entries(row.behind ?? {});
  if (behind.length) return behind.map(([backend, error]) => `${backend} is behind${error ? `: ${error}` : ""}`).join("; ");
}

/** @param {Row} row */
const ageOf = (row) => (Date.now() - Date.parse(row.created_at)) / 1000 || undefined;

/** How many seconds a run took; undefined while it goes on. @param {{created_at: string, ended_at?: string}} run */
export const tookOf = (run) => (run.ended_at ? (Date.parse(run.ended_at) - Date.parse(run.created_at)) / 1000 : undefined);

/**
 * Returns every column that these rows have: those of all runs, then config, summary and metrics, what differs first in each.
 * @param {Row[]} rows
 * @returns {Column[]}
 */
export function columnsOf(rows) {
  const columns = OF_RUNS.map(([key, width, numeric]) => ({
    id: key, room: /** @type {"run"} */ ("run"), key, numeric, width, differs: differsOfRuns(key, rows),
  }));
  return [...columns, ...ROOMS.flatMap((room) => keysOf(room, rows))];
}

/** @param {string} key @param {Row[]} rows */
function differsOfRuns(key, rows) {
  if (ALWAYS_SHOWN.includes(key)) return true;
  if (key === "project") return rows.some((row) => row.project !== rows[0].project);
  if (key === "tags") return rows.some((row) => row.tags?.length);
  return key === "group" || key === "job_type" ? rows.some((row) => row[key] !== rows[0][key]) : false;
}

/**
 * Returns the keys of one room as columns. What some rows lack differs.
 * @param {"config" | "summary" | "last"} room
 * @param {Row[]} rows
 * @returns {Column[]}
 */
function keysOf(room, rows) {
  const seen = new Map();
  let having = 0;
  for (const row of rows) {
    const values = row[room];
    if (!values) continue;
    having++;
    for (const key in values) note(seen, key, values[key]);
  }
  const columns = [...seen].map(([key, found]) => ({
    id: `${room}/${key}`, room, key, numeric: found.numeric, differs: found.differs || found.count < having,
    width: widthFor(key, found.letters),
  }));
  return [...columns.filter((column) => column.differs), ...columns.filter((column) => !column.differs)];
}

/** @param {string} key @param {number} letters of the longest value */
function widthFor(key, letters) {
  const last = key.length - 1 - key.lastIndexOf("/", key.length - 2);
  return Math.min(220, Math.max(72, Math.max(last + 2, letters) * PIXELS_A_LETTER + 18));
}

/** Notes a value of a key: whether it is as the first was, how many there are, and how long they are. */
function note(seen, key, value) {
  let found = seen.get(key);
  if (!found) seen.set(key, (found = { first: value, differs: false, count: 0, numeric: true, letters: 0 }));
  found.count++;
  found.differs ||= !isSame(found.first, value);
  found.numeric &&= value === null || asNumber(value) !== undefined;
  found.letters = Math.max(found.letters, typeof value === "number" ? 6 : Math.min(30, String(value).length));
}

/** Returns true for values that people take for the same; lists are compared by what they hold. */
const isSame = (one, other) =>
  one === other || (typeof one === "object" && typeof other === "object" && JSON.stringify(one) === JSON.stringify(other));

/**
 * Returns the columns to show: those that were chosen, else those that differ. Name and pinned ones come first.
 * @param {Column[]} columns all of them
 * @param {string[]} chosen ids; empty where nobody has chosen
 * @param {string[]} pinned ids
 */
export function shownColumns(columns, chosen, pinned) {
  const byId = new Map(columns.map((column) => [column.id, column]));
  const shown = chosen.length ? chosen.flatMap((id) => byId.get(id) ?? []) : byDefault(columns);
  const name = /** @type {Column} */ (byId.get("name"));
  const first = [name, ...pinned.flatMap((id) => byId.get(id) ?? []).filter((column) => column !== name)];
  return [...first, ...shown.filter((column) => !first.includes(column))];
}

/** @param {Column[]} columns */
function byDefault(columns) {
  const left = { ...SHOWN };
  return columns.filter((column) => column.differs && (column.room === "run" || left[column.room]-- > 0));
}

/**
 * Returns rows in the order of a column; the newest first without one. Rows without a value come last either way.
 * @param {Row[]} rows
 * @param {Column | undefined} column
 * @param {boolean} descending
 */
export function sorted(rows, column, descending) {
  if (!column) return rows.toSorted((one, other) => compare(other.created_at, one.created_at) || compare(one.run, other.run));
  const keyed = rows.map((row) => ({ row, value: orderValue(valueOf(column, row)) }));
  const sign = descending ? -1 : 1;
  keyed.sort((one, other) => {
    if (one.value === undefined || other.value === undefined) return Number(one.value === undefined) - Number(other.value === undefined);
    return sign * compare(one.value, other.value);
  });
  return keyed.map(({ row }) => row);
}

const NAMED_NUMBERS = new Map([["nan", NaN], ["inf", Infinity], ["-inf", -Infinity]]);

/**
 * Returns a value as a number where it is one, also one that JSON has no sign for; undefined for all else.
 * @param {any} value
 * @returns {number | undefined}
 */
export const asNumber = (value) => (typeof value === "number" ? value : NAMED_NUMBERS.get(value));

function orderValue(value) {
  if (value === undefined || value === null) return undefined;
  const number = asNumber(value);
  if (number !== undefined) return Number.isNaN(number) ? undefined : number;
  return typeof value === "object" ? JSON.stringify(value) : typeof value === "boolean" ? Number(value) : value;
}

/** Compares two values: numbers before texts, texts as people sort them. */
function compare(one, other) {
  if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
  return typeof one === "number" ? -1 : 1;
}
