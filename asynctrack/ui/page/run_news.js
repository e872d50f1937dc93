// Run news: says when what is seen of a run that goes on has to be asked for again.
import { watch } from "./api.js";
import { useEffect, useState } from "./html.js";

// Curves are asked for again at most so often, and all else that is known of a run.
const CURVES_MS = 1000;
const DOCUMENT_MS = 5000;

/**
 * @typedef {object} News
 * @property {number} curves grows when the curves have to be asked for again
 * @property {number} document grows when all else has to be
 * @property {{records?: number, step?: number | null, status?: string}} told what the run was last said to be
 */

/** Watches a run. @param {string} run @param {{current: Record<string, any> | undefined}} known what is known of it @returns {News} */
export function useNews(run, known) {
  const [news, setNews] = useState({ curves: 0, document: 0, told: {} });
  useEffect(() => {
    setNews((old) => ({ ...old, told: {} }));
    const curves = soon(() => setNews((old) => ({ ...old, curves: old.curves + 1 })));
    const document = soon(() => setNews((old) => ({ ...old, document: old.document + 1 })));
    const hear = ({ records, step, status }) => {
      const { current } = known;
      if (!current || (records === current.records && status === current.status)) return;
      setNews((old) => ({ ...old, told: { records, step, status } }));
      curves.within(CURVES_MS);
      document.within(status === current.status && current.metrics.length ? DOCUMENT_MS : CURVES_MS);
    };
    const stop = watch([run], { onRun: hear, onReturn: () => [curves, document].forEach((one) => one.within(CURVES_MS)) });
    return () => {
      stop();
      curves.drop();
      document.drop();
    };
  }, [run]);
  return news;
}

/** Has something done within a time, once however often it is asked for. */
function soon(act) {
  let timer = 0;
  let due = Infinity;
  const drop = () => {
    clearTimeout(timer);
    due = Infinity;
  };
  const within = (ms) => {
    if (performance.now() + ms >= due) return;
    clearTimeout(timer);
    due = performance.now() + ms;
    timer = setTimeout(() => {
      due = Infinity;
      act();
    }, ms);
  };
  return { within, drop };
}
