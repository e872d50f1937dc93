"""HTML export: chosen runs and the page in one file, which opens without a server. Runs where runs are exported.

Curves have a limited number of points, small media are in it, and logs and changes of code are not: a file is passed on. The file says so.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from asynctrack._system.wording import counted
from asynctrack.client import run_state
from asynctrack.collection.run_places import RunPlaces
from asynctrack.curves.run_curves import RunCurves
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.reader import Damage
from asynctrack.ui.embedding import EmbeddedRun, MediaRoom
from asynctrack.ui.html_file import html_file
from asynctrack.ui.run_books import OpenBooks
from asynctrack.ui.run_document import run_document
from asynctrack.ui.run_list import ListedRun, RunList
from asynctrack.ui.run_rows import row_of
from asynctrack.ui.run_shelf import RunShelf

_FORMAT: Final = 1
# Of more the charts are a tangle. Arbitrary.
_MOST_COMPARED: Final = 20


class ExportSize(msgspec.Struct, frozen=True, kw_only=True):
    """Says how large a file may become.

    Attributes:
        buckets: points of a curve, at most.
        points: of all curves together; where there are many curves, each has fewer.
        fewest_buckets: points of a curve, however many curves there are.
        media_bytes: of all media together.
    """

    buckets: int
    points: int
    fewest_buckets: int
    media_bytes: int

    def of_each(self, curves: int) -> int:
        """Return how many points each of so many curves may have."""
        return min(self.buckets, max(self.fewest_buckets, self.points // max(1, curves)))


# Arbitrary: 2 MB of curves, which are 50 of 4,000 points; and as much as one likes to have in a notebook.
FILE_SIZE: Final = ExportSize(buckets=4000, points=200_000, fewest_buckets=500, media_bytes=8 << 20)
NOTEBOOK_SIZE: Final = ExportSize(buckets=1000, points=50_000, fewest_buckets=100, media_bytes=1 << 20)


class HtmlExport:
    """Runs and the page on their way into one file.

    Args:
        places: directories of runs, or such that hold runs; in the file these are in the order in which they are found here.
        cache: what was read of long runs is kept in the user's cache, and found there.
        size: of the file.
        compares: several runs, if not many, are compared where the file is opened; else they are a table.
        version: of asynctrack.

    Attributes:
        keys: by which the runs are named in the file.
    """

    def __init__(
        self,
        places: Sequence[Path],
        *,
        cache: bool = True,
        size: ExportSize = FILE_SIZE,
        compares: bool = False,
        version: str = "",
    ) -> None:
        self._runs = _listed(places, cache=cache)
        self._shelf = RunShelf(cache=cache)
        self._size = size
        self._buckets = size.buckets
        self._room = MediaRoom(size.media_bytes)
        self._compares = compares
        self._version = version
        self._embedded: list[dict[str, Any]] = []
        self.keys: list[str] = [run.key for run in self._runs]

    def texts(self, done: Callable[[int], object] = lambda runs: None) -> Iterator[str]:
        """Yield the texts of which the file consists.

        Args:
            done: called with the number of runs that are in it.
        """
        self._embedded = []
        self._room = MediaRoom(self._size.media_bytes)
        named = self.keys[0] if len(self.keys) == 1 else f"{len(self.keys)} runs"
        return html_file(f"{named} · asynctrack", self._parts(done), self._index)

    def write(self, file: Path, done: Callable[[int], object] = lambda runs: None) -> None:
        """Write the file, which appears when it is complete; one that is there is replaced."""
        partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        try:
            with open(partial, "x", encoding="utf-8") as out:
                out.writelines(self.texts(done))
            os.replace(partial, file)
        finally:
            with suppress(OSError):
                os.unlink(partial)

    def _parts(self, done: Callable[[int], object]) -> Iterator[str]:
        found = [self._curves_of(run) for run in self._runs]
        self._buckets = self._size.of_each(sum(len(one[0].names()) for one in found if not isinstance(one, str)))
        for at, run in enumerate(self._runs):
            embedded = self._embed(run)
            self._embedded.append(embedded.index())
            yield "\n".join(embedded.lines)
            done(at + 1)

    def _index(self) -> dict[str, Any]:
        said = {"format": _FORMAT, "asynctrack": self._version, "note": self._note(), "start": self._start()}
        return {**said, "runs": self._embedded}

    def _start(self) -> str:
        """Return the fragment of the address at which the page begins."""
        if len(self.keys) == 1:
            return f"#/run/{quote(self.keys[0])}"
        if self._compares and len(self.keys) <= _MOST_COMPARED:
            return f"#/compare/?{urlencode([('run', key) for key in self.keys])}"
        return "#/"

    def _embed(self, run: ListedRun) -> EmbeddedRun:
        found = self._curves_of(run)
        subject = run.anew(run_state.other_workers())
        embedded = EmbeddedRun(run.key, subject.summary)
        if isinstance(found, str):
            embedded.add_document({**row_of(run.key, subject.summary), "metrics": [], "damage": [found]})
            return embedded
        with suppress(AsynctrackError, OSError, *UNREADABLE):  # the document says what is wrong
            embedded.add_media(Path(run.path), self._shelf.found_in(run.path), self._room)
        with closing(OpenBooks()) as books:
            embedded.add_document(run_document(run, subject, self._shelf, books))
        embedded.add_curves(found[0], self._buckets)
        return embedded

    def _curves_of(self, run: ListedRun) -> tuple[RunCurves, list[Damage]] | str:
        """Return the curves of a run; why not, where it cannot be read: the others are shown all the same."""
        try:
            return self._shelf.curves_of(run.path)
        except (AsynctrackError, OSError, *UNREADABLE) as error:
            return str(error).replace(f"{run.path}{os.sep}", "") or type(error).__name__

    def _note(self) -> str:
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        return (
            f"Exported {when}: runs are shown as they were then. Curves have {self._buckets:,} points at most, "
            f"and a zoom shows no more. Logs and uncommitted changes are not in this file{self._media_note()}."
        )

    def _media_note(self) -> str:
        count = self._room.left_out
        return (
            f", nor {'is' if count == 1 else 'are'} {counted(count, 'image, file or other medium', 'images, files or other media')}"
            if count
            else ""
        )


def _listed(places: Sequence[Path], *, cache: bool) -> list[ListedRun]:
    listing = RunList()
    found: dict[str, ListedRun] = {}
    for place in places:
        for run in RunPlaces(place, cache=cache).newest_first():
            path = os.path.abspath(run.path)
            if path not in found:
                found[path] = listing.add(path, run.found_by)
    return list(found.values())
