"""Log dir: write event files where a `SummaryWriter` would, in its folders too. Runs on a thread of the worker.

Each form that `integrations.tensorboard` logs has its place below the directory, as with torch's writer:

    {TAG: value}                                         DIR itself
    {TAG: {NAME: number}}                                DIR/TAG_NAME, under TAG: a curve of several in a chart
    {"hparams": {NAME: {"hparam": {}, "metric": {}}}}    DIR/NAME: a row of the HParams table
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Execution, Outcome, Resend, Sink, Update
from asynctrack.backends.tfevents.sink import EventSink, inside
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Record

HPARAMS: Final = "hparams"
_HERE: Final = "."
_PURGE: Final = "purge_step"


class LogDir(Backend, frozen=True, kw_only=True, tag="log_dir"):
    """Writes event files in a directory that other writers may write to as well.

    Each record is in its file once, also after a crash.

    Attributes:
        dir: the directory.
        flush_s: seconds that a record waits for others before it is written, at most.
        suffix: the end of the files' names.
        purge_step: TensorBoard no longer shows this step and later ones of files that are there already; None shows
            all.
    """

    execution: ClassVar[Execution] = "worker"

    dir: str
    flush_s: float = 1.0
    suffix: str = ""
    purge_step: int | None = None

    @property
    def batch_age_s(self) -> float:  # type: ignore[override]  # of the class elsewhere
        """Return `flush_s`: a batch is written at once."""
        return self.flush_s

    def __post_init__(self) -> None:
        problems = []
        if not self.dir or not isinstance(self.dir, str):
            problems.append(f"log_dir must be a path; got {self.dir!r:.80}")
        if isinstance(self.flush_s, bool) or not isinstance(self.flush_s, int | float) or not self.flush_s >= 0:
            problems.append(f"flush_secs must be a number of seconds; got {self.flush_s!r:.80}")
        if not isinstance(self.suffix, str) or os.sep in self.suffix:
            problems.append(f"filename_suffix must be the end of a file's name; got {self.suffix!r:.80}")
        step: object = self.purge_step
        if step is not None and (isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 1 << 63):
            problems.append(f"purge_step must be a step or None; got {step!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> LogDir:
        """Make the directory absolute."""
        return msgspec.structs.replace(self, dir=os.path.abspath(os.path.expanduser(self.dir)))

    def external_targets(self) -> list[str]:
        """List the directory."""
        return [self.dir]

    def open(self, context: Context) -> Sink:
        """Open the event files.

        Raises:
            ActionRequired: a folder leads out of the directory.
        """
        return _Folders(context, Path(self.dir), self.suffix, self.purge_step)


class _Folders(Sink):
    def __init__(self, context: Context, directory: Path, suffix: str, purge_step: int | None) -> None:
        created_s = datetime.fromisoformat(context.created_at).timestamp() if context.created_at else 0.0
        # TensorBoard reads the files in the order of their names.
        seconds, milliseconds = divmod(round(created_s * 1000), 1000)
        name = f"events.out.tfevents.{seconds:010}.{milliseconds:03}.{context.run_id}{suffix}"
        self._fresh = {"file": name, "bytes": 0}
        self._context = context
        self._directory = directory
        self._purge = {} if purge_step is None else {_PURGE: purge_step}
        self._states: dict[str, dict[str, Any]] = dict(context.state or {})
        self._sinks: dict[str, EventSink] = {}
        self._taken: set[str] = set()  # folders that have the batch that is being written
        self._sink(_HERE)

    def write(self, batch: Batch) -> Mapping[str, int] | None:
        """Write a batch to its folders.

        Where one folder fails the batch comes again: folders that have it already are then left out.
        """
        skipped: Mapping[str, int] | None = None
        for folder, (records, params) in _sorted(batch.records).items():
            if folder not in self._taken:
                found = self._give(folder, records, params)
                skipped = found if folder == _HERE else skipped
                self._taken.add(folder)
        self._taken.clear()
        return skipped

    def checkpoint(self) -> dict[str, Any]:
        self._states |= {folder: sink.checkpoint() for folder, sink in self._sinks.items()}
        return dict(self._states)

    def close(self, outcome: Outcome) -> None:
        while self._sinks:
            self._sinks.popitem()[1].close(outcome)

    def _give(self, folder: str, records: list[Record], params: Mapping[str, Any] | None) -> Mapping[str, int] | None:
        sink = self._sink(folder) if params is None else self._open(folder, EventSink, params)
        try:
            skipped = sink.write(Batch(records, []))
            if params is not None:
                sink.close("finished")
                self._states[folder] = sink.checkpoint()
        except Resend as changed:
            others = {other: {**state, "bytes": 0} for other, state in self.checkpoint().items()}
            raise Resend(str(changed), {**others, folder: changed.state}) from changed
        return skipped

    def _sink(self, folder: str) -> EventSink:
        if folder not in self._sinks:
            self._sinks[folder] = self._open(folder, _Bare, self._purge if folder == _HERE else {})
        return self._sinks[folder]

    def _open(self, folder: str, kind: type[EventSink], config: Mapping[str, Any]) -> EventSink:
        state = self._states.get(folder, self._fresh)
        context = msgspec.structs.replace(self._context, config=dict(config), state=state)
        return kind(context, inside(self._directory, folder))


class _Bare(EventSink):
    """Writes records only, no config or outcome: the directory is not a run's own."""

    def _beginning(self) -> bytes:
        begin = super()._beginning()
        step = self._config.get(_PURGE)
        return begin if step is None else begin + self._events.restart(self._created_s, step)

    def _changes(self, updates: Sequence[Update]) -> bytes:
        return b""

    def _end(self, outcome: Outcome) -> None:
        self.checkpoint()


def _sorted(records: Sequence[Record]) -> dict[str, tuple[list[Record], Mapping[str, Any] | None]]:
    """Sort records into folders, with the parameters of a row of the HParams table."""
    folders: dict[str, tuple[list[Record], Mapping[str, Any] | None]] = {}
    for record in records:
        for folder, data, params in _parts(record.data):
            part = record if data is record.data else msgspec.structs.replace(record, data=data)
            folders.setdefault(folder, ([], params))[0].append(part)
    return folders


def _parts(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any] | None]]:
    if not any(isinstance(value, Mapping) for value in data.values()):
        yield _HERE, data, None
        return
    for tag, value in data.items():
        if isinstance(value, Mapping) and all(map(_is_row if tag == HPARAMS else _is_plain, value.values())):
            for name, part in value.items():
                if tag == HPARAMS:
                    yield _folder(name), part["metric"], part["hparam"]
                else:
                    yield _folder(f"{tag.replace('/', '_')}_{name}"), {tag: part}, None
        else:
            yield _HERE, {tag: value}, None


def _is_row(part: object) -> bool:
    return isinstance(part, Mapping) and part.keys() == {"hparam", "metric"}


def _is_plain(part: object) -> bool:
    return not isinstance(part, Mapping)


def _folder(name: str) -> str:
    """Return the path of a folder below the directory, whatever the name is."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("_" if ".." in parts else "/").join(parts) or "_"
