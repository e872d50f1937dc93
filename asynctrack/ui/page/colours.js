// Colours: a palette that colour-blind people can tell apart, and which of it a run or a prefix has.
import { computed, signal } from "./html.js";
import { param } from "./state.js";

/** @typedef {[light: string, dark: string]} Colour */

// Made of Okabe and Ito's hues, darkened for white paper and lightened for black; neighbours differ in lightness too.
/** @type {Colour[]} */
export const PALETTE = [
  ["#1769c2", "#62acf5"],
  ["#d1580a", "#f58d4d"],
  ["#0b8a68", "#3cc79c"],
  ["#ad4a8f", "#e594cb"],
  ["#a37500", "#e3b341"],
  ["#2b9bc9", "#86d3f7"],
  ["#6a4cc2", "#ab95f7"],
  ["#6b7280", "#b0b8c4"],
];
export const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(prefersDark.matches);
prefersDark.addEventListener("change", (event) => (systemIsDark.value = event.matches));

/** Whether the page is dark. */
export const isDark = computed(() => (param("theme") ?? (systemIsDark.value ? "dark" : "light")) === "dark");

/** A colour for a canvas. @param {Colour} colour */
export const pick = (colour) => colour[isDark.value ? 1 : 0];

/** A colour for an element, which follows the theme by itself. @param {Colour} colour */
export const css = (colour) => `light-dark(${colour[0]}, ${colour[1]})`;

/**
 * Gives each name a colour that stays as others come and go: its own, or the next that is free.
 * @param {string[]} names @returns {Map<string, Colour>}
 */
export function coloursOf(names) {
  const taken = new Set();
  const found = new Map();
  for (const name of names) {
    let at = hash(name) % PALETTE.length;
    while (taken.has(at) && taken.size < PALETTE.length) at = (at + 1) % PALETTE.length;
    taken.add(at);
    found.set(name, PALETTE[at]);
  }
  return found;
}

function hash(name) {
  let value = 2166136261; // FNV-1a
  for (let at = 0; at < name.length; at++) value = Math.imul(value ^ name.charCodeAt(at), 16777619);
  return (value ^ (value >>> 15)) >>> 0;
}
