// Timing: values that follow others more slowly.
import { useEffect, useRef, useState } from "./html.js";

/** Returns a value that follows another when that has not changed for so long. @template T @param {T} value @param {number} ms @returns {T} */
export function useRested(value, ms) {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(() => value), ms);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
}

/** Returns a value that follows another, but changes no more often than so. @template T @param {T} value @param {number} ms @returns {T} */
export function useCalm(value, ms) {
  const [calm, setCalm] = useState(value);
  const changed = useRef(0);
  useEffect(() => {
    const timer = setTimeout(() => {
      changed.current = performance.now();
      setCalm(value);
    }, changed.current + ms - performance.now());
    return () => clearTimeout(timer);
  }, [value]);
  return calm;
}
