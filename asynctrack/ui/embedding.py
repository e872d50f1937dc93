"""Embedding: what an exported file has of one run: its row, its document and its curves, as texts in the lines of one part. Runs where runs are exported.

`page/embedded.js` reads it. A path of this machine is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from asynctrack.collection.run_summary import RunSummary
from asynctrack.curves.curve import CurveBuckets, curve_of_cells
from asynctrack.curves.run_curves import RunCurves
from asynctrack.records.media_types import unicode
from asynctrack.ui.curve_wire import block_of_curve
from asynctrack.ui.packing import packed, packed_block, rounded
from asynctrack.ui.plain_json import encode
from asynctrack.ui.run_rows import row_of

# By time a curve has so many times fewer points: most look at steps, and zoom in there.
_COARSER_BY_TIME: Final = 4
# Metrics that are drawn at once: single numbers of them are in memory together. Arbitrary.
_AT_ONCE: Final = 50


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
        """Add what is known of the run; what the file does not have is said to be missing."""
        left = {name: value for name, value in document.items() if name not in ("path", "media")}
        self._said["document"] = self._add(packed(encode({**left, "has_log": False, "diff": False})))

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


def _drawn(curves: RunCurves, axis: str, most: int) -> Iterator[CurveBuckets]:
    names = curves.names()
    for first in range(0, len(names), _AT_ONCE):
        some = tuple(names[first : first + _AT_ONCE])
        found = curves.curves(some, axis, None, None, most)
        many = tuple(key for key in some if len(found[key]) > most)  # single numbers, where these are not very many
        summed = curves.drawn(many, axis, None, None, most) if many else {}
        for key in some:
            yield curve_of_cells(key, axis, summed[key].cells) if key in summed else found[key]


def _origin(curves: RunCurves) -> float | None:
    """Return when the run begins, in seconds since the epoch."""
    for key in curves.names()[:1]:
        by_time, relative = curves.extent(key, "time"), curves.extent(key, "relative")
        if by_time is not None and relative is not None:
            return by_time[0] - relative[0]
    return None
