// Elements: whether an element is in view, and how wide it is, as both change.
import { useEffect, useLayoutEffect, useState } from "./html.js";

// Above and below the window: what is there counts as seen, and is ready when it comes.
const AHEAD = "150px";

const watched = new WeakMap();
const tell = ({ target, isIntersecting }) => watched.get(target)?.(isIntersecting);
const observer = new IntersectionObserver((entries) => entries.forEach(tell), { rootMargin: AHEAD });

/** @param {{current: Element | null}} ref @returns {boolean} whether an element is in view, or nearly */
export function useInView(ref) {
  const [isSeen, setSeen] = useState(false);
  useEffect(() => {
    const element = ref.current;
    watched.set(element, setSeen);
    observer.observe(element);
    return () => observer.unobserve(element);
  }, []);
  return isSeen;
}

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
