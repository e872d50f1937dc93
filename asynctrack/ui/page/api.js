// Api: the one place where data come from: the server, or in an exported file the data in it.
import { signal } from "./html.js";
import { follow } from "./live.js";
import { readBlocks } from "./wire.js";

/** @typedef {Record<string, string | number | boolean | string[] | null | undefined>} Query */

/**
 * Where data come from. `window.asynctrackData` is one, in an exported file: it answers the same paths with the same data.
 * @typedef {object} Source
 * @property {boolean} isLive whether there is a server, and runs can change
 * @property {string} [note] what an exported file lacks
 * @property {string} [start] the fragment of what it shows first
 * @property {(path: string, query?: Query, abort?: AbortSignal) => Promise<any>} json
 * @property {(path: string, query?: Query, abort?: AbortSignal) => Promise<string>} text
 * @property {(path: string, query?: Query, abort?: AbortSignal) => AsyncIterable<import("./wire.js").Block>} blocks
 * @property {(path: string, query?: Query) => string | null} url of a file to show or to download; null where there is none
 * @property {(runs: string[], listener: import("./live.js").Listener, connection: {value: Connection}) => () => void} watch
 */

/** @typedef {"ok" | "gone" | "refused"} Connection  gone: no answer; refused: it wants another token */

/** Whether the server answers. */
export const connection = signal(/** @type {Connection} */ ("ok"));

// A longer query goes into the body: servers and proxies limit the first line of a request.
const LONGEST_QUERY = 2000;

/** What the server, or what stands for it, said instead of an answer. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status @param {number | null} at where an expression is wrong */
  constructor(message, status, at = null) {
    super(message);
    Object.assign(this, { status, at });
  }
}

/** @param {Query} query */
function encoded(query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined) params.append(name, String(one));
    }
  }
  return params;
}

function address(path, query) {
  const params = encoded(query).toString();
  return params ? `api/${path}?${params}` : `api/${path}`;
}

/** The answer to what `early.js` has asked for, once. @param {string} url @returns {Promise<Response | null> | null} */
function takeEarly(url) {
  const early = globalThis.asynctrackEarly;
  if (early?.url !== url) return null;
  globalThis.asynctrackEarly = null;
  return early.response;
}

async function request(path, query = {}, abort = undefined) {
  const url = address(path, query);
  const isLong = url.length > LONGEST_QUERY;
  const options = isLong ? { method: "POST", body: encoded(query), signal: abort } : { signal: abort };
  const response = (await takeEarly(url)) ?? await fetch(isLong ? `api/${path}` : url, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    connection.value = "gone";
    throw new ApiError("The server does not answer.", 0);
  });
  if (!response.ok) throw await errorOf(response);
  connection.value = "ok";
  return response;
}

async function errorOf(response) {
  if (response.status === 403) connection.value = "refused";
  const { error, at } = await response.json().catch(() => ({}));
  return new ApiError(error ?? `The server answered ${response.status} ${response.statusText}.`, response.status, at);
}

/** @type {Source} */
const server = {
  isLive: true,
  json: async (path, query, abort) => (await request(path, query, abort)).json(),
  text: async (path, query, abort) => (await request(path, query, abort)).text(),
  async *blocks(path, query, abort) {
    yield* readBlocks((await request(path, query, abort)).body);
  },
  url: (path, query = {}) => address(path, query),
  watch: follow,
};

/** @type {Source} */
export const source = globalThis.asynctrackData ?? server;

/**
 * Calls back when runs change, while the page is seen.
 * @param {string[]} runs @param {import("./live.js").Listener} listener @returns {() => void} to stop
 */
export const watch = (runs, listener) => source.watch(runs, listener, connection);
