"""Page files: what the browser gets to run: the files below `page/`, and nothing else. Runs in the server of the page.

The first module comes as one script with all that it imports: forty requests, in rounds, were most of the 0.4 s after which the page asked for what it shows.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from asynctrack.journal import safe_read
from asynctrack.ui.bundling import BundlingError, bundle

_PLACE: Final = Path(__file__).parent / "page"
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_OTHER: Final = "text/plain; charset=utf-8"
_FIRST: Final = "index.html"
_ENTRY: Final = "main.js"


class PageFiles:
    """Answers requests for the files of the page.

    Args:
        place: the folder that holds them.
    """

    def __init__(self, place: Path = _PLACE) -> None:
        self._place = place
        self._files = _files_below(place)
        self._script: tuple[str, bytes] = ("", b"")

    def prepare(self) -> None:
        """Make the script that the first visitor asks for."""
        with contextlib.suppress(OSError, BundlingError):  # that visitor is told
            self._content(_ENTRY, self._files[_ENTRY], _tag_of(*self._scripts()))

    def answer(self, request: Request) -> Response:
        """Answer with the file of a path, by its name in the listing."""
        name = request.scope["path"].lstrip("/") or _FIRST
        path = self._files.get(name)
        if path is None:
            return Response(f"asynctrack: there is no page {name!r:.200} here\n", 404, media_type=_OTHER)
        try:
            tag = _tag_of(*(self._scripts() if name == _ENTRY else (path,)))
            headers = {"etag": tag, "cache-control": "no-cache"}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            kind = _KINDS.get(os.path.splitext(name)[1], _OTHER)
            return Response(self._content(name, path, tag), headers=headers, media_type=kind)
        except (OSError, BundlingError) as error:
            return Response(f"asynctrack: {name} cannot be read: {_reason(error)}\n", 500, media_type=_OTHER)

    def _scripts(self) -> list[str]:
        return [path for name, path in self._files.items() if name.endswith(".js")]

    def _content(self, name: str, path: str, tag: str) -> bytes:
        if name != _ENTRY:
            return safe_read.read(path)
        if self._script[0] != tag:
            self._script = (tag, bundle(self._place, _ENTRY).encode())
        return self._script[1]


def _tag_of(*paths: str) -> str:
    """Return a text that changes with the files."""
    found = [os.stat(path, follow_symlinks=False) for path in paths]
    return f'"{zlib.crc32(repr([(one.st_mtime_ns, one.st_size) for one in found]).encode()):08x}"'


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _files_below(place: Path) -> dict[str, str]:
    """Return the paths of the files, by their names from the folder on; links are none."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file():
                found[path.relative_to(place).as_posix()] = os.fspath(path)
    return found
