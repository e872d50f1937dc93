"""Journal pass: finds in a run's journal what is no number: checkpoints, media, and what has changed the run. Runs in the server of the page, on a file thread.

It goes on where it stopped. A batch without checkpoints and media is not decoded: how a medium begins is found in its bytes.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from asynctrack.curves.pyramid import ReadBatch
from asynctrack.errors import AsynctrackError, NotARun
from asynctrack.journal import manifest as manifests
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import UNREADABLE, Manifest
from asynctrack.journal.reader import Reader, journal_id_of
from asynctrack.queue.layout import CHECKPOINT, RECORD, START
from asynctrack.reading.reader import RunReader
from asynctrack.records.codec import Decoder, Media, Record, decode_update, flatten, media_in, string_keys

# Checkpoints that are told, the last. Arbitrary.
_MOST_CHECKPOINTS: Final = 1000
# Media that are found again, the last of each key; and keys. Arbitrary.
_MOST_MEDIA: Final = 20_000
_MOST_KEYS: Final = 1000
# How a medium begins: the type of the extension, an array of six, and its kind; see `records.codec`.
_MEDIUM: Final = re.compile(rb"\x03\x96(?:\xa4(?:html|text)|\xa5(?:image|table)|\xa8artifact|\xa9histogram)")
# Changes of a run that its `run.json` does not say yet. Arbitrary; of more, it is read by its reader.
_MOST_CHANGES: Final = 10_000


class MediumPlace(NamedTuple):
    """Holds the place of a medium in a journal.

    Attributes:
        segment: of the journal.
        offset: of the batch.
        begin: the byte of the batch's frames before that of the record.
        end: the byte behind it.
        ring: of the record.
        key: under which it was logged.
        at: among those of that key in the record.
    """

    segment: int
    offset: int
    begin: int
    end: int
    ring: int
    key: str
    at: int


class _Change(NamedTuple):
    """A frame that is no record, with the place of its batch."""

    batch: tuple[int, int]
    ring: int
    frame: Frame


class KeyMedia:
    """The media of a key.

    Attributes:
        count: how many were logged.
        kind: of the last.
        places: of the last of them.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.kind: str = ""
        self.places: deque[MediumPlace] = deque(maxlen=_MOST_MEDIA)

    def add(self, place: MediumPlace, kind: str) -> None:
        """Add the next."""
        self.count += 1
        self.kind = kind
        self.places.append(place)


