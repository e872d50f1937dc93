"""JSON Lines: one flat object per record, in `metrics.jsonl` of the run's directory. Runs in the worker's loop.

`{"_step":12,"_timestamp":1732170000.123,"loss":0.5,"phase":"train"}`: the step and the wall clock in seconds since the
epoch have W&B's names. Nested names are joined by `/`. A user's keys `_step` and `_timestamp` get one more underscore
in front, `__step`, as do `__step` and so on. In a run of several writers each line ends with the label of its writer,
`"_writer":"rank3"`, and a user's key of that name gets an underscore, too. JSON has no NaN and no infinities: they are the strings "NaN", "Infinity"
and "-Infinity", as in protobuf's JSON mapping. `jq`, `tail -f`, pandas and DuckDB read the file as it is. polars takes
a column's type from the first 100 lines, and stops at a "NaN" that comes later. `open_run(run).to_polars()` has
numbers, and so has

    polars.read_ndjson(file, schema_overrides={"loss": polars.String}).with_columns(polars.col("loss").cast(polars.Float64))

For such readers, `JSONLines(not_finite="null")` writes null in place of these strings: every reader takes it, but none
can tell NaN from infinity.

Each record is in the file once, also after a crash: records that come again are encoded and compared with the file, and
only missing lines are written. A power cut may take records from the journal whose lines are in the file; these lines
stay. A file that a person has edited is left alone, and a new one is built beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar, get_args

import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Execution, Outcome, Resend, Sink
from asynctrack.backends.files.appending import AppendedFile, FileChanged, Layout, free_path
from asynctrack.backends.files.reserved import WRITER, FlatNames
from asynctrack.backends.files.writer_folders import path_of
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Array, Media, Record, flatten, to_json
from asynctrack.records.media_types import MAX_DEPTH

if TYPE_CHECKING:
    from asynctrack.backends.files.line_records import LineRecords

T = TypeVar("T")
NotFinite = Literal["text", "null"]

RESERVED: Final = ("_step", "_timestamp")

_PLAIN: Final = frozenset({float, int, str, bool})
_BEGIN: Final = b'{"_step":'
_flat_names: Final = FlatNames(RESERVED)
_names_beside_a_label: Final = FlatNames((*RESERVED, WRITER))
_encoder = msgspec.json.Encoder(enc_hook=to_json)


class JSONLines(Backend, frozen=True, kw_only=True, tag="jsonl"):
    """Writes every record as a line of JSON.

    Attributes:
        file: name in the run's directory.
        not_finite: what stands for NaN and the infinities: "text", the strings "NaN", "Infinity" and "-Infinity", which
            can be read back; or "null", which all readers take for a gap.
    """

    execution: ClassVar[Execution] = "worker"
    can_split: ClassVar[bool] = True
    file: str = "metrics.jsonl"
    not_finite: NotFinite = "text"

    def __post_init__(self) -> None:
        if self.not_finite not in get_args(NotFinite):
            raise InvalidSettings([f"not_finite must be 'text' or 'null'; got {self.not_finite!r:.80}"])
        if not isinstance(self.file, str):
            raise InvalidSettings([f"file must be the name of a file, as text; got {self.file!r:.80}"])
        super().__post_init__()

    def external_targets(self) -> list[str]:
        """List the file where it lies outside the run's directory."""
        return [self.file] if os.path.basename(self.file) != self.file else []

    def open(self, context: Context) -> Sink:
        """Open the file in the run's directory."""
        return _Lines(path_of(context, self.file), context.state, self.not_finite)


