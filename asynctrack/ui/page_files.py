"""Page files: what the browser gets to run: the files below `page/`, and nothing else. Runs in the server of the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from asynctrack.journal import safe_read

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


class PageFiles:
    """Answers requests for the files of the page.

    Args:
        place: the folder that holds them.
    """

    def __init__(self, place: Path = _PLACE) -> None:
        self._place = place
        self._files = _files_below(place)

    def answer(self, request: Request) -> Response:
        """Answer with the file of a path, by its name in the listing."""
        name = request.scope["path"].lstrip("/") or _FIRST
        path = self._files.get(name)
        if path is None:
            return Response(f"asynctrack: there is no page {name!r:.200} here\n", 404, media_type=_OTHER)
        try:
            status = os.stat(path, follow_symlinks=False)
            tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            headers = {"etag": tag, "cache-control": "no-cache"}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            kind = _KINDS.get(os.path.splitext(name)[1], _OTHER)
            return Response(safe_read.read(path), headers=headers, media_type=kind)
        except OSError as error:
            return Response(f"asynctrack: {name} cannot be read: {error.strerror}\n", 500, media_type=_OTHER)


def _files_below(place: Path) -> dict[str, str]:
    """Return the paths of the files, by their names from the folder on; links are none."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file():
                found[path.relative_to(place).as_posix()] = os.fspath(path)
    return found