class JournalPass:
    """Finds what is no number in a run's journal, and goes on where it stopped. For any thread.

    Args:
        run: its directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._decode = Decoder(run).record
        self._begin(None)

    def _begin(self, journal: bytes | None) -> None:
        self._journal = journal
        self._position = Position()
        self._ends: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        self._checkpoints: deque[dict[str, Any]] = deque(maxlen=_MOST_CHECKPOINTS)
        self._media: dict[str, KeyMedia] = {}
        self._named: dict[str, MediumPlace] = {}
        self._said = Position()
        self._changes: list[_Change] | None = []

    def manifest(self) -> Manifest:
        """Return what `run.json` says, brought up to date from what was read; as `RunReader.manifest` does, without reading the journal again.

        Raises:
            NotARun: there is nothing of a run.
            UnsupportedVersion: a newer asynctrack wrote it.
        """
        with self._lock:
            found = self._as_said()
            if found is None:
                return RunReader(self._run).manifest()
            for change in self._changes or ():
                found.apply(change.frame, change.ring)
            return found

    def _as_said(self) -> Manifest | None:
        """Return the run as `run.json` or its start says, to which the changes are added; None where these are not known."""
        if self._changes is None:
            return None
        with contextlib.suppress(NotARun):
            found = manifests.load(self._run)
            if found.position[:2] < self._said[:2]:
                return None
            self._forget_changes(found.position)
            return found
        for change in self._changes if self._said == Position() else ():
            if change.frame.kind == START:
                with contextlib.suppress(*UNREADABLE):
                    return manifests.read_start(change.frame)
        return None

    def _forget_changes(self, said: Position) -> None:
        """Forget the changes that `run.json` says."""
        self._said = said
        self._changes = [change for change in self._changes or () if change.batch >= said[:2]]
        if len(self._changes) > _MOST_CHANGES:
            self._changes = None

    def renew(self) -> None:
        """Begin anew where the journal is another one than before."""
        with self._lock:
            journal = journal_id_of(str(self._run / "journal"))
            if journal != self._journal:
                self._begin(journal)
                with contextlib.suppress(AsynctrackError, OSError):
                    self._said = manifests.load(self._run).position

    def grow(self) -> None:
        """Read what the journal has since."""
        with self._lock:
            self.renew()
            with contextlib.closing(Reader(self._run / "journal", self._position, self._ends)) as reader:
                for batch in reader:
                    self._take(batch)
                    self._position = batch.after

    def take(self, read: ReadBatch) -> None:
        """Take a batch that the curves' pass has read, if it is the next: it need not be read again."""
        with self._lock:
            if read.before == self._position:
                self._take(read.batch, has_media=not read.is_plain)
                self._ends[read.batch.header.ring] = read.batch.header.end
                self._position = read.batch.after

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, each with its step, its time in seconds and its counters."""
        with self._lock:
            return list(self._checkpoints)

    def media(self) -> dict[str, KeyMedia]:
        """Return what was found by key."""
        with self._lock:
            return dict(self._media)

    def named(self, digest: str) -> MediumPlace | None:
        """Return where a medium stands, by the name of its file."""
        with self._lock:
            return self._named.get(digest)

    def memory_bytes(self) -> int:
        """Return about how much memory it takes."""
        with self._lock:
            return 300 * (len(self._named) + sum(len(one.places) for one in self._media.values()))

    def _take(self, batch: FrameBatch, *, has_media: bool = True) -> None:
        for frame in batch.frames(skip_records=True):
            if frame.kind == CHECKPOINT:
                self._note_checkpoint(batch, frame)
            if (batch.segment, batch.offset) >= self._said[:2] and self._changes is not None:
                kept = frame._replace(payload=memoryview(bytes(frame.payload)))
                self._changes.append(_Change((batch.segment, batch.offset), batch.header.ring, kept))
        if has_media and (found := [match.start() for match in _MEDIUM.finditer(batch.data)]):
            for begin, frame in _around(batch, found):
                with contextlib.suppress(*UNREADABLE):
                    record = self._decode(frame.payload, frame.number, batch.header.ring)
                    self._note_media(batch, begin, frame, record)

    def _note_checkpoint(self, batch: FrameBatch, frame: Frame) -> None:
        with contextlib.suppress(*UNREADABLE):
            time_ns, counters, _ = decode_update(frame.payload)
            step = self._step_before(batch, frame.end)
            self._checkpoints.append({"step": step, "time": time_ns / 1e9, "counters": counters})

    def _step_before(self, batch: FrameBatch, end: int) -> int | None:
        """Return the step of the record before a frame; of the one behind it, where there is none in the batch."""
        last: Frame | None = None
        for frame in batch.frames():
            if frame.kind == RECORD and (frame.end <= end or last is None):
                last = frame
            if frame.end > end and last is not None:
                break
        with contextlib.suppress(*UNREADABLE):
            if last is not None:
                return self._decode(last.payload, last.number).step
        return None

    def _note_media(self, batch: FrameBatch, begin: int, frame: Frame, record: Record) -> None:
        for key, at, medium, is_within in media_of(record):
            place = MediumPlace(batch.segment, batch.offset, begin, frame.end, batch.header.ring, key, at)
            if not is_within and (key in self._media or len(self._media) < _MOST_KEYS):
                self._media.setdefault(key, KeyMedia()).add(place, medium.kind)
            if len(self._named) < _MOST_MEDIA and (digest := digest_of(medium)) is not None:
                self._named.setdefault(digest, place)


def media_of(record: Record) -> Iterator[tuple[str, int, Media, bool]]:
    """Yield the media of a record: each with its key, its place among those of the key, and whether it lies within another, as the images of a table."""
    for key, value in flatten(string_keys(record.data)):
        if isinstance(value, Media | list):
            whole = value if isinstance(value, list) else [value]
            for at, medium in enumerate(media_in(value)):
                yield key, at, medium, not any(medium is one for one in whole)


def digest_of(medium: Media) -> str | None:
    """Return the name of a medium's file without its suffix; None where it has none."""
    return None if medium.path is None else medium.path.rpartition("/")[2].partition(".")[0]


def _around(batch: FrameBatch, found: list[int]) -> Iterator[tuple[int, Frame]]:
    """Yield the records in which bytes were found, each with the byte where its frame begins."""
    begin, at = 0, 0
    for frame in batch.frames():
        while at < len(found) and found[at] < begin:
            at += 1
        if at == len(found):
            return
        if frame.kind == RECORD and found[at] < frame.end:
            yield begin, frame
        begin = frame.end
