"""Bundling: the page's modules as one script that runs from `file://`, in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import asynctrack
from asynctrack.ui.bundling import BundlingError, bundle

PAGE = Path(asynctrack.__file__).parent / "ui" / "page"
CHROMIUM = shutil.which("chromium")
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

MODULES = {
    "main.js": """\
// Main: `it's` a comment with an import("./gone.js").
/** @type {import("./gone.js").Gone} */
import htm from "./vendor/htm.js";
import {h, render} from "./vendor/preact.js";
import { signal } from "./vendor/signals.js";
import uPlot from "./vendor/uplot.js";
import * as parts from "./parts.js";
import first, {
  second as renamed,
  THIRD,
} from "./parts.js";
import "./effect.js";

const html = htm.bind(h);
function load() {}
const modules = load, loaded = load;
const count = signal(0);
render(html`<p>${count} ${typeof uPlot} ${first()} ${renamed} ${THIRD} ${parts.late.name} ${parts.again}</p>`, document.body);
count.value = 7;
import("./later.js").then(({ default: Later, word }) => { document.title = `${word} ${new Later().size} ${globalThis.effects}`; });
""",
    "parts.js": """\
export default function one() {
  return "first";
}
export const second = "second", THIRD_IS_NOT_HERE = 0;
const hidden = "third";
export { hidden as THIRD };
export { word as again } from "./words.js";
export async function late() {}
""",
    "words.js": 'export const word = "word";\n',
    "effect.js": "globalThis.effects = (globalThis.effects ?? 0) + 1;\n",
    "later.js": 'import "./effect.js";\nexport { word } from "./words.js";\nexport default class {\n  size = 3;\n}\n',
}


def page_of(folder: Path, modules: dict[str, str]) -> Path:
    for name, text in modules.items():
        (folder / name).write_text(text)
    shutil.copytree(PAGE / "vendor", folder / "vendor")
    return folder


@pytest.mark.system
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_modules_run_as_one_script_as_they_do_as_modules(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page")
    script = bundle(page_of(tmp_path, MODULES))
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body><script>{script}</script>")
    said: list[str] = []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("document.title")
        shown, title = page.inner_text("p"), page.title()
        browser.close()
    assert (shown, title, said) == ("7 function first second third late word", "word 3 1", [])


REFUSED = {
    "circle": (
        {"main.js": 'import "./a.js";\n', "a.js": 'import "./main.js";\n'},
        r"in a circle: a\.js -> main\.js -> a\.js",
    ),
    "gone": ({"main.js": 'import "./gone.js";\n'}, r"the page has no module gone\.js"),
    "bare": ({"main.js": 'import { h } from "preact";\n'}, "must begin with ./ or ../; got 'preact'"),
    "outside": ({"main.js": 'import "../../x.js";\n'}, "is outside of the page"),
    "changing": ({"main.js": "export let x = 1;\n"}, "not understood: export let x = 1;"),
    "several": ({"main.js": "export const { a, b } = window;\n"}, "not understood: export const"),
    "no such name": (
        {"main.js": 'import { x } from "./a.js";\n', "a.js": "export const y = 1, x = 2;\n"},
        r"main\.js: a\.js exports no x",
    ),
    "all": ({"main.js": 'export * from "./a.js";\n'}, "not understood"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_said(name: str, tmp_path: Path) -> None:
    modules, said = REFUSED[name]
    with pytest.raises(BundlingError, match=said):
        bundle(page_of(tmp_path, modules))


def test_a_circle_that_is_closed_while_the_page_runs_is_none(tmp_path: Path) -> None:
    modules = {"main.js": 'export const a = () => import("./b.js");\n', "b.js": 'import { a } from "./main.js";\n'}
    assert bundle(page_of(tmp_path, modules)).count("modules[") == 3


def test_text_of_a_module_may_be_replaced(tmp_path: Path) -> None:
    assert "globalThis.other" in bundle(page_of(tmp_path, MODULES), replaced={"effect.js": "globalThis.other = 1;\n"})
