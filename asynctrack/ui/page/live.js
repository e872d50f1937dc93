// Live: one stream of the server's events while the page is seen; or, with `poll=2` in the address, a question every two seconds.
import { param } from "./state.js";

/**
 * @typedef {object} Listener
 * @property {(event: {version: number}) => void} [onRuns] the list of runs has changed
 * @property {(event: {run: string, records: number, step: number | null, status: string}) => void} [onRun] a run has grown or changed
 * @property {() => void} [onReturn] the stream is there again: anything may have changed meanwhile
 */

/** @param {string[]} runs @param {Listener} listener @param {{value: string}} connection @returns {() => void} to stop */
export function follow(runs, listener, connection) {
  const query = new URLSearchParams(runs.map((run) => ["run", run]));
  const poll_s = Number(param("poll"));
  const begin = () => (poll_s > 0 ? ask(query, poll_s, listener, connection) : listen(query, listener, connection));
  let stop = document.hidden ? null : begin();
  const see = () => {
    stop?.();
    stop = document.hidden ? null : begin();
    if (!document.hidden) listener.onReturn?.();
  };
  document.addEventListener("visibilitychange", see);
  return () => {
    document.removeEventListener("visibilitychange", see);
    stop?.();
  };
}

function listen(query, listener, connection) {
  const stream = new EventSource(`api/events?${query}`);
  let isFirst = true;
  stream.addEventListener("open", () => {
    connection.value = "ok";
    if (!isFirst) listener.onReturn?.();
    isFirst = false;
  });
  stream.addEventListener("error", () => {
    connection.value = stream.readyState === EventSource.CLOSED ? "refused" : "gone";
  });
  stream.addEventListener("runs", (event) => listener.onRuns?.(JSON.parse(event.data)));
  stream.addEventListener("run", (event) => listener.onRun?.(JSON.parse(event.data)));
  return () => stream.close();
}

function ask(query, poll_s, listener, connection) {
  const timer = setInterval(async () => {
    try {
      const response = await fetch(`api/events?poll=${poll_s}&${query}`);
      const events = await response.json();
      if (connection.value !== "ok") listener.onReturn?.();
      connection.value = response.ok ? "ok" : "refused";
      listener.onRuns?.({ version: events.version });
      for (const event of events.runs) listener.onRun?.(event);
    } catch {
      connection.value = "gone";
    }
  }, poll_s * 1000);
  return () => clearInterval(timer);
}
