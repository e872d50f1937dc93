"""Media counts: how many images, tables and the like a run has, and where the newest are, in memory that does not grow with the run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asynctrack._system.wording import counted
from asynctrack.cli.output import Output, Piece, Styled, TableColumn
from asynctrack.reading.scan import OBJECT
from asynctrack.records.codec import Media, flatten

if TYPE_CHECKING:
    from asynctrack._native import Scan

# Kinds that are no nouns.
_NOUNS: Final = {"html": "html page"}
# How many of the newest are named.
_NAMED: Final = 5


class NamedMedium(NamedTuple):
    """A medium that a run has.

    Attributes:
        key: under which it was logged.
        kind: such as "image".
        path: of its file, below the run's directory.
    """

    key: str
    kind: str
    path: str


class MediaCounts:
    """The media of a run.

    Attributes:
        by_kind: how many were logged.
        newest: the last with a file, the newest first.
    """

    def __init__(self) -> None:
        self.by_kind: Counter[str] = Counter()
        self.newest: deque[NamedMedium] = deque(maxlen=_NAMED)

    def add(self, data: Mapping[str, Any]) -> None:
        """Add the media of a record's data."""
        if not any(isinstance(value, Media | dict) for value in data.values()):
            return
        for key, value in flatten(data):
            if isinstance(value, Media):
                self._add(key, value)

    def add_scan(self, scan: Scan) -> None:
        """Add the media of the rows that a scan has."""
        found: list[tuple[int, str, Media]] = []
        for index, key in enumerate(scan.names()):
            if scan.describe(index)[0] & OBJECT:
                rows = memoryview(scan.rows_of(index))
                values = zip(rows, scan.objects_of(index), strict=True)
                found += [(row, key, value) for row, value in values if isinstance(value, Media)]
        for _, key, medium in sorted(found, key=lambda one: one[0]):
            self._add(key, medium)

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"counts": dict(self.by_kind), "newest": [one._asdict() for one in self.newest]}

    def show(self, out: Output) -> None:
        """Print the counts and the newest files; nothing where there are none."""
        if not self.by_kind:
            return
        out.heading("media")
        out.line(
            ", ".join(counted(count, _NOUNS.get(kind, kind)) for kind, count in self.by_kind.most_common()), indent=2
        )
        rows: list[list[Piece]] = [[Styled(one.key, "dim"), one.path] for one in self.newest]
        out.table([TableColumn(cut=True), TableColumn(cut=True)], rows, indent=2, titles=False)

    def _add(self, key: str, medium: Media) -> None:
        self.by_kind[medium.kind] += 1
        if path := medium.path:
            self.newest.appendleft(NamedMedium(key, medium.kind, path))
