// Virtual rows: which rows of a long table are there to be seen, while it is scrolled.
import { useLayoutEffect, useState } from "./html.js";

/** Rows that are there above and below those in view, so that scrolling shows no blank; arbitrary. */
const BEYOND = 8;
/** The window moves by this many rows at once, so that few scroll events change it. */
const STEP = 6;

/**
 * Returns the window of rows that covers what is in view.
 * @param {number} top pixels that are scrolled away @param {number} height of the view @param {number} row of one row @param {number} count
 * @returns {[number, number]} the first, and the one after the last
 */
export function windowOf(top, height, row, count) {
  const first = Math.floor(top / row / STEP) * STEP - BEYOND;
  const last = Math.ceil((top + height) / row / STEP) * STEP + BEYOND;
  return [Math.max(0, Math.min(first, count - 1)), Math.min(count, last)];
}

/**
 * Follows the scrolling of an element. @param {{current: HTMLElement | null}} box @param {number} row its height @param {number} count
 * @returns {[number, number]}
 */
export function useVirtualRows(box, row, count) {
  const [view, setView] = useState(/** @type {[number, number]} */ ([0, 0]));
  useLayoutEffect(() => {
    const element = /** @type {HTMLElement} */ (box.current);
    const look = () => {
      const next = windowOf(element.scrollTop, element.clientHeight, row, count);
      setView((old) => (old[0] === next[0] && old[1] === next[1] ? old : next));
    };
    look();
    const sizes = new ResizeObserver(look);
    sizes.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      sizes.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, [row, count]);
  return [Math.min(view[0], count), Math.min(view[1], count)];
}
