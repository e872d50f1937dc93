// Run news: says when what is seen of a run that goes on has to be asked for again.
import { watch } from "./api.js";
import { useEffect, useState } from "./html.js";
import { useCalm } from "./timing.js";

// Curves are asked for again at most so often, and all else that is known of a run, which is asked for sooner when its status is another.
const CURVES_MS = 2000;
const DOCUMENT_MS = 5000;
const SOON_MS = 1000;

/**
 * @typedef {object} News
 * @property {number} curves grows when the curves have to be asked for again
 * @property {number} document grows when all else has to be
 * @property {{records?: number, step?: number | null, status?: string}} told what the run was last said to be
 */

/** Watches a run. @param {string} run @param {{current: Record<string, any> | undefined}} known what is known of it @returns {News} */
export function useNews(run, known) {
  const [{ count, told }, setNews] = useState({ count: 0, told: {} });
  useEffect(() => {
    setNews((old) => ({ ...old, told: {} }));
    const tell = (told) => setNews((old) => ({ count: old.count + 1, told }));
    let before;
    const hear = ({ records, step, status }) => {
      // Compared with what was said before: what is known may have come later than this, and the curves not with it.
      const last = before ?? known.current;
      before = { records, status };
      if (last && (records !== last.records || status !== last.status)) tell({ records, step, status });
    };
    return watch([run], { onRun: hear, onReturn: () => tell({}) });
  }, [run]);
  const isUrgent = told.status !== known.current?.status || !known.current?.metrics.length;
  return { told, curves: useCalm(count, CURVES_MS), document: useCalm(count, isUrgent ? SOON_MS : DOCUMENT_MS) };
}
