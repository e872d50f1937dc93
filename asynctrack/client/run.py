"""Run: one open run, as users hold it. Runs in the caller."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from time import time_ns
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from asynctrack._system import messages
from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.client.fast_log import LogBase, fast
from asynctrack.client.labels import as_tags, as_text
from asynctrack.client.logged_values import LoggedValues
from asynctrack.client.open_runs import open_runs
from asynctrack.client.run_dict import RunDict
from asynctrack.client.run_parts import AnySession
from asynctrack.client.scope import Arrays, Scope
from asynctrack.client.waits import wait, wait_async
from asynctrack.client.write_gate import FINISHED, FORKED, IS_OPEN, REOPENING, Put
from asynctrack.errors import AsynctrackError, InvalidData, InvalidSettings, UsageError
from asynctrack.journal.manifest import METRICS, Manifest
from asynctrack.queue.layout import CHECKPOINT, CONFIG, LABELS, SUMMARY
from asynctrack.reading.stats import RunStats
from asynctrack.records.codec import HOLDS_OTHERS, encode, encode_quickly
from asynctrack.settings import FinishWait, Mode, Until

if TYPE_CHECKING:
    from asynctrack.journal.writer_list import WriterStats
    from asynctrack.records.values import Artifact

# Records that are taken to have values of NumPy and the like once one had. Arbitrary: to find out costs as much as to be careful for two.
_FOREIGN_IN_A_ROW: Final = 64
# How a time span begins as ISO 8601 has it; a name, a text or a float has such bytes by chance in one record of two hundred. It also has a T or a D,
# and three bytes are looked for in a third of the time that this takes.
_may_have_span: Final = re.compile(rb"P[T0-9]").search


class Run(LogBase):
    """Records a run, from `init()` to `finish()`.

    `log` may be called from any thread, task, signal handler or finaliser, and in forked children. Get one from `init()`, or from `attach()` in another
    process. A run can be pickled: where it arrives, that process has attached to it.

    Attributes:
        id: unique in the project.
        project: the directory above the run's.
        path: the run's directory.
        resumed: whether it goes on from where an earlier session was.
        cell: of the notebook that has opened it; None anywhere else.
        config: of the run; what is set later is recorded too, also by a forked child.
        summary: of the run as a whole. What is not set in it is the last value that was logged by that name, which takes a look at the journal.
        backends: by their names in `stats()`, as this session has them; those that live in this process are the living things.
    """

    cell: int | None = None
    _put: Put  # the run's `WriteGate` sets it, and nobody else

    def __init__(self, manifest: Manifest, path: Path, session: AnySession, *, resumed: bool = False) -> None:
        self.id: str = manifest.id
        self.project: str = manifest.project
        self.path = path
        self.resumed = resumed
        self._manifest = manifest
        self.config: RunDict = RunDict(
            manifest.config,
            lambda fresh, removed=(): session.publisher.update(CONFIG, "config", fresh, None, removed),
        )
        self._logged = LoggedValues(session, self.config, path)
        self.summary: RunDict = RunDict(
            manifest.summary,
            lambda fresh, removed=(): session.publisher.update(SUMMARY, "summary", fresh, None, removed),
            self._logged.summary_of,
        )
        session.unrecorded += [self.config.catch_up, self.summary.catch_up]
        self._checkpoint = manifest.checkpoint
        self.backends: Mapping[str, Backend] = MappingProxyType(session.backends)
        self._session = session
        self._publisher = session.publisher
        self._foreign = 0
        self._may_hold: Callable[[Any], bool] = HOLDS_OTHERS
        self._publisher.serve(self)

    def __repr__(self) -> str:
        state = "open" if self._publisher.state in (*IS_OPEN, FORKED, REOPENING) else "finished"
        return f"<Run {self.project}/{self.id}, {state}, {self._publisher.offered} offered>"

    def _repr_html_(self) -> str | None:
        from asynctrack.reading.reader import RunReader  # for notebooks

        try:
            return RunReader(self.path)._repr_html_()
        except (AsynctrackError, OSError):  # its files are gone; the text tells all that is left
            return None

    @property
    def name(self) -> str:
        """Return the run's name, for people; it can be set."""
        return self._manifest.name

    @name.setter
    def name(self, name: str) -> None:
        self._label("name", as_text("name", name))

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the run's tags; they can be set."""
        return tuple(self.labels.get("tags", ()))

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self._label("tags", as_tags(tags))

    @property
    def notes(self) -> str | None:
        """Return the run's notes; they can be set."""
        return self.labels.get("notes")

    @notes.setter
    def notes(self, notes: str) -> None:
        self._label("notes", as_text("notes", notes))

    @property
    def mode(self) -> Mode:
        """Return "online", "offline" or "disabled"."""
        return "offline" if self._manifest.offline else "online"

    @property
    def is_open(self) -> bool:
        """Tell whether the run has not finished in this process."""
        return self._publisher.state is not FINISHED

    @property
    def labels(self) -> Mapping[str, Any]:
        """Return the labels of the run, where it has them, "entity", "group", "job_type", "notes" and "tags"."""
        return MappingProxyType(self._manifest.labels)

    @fast
    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> bool:
        """Record `data` as it is now. Never waits for I/O (but see `when_full="block"`).

        Args:
            data: names to values: numbers, strings, arrays, nested dicts, images and the other values of ours. What cannot be encoded is recorded as its `repr`.
            step: steps may repeat and come in any order; without one it is the number of the record.
            commit: False keeps `data` back, in this process, until the next call or the end, and makes one record of both.

        Returns:
            True if it was accepted and survives the process (but see `commit`), False if it was dropped and counted (see `when_full`).

        Raises:
            InvalidData: `data` is not a mapping.
            InvalidStep: `step` is not an integer.
            RunFinished: the run has finished.
            QueueFull: there is no room, with `when_full="raise"`.
        """
        may_hold = self._may_hold  # a function of an instance is called faster by a name of its own
        try:
            if type(data) is dict and (step is None or type(step) is int) and not may_hold(copy := data.copy()):
                payload = encode((time_ns(), step, copy))  # of a copy: no other thread comes into it
                # A `timedelta` is to be a number, and has become such a text, which others may have by chance.
                if 80 in payload and (84 in payload or 68 in payload) and _may_have_span(payload):  # P, T, D
                    payload = self._encode_carefully(copy, step)
            else:
                payload = self._encode_carefully(data, step)
        except UsageError:
            raise
        except Exception:  # a value that MessagePack cannot hold, such as NumPy's
            payload = self._encode_foreign(data, step)
        if commit is False:
            return self._publisher.hold(payload)
        put = self._put
        return put(payload) or self._publisher.on_put_failed(payload)

    async def alog(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """Record `data` as `log` does, but with `when_full="block"` wait for room without holding the event loop."""
        return await self._publisher.put_async(self._publisher.encode(data, step))

    @suggests
    def bind(self, fields: Mapping[str, Any]) -> Scope:
        """Return a light child of this run that adds constant fields to each record."""
        return Scope(self).bind(fields)

    @suggests
    def scope(self, prefix: str, every: int = 1, *, last: int | None = None, arrays: Arrays = "keep") -> Scope:
        """Return a light child of this run whose keys get `prefix/`, and which records every so many steps only; see `Scope.scope`."""
        return Scope(self).scope(prefix, every, last=last, arrays=arrays)

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what `define_metric` was told, by the metric."""
        return MappingProxyType(dict(self.config.get(METRICS, {})))

    @suggests
    def define_metric(
        self,
        name: str,
        step_metric: str | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: Literal["minimize", "maximize"] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Say how a metric is to be shown, to backends that can; and, with `summary`, what `run.summary[name]` is.

        Args:
            name: of the metric, or a pattern with `*` at its end.
            step_metric: what its x-axis is.
            hidden: whether it is hidden.
            summary: of all its values: "min", "max", "mean", "first", "last" or "none"; of several, with commas between, it is a dict.
            goal: "minimize" or "maximize".
            overwrite: forget what was said before.

        Raises:
            InvalidSettings: the summary or the goal is none of these.
        """
        from asynctrack.client import metrics  # rarely needed

        told = {"step_metric": step_metric, "hidden": hidden, "summary": summary, "goal": goal}
        metrics.define(self.config, str(name), told, overwrite=overwrite)

    @suggests
    def log_artifact(
        self,
        artifact_or_path: Artifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Artifact:
        """Keep an artifact with the run: in its summary, as `artifacts/NAME`, and its files under `media/artifacts/`.

        Args:
            artifact_or_path: an artifact, or the file or folder that it consists of.
            name: of an artifact that is a path. Default: that of the file.
            type: of an artifact that is a path.
            aliases: for people.
            tags: for people.

        Raises:
            InvalidValue: there is no such file or folder.
        """
        from asynctrack.client.artifacts import as_artifact  # rarely needed

        artifact = as_artifact(artifact_or_path, name, type, aliases, tags)
        self.summary[f"artifacts/{artifact.name}"] = artifact
        return artifact

    def last_values(self) -> dict[str, Any]:
        """Return the last value of each name that was logged, nested as it was. Reads the journal from where the last call came to.

        Images and the like are `Media`. Of mappings that were logged by one name each name in them has its last value.
        """
        return self._logged.last()

    @property
    def writers(self) -> Mapping[str, WriterStats]:
        """Return the processes that write to the run, by their labels, as far as the journal has them. Reads files, so not for the hot loop.

        Records and drops are those of all processes that had the label; all else is said of the last one. Forked children count for the process that
        has opened the run.
        """
        from asynctrack.reading.reader import RunReader  # rarely needed

        return MappingProxyType(RunReader(self.path).writers_by_label())

    def stats(self) -> RunStats:
        """Return the statistics as they stand. Reads files: not for the hot loop."""
        return self._session.stats()

    @suggests
    def flush(self, until: Until = "delivered", timeout_s: float = 30.0) -> RunStats:
        """Wait until what was logged so far is delivered, synced or journaled, and return the statistics, late or not.

        Args:
            until: "journaled": it survives this process and the container's memory; "synced": a power cut too; "delivered": every
                backend has it.
            timeout_s: seconds to wait at most.
        """
        wait(self._session.flushing(until, timeout_s))
        return self.stats()

    async def aflush(self, until: Until = "delivered", timeout_s: float = 30.0) -> RunStats:
        """Wait as `flush` does, and leave the event loop to others; under asyncio and trio."""
        await wait_async(self._session.flushing(until, timeout_s))
        return self.stats()

    def checkpoint(self, **counters: Any) -> RunStats:
        """Make sure that everything logged before this is on disk and survives a power cut, and remember where you are.

        Call it when you save your own state. `last_checkpoint()` gives the counters back when the run is resumed.

        Raises:
            RunFinished: the run has finished.
        """
        self._mark(counters)
        return self.flush("synced")

    async def acheckpoint(self, **counters: Any) -> RunStats:
        """Do what `checkpoint` does, and leave the event loop to others; under asyncio and trio."""
        self._mark(counters)
        return await self.aflush("synced")

    def last_checkpoint(self) -> dict[str, Any] | None:
        """Return the counters of the last `checkpoint`, of this run or of the one it resumes; None if there was none."""
        return None if self._checkpoint is None else dict(self._checkpoint)

    def mark_preempted(self) -> None:
        """Say that the machine is being taken away: however the run ends from here, its status is "preempted"."""
        self._publisher.preempt()

    @suggests
    def finish(
        self, summary: Mapping[str, Any] | None = None, exit_code: int | None = None, *, wait: FinishWait = "own"
    ) -> RunStats:
        """End the run: take no more records, wait for delivery, return the statistics. Calling it again returns the same.

        It returns by `finish_timeout_s`. What is not delivered then is on disk, and the worker goes on with it. A process that has attached to the run ends
        its own part by it, and the run goes on.

        Args:
            summary: the last of it.
            exit_code: other than 0, the run has failed.
            wait: "own": until what this process has logged is delivered. "all": also until as many processes have come as `init(expected=)` or `WORLD_SIZE`
                says, those that write to the run have ended, and what they have logged is delivered. It says how many have come where not all have in time.

        Raises:
            InvalidData: `summary` is not a mapping.
            InvalidSettings: `wait` is none of its words.
        """
        return self._finish(SystemExit(exit_code) if exit_code else None, summary, wait)

    async def afinish(
        self, summary: Mapping[str, Any] | None = None, exit_code: int | None = None, *, wait: FinishWait = "own"
    ) -> RunStats:
        """End the run as `finish` does, and leave the event loop to others; under asyncio and trio.

        If it is cancelled the run has finished all the same, and the worker goes on with what is left.
        """
        return await self._afinish(SystemExit(exit_code) if exit_code else None, summary, wait)

    def __copy__(self) -> Run:
        return self  # there is one queue

    def __deepcopy__(self, memo: object) -> Run:
        return self

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._finish(error)

    async def __aenter__(self) -> Run:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        await self._afinish(error)

    def _put_encoded(self, payload: bytes) -> bool:
        """Put a record that the native core has encoded, and found no room for at once."""
        return self._put(payload) or self._publisher.on_put_failed(payload)

    def _encode_carefully(self, data: Mapping[str, Any], step: Any) -> bytes:
        """Encode a record with values that others may change meanwhile, or that need Python to become plain."""
        if self._foreign:
            self._foreign -= 1
            if not self._foreign:
                self._may_hold = HOLDS_OTHERS
        if type(data) is dict and (step is None or type(step) is int):
            payload = encode_quickly(data, step)
            if payload is not None:
                return payload
        return self._publisher.encode(data, step)

    def _encode_foreign(self, data: Mapping[str, Any], step: int | None) -> bytes:
        """Encode a record that the encoder does not take. Those that follow are taken for such, too: to find out each time would cost more."""
        self._foreign, self._may_hold = _FOREIGN_IN_A_ROW, bool
        return self._publisher.encode(data, step)

    def _label(self, label: str, value: Any) -> None:
        fresh = {label: value}
        self._publisher.update(LABELS, label, fresh)
        self._manifest.label(fresh)

    def _mark(self, counters: dict[str, Any]) -> None:
        self._publisher.update(CHECKPOINT, "checkpoint", counters)
        self._checkpoint = counters

    def _finish(
        self, error: BaseException | None, summary: Mapping[str, Any] | None = None, until: FinishWait = "own"
    ) -> RunStats:
        wait(self._finishing(error, summary, until))
        result = self._settle()
        messages.leave()
        return result

    async def _afinish(
        self, error: BaseException | None, summary: Mapping[str, Any] | None = None, until: FinishWait = "own"
    ) -> RunStats:
        waited = False
        pauses = self._finishing(error, summary, until)
        try:
            await wait_async(pauses)
            waited = True
        finally:
            pauses.close()
            result = self._settle(waited=waited)
        await wait_async(messages.leaving())
        return result

    def _finishing(
        self, error: BaseException | None, summary: Mapping[str, Any] | None, until: FinishWait = "own"
    ) -> Generator[float, None, None]:
        if until not in get_args(FinishWait):
            raise InvalidSettings(
                [f"wait must be one of {', '.join(map(repr, get_args(FinishWait)))}; got {until!r:.80}"]
            )
        if summary is not None and not isinstance(summary, Mapping):
            raise InvalidData(summary, "summary")
        if summary and self.is_open:
            dict.update(self.summary, summary)
        return self._session.finishing(error, summary, wait=until)

    def _settle(self, *, waited: bool = True) -> RunStats:
        open_runs.leave(self)
        return self._session.settle(waited=waited)
