// Compared: which runs the compare page has, which of them are drawn, by which colour and name, and which one stands out.
import { coloursOf } from "./colours.js";
import { computed, signal } from "./html.js";
import { runs } from "./runs_list.js";
import { param, paramList, toggleIn, update } from "./state.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./colours.js").Colour} Colour */

/** So many are drawn before anybody has chosen: more cannot be told apart at once. */
export const FIRST_SHOWN = 12;

/** The run that the mouse is at, in a chart or in a list. */
export const hovered = signal(/** @type {string | null} */ (null));
/** The run that stands out: the one that the mouse is at, else the one that was picked. */
export const highlighted = computed(() => hovered.value ?? param("pick"));

/** What an element does that stands for a run. @param {string} run */
export const hovering = (run) => ({ onMouseEnter: () => (hovered.value = run), onMouseLeave: () => (hovered.value = null) });

/** Picks a run, or no longer. @param {string} run */
export const pick = (run) => update({ pick: param("pick") === run ? null : run });

const asked = computed(() => paramList("run"));

/** The runs that the view names and the server lists, in the view's order. */
export const compared = computed(() => asked.value.flatMap((run) => runs.value?.get(run) ?? []));

/** How many runs the view names that the server does not list. */
export const missing = computed(() => asked.value.length - compared.value.length);

const drawnKeys = computed(() => {
  const count = Number(param("shown") ?? FIRST_SHOWN);
  const flipped = new Set(paramList("flip"));
  return new Set(asked.value.filter((run, index) => index < count !== flipped.has(run)));
});

/** @param {string} run */
export const isDrawn = (run) => drawnKeys.value.has(run);

/** The runs that are drawn. */
export const drawn = computed(() => compared.value.filter((row) => isDrawn(row.run)));

/** Draws a run, or no longer. @param {string} run */
export const flip = (run) => toggleIn("flip", run);

/** Draws the first so many runs. @param {number} count */
export const drawFirst = (count) => update({ shown: count === FIRST_SHOWN ? null : count, flip: [] });

/** The colour of each run, which stays as others are hidden. */
export const colours = computed(() => coloursOf(asked.value));

/** Of an id, what tells it from others. */
const LAST_LETTERS = 6;

/** What each run is called here: by its name, and by the end of its id too where another has the same name. */
export const labels = computed(() => {
  const names = Map.groupBy(compared.value, (row) => row.name);
  return new Map(compared.value.map((row) => [row.run, names.get(row.name)?.length === 1 ? row.name : `${row.name} · ${row.id.slice(-LAST_LETTERS)}`]));
});
