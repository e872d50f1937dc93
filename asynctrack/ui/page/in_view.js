// In view: tells elements whether they are seen, so that what is not costs nothing.
import { useEffect, useState } from "./html.js";

// Above and below the window: what is there counts as seen, and is ready when it comes.
const AHEAD = "150px";

const watched = new WeakMap();
const observer = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => watched.get(target)?.(isIntersecting)), {
  rootMargin: AHEAD,
});

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
