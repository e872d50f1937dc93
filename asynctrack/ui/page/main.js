// Main: the frame of all pages: the header, the banner, the theme, and which page is shown.
import { connection, source } from "./api.js";
import { isDark } from "./colours.js";
import { effect, html, render, signal, useEffect, useErrorBoundary } from "./html.js";
import { HelpDialog, showHelp, useKeys } from "./keys.js";
import { Empty, Failure, Loading } from "./parts.js";
import { href, param, route, update } from "./state.js";

// A page's module is fetched when it is opened. Without what every object has: a name comes from the address.
const PAGES = {
  __proto__: null,
  runs: () => import("./runs_page.js"),
  run: () => import("./run_page.js"),
  compare: () => import("./compare_page.js"),
};
const BANNERS = {
  gone: "The server does not answer. This page shows what it has, and goes on by itself when the server is there again.",
  refused: "The server does not know this page: it was started anew. Open the address that it printed.",
};

const loaded = signal(/** @type {Record<string, Function | Error>} */ ({}));

async function load(page) {
  const found = await PAGES[page]().then((module) => module.default, (error) => error);
  loaded.value = { ...loaded.peek(), [page]: found };
}

function Page() {
  const { page } = route.value;
  useEffect(() => void (PAGES[page] && !loaded.peek()[page] && load(page)), [page]);
  const [broken, mend] = useErrorBoundary();
  if (broken) return html`<${Failure} error=${broken} retry=${mend} />`;
  if (!PAGES[page]) return html`<${Empty} title="There is no such page"><a href=${href("runs")}>All runs</a><//>`;
  const found = loaded.value[page];
  if (!found) return html`<${Loading} />`;
  return found instanceof Error ? html`<${Failure} error=${found} retry=${() => load(page)} />` : html`<${found} />`;
}

const changeTheme = () => update({ theme: isDark.value ? "light" : "dark" });

function Header() {
  const { page, run } = route.value;
  return html`<header class="top">
    <a class="brand" href=${href("runs")}>asynctrack</a>
    <nav class="where" aria-label="Where you are">
      ${page === "run" && html`<span aria-current="page" title=${run}>${run}</span>`}
      ${page === "compare" && html`<span aria-current="page">compare</span>`}
    </nav>
    ${!source.isLive && html`<span class="muted" title=${source.note}>exported</span>`}
    <button class="plain" onClick=${changeTheme} title="Light or dark (d)" aria-label="Light or dark">◐</button>
    <button class="plain" onClick=${showHelp} title="Keys (?)" aria-label="Keys">?</button>
  </header>`;
}

function Banner() {
  const text = BANNERS[connection.value];
  return html`<div class="banner" role="status" hidden=${!text}>${text}</div>`;
}

function App() {
  useKeys({ d: ["light or dark", changeTheme], "?": ["show the keys", showHelp] });
  return html`<${Header} /><${Banner} />
    <main><${Page} /></main>
    ${source.note && html`<footer class="note">${source.note}</footer>`}
    <${HelpDialog} />`;
}

effect(() => {
  const theme = param("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
});
effect(() => {
  const { page, run } = route.value;
  document.title = page === "run" ? `${run} · asynctrack` : page === "compare" ? "compare · asynctrack" : "asynctrack";
});
render(html`<${App} />`, document.getElementById("app"));
