"""JSON columns: one file, a column per key, as TROPT's tracker writes it. Runs on a thread of the worker.

    {"config": {...}, "loss": [0.5, 0.25], "trigger_str": ["a", "b"], "run_summary": {...}}

`config` and `run_summary` are there when they are not empty. Nested names are joined by `/`. A user's keys `config` and
`run_summary` get an underscore in front, as do `_config` and so on. NaN and the infinities are strings, as in
`metrics.jsonl`. A column has only the values of its key. With `aligned=True` there are also `_step` and `_timestamp`,
and null where a record has no such key, so that all columns have one length.

The file is valid JSON at every moment, since it is replaced at once. A file of columns cannot be appended to. So new
rows wait in a hidden file of lines, which a crash leaves behind; replacing copies the columns and adds these lines. A
file below 1 MiB is replaced at each save of the cursor: once a second, and at `flush`. A larger one is replaced when it
has grown by a quarter, or when as many seconds have passed as it has MiB. So all writes together are at most five times
the file, and 1 MiB/s. At the run's end the file gets the rest.

Each value is there once, also after a crash. The state holds the number of values in each column, and a file that was
replaced after the state was saved is cut back to that.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import string
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from asynctrack._system import permissions
from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Execution, Outcome, Resend, Sink
from asynctrack.backends.files.appending import free_path
from asynctrack.backends.files.config_mirror import ConfigMirror
from asynctrack.backends.files.json_file import ColumnFile, NotOurs
from asynctrack.backends.files.reserved import WRITER, free_name
from asynctrack.backends.files.writer_folders import directory_of, path_of
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Record, to_json
from asynctrack.records.plain import flat

# A smaller file is replaced at each save of the cursor; a larger one may write this many bytes a second. Arbitrary: 90 GB a day.
_SMALL_BYTES: Final = 1 << 20
# A file is also replaced when one value waits for this many that it has: so it is written at most five times in all. Arbitrary.
_GROWTH: Final = 4

_OF_THE_RUN: Final = "run.json"
# A run's name may be longer than a file's can be. Arbitrary.
_LONGEST_NAME: Final = 100
_PLACEHOLDERS: Final = frozenset({"name", "id", "project"})
_UNSAFE: Final = re.compile(r"[^\w. -]")
_KEPT: Final = ("config", "run_summary")
_ALIGNED: Final = (*_KEPT, "_step", "_timestamp")

# Bytes of rows that are read at once. Arbitrary.
_PIECE_BYTES: Final = 1 << 20

_PLAIN: Final = frozenset({float, int, str, bool})
_encoder: Final = msgspec.json.Encoder(enc_hook=to_json)
_rows: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JSON(Backend, frozen=True, kw_only=True, tag="json"):
    """Writes all values of a run into one JSON file, a list per key.

    Attributes:
        file: name in the run's directory. Or a path, relative to the directory in which the run is opened, in which
            `{name}`, `{id}` and `{project}` stand for the run's: `logs/{name}.json`. A file there that is not this
            run's is never touched: the run's is then `logs/first-2.json`, and `first.json.link` in the run's directory
            leads there.
        aligned: add the columns `_step` and `_timestamp`, of several writers also `_writer`, and null where a record
            has no such key.
    """

    execution: ClassVar[Execution] = "worker"
    can_split: ClassVar[bool] = True
    milestones = True
    file: str = "metrics.json"
    aligned: bool = False

    def __post_init__(self) -> None:
        problems = _problems(self.file)
        if self.aligned not in (True, False):
            problems.append(f"aligned must be True or False; got {self.aligned!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    @property
    def idempotent(self) -> bool:  # type: ignore[override]  # of the class elsewhere
        """Return whether the file is in the run's directory.

        A copy of the run would go on in the original's file otherwise.
        """
        return not os.path.dirname(self.file)

    def prepare(self) -> JSON:
        """Make a path outside the run's directory absolute."""
        if not os.path.dirname(self.file):
            return self
        return msgspec.structs.replace(self, file=os.path.abspath(os.path.expanduser(self.file)))

    def external_targets(self) -> list[str]:
        """List the file where it lies outside the run's directory."""
        return [self.file] if os.path.dirname(self.file) else []

    def open(self, context: Context) -> Sink:
        """Open the file, and claim a free name for it where it lies outside the run's directory.

        Raises:
            ActionRequired: the file would be one that the run needs itself.
        """
        names = {"name": context.name, "id": context.run_id, "project": context.project}
        given = self.file.format(
            **{name: _UNSAFE.sub("_", text).lstrip(".")[:_LONGEST_NAME] for name, text in names.items()}
        )
        if given == _OF_THE_RUN:
            raise ActionRequired(f"file= leads to {_OF_THE_RUN}, which the run itself needs; choose another name")
        path, directory = path_of(context, given), directory_of(context)
        link = directory / f"{path.name}.link" if os.path.dirname(given) else None
        if context.state:  # only the name: the cursor may come from somebody else
            path = path.with_name(os.path.basename(context.state["file"]))
        elif link is not None:
            path = _known(path, link) or _claim(path, link)
        return _Columns(context, path, directory, link, aligned=self.aligned)


