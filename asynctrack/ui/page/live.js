// Live: one stream of the server's events while the page is seen; or, with `poll=2` in the address, a question every two seconds.
import { param } from "./state.js";

/** How long to wait for a server that is away, before it is asked again. */
const AGAIN_MS = 2000;

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
  let stream = begin();
  let isFirst = true;
  let timer = 0;
  let isStopped = false;

  function begin() {
    const begun = new EventSource(`api/events?${query}`);
    begun.addEventListener("open", () => {
      connection.value = "ok";
      if (!isFirst) listener.onReturn?.();
      isFirst = false;
    });
    begun.addEventListener("error", () => (begun.readyState === EventSource.CLOSED ? lose() : (connection.value = "gone")));
    begun.addEventListener("runs", (event) => listener.onRuns?.(JSON.parse(event.data)));
    begun.addEventListener("run", (event) => listener.onRun?.(JSON.parse(event.data)));
    return begun;
  }

  // The browser does not try again after an answer that is no stream: it may be that of a proxy whose server is away.
  async function lose() {
    const status = await fetch("api/events?poll=1").then((response) => response.status, () => 0);
    if (isStopped) return;
    connection.value = status === 403 ? "refused" : "gone";
    isFirst = false;
    if (status !== 403) timer = setTimeout(() => (stream = begin()), AGAIN_MS);
  }

  return () => {
    isStopped = true;
    clearTimeout(timer);
    stream.close();
  };
}

function ask(query, poll_s, listener, connection) {
  const timer = setInterval(async () => {
    try {
      const response = await fetch(`api/events?poll=${poll_s}&${query}`);
      if (!response.ok) return void (connection.value = response.status === 403 ? "refused" : "gone");
      const events = await response.json();
      if (connection.value !== "ok") listener.onReturn?.();
      connection.value = "ok";
      listener.onRuns?.({ version: events.version });
      for (const event of events.runs) listener.onRun?.(event);
    } catch {
      connection.value = "gone";
    }
  }, poll_s * 1000);
  return () => clearInterval(timer);
}