class _Lines(Sink):
    def __init__(self, path: Path, state: dict[str, Any] | None, not_finite: NotFinite) -> None:
        self._not_finite = not_finite
        if state:  # only the name: the cursor may come from somebody else
            path = path.with_name(os.path.basename(state["file"]))
        self._file = AppendedFile(path, _LAYOUT, state["bytes"] if state else 0)

    async def write(self, batch: Batch) -> None:
        try:
            await self._append(batch.records)
        except FileChanged as reason:
            raise Resend(str(reason), self._anew()) from reason

    async def checkpoint(self) -> dict[str, Any]:
        await _in_thread(self._file.sync)
        return {"file": self._file.path.name, "bytes": self._file.offset}

    async def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            await self.write(Batch([], []))  # makes an empty file for a run without records
        await _in_thread(self._file.close)

    async def _append(self, records: list[Record] | LineRecords) -> None:
        """Write the lines of records. Those that are there as lines are put together on the thread, since there may be many."""
        if isinstance(records, list):
            await _in_thread(self._file.append, encode_lines(records, self._not_finite), records)
        else:
            await _in_thread(lambda: self._file.append(records.lines(), records))

    def _anew(self) -> dict[str, Any]:
        """Return the state of a sink that begins the next free file: metrics-2.jsonl, ...; the same, if that was removed."""
        return {"file": free_path(self._file.path).name, "bytes": 0}


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that may wait for the disk on another thread."""
    from asynctrack._system.loop_thread import (
        in_file_thread,
    )  # imported here: the caller imports this module without an event loop

    return await in_file_thread(function, *arguments)


def encode_lines(records: list[Record], not_finite: NotFinite = "text") -> bytes:
    """Encode records as lines."""
    if not_finite == "null":
        return _encoder.encode_lines([_with_gaps(as_line(record, _as_it_is)) for record in records])
    return encode_dicts(list(map(as_line, records)))


def encode_dicts(lines: list[dict[str, Any]]) -> bytes:
    """Encode lines that `as_line` has made."""
    block = _encoder.encode_lines(lines)
    if b"null" in block:  # a number that is not finite, a None, or a text with "null" in it
        # Value by value, as `plain_value` does, so that a line does not depend on the others of its block, also where a value is nested too deep.
        block = _encoder.encode_lines([{name: to_json(item) for name, item in line.items()} for line in lines])
    return block


def encode_values(values: list[Any]) -> bytes:
    """Encode values that `plain_value` returned, each as a line."""
    block = _encoder.encode_lines(values)
    return _encoder.encode_lines(list(map(to_json, values))) if b"null" in block else block


def plain_value(value: Any) -> Any:
    """Convert a value of a record to what `encode_lines` takes in its place."""
    return to_json(value) if isinstance(value, Array | Media | list | dict) else value


def _as_it_is(value: Any) -> Any:
    return value


def _with_gaps(value: Any, depth: int = 0) -> Any:
    """Return a value with None in place of NaN and infinities.

    A value that is nested too deep is encoded as `to_json` does.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Array):
        return _with_gaps(value.tolist(), depth)
    if depth > MAX_DEPTH or not isinstance(value, dict | list):
        return to_json(value, depth)
    if isinstance(value, dict):
        return {key: _with_gaps(item, depth + 1) for key, item in value.items()}
    return [_with_gaps(item, depth + 1) for item in value]


def as_line(record: Record, plain: Callable[[Any], Any] = plain_value) -> dict[str, Any]:
    data = record.data
    if not _PLAIN.issuperset(map(type, data.values())):
        data = {name: plain(item) for name, item in flatten(data)}
    line = {"_step": record.step, "_timestamp": record.time_ns / 1e9}
    if record.writer is None:
        return {**line, **_flat_names.of(data)}
    return {**line, **_names_beside_a_label.of(data), WRITER: record.writer}


class _Stamp(msgspec.Struct):
    step: int = msgspec.field(name="_step")
    seconds: float = msgspec.field(name="_timestamp")


def _stamp(line: bytes) -> tuple[int, float] | None:
    """Return step and time of a line, None where it is not one of ours."""
    try:
        stamp = msgspec.json.decode(line, type=_Stamp)
    except msgspec.DecodeError:
        return None
    return stamp.step, stamp.seconds


def _is_torn(line: bytes) -> bool:
    begun = line.rstrip(b"\0")
    return not line.endswith(b"\n") and (begun.startswith(_BEGIN) or _BEGIN.startswith(begun))


_LAYOUT: Final = Layout(lambda content: content.splitlines(keepends=True), _stamp, _is_torn)
