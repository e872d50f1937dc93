// Early: asks for what the page shows first, before its modules are there. `api.js` takes the answer.
{
  const run = /^#\/run\/([^?]+)/.exec(location.hash)?.[1];
  let url = "api/runs";
  try {
    if (run) url = `api/run?${new URLSearchParams({ run: decodeURIComponent(run) })}`;
  } catch {
    // It is no run's name: the page says so.
  }
  globalThis.asynctrackEarly = { url, response: fetch(url).catch(() => null) };
}
