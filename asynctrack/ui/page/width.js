// Width: how wide an element is, as it changes.
import { useLayoutEffect, useState } from "./html.js";

/** @param {{current: HTMLElement | null}} element @returns {number} pixels; 0 before it is there */
export function useWidth(element) {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const found = /** @type {HTMLElement} */ (element.current);
    const sizes = new ResizeObserver(() => setWidth(Math.floor(found.clientWidth)));
    sizes.observe(found);
    setWidth(Math.floor(found.clientWidth));
    return () => sizes.disconnect();
  }, []);
  return width;
}
