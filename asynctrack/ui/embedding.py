"""Embedding: what an exported file has of a run: its row, document, curves and small media, as texts in the lines of one part. Runs where runs are exported.

`page/embedded.js` reads it. A path of this machine is not in it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from asynctrack.collection.run_summary import RunSummary
from asynctrack.curves.curve import CurveBuckets
from asynctrack.curves.run_curves import RunCurves
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.records.media_types import unicode
from asynctrack.ui.curve_wire import block_of_curve
from asynctrack.ui.journal_pass import JournalPass
from asynctrack.ui.media_items import file_of, items_of
from asynctrack.ui.packing import packed, packed_block, rounded
from asynctrack.ui.plain_json import encode
from asynctrack.ui.run_rows import row_of

# By time a curve has so many times fewer points: most look at steps, and zoom in there.
_COARSER_BY_TIME: Final = 4
# Numbers of metrics that are drawn at once, at most: 64 MiB. Of longer runs they are not read one by one.
_AT_ONCE: Final = 4 << 20
_MOST_READ: Final = 1 << 18
# Media of a key: so many, over all of its steps. A file that is longer is left out. Arbitrary.
_MOST_OF_A_KEY: Final = 16
_LONGEST_FILE: Final = 256 << 10
# Of HTML none is shown: in the file it would have no style, and out of it no bounds.
_WITH_FILE: Final = frozenset({"image", "text"})
_WITHOUT_FILE: Final = frozenset({"table", "histogram"})


class MediaRoom:
    """Room for media in a file, of all runs together.

    Attributes:
        left: bytes.
        left_out: how many media found no room.
    """

    def __init__(self, most_bytes: int) -> None:
        self.left: int = most_bytes
        self.left_out: int = 0

    def takes(self, size: int) -> bool:
        """Take some of the room; return False where there is not as much, or where it is too much for one."""
        fits = size <= min(self.left, _LONGEST_FILE)
        self.left -= size if fits else 0
        self.left_out += not fits
        return fits


class EmbeddedRun:
    """A run on its way into a file.

    Args:
        key: of the run in the file.
        summary: what is known of it.

    Attributes:
        lines: of its part.
    """

    def __init__(self, key: str, summary: RunSummary) -> None:
        self.lines: list[str] = []
        self._key = key
        self._media: list[dict[str, Any]] = []
        self._files: set[str] = set()
        self._said: dict[str, Any] = {
            "row": row_of(key, summary),
            "origin": None,
            "document": None,
            "curves": {"step": [], "time": []},
            "media": [],
            "files": [],
        }

    def index(self) -> dict[str, Any]:
        """Return what the index says of it."""
        return self._said

    def add_document(self, document: dict[str, Any]) -> None:
        """Add what is known of the run; what the file does not have is said to be missing. Media come before."""
        left = {name: value for name, value in document.items() if name != "path"}
        said = {"has_log": False, "diff": False, "media": self._media}
        self._said["document"] = self._add(packed(encode({**left, **said})))

    def add_media(self, run: Path, found: JournalPass, room: MediaRoom) -> None:
        """Add some media of each key, from its first step to its last, as long as there is room."""
        for key, of in found.media().items():
            items = []
            for at in _spread(of.count):
                items += [
                    item for item in items_of(run, found, key, at, 1)["items"] if self._takes(run, found, item, room)
                ]
            room.left_out += of.count - len(_spread(of.count))
            if items:
                line = self._add(packed(encode({"items": items, "count": len(items)})))
                self._said["media"].append([unicode(key), line])
                self._media.append({"key": unicode(key), "kind": of.kind, "count": len(items)})

    def _takes(self, run: Path, found: JournalPass, item: dict[str, Any], room: MediaRoom) -> bool:
        if item["kind"] in _WITHOUT_FILE:
            return room.takes(len(encode(item)))
        if item["kind"] not in _WITH_FILE or not item["sha256"]:
            room.left_out += 1
            return False
        if item["sha256"] in self._files:
            return True
        with suppress(AsynctrackError, OSError, *UNREADABLE):
            file = file_of(run, found, item["sha256"], "")
            if room.takes(len(file.content)):
                self._files.add(item["sha256"])
                line = self._add(base64.b64encode(file.content).decode("ascii"))
                self._said["files"].append([item["sha256"], file.kind, line])
                return True
        return False

    def add_curves(self, curves: RunCurves, buckets: int) -> None:
        """Add the curve of each metric by steps and by time, with so many points at most."""
        for axis, most in (("step", buckets), ("time", max(1, buckets // _COARSER_BY_TIME))):
            for curve in _drawn(curves, axis, most):
                block = block_of_curve(self._key, rounded(curve), curves.extent(curve.key, axis))
                self._said["curves"][axis].append([unicode(curve.key), self._add(packed_block(block))])
        self._said["origin"] = _origin(curves)

    def _add(self, text: str) -> int:
        self.lines.append(text)
        return len(self.lines) - 1


def _spread(count: int) -> list[int]:
    """Return which of so many are taken: the first, the last, and some between them."""
    last = min(count, _MOST_OF_A_KEY) - 1
    return [at * (count - 1) // last for at in range(last + 1)] if last > 0 else list(range(count))


def _drawn(curves: RunCurves, axis: str, most: int) -> Iterator[CurveBuckets]:
    for some in _together(curves):
        yield from curves.curves(some, axis, None, None, most).values()


def _together(curves: RunCurves) -> Iterator[list[str]]:
    """Yield the metrics, as many at once as have not too many numbers: for each lot of short curves the journal is read again."""
    some: list[str] = []
    numbers = 0
    for key in curves.names():
        totals = curves.totals(key)
        numbers += 0 if totals is None else min(totals.count, _MOST_READ)
        if some and numbers > _AT_ONCE:
            yield some
            some, numbers = [], 0
        some.append(key)
    if some:
        yield some


def _origin(curves: RunCurves) -> float | None:
    """Return when the run begins, in seconds since the epoch."""
    for key in curves.names()[:1]:
        by_time, relative = curves.extent(key, "time"), curves.extent(key, "relative")
        if by_time is not None and relative is not None:
            return by_time[0] - relative[0]
    return None
