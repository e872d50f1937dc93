"""The page's own modules stay small, and hold nothing that a hostile name or text could use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack

PAGE = Path(asynctrack.__file__).parent / "ui" / "page"
SOURCES = [path for path in sorted(PAGE.iterdir()) if path.suffix in (".js", ".css", ".html")]
MOST_LINES = 4000
# Blank, or a comment, of which each further line begins with a star.
NO_CODE = re.compile(r"\s*($|//|\*|/\*)")

FORBIDDEN = {
    "a text becomes markup": r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment",
    "a text becomes markup, as Preact spells it": r"dangerouslySetInnerHTML",
    "a text becomes a program": r"\beval\s*\(|\bnew\s+Function\b|\bset(?:Timeout|Interval)\s*\(\s*[\"'`]",
    "a style as a text, which the policy refuses": r"\bstyle=(?:[\"'`]|\$\{`)|cssText|setAttribute\(\s*[\"'`]style",
    "an address of another host": r"(?:https?|wss?):/{2}|[\"'`(]//\w",
}
# The name of SVG's vocabulary, which nothing is fetched from.
ALLOWED = "http://www.w3.org/2000/svg"


def code(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are no comments, with their numbers."""
    return ((at, line) for at, line in enumerate(text.splitlines(), 1) if not NO_CODE.match(line))


def test_the_page_stays_under_its_limit() -> None:
    counts = {path.name: sum(1 for _ in code(path.read_text())) for path in SOURCES}
    assert {"main.js", "style.css", "index.html"} <= counts.keys()
    assert sum(counts.values()) < MOST_LINES


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_source_has(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.name}:{at}: {line.strip()}"
        for path in SOURCES
        for at, line in code(path.read_text())
        if pattern.search(line.replace(ALLOWED, ""))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a text becomes markup", "element.innerHTML = text;"),
        ("a text becomes markup, as Preact spells it", "html`<p dangerouslySetInnerHTML=${{ __html: text }} />`;"),
        ("a text becomes a program", "eval (text);"),
        ("a text becomes a program", "const act = new Function(text);"),
        ("a style as a text, which the policy refuses", 'html`<i style="color: ${colour}" />`;'),
        ("a style as a text, which the policy refuses", "html`<i style=${`color: ${colour}`} />`;"),
        ("an address of another host", 'import "https://example.org/module.js";'),
        ("an address of another host", "background: url(//example.org/picture.png);"),
    ],
)
def test_what_is_forbidden_is_seen(what: str, line: str) -> None:
    assert list(code(line)) == [(1, line)]
    assert re.search(FORBIDDEN[what], line)
