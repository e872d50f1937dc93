"""Run summary: describes a run without reading it all: from run.json, and its journal's headers and end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from asynctrack.backends.registry import goes_with_its_process
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.client.run_state import State, activity_of, end_in, state_of
from asynctrack.collection import run_labels
from asynctrack.collection.record_count import RecordCount
from asynctrack.delivery.batcher import lacks
from asynctrack.errors import AsynctrackError, UnsupportedVersion
from asynctrack.journal.backwards import backwards, last_records
from asynctrack.journal.cursor import Cursor, peek_cursor
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.host_list import HostStatus
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.manifest import METRICS, UNREADABLE, Manifest, has_begun
from asynctrack.journal.writer_list import WriterStatus, last_by_label
from asynctrack.reading import catalog
from asynctrack.reading.damage import scan
from asynctrack.records.codec import Record, decode_record, flatten
from asynctrack.records.expressions import Goal
from asynctrack.settings import project_directory
from asynctrack.worker.listing import Worker

# How far back last values are looked for: keys that are logged now and then are found too. Arbitrary.
_LAST_RECORDS: Final = 20
_LAST_BATCHES: Final = 16


class RunSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run in one line.

    Attributes:
        path: its directory.
        project: the directory above it.
        id: its directory's name, by which it is found.
        name: for people; the id where it was given none.
        status: the run's state, or "damaged", or "unreadable" where a newer asynctrack wrote it.
        created_at: UTC, ISO 8601.
        ended_at: the same, None while it runs.
        records: in its journal.
        records_per_s: over its life.
        step: of its last record.
        last: the last values of its numbers.
        bytes: of all its files.
        tags: those that it was given.
        group, job_type, notes, entity: labels that it was given.
        config: what the run was started with and what was set later, without what `define_metric` was told.
        summary: what was set for the run as a whole.
        goals: for each metric, or pattern that ends with `*`, which way is better, as `define_metric` was told.
        error: why it has failed or crashed.
        host: the machine on which it was opened.
        user: who has run it.
        commit: of the repository that its program ran in.
        dropped: records that were not journaled, by the reason.
        writers: the processes that write to it, by their labels: how each has ended, "running" where it has not.
        hosts: the machines of a merged run, each with how its part has ended, "running" where it has not; none of another run.
        problem: what is damaged, or why it cannot be read.
        behind: backends that did not get everything before the run ended, or that fail while it runs, each with its last error; empty
            where that is private: the run is another user's.
    """

    path: str
    project: str
    id: str
    name: str
    status: State | Literal["damaged", "unreadable"]
    created_at: str
    ended_at: str | None = None
    records: int = 0
    records_per_s: float | None = None
    step: int | None = None
    last: dict[str, float] = {}
    bytes: int = 0
    tags: list[str] = []
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    entity: str | None = None
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    goals: dict[str, Goal] = {}
    error: str | None = None
    host: str | None = None
    user: str | None = None
    commit: str | None = None
    dropped: dict[str, int] = {}
    writers: dict[str, WriterStatus] = {}
    hosts: dict[str, HostStatus] = {}
    problem: str | None = None
    behind: dict[str, str | None] = {}


class RunLook(NamedTuple):
    """A look at a run.

    Attributes:
        summary: what was seen.
        is_final: True where files alone tell all of it, and will tell the same as long as none of them changes: the run has ended, and so has its journal.
    """

    summary: RunSummary
    is_final: bool


def summarise_run(run: Path, workers: Sequence[Worker]) -> RunSummary:
    """Summarise a run, whatever its state; `workers` is from `run_state.other_workers`."""
    return look_at(run, workers).summary


def look_at(run: Path, workers: Sequence[Worker], count: RecordCount | None = None) -> RunLook:
    """Summarise a run, and tell whether that is final.

    Args:
        run: its directory.
        workers: from `run_state.other_workers`.
        count: counts its records, and can go on from there later.
    """
    place = Path(os.path.abspath(run))
    found = RunSummary(
        path=str(run),
        project=place.parent.name,
        id=place.name,
        name=place.name,
        status="damaged",
        created_at=catalog.created_at(run),
        bytes=bytes_of(run),
    )
    try:
        return _filled(found, run, workers, RecordCount(run) if count is None else count)
    except UnsupportedVersion as error:
        return RunLook(msgspec.structs.replace(found, status="unreadable", problem=str(error)), False)
    except (AsynctrackError, OSError, *UNREADABLE) as error:  # damaged bytes lead anywhere
        said = str(error).replace(f"{run}{os.sep}", "")
        return RunLook(msgspec.structs.replace(found, problem=said or type(error).__name__), False)


