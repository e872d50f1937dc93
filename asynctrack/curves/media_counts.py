"""Media counts: how many images, tables and the like a run has, and where the newest are, in memory that does not grow with the run. Runs anywhere."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from asynctrack.records.codec import Media

# How many of the newest are known.
_KNOWN: Final = 5


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

    Args:
        by_kind: those of an earlier part of the run.
        newest: likewise.

    Attributes:
        by_kind: how many were logged.
        newest: the last with a file, the newest first.
    """

    def __init__(self, by_kind: dict[str, int] | None = None, newest: Iterable[NamedMedium] = ()) -> None:
        self.by_kind: Counter[str] = Counter(by_kind)
        self.newest: deque[NamedMedium] = deque(newest, maxlen=_KNOWN)

    def add(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Add the media among the values of a record, each of which comes with its name."""
        for key, value in pairs:
            if isinstance(value, Media):
                self.by_kind[value.kind] += 1
                if path := value.path:
                    self.newest.appendleft(NamedMedium(key, value.kind, path))
