// State: the view, which is the address's fragment, as signals. A link brings the whole view back, and no server's log has it.
import { computed, signal } from "./html.js";

/** @typedef {{page: string, run: string, params: URLSearchParams}} Route */
/** @typedef {Record<string, string | number | string[] | null | undefined>} Changes  null, undefined and "" remove a parameter */

// Parameters that stay when another page is opened.
const KEPT = ["theme", "poll"];
// Browsers slow pages down that write the address more often. The first change is written at once: a reload may follow.
const WRITE_MS = 150;

/** @param {string} fragment @returns {Route} */
function parse(fragment) {
  const text = fragment.replace(/^#/, "");
  const query = text.indexOf("?");
  const path = !text.startsWith("/") ? "" : query < 0 ? text : text.slice(0, query);
  const params = new URLSearchParams(path === text ? "" : text.slice(query + 1));
  const [, page = "", ...run] = path.split("/");
  return { page: page || "runs", run: run.map(decoded).join("/"), params };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** @param {Route} route @returns {string} */
function fragmentOf({ page, run, params }) {
  const path = page === "runs" ? "#/" : `#/${page}/${run.split("/").map(encodeURIComponent).join("/")}`;
  const query = params.toString().replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%3A", ":");
  return query ? `${path}?${query}` : path;
}

/** What is shown. */
export const route = signal(parse(location.hash || (globalThis.asynctrackData?.start ?? "")));

const readers = new Map();

/** Returns a parameter of the view, or null. A component that reads it follows it alone. @param {string} name */
export function param(name) {
  if (!readers.has(name)) readers.set(name, computed(() => route.value.params.get(name)));
  return /** @type {string | null} */ (readers.get(name).value);
}

/** Returns all values of a parameter. @param {string} name @returns {string[]} */
export function paramList(name) {
  const id = `${name}[]`;
  if (!readers.has(id)) readers.set(id, computed(() => JSON.stringify(route.value.params.getAll(name))));
  return JSON.parse(readers.get(id).value);
}

/** Changes parameters of the view. @param {Changes} changes @param {{push?: boolean}} [how] push: "back" undoes it */
export function update(changes, { push = false } = {}) {
  show({ ...route.peek(), params: changed(route.peek().params, changes) }, push);
}

/** Puts a value among those of a parameter, or takes it out. @param {string} name @param {string} value */
export const toggleIn = (name, value) => update({ [name]: toggled(paramList(name), value) });

/** Returns the values with one more, or without it where it was among them. @param {string[]} values @param {string} value */
export const toggled = (values, value) => (values.includes(value) ? values.filter((one) => one !== value) : [...values, value]);

function changed(params, changes) {
  const result = new URLSearchParams(params);
  for (const [name, value] of Object.entries(changes)) {
    result.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") result.append(name, String(one));
    }
  }
  return result;
}

/** Returns the link to a page. @param {string} page @param {string} [run] @param {Changes} [params] */
export const href = (page, run = "", params = {}) => fragmentOf({ page, run, params: changed(kept(), params) });

function kept() {
  const current = route.value.params;
  return new URLSearchParams(KEPT.filter((name) => current.has(name)).map((name) => [name, current.get(name)]));
}

/** Opens a page. @param {string} page @param {string} [run] @param {Changes} [params] */
export const open = (page, run = "", params = {}) => show({ page, run, params: changed(kept(), params) }, true);

let [timer, written] = [0, -Infinity];

function show(next, push) {
  route.value = next;
  clearTimeout(timer);
  if (push) write(true);
  else timer = setTimeout(write, written + WRITE_MS - performance.now(), false);
}

function write(push) {
  written = performance.now();
  try {
    history[push ? "pushState" : "replaceState"](null, "", fragmentOf(route.peek()));
  } catch {
    // A page in a sandboxed frame has no address of its own: it works without.
  }
}

function followAddress() {
  if (location.hash !== fragmentOf(route.peek())) route.value = parse(location.hash);
}

// A link is followed here and not by the browser: in a frame made of a text, it would lead to the page around it.
function followLink(event) {
  const link = /** @type {Element} */ (event.target).closest?.('a[href^="#/"]');
  const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || event.defaultPrevented) return;
  event.preventDefault();
  show(parse(link.getAttribute("href")), true);
  scrollTo(0, 0);
}

addEventListener("hashchange", followAddress);
addEventListener("popstate", followAddress);
addEventListener("click", followLink);
