// Early: asks for what the page shows first, before its modules are there. `api.js` takes the answer.
{
  const run = /^#\/run\/([^?]+)/.exec(location.hash)?.[1];
  const url = run ? `api/run?${new URLSearchParams(`run=${run}`)}` : "api/runs";
  globalThis.asynctrackEarly = { url, response: fetch(url).catch(() => null) };
}