def bytes_of(directory: str | os.PathLike[str]) -> int:
    """Add up the bytes of all files in a directory and below; links are not followed."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                below = entry.is_dir(follow_symlinks=False)
                total += bytes_of(entry.path) if below else entry.stat(follow_symlinks=False).st_size
    return total


def seconds_between(start: str, end: str) -> float | None:
    """Return the seconds from one ISO time to another; None where one of them is malformed."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def rate_of(records: int, created_at: str, last_at: str | None) -> float | None:
    """Return the records per second of a run's life; None where that is not known."""
    life_s = None if last_at is None else seconds_between(created_at, last_at)
    return records / life_s if life_s and life_s > 0 else None


def _filled(found: RunSummary, run: Path, workers: Sequence[Worker], count: RecordCount) -> RunLook:
    manifest = catalog.load(run)
    state = state_of(run, manifest, workers)
    end = _End(run)
    begun = has_begun(run, manifest)
    records, problem = count.count(manifest)
    problem = next((str(found) for found in scan(run)), None) or problem
    if begun and not (
        problem or end.has_ended or state in ("running", "lost", "elsewhere") or activity_of(run).is_active
    ):
        problem = f"{run / 'journal'} ends before the run does: its end is missing"
    summary = msgspec.structs.replace(
        found,
        project=manifest.project
        if project_directory(manifest.project) == found.project
        else found.project,  # else it was moved
        name=found.id if manifest.name == manifest.id else manifest.name,
        status="damaged" if problem and state != "running" else state,
        created_at=manifest.created_at,
        ended_at=manifest.ended_at,
        records=records,
        records_per_s=rate_of(records, manifest.created_at, manifest.ended_at or end.journaled_at),
        step=end.step,
        last=end.values,
        config={name: value for name, value in manifest.config.items() if name != METRICS},
        summary=manifest.summary,
        goals=run_labels.goals_of(manifest),
        error=manifest.error,
        dropped=manifest.dropped,
        **run_labels.labels_of(manifest),
        **run_labels.origin_of(run, manifest),
        writers={label: one.status for label, one in last_by_label(manifest.writers).items()},
        hosts={one.host: one.status for one in manifest.hosts},
        problem=problem and problem.replace(f"{run}{os.sep}", ""),
        behind=_behind(run, manifest, state) if begun else {},
    )
    return RunLook(summary, end.has_ended and manifest.status != "running")


def _behind(run: Path, manifest: Manifest, state: State) -> dict[str, str | None]:
    goes_on = state in ("running", "elsewhere")
    found = {
        name: peek_cursor(run, name) for name, stored in manifest.backends.items() if not goes_with_its_process(stored)
    }
    return {
        name: cursor.last_error
        for name, cursor in found.items()
        if cursor is not None
        and (cursor.last_error is not None if goes_on else _is_behind(run, cursor, manifest.backends[name]))
    }


def _is_behind(run: Path, cursor: Cursor, stored: dict[str, Any]) -> bool:
    """Return True if a backend of an ended run lacks something. One that lived in its process may lack the run's end alone."""
    return not cursor.closed and (not lives_in_caller(stored) or lacks(run, cursor))


class _End:
    """The end of a run's journal.

    Attributes:
        has_ended: True if the last batch of the journal says that the run has ended.
        step: of the last record.
        journaled_at: when the last record came into the journal; UTC, ISO 8601.
        values: the last of each number.
    """

    def __init__(self, run: Path) -> None:
        self.has_ended = False
        self.step: int | None = None
        self.journaled_at: str | None = None
        self.values: dict[str, float] = {}
        missing = _LAST_RECORDS
        batches = islice(backwards(run / "journal", notes=True), _LAST_BATCHES)
        for at, batch in enumerate(batches):
            if batch.header.ring == NOTES_RING:
                self.has_ended = self.has_ended or (at == 0 and end_in(batch) is not None)
                continue
            self.journaled_at = self.journaled_at or journaled_at(batch)
            for frame in last_records(batch, missing):
                missing -= 1
                self._take(decode_record(frame.payload, frame.number))
            if missing <= 0:
                break

    def _take(self, record: Record) -> None:
        if self.step is None:
            self.step = record.step
        for key, value in numbers_in(record):
            self.values.setdefault(key, value)


def numbers_in(record: Record) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record."""
    for key, value in flatten(record.data):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, value


def journaled_at(batch: FrameBatch) -> str:
    """Return when a batch came into the journal: UTC, ISO 8601."""
    return datetime.fromtimestamp(batch.header.time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
