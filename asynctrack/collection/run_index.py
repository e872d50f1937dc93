"""Run index: what was found out about the runs of one directory, kept in the user's cache. Runs anywhere.

A row is of one run, and has a signature: when its directory and files were changed, and how long they are. As long as that is the same, the row tells what
the files do, so that a run that has ended costs a few `stat`s. What depends on more than files, as the status of a run that has not ended, is never kept.
A row whose files were changed less than two seconds before they were read is not kept either: another change in the same tick of the clock would not show.

All of it can be made anew. What is damaged or of another version counts as empty, and where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system import user_cache
from asynctrack.collection.metric_stats import MetricStats
from asynctrack.collection.run_summary import RunSummary
from asynctrack.journal.layout import segment_name
from asynctrack.journal.manifest import FILE_NAME, UNREADABLE
from asynctrack.journal.reader import segments
from asynctrack.reading import catalog
from asynctrack.reading.history import History
from asynctrack.records.codec import Decoder, encode

# The kind of these files in the user's cache.
KIND: Final = "runs"

# Changes that are younger than this when a file is read may be followed by others that its times do not tell apart. Some file systems count in 2 s.
_UNSURE_NS: Final = 2 * 10**9
# A longer row is not kept: a run may make up a name per record. Arbitrary.
_ROW_BYTES: Final = 256 << 10
# An index is saved at most this often, and so that a tenth of the time goes into it.
_SAVED_EACH_S: Final = 1.0
_SAVING: Final = 0.1

Signature = tuple[int, ...]
Stats = dict[str, MetricStats]
# Of a `run.json`: the number of the run's directory in the file system, the file's length and when it was changed.
_Mark = tuple[int, int, int]


class IndexRow(msgspec.Struct, array_like=True):
    """Holds what is kept of a run.

    Attributes:
        signature: of its files.
        segment: the last one of its journal.
        summary: None where it is not final.
        stats: by history.
    """

    signature: Signature
    segment: int
    summary: msgspec.Raw
    stats: dict[str, msgspec.Raw] = {}


class _Content(msgspec.Struct, array_like=True):
    """Holds the content of an index.

    Attributes:
        created: of each run the mark of its `run.json`, and when it was created.
        rows: by the names of directories.
    """

    created: dict[str, tuple[_Mark, str]] = {}
    rows: dict[str, msgspec.Raw] = {}


def _format() -> int:
    """Return a number that tells formats apart: one with other fields must not be read."""
    named = [repr(msgspec.json.schema(of)) for of in (MetricStats,)]
    fields = [field.name for of in (RunSummary, IndexRow, _Content) for field in msgspec.structs.fields(of)]
    return zlib.crc32(" ".join([*named, *fields]).encode())


_NOTHING: Final = msgspec.Raw(b"\xc0")
_content: Final = msgspec.msgpack.Decoder(_Content)
_row: Final = msgspec.msgpack.Decoder(IndexRow)
_summary: Final = msgspec.msgpack.Decoder(RunSummary, ext_hook=Decoder().extension)
_stats: Final = msgspec.msgpack.Decoder(Stats, ext_hook=Decoder().extension)
_FORMAT: Final = _format()


class RunIndex:
    """Keeps what is known of the runs in one directory.

    Args:
        directory: holds the runs' own directories.
        cache: False keeps it in memory alone.
    """

    def __init__(self, directory: str, *, cache: bool = True) -> None:
        self._saved = _Index(f"{_FORMAT:08x} {os.path.realpath(directory)}" if cache else None)
        # Also where the runs are not looked at in turn, or not all of them.
        self._finalizer = weakref.finalize(self, self._saved.save)

    def created_at(self, run: str, inode: int) -> str | None:
        """Return when a run was created that is known; None where its directory or its `run.json` is another.

        Args:
            run: its directory.
            inode: the number of that in the file system.
        """
        found = self._saved.created.get(os.path.basename(run))
        if found is not None:
            with contextlib.suppress(OSError):
                said_ns, said_bytes = _stat(f"{run}/{FILE_NAME}")
                return found[1] if found[0] == (inode, said_bytes, said_ns) else None
        return None

    def summary(self, run: str) -> RunSummary | None:
        """Return the summary of a run that is final and whose files have not changed since; None otherwise.

        Args:
            run: its directory.
        """
        row = self._current(run)
        if row is None or row.summary == _NOTHING:
            return None
        with contextlib.suppress(*UNREADABLE):
            return msgspec.structs.replace(_summary.decode(row.summary), path=run)
        return None

    def stats(self, run: str, history: History) -> Stats | None:
        """Return the stats of a run's metrics, if its files have not changed since; None otherwise."""
        row = self._current(run)
        if row is not None and history in row.stats:
            with contextlib.suppress(*UNREADABLE):
                return _stats.decode(row.stats[history])
        return None

    def look(self, run: str) -> IndexLook:
        """Note how the files of a run are, before they are read."""
        return IndexLook(self._saved, run)

    def keep_only(self, names: set[str]) -> None:
        """Forget all runs but these: the others are gone."""
        self._saved.keep_only(names)

    def save(self) -> None:
        """Put what is new into the user's cache."""
        self._saved.save()

    def _current(self, run: str) -> IndexRow | None:
        row = self._saved.row(os.path.basename(run))
        if row is None:
            return None
        with contextlib.suppress(OSError):
            if _signature(run, row.segment)[0] == row.signature:
                return row
        return None


