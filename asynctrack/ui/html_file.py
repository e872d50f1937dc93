"""HTML file: the page with data in it, as one file that asks nobody for anything. Runs where runs are exported.

Its policy, in a tag, lets run what has the hash of the script that is in it, and nothing else. Data are in elements that no browser runs: JSON with each `<`
escaped, and texts of base64. So nothing that a run is named can end an element or begin one.
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

PAGE: Final = Path(__file__).parent / "page"
# What makes data out of the file's elements, then the page itself.
_ENTRY: Final = "exported.js"
_ENTRY_TEXT: Final = 'import "./embedded.js";\nimport "./main.js";\n'
_POLICY: Final = "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; base-uri 'none'; form-action 'none'"
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
    style = _styles()
    script = _script()
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    head = f'<meta charset="utf-8" /><meta http-equiv="Content-Security-Policy" content="{policy}" />'
    page = _once(_HEAD, head, page)
    page = _once(_TITLE, f"<title>{html.escape(title)}</title>", page)
    page = _once(_SCRIPT_LINK, "", _ICON.sub("", page))
    page = _once(re.compile("</head>"), f"<style>{style}</style></head>", _STYLE_LINK.sub("", page))
    before, _, after = page.partition("</body>")
    if re.search(r"\b(?:src|href)=", page.replace(style, "")):
        raise BundlingError("index.html names a file that the export does not know")
    yield before
    for at, part in enumerate(parts):
        yield f'<script type="text/plain" id="asynctrack-part-{at}">{part}</script>\n'
    yield f'<script type="application/json" id="asynctrack-index">{as_json(index())}</script>\n'
    yield f"<script>{script}</script></body>{after}"


def as_json(value: Any) -> str:
    """Return JSON that may stand in an element of HTML, whatever texts it has."""
    return (
        msgspec.json.encode(value)
        .decode()
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _styles() -> str:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    style = "\n".join((PAGE / found["name"]).read_text(encoding="utf-8") for found in _STYLE_LINK.finditer(page))
    if "</style" in style.lower():
        raise BundlingError("a style sheet of the page ends its element")
    return style


def _script() -> str:
    """Return the script; what would end its element is spelled otherwise, which in texts and patterns means the same."""
    script = bundle(PAGE, _ENTRY, {_ENTRY: _ENTRY_TEXT})
    return re.sub("<(?=/script|!--)", r"\\x3c", script, flags=re.I)


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _once(pattern: re.Pattern[str], replacement: str, page: str) -> str:
    result, count = pattern.subn(lambda _: replacement, page)
    if count != 1:
        raise BundlingError(f"index.html must have {pattern.pattern!r} once; it has it {count} times")
    return result