class _Columns(Sink):
    def __init__(self, context: Context, path: Path, directory: Path, link: Path | None, *, aligned: bool) -> None:
        state = context.state or {}
        self._link = link
        self._reserved = _ALIGNED if aligned else _KEPT
        self._aligned = aligned
        self._mirror = ConfigMirror(context)
        self._counts = Counter[str](state.get("counts", {}))
        self._file = ColumnFile(path, aligned=aligned)
        place = "" if link is None else f".{zlib.crc32(os.fsencode(path.parent)):08x}"
        self._waiting = _Waiting(directory / f".{path.name}{place}.waiting", state.get("waiting", 0))
        self._names: dict[str, str] = {}
        self._replaced_at = time.monotonic()
        self._shown = 0  # values in the file
        self._stale = True
        try:
            if self._file.load(self._counts, self._waiting.rows() if state else []):
                self._waiting.clear()
        except NotOurs as reason:
            self._waiting.close()
            raise self._start_over(reason) from reason

    def write(self, batch: Batch) -> None:
        self._mirror.take(batch.updates)
        rows = [self._row(record) for record in batch.records]
        lines = _encoder.encode_lines(rows)
        if b"null" in lines:  # a number that is not finite, a None, or a text with "null" in it
            lines = _encoder.encode_lines(to_json(rows))
        self._waiting.append(lines)
        self._counts.update(itertools.chain.from_iterable(rows))
        self._stale = True

    def checkpoint(self) -> dict[str, Any]:
        self._waiting.sync()
        if self._is_due():
            self._replace()
        return {
            "file": self._file.path.name,
            "counts": dict(self._counts),
            "waiting": self._waiting.size,
            **self._mirror.state(),
        }

    def close(self, outcome: Outcome) -> None:
        try:
            if self._is_due() or (self._stale and outcome != "stopped"):
                self._replace()
        finally:
            self._waiting.close()

    def _row(self, record: Record) -> dict[str, Any]:
        """Return the values of a record by the names of their columns."""
        data = flat(record.data)
        if self._aligned and record.writer is not None and WRITER not in self._reserved:
            self._reserved = (*self._reserved, WRITER)
            self._names.clear()  # a key of that name has another column
        names = self._names
        for key in data.keys() - names.keys():
            names[key] = free_name(key, self._reserved)
        row: dict[str, Any] = {"_step": record.step, "_timestamp": record.time_ns / 1e9} if self._aligned else {}
        if self._aligned and record.writer is not None:
            row[WRITER] = record.writer
        for key, value in data.items():
            row[names[key]] = value if type(value) in _PLAIN else to_json(value)
        return row

    def _is_due(self) -> bool:
        size = self._file.size
        waited_s = time.monotonic() - self._replaced_at
        has_grown = (self._counts.total() - self._shown) * _GROWTH >= self._shown
        return self._stale and (size < _SMALL_BYTES or has_grown or waited_s >= size / _SMALL_BYTES)

    def _replace(self) -> None:
        try:
            self._file.replace(self._waiting.rows(), self._counts, self._mirror.config, self._mirror.summary)
        except NotOurs as reason:
            raise self._start_over(reason) from reason
        self._waiting.clear()  # after a crash before this, `load` finds these rows in the file
        self._stale = False
        self._shown = self._counts.total()
        self._replaced_at = time.monotonic()

    def _start_over(self, reason: NotOurs) -> Resend:
        path = self._file.path
        path = free_path(path) if self._link is None else _claim(path, self._link)
        return Resend(str(reason), {"file": path.name})


class _Waiting:
    """The rows that the file does not have yet, in a hidden file that lasts as long as they do.

    Args:
        path: of that file.
        size: bytes up to which it holds what was delivered; anything behind is given again.

    Attributes:
        size: the same as it grows.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size
        self._fd: int | None = None

    def append(self, lines: bytes) -> None:
        rest, at = memoryview(lines), self.size
        while rest:
            written = os.pwrite(self._open(), rest, at)
            rest, at = rest[written:], at + written
        self.size = at

    def rows(self) -> Iterator[list[dict[str, msgspec.Raw]]]:
        """Yield the waiting rows, some at a time; fewer than were written where the file was damaged."""
        at, rest = 0, b""
        while at < self.size and (piece := os.pread(self._open(), min(_PIECE_BYTES, self.size - at), at)):
            at += len(piece)
            lines, end, begun = (rest + piece).rpartition(b"\n")
            rest = begun
            try:
                yield _rows.decode_lines(lines + end)
            except msgspec.DecodeError:  # a crash has left lines that were written after the state was saved
                return

    def sync(self) -> None:
        if self._fd is not None:
            os.fdatasync(self._fd)

    def clear(self) -> None:
        self.size = 0
        if self._fd is not None:
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if not self.size:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, permissions.FILE)
        return self._fd


def _known(wanted: Path, link: Path) -> Path | None:
    """Return the run's own file in a folder that many runs share; None where it has none yet."""
    with contextlib.suppress(OSError):
        known = Path(os.readlink(link))
        if known.parent == wanted.parent and known.exists():
            return known
    return None


def _claim(wanted: Path, link: Path) -> Path:
    """Make a new file under the wanted name, or under the next free one where that is taken; the link remembers which."""
    os.makedirs(wanted.parent, exist_ok=True)
    made = wanted.with_name(f".{wanted.name}.{os.urandom(4).hex()}.new")
    path = wanted
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, permissions.FILE), "wb") as file:
        file.write(b"{}\n")
    try:
        while True:  # the link gives the name to a complete file, so that a reader never finds an empty one
            try:
                os.link(made, path)
                break
            except FileExistsError:
                path = free_path(wanted)
    finally:
        os.unlink(made)
    with contextlib.suppress(OSError):  # without the link, a crash before the first save leaves the file behind
        if link.is_symlink():
            os.unlink(link)
        os.symlink(path, link)
    return path


def _problems(file: Any) -> list[str]:
    """List what is wrong with `file=`."""
    shape = "file must be a file's name, or a path that may have {name}, {id} and {project} in it"
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(file) if name is not None}
    except (TypeError, ValueError) as error:
        return [f"{shape}; got {file!r:.80} ({error})"]
    if not os.path.basename(file) or not names <= _PLACEHOLDERS or file == _OF_THE_RUN:
        return [f"{shape}; got {file!r:.80}"]
    return []
