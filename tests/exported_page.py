"""An exported page, as a test reads it: its elements, and what they have of runs; and a browser that opens it."""

from __future__ import annotations

import array
import base64
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, Final

import pytest

CHROMIUM: Final = shutil.which("chromium")
CHROMIUM_OPTIONS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
DEADLINE_MS: Final = 20_000
_TYPES: Final = {"f8": "d", "f4": "f", "u4": "I"}


class ExportedPage(HTMLParser):
    """The elements of a file.

    Attributes:
        elements: each script and style, as its type or name, its id and its content.
        policy: of the file.
        index: what it has.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.policy = ""
        self._kept: tuple[str, str] | None = None
        self.feed(text)
        self.close()
        (index,) = (content for _, id, content in self.elements if id == "asynctrack-index")
        self.index: dict[str, Any] = json.loads(index)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tags.append(tag)
        if tag in ("script", "style"):
            self._kept = (said.get("type") or tag, said.get("id") or "")
            self.elements.append((*self._kept, ""))
        elif said.get("http-equiv") == "Content-Security-Policy":
            self.policy = said.get("content") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._kept = None

    def handle_data(self, data: str) -> None:
        if self._kept is not None:
            kind, id, content = self.elements[-1]
            self.elements[-1] = (kind, id, content + data)

    def contents(self, kind: str) -> list[str]:
        return [content for found, _, content in self.elements if found == kind]

    def text(self, name: str, line: int = 0) -> bytes:
        """What is packed in a line of an element."""
        (content,) = (content for _, id, content in self.elements if id == f"asynctrack-{name}")
        return zlib.decompress(base64.b64decode(content.split("\n")[line]))

    def unpacked(self, run: int, line: int) -> bytes:
        return self.text(f"part-{run}", line)

    def document(self, run: int = 0) -> dict[str, Any]:
        found = json.loads(self.unpacked(run, self.index["runs"][run]["document"]))
        assert isinstance(found, dict)
        return found

    def curve(self, key: str, axis: str = "step", run: int = 0) -> dict[str, list[float]]:
        line = dict(self.index["runs"][run]["curves"][axis])[key]
        return columns_of(self.unpacked(run, line))


def columns_of(packed: bytes) -> dict[str, list[float]]:
    """The columns of a packed block: its bytes lie one kind after the other."""
    at = 4 + struct.unpack_from("<I", packed)[0]
    header = json.loads(packed[4:at])
    found = {}
    for name, kind in header["columns"]:
        width, size = int(kind[1]), -(-header["rows"] * int(kind[1]) // 8) * 8
        count = size // width
        whole = bytes(packed[at + byte * count + row] for row in range(count) for byte in range(width))
        found[name] = array.array(_TYPES[kind], whole).tolist()[: header["rows"]]
        at += size
    return found


@contextmanager
def browser_page(width: int = 1400, height: int = 900) -> Iterator[tuple[Any, list[str]]]:
    """A page of Chromium, and what it complains of: errors, violations of a policy, and each request but for a file."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(DEADLINE_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request", lambda request: request.url[:5] in ("file:", "data:", "blob:") or complaints.append(request.url)
        )
        yield page, complaints
        browser.close()