class IndexLook:
    """Remembers how the files of a run were before they were read; what is found there is kept, unless they were just changed."""

    def __init__(self, index: _Index, run: str) -> None:
        self._index = index
        self._run = Path(run)
        self._name = os.path.basename(run)
        self._row: IndexRow | None = None
        now_ns = time.time_ns()
        try:
            segment = max(segments(os.path.join(run, "journal")), default=0)
            signature, changed_ns = _signature(run, segment)
        except OSError:
            index.forget(self._name)
            return
        if changed_ns + _UNSURE_NS < now_ns:
            known = index.row(self._name)
            is_same = known is not None and known.signature == signature
            self._row = known if is_same else IndexRow(signature, segment, _NOTHING, {})

    def keep_summary(self, summary: RunSummary) -> None:
        """Keep a summary that is final."""
        if self._row is not None:
            self._row.summary = _encoded(msgspec.structs.replace(summary, path=""))
            sorted_by = catalog.created_at(self._run)  # another time where the journal stands in for `run.json`
            self._index.put(self._name, self._row, sorted_by if sorted_by == summary.created_at else None)

    def keep_stats(self, history: History, stats: Stats) -> None:
        """Keep the stats of the metrics."""
        if self._row is not None:
            self._row.stats[history] = _encoded(stats)
            self._index.put(self._name, self._row)


class _Index:
    """Holds the rows of an index, and writes them to the cache."""

    def __init__(self, key: str | None) -> None:
        self._key = key
        self._content = _Content()
        self._is_new = False
        self._saved_at = time.monotonic()
        self._pause_s = _SAVED_EACH_S
        if key is not None:
            with contextlib.suppress(*UNREADABLE):
                self._content = _content.decode(user_cache.read(KIND, key) or b"\x90")

    @property
    def created(self) -> dict[str, tuple[_Mark, str]]:
        return self._content.created

    def row(self, name: str) -> IndexRow | None:
        found = self._content.rows.get(name)
        if found is not None:
            with contextlib.suppress(*UNREADABLE):
                return _row.decode(found)
        return None

    def put(self, name: str, row: IndexRow, created_at: str | None = None) -> None:
        encoded = msgspec.msgpack.encode(row)
        if len(encoded) > _ROW_BYTES:
            return
        if created_at is not None:
            inode, said_bytes, said_ns = row.signature[:3]
            self._content.created[name] = ((inode, said_bytes, said_ns), created_at)
        self._content.rows[name] = msgspec.Raw(encoded)
        self._is_new = True
        if time.monotonic() - self._saved_at > self._pause_s:
            self.save()

    def forget(self, name: str) -> None:
        for of in (self._content.created, self._content.rows):
            self._is_new |= of.pop(name, None) is not None

    def keep_only(self, names: set[str]) -> None:
        for of in (self._content.created, self._content.rows):
            for name in of.keys() - names:
                del of[name]
                self._is_new = True

    def save(self) -> None:
        if not self._is_new or self._key is None:
            return
        self._is_new = False
        started = time.monotonic()
        user_cache.write(KIND, self._key, msgspec.msgpack.encode(self._content))
        self._saved_at = time.monotonic()
        self._pause_s = max(_SAVED_EACH_S, (self._saved_at - started) / _SAVING)


def _signature(run: str, segment: int) -> tuple[Signature, int]:
    """Return the signature of a run's files, and when one of them was last changed.

    Raises:
        OSError: there is no journal, or it is another user's.
    """
    here = os.stat(run)
    journal = os.stat(f"{run}/journal")
    last = os.stat(f"{run}/journal/{segment_name(segment)}")
    said_ns, said_bytes = _stat(f"{run}/{FILE_NAME}")
    cursors_ns, _ = _stat(f"{run}/cursors")
    earlier = [number for number in segments(f"{run}/journal") if number < segment] if segment > 1 else []
    before = [_stat(f"{run}/journal/{segment_name(number)}") for number in earlier]  # a copy may be half done
    times = (said_ns, here.st_mtime_ns, journal.st_mtime_ns, last.st_mtime_ns, cursors_ns)
    signature = (here.st_ino, said_bytes, *times, last.st_size, zlib.crc32(repr((earlier, before)).encode()))
    return signature, max(*times, *(changed_ns for changed_ns, _ in before))


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _encoded(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode(value))
    except UNREADABLE:  # what no payload can hold
        return _NOTHING
