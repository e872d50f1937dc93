"""Carried files: brings files that were logged by their paths to a collector, before the records that name them. Runs with the driver, on a thread.

Each file is first copied into the host's own part, as a delivery to any backend does it, and sent from there: so a record keeps the content that its file had, also
where the path is written again while the collector is away. What has changed before it could be copied, or is too large, is said, and the records go on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from asynctrack.backends.base import Signal
from asynctrack.carriers.base import CollectorCarrier, FileTooLarge
from asynctrack.carriers.file_sender import FileSender
from asynctrack.carriers.file_wire import MOST_WHY, PlacedMedium, Placing, SentFile
from asynctrack.carriers.message import Place
from asynctrack.delivery import media_store
from asynctrack.delivery.logged_files import files_in, files_in_message, places, why_too_large
from asynctrack.delivery.reports import Reports
from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Reader
from asynctrack.records.codec import Decoder
from asynctrack.records.media_types import Media

# What is done at once, before somebody may stop the delivery. Arbitrary.
_STEP_S: Final = 2.0
# Of media that need not be asked for again; beyond that they are forgotten, and asked for. Arbitrary: some 10 MB.
_MOST_KNOWN: Final = 100_000
_READ_BYTES: Final = 1 << 20


class FilesFirst(Exception):
    """The message names files that have to be brought before it."""


class CarriedFiles:
    """The way of a journal to a collector, for messages and the files that they name.

    Args:
        run: the directory of this host's part of the run.
        host: its name.
        carrier: of the journal.
        max_bytes: of the files of one medium; larger ones stay where they are, and the collector is told where that is.
        reports: who says what happens.
    """

    def __init__(self, run: Path, host: str, carrier: CollectorCarrier, max_bytes: int, reports: Reports) -> None:
        self._run = run
        self._host = host
        self._carrier = carrier
        self._max_bytes = max_bytes
        self._reports = reports
        self._sender = FileSender(carrier)
        self._known: set[str] = set()  # paths of media of which the collector has all it gets
        self._waiting: list[Media] = []
        self._bringing: Iterator[None] | None = None
        self._place = Place()
        self._kept = Position()

    def __repr__(self) -> str:
        return f"<CarriedFiles of {self._run}, {len(self._waiting)} waiting>"

    @property
    def waits(self) -> bool:
        """Return whether there are files to bring."""
        return bool(self._waiting)

    @property
    def merges(self) -> bool:
        """Return whether the carrier's messages are merged when they are taken."""
        return self._carrier.merges

    @property
    def asks_again(self) -> bool:
        """Return whether the carrier is to be asked where to go on."""
        return self._carrier.asks_again

    def locate(self, journal: bytes) -> Place:
        """Ask the carrier; where the collector has lost something, its files may be lost, too."""
        place = self._carrier.locate(journal)
        if place < self._place:
            self._known.clear()
        self._place = place
        return place

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        """Send a message.

        Raises:
            FilesFirst: it names files that are not brought yet: `advance` brings them.
        """
        found = files_in_message(message, self._run)
        self._waiting = [media for media in found if media.path not in self._known]
        if self._waiting:
            raise FilesFirst
        try:
            self._carrier.send(after, upto, message)
        except Exception:
            self._known.clear()
            raise
        self._place = upto
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()

    def advance(self, position: Position) -> None:
        """Bring a part of the files that wait. Raises what the carrier raises; what was brought by then need not be brought again.

        Args:
            position: up to where the collector has the journal.
        """
        with contextlib.suppress(OSError, Signal):  # it is said when it is their turn
            self.keep(position)
        until = time.monotonic() + _STEP_S
        try:
            while self._waiting and time.monotonic() < until:
                media = self._waiting[0]
                self._bringing = self._bringing or self._bring(media, str(media.path))
                if next(self._bringing, self) is self:
                    self._bringing = None
                    self._known.add(str(media.path))
                    self._waiting.pop(0)
        except BaseException:
            self._bringing = None
            raise

    def keep(self, position: Position) -> None:
        """Copy the files that the journal names next, while the collector is away or busy: they may be written again before it is their turn.

        Args:
            position: up to where the collector has the journal.
        """
        until, decoder = time.monotonic() + _STEP_S, Decoder(self._run)
        with contextlib.closing(Reader(self._run / "journal", max(self._kept, position))) as reader:
            while time.monotonic() < until and (batch := reader.next()) is not None:
                for media in files_in(batch, decoder):
                    if why_too_large(media, self._max_bytes, self._host) is None:
                        media_store.store_one(self._run, media, str(media.path))
            self._kept = reader.position

    def close(self) -> None:
        """Close the connection."""
        self._carrier.close()

    def _bring(self, media: Media, path: str) -> Iterator[None]:
        """Bring one medium; yields now and then."""
        said = why_too_large(media, self._max_bytes, self._host)
        if said is None:
            media_store.store_one(self._run, media, path)
            yield
            if media.file is None:
                said = f"{media.missing or 'it could not be copied'} (host {self._host})"
        else:
            self._reports.say(f"{media!r} is not sent: {said}")
        if said is None:
            files: dict[str, SentFile] = {}
            for name, place in _files_of(media):
                files[name] = yield from _digest(place)
            try:
                yield from self._follow(self._sender.bring(PlacedMedium(path, files), self._run / path), media)
                return
            except FileTooLarge as error:
                self._reports.say(f"{media!r} is not sent: {error}")
                said = f"the collector does not take it; {places(media, self._host)}"
        yield from self._follow(self._sender.bring(PlacedMedium(path, missing=said[:MOST_WHY]), self._run), media)

    def _follow(self, pieces: Iterator[Placing], media: Media) -> Iterator[None]:
        for placing in pieces:
            if placing.differs:
                what = "has a file of the same path, size and time of change from another host, with other content"
                self._reports.say(f"{media!r} is not sent: the collector {what}, and keeps that")
            yield


def _files_of(media: Media) -> Iterator[tuple[str, Path]]:
    """Yield the names of a medium's files, and where they lie in the host's part."""
    place = media.file
    assert place is not None
    if media.kind != "artifact":
        yield "", place
        return
    for file in media.files:
        yield file.name, place / file.name


def _digest(path: Path) -> Generator[None, None, SentFile]:
    """Read a file; yields now and then, and returns what it holds."""
    digest, size = hashlib.sha256(), 0
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as content:
        while piece := content.read(_READ_BYTES):
            digest.update(piece)
            size += len(piece)
            yield
    return SentFile(digest.hexdigest(), size)
