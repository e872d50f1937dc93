"""HTML file: the page with data in it, as one file that asks nobody for anything. Runs where runs are exported.

Its policy, in a tag, lets run what has the hashes of two scripts, and nothing else: the page's own, which is in the file as a text of base64, a third as long,
and one of some lines, which unpacks it. Data are in elements that no browser runs: JSON with each `<` escaped, and texts of base64. So nothing that a run is
named can end an element or begin one.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.ui.bundling import BundlingError, bundle
from asynctrack.ui.packing import packed

PAGE: Final = Path(__file__).parent / "page"
# What makes data out of the file's elements, then the page itself.
_ENTRY: Final = "exported.js"
_ENTRY_TEXT: Final = 'import "./embedded.js";\nimport "./main.js";\n'
_POLICY: Final = "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; base-uri 'none'; form-action 'none'"
_UNPACK: Final = """\
"use strict";
(async () => {
  for (const name of ["style", "script"]) {
    const bytes = Uint8Array.from(atob(document.getElementById(`asynctrack-${name}`).textContent), (letter) => letter.charCodeAt(0));
    const element = document.createElement(name);
    element.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
    document.head.append(element);
  }
})().catch((error) => {
  document.getElementById("app").textContent = `This file cannot be shown: ${error.message}. It needs a browser of 2023 or later.`;
});
"""
_EARLY: Final = re.compile(r'\n *<script src="early\.js"></script>')
_ICON: Final = re.compile(r'\n *<link rel="icon"[^>]*>')
_STYLE_LINK: Final = re.compile(r'<link rel="stylesheet" href="(?P<name>[\w./-]+)" ?/?>')
_SCRIPT_LINK: Final = re.compile(r'\n *<script type="module" src="main\.js"></script>')
_TITLE: Final = re.compile(r"<title>[^<]*</title>")
_HEAD: Final = re.compile(r'<meta charset="utf-8" ?/?>')


def html_file(title: str, parts: Iterable[str], index: Callable[[], Any]) -> Iterator[str]:
    """Yield the texts of which the file consists.

    Args:
        title: of the file.
        parts: texts of base64, with a line for each of several; the index says what is where.
        index: called after the last part; what it returns JSON can hold, and `embedded.js` says what it looks for.

    Raises:
        BundlingError: the page's modules cannot be bundled.
    """
    style, script = _styles(), bundle(PAGE, _ENTRY, {_ENTRY: _ENTRY_TEXT})
    before, after = _frame(title, _POLICY.format(script=f"{_hash(_UNPACK)} {_hash(script)}", style=_hash(style)))
    yield before
    for at, part in enumerate(parts):
        yield _text(f"part-{at}", part)
    yield f'<script type="application/json" id="asynctrack-index">{as_json(index())}</script>\n'
    yield _text("style", packed(style.encode())) + _text("script", packed(script.encode()))
    yield f"<script>{_UNPACK}</script></body>{after}"


def as_json(value: Any) -> str:
    """Return JSON that may stand in an element of HTML, whatever texts it has."""
    return (
        msgspec.json.encode(value)
        .decode()
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _frame(title: str, policy: str) -> tuple[str, str]:
    """Return the page's own HTML with a policy and without links, up to where its body ends, and what follows."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    head = f'<meta charset="utf-8" /><meta http-equiv="Content-Security-Policy" content="{policy}" />'
    page = _once(_HEAD, head, page)
    page = _once(_TITLE, f"<title>{html.escape(title)}</title>", page)
    page = _STYLE_LINK.sub("", _once(_SCRIPT_LINK, "", _once(_EARLY, "", _ICON.sub("", page))))
    if re.search(r"\b(?:src|href)=", page):
        raise BundlingError("index.html names a file that the export does not know")
    before, _, after = page.partition("</body>")
    return before, after


def _styles() -> str:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    return "\n".join((PAGE / found["name"]).read_text(encoding="utf-8") for found in _STYLE_LINK.finditer(page))


def _text(name: str, content: str) -> str:
    return f'<script type="text/plain" id="asynctrack-{name}">{content}</script>\n'


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _once(pattern: re.Pattern[str], replacement: str, page: str) -> str:
    result, count = pattern.subn(lambda _: replacement, page)
    if count != 1:
        raise BundlingError(f"index.html must have {pattern.pattern!r} once; it has it {count} times")
    return result
