"""JSON Lines: one flat object per record, in `metrics.jsonl` of the run's directory. Runs in the worker's loop.

`{"_step":12,"_timestamp":1732170000.123,"loss":0.5,"phase":"train"}`: the step and the wall clock in seconds since the epoch bear W&B's names.
Nested names are joined by `/`. JSON has no NaN and no infinities: they are the strings "NaN", "Infinity" and "-Infinity",
as in protobuf's JSON mapping. `jq`, `tail -f`, pandas, polars and DuckDB read it as it is.

Each record is in the file once, also after a crash: what is encoded again is compared with what is there already, and
only what is missing is written. Lines of records that a power cut has taken from the journal stay where they are. A file that
a person has edited is left as it is, and a new one is built beside it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Outcome, Sink, StartOver
from asynctrack.record import Array, Record, flatten, to_json

_PLAIN: Final = frozenset({float, int, str, bool})
_BEGIN: Final = b'{"_step":'
# A power cut takes about a second from the journal, which in the file are at most about 30 MB.
_MOST_LOST_BYTES: Final = 64 << 20

_log = logging.getLogger("asynctrack.delivery")
_encoder = msgspec.json.Encoder(enc_hook=to_json)


class JSONLines(Backend, frozen=True, kw_only=True, tag="jsonl"):
    """Every record as a line of JSON.

    Attributes:
        file: name in the run's directory.
    """

    place = "worker"
    file: str = "metrics.jsonl"

    def reaches(self) -> list[str]:
        return [self.file] if os.path.basename(self.file) != self.file else []

    def open(self, context: Context) -> Sink:
        return _Lines(context.directory, self.file, context.state)


class _Lines(Sink):
    def __init__(self, directory: Path, file: str, state: dict[str, Any] | None) -> None:
        self._path = directory / file
        if state:  # only its name: the cursor may come from elsewhere
            self._path = self._path.with_name(os.path.basename(state["file"]))
        self._offset: int = state["bytes"] if state else 0  # up to here the file is known to be ours
        self._opened: Any = None

    async def write(self, batch: Batch) -> None:
        lines = encode_lines(batch.records)
        file = await self._file()
        await file.seek(self._offset)
        there = b""
        if os.fstat(file.fileno()).st_size > self._offset:
            there = await file.read(len(lines))
            if not lines.startswith(there):
                lines, there = await self._step_over_lost(file, lines, batch.records), b""
        rest = memoryview(lines)[len(there) :]
        while rest:
            rest = rest[await file.write(rest) :]
        self._offset += len(lines)

    async def _step_over_lost(self, file: Any, lines: bytes, records: list[Record]) -> bytes:
        """Step over lines of records that the journal has lost, and over those of these lines that are there; returns the others."""
        await file.seek(self._offset)
        content = await file.read(_MOST_LOST_BYTES)
        wanted, ours = lines.splitlines(keepends=True), {(record.step, record.time_ns / 1e9) for record in records}
        at = lost = size = 0
        for line in content.splitlines(keepends=True):
            if at == len(wanted):
                break
            stamp = _stamp(line)
            if line == wanted[at]:
                at += 1
            elif line.endswith(b"\n") and stamp not in (None, *ours):
                lost += 1
            elif wanted[at].startswith(line) or (_is_torn(line) and stamp not in ours):
                break
            else:
                raise StartOver(f"{self._path.name} was changed by another", self._beside())
            size += len(line)
        if at < len(wanted):
            if len(content) == _MOST_LOST_BYTES:
                raise StartOver(f"{self._path.name} has too much that the journal has not", self._beside())
            os.ftruncate(file.fileno(), self._offset + size)
        if lost:
            _log.warning("%d lines of %s are of records that the journal has lost; they stay", lost, self._path.name)
        self._offset += size
        await file.seek(self._offset)
        return b"".join(wanted[at:])

    async def checkpoint(self) -> dict[str, Any]:
        if self._opened is not None:
            from aiofiles.ospath import wrap

            await wrap(os.fdatasync)(self._opened.fileno())
        return {"file": self._path.name, "bytes": self._offset}

    async def close(self, outcome: Outcome) -> None:
        if self._opened is None and outcome != "stopped":
            await self._file()  # a run without records has an empty file, not none
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def _file(self) -> Any:
        if self._opened is None:
            import aiofiles

            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            self._opened = await aiofiles.open(fd, "r+b", buffering=0)
            size = os.fstat(fd).st_size
            if size < self._offset:
                await self._opened.close()
                self._opened = None
                raise StartOver(f"{self._path.name} is shorter than what was written", self._beside())
        return self._opened

    def _beside(self) -> dict[str, Any]:
        """State of a sink that begins the next free file: metrics-2.jsonl, ..."""
        stem, suffix = self._path.stem.rstrip("0123456789").rstrip("-"), self._path.suffix
        number = 2
        while self._path.with_name(f"{stem}-{number}{suffix}").exists():
            number += 1
        return {"file": f"{stem}-{number}{suffix}", "bytes": 0}


def encode_lines(records: list[Record]) -> bytes:
    """The lines of these records."""
    block = _encoder.encode_lines([_line(record) for record in records])
    if b"null" in block:  # what is not finite, a None, or a text that has it
        block = _encoder.encode_lines([to_json(_line(record)) for record in records])
    return block


def _line(record: Record) -> dict[str, Any]:
    data = record.data
    if not _PLAIN.issuperset(map(type, data.values())):
        data = {name: _with_list(item) for name, item in flatten(data)}
    line = {"_step": record.step, "_timestamp": record.time_ns / 1e9, **data}
    if len(line) < len(data) + 2:  # a key of the user's has one of these names; ours are needed to read the file
        line |= {"_step": record.step, "_timestamp": record.time_ns / 1e9}
    return line


class _Stamp(msgspec.Struct):
    step: int = msgspec.field(name="_step")
    seconds: float = msgspec.field(name="_timestamp")


def _stamp(line: bytes) -> tuple[int, float] | None:
    """Step and time of a line, None where it is not one of ours."""
    try:
        stamp = msgspec.json.decode(line, type=_Stamp)
    except msgspec.DecodeError:
        return None
    return stamp.step, stamp.seconds


def _is_torn(line: bytes) -> bool:
    """Whether this is the end of a file that was being written: a line of ours without its end, or zeros where the disk had no more."""
    begun = line.rstrip(b"\0")
    return not line.endswith(b"\n") and (begun.startswith(_BEGIN) or _BEGIN.startswith(begun))


def _with_list(value: Any) -> Any:
    return to_json(value) if isinstance(value, Array | list) else value
