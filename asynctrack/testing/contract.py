"""Contract: the promises of a backend, as tests that run with pytest where the class is subclassed.

Each test writes runs to a journal, delivers them by the real delivery, and reads the result with the author's own
`read`.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import math
import os
import signal
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast, get_args

import anyio
import anyio.to_thread
import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Outcome, Retry, Sink, TooLarge
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.delivery.dead_letters import FILE_NAME as DEAD_LETTERS
from asynctrack.delivery.polling import Poller
from asynctrack.journal.cursor import Cursor
from asynctrack.reading.stats import BackendStats, StatsCollector
from asynctrack.testing.journaled import JournaledRun, deliver, deliver_in_process
from asynctrack.worker.delivery_supervisor import SupervisedProcess

Keeps = Literal["float", "int", "bool", "text", "nan", "inf", "big", "list"]
Moment = Literal["before write", "after write", "before checkpoint", "after checkpoint", "before close", "after close"]

MOMENTS: Final[tuple[Moment, ...]] = get_args(Moment)

_NAME: Final = "backend"
# For one delivery of a few records. Arbitrary: as that of `deliver`, well below the limit of a test.
_LIMIT_S: Final = 30.0
# CPython 3.12 has some hundred objects frozen from its start.
_FROZEN_AT_START: Final = gc.get_freeze_count()
_VALUES: Final[dict[Keeps, list[Any]]] = {
    "float": [0.0, -0.5, 0.1, 1e300, 5e-324, -1e-9],
    "int": [0, -1, 2**53, -(2**31)],
    "bool": [True, False],
    "text": ["", "train", "größer ✓", 'a "quoted"\nline'],
    "nan": [math.nan],
    "inf": [math.inf, -math.inf],
    "big": [2**63 - 1, 2**64 - 1, 2**200],
    "list": [[], [1, 2.5], [[1], [2]]],
}


class Row(NamedTuple):
    """Holds a value as a reader of the backend finds it.

    Attributes:
        step: of the record.
        key: of the value; nested names are joined by `/`.
        value: as the reader returns it.
    """

    step: int
    key: str
    value: Any


class _Logged(NamedTuple):
    """A row, and the label of the process that has logged it."""

    writer: str
    row: Row


class BackendContract:
    """Tests a backend by its contract.

    Subclass it as `class TestMine(BackendContract)`, with `make_backend` and `read`.

    Attributes:
        exactly_once: whether a record that is given twice shows once.
        keeps: kinds of values that a reader finds again; a float that is not a number is "nan", an infinity "inf", an
            integer beyond 53 bits "big".
        any_step: whether steps may repeat and come in any order, and a reader finds them so.
        rejects: the data of a record that the backend will never take; None where it takes all.
        nested: whether a reader finds `{"grads": {"norm": 1.0}}` as "grads/norm".
        records: number of records in each run. Take fewer where the backend is slow.
    """

    exactly_once: bool = False
    keeps: frozenset[Keeps] = frozenset({"float", "int", "nan", "inf"})
    any_step: bool = True
    rejects: Mapping[str, Any] | None = None
    nested: bool = True
    records: int = 60

    def make_backend(self, run: Path) -> Backend:
        """Make the backend for a run. Called once a run.

        Args:
            run: its directory, `dir/project/id`.

        Returns:
            The backend.
        """
        raise NotImplementedError(f"{type(self).__name__} has no make_backend(run)")

    def read(self, run: Path) -> Iterable[tuple[int, str, Any]]:
        """Read a run back, independently of the backend's own code.

        Args:
            run: its directory.

        Returns:
            Step, key and value of everything that the backend shows; the values of a key in the order in which it shows
                them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no read(run)")

    def read_writer(self, run: Path, writer: str) -> Iterable[tuple[int, str, Any]] | None:
        """Read what the backend shows of one writer apart, as `read` does; with `writers="split"` only.

        Args:
            run: its directory.
            writer: the label of a process that has joined the run.

        Returns:
            None where the test is to leave it out.
        """
        return None

    def same(self, given: Any, found: Any) -> bool:
        """Return whether a reader would take a value for the one that was logged.

        Override it where the backend rounds.

        Args:
            given: the value that was logged.
            found: the value that `read` has found.
        """
        if isinstance(given, float) and math.isnan(given):
            return isinstance(found, float) and math.isnan(found)
        return bool(given == found)

    # The tests

    def test_every_record_in_order(self, tmp_path: Path) -> None:
        """Check that every record shows once, in order."""
        with self._run(tmp_path) as run:
            expected = self._log(run, range(self.records))
            run.update("summary", {"best": 0.5})
            run.end()
            self._deliver(run)
            self._assert_shows(run, expected, once=True)

    def test_values_survive(self, tmp_path: Path) -> None:
        """Check that the values of all kinds in `keeps` come back."""
        with self._run(tmp_path) as run:
            expected = []
            for kind in sorted(self.keeps):
                for step, value in enumerate(_VALUES[kind]):
                    run.log({kind: value}, step)
                    expected.append(Row(step, kind, value))
            run.end()
            self._deliver(run)
            self._assert_shows(run, expected, once=True)

    def test_what_cannot_be_shown_is_skipped_and_counted(self, tmp_path: Path) -> None:
        """Check that values of any kind are shown or counted as skipped."""
        with self._run(tmp_path) as run:
            for step, value in enumerate(value for values in _VALUES.values() for value in values):
                run.log({"some": value}, step)
            run.log({}, 1000)
            run.end()
            self._deliver(run)

    def test_nested_keys_are_joined_by_slashes(self, tmp_path: Path) -> None:
        """Check the names of nested values, if `nested` is set."""
        if not self.nested:
            return
        with self._run(tmp_path) as run:
            run.log({"loss": 0.5, "grads": {"norm": 1.5, "by": {"layer": 2.5}}}, 3)
            run.end()
            self._deliver(run)
            self._assert_shows(
                run, [Row(3, "loss", 0.5), Row(3, "grads/norm", 1.5), Row(3, "grads/by/layer", 2.5)], once=True
            )

    def test_steps_repeat_and_come_in_any_order(self, tmp_path: Path) -> None:
        """Check steps that repeat and go back, if `any_step` is set."""
        if not self.any_step:
            return
        with self._run(tmp_path) as run:
            expected = self._log(run, range(12), steps=[5, 3, 3, 9, 0, 1, 1, 1, 7, 2, 8, 4])
            run.end()
            self._deliver(run)
            self._assert_shows(run, expected, once=True)

    def test_run_without_records(self, tmp_path: Path) -> None:
        """Check that a run without records shows none."""
        with self._run(tmp_path) as run:
            run.end()
            self._deliver(run)
            assert list(self.read(run.path)) == []

    def test_delivery_that_is_stopped_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """Check that a stopped delivery goes on where it was."""
        with self._run(tmp_path) as run:
            expected = []
            for part in _parts(self.records):
                expected += self._log(run, part)
                self._deliver(run, end=False)
                self._assert_shows(run, expected, once=True)
            run.end("failed")
            self._deliver(run)
            self._assert_shows(run, expected, once=True)

    def test_delivery_that_is_stopped_half_way_through_a_batch_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """Check that a delivery stopped within a batch loses nothing."""
        with self._run(tmp_path) as run:
            expected = self._log(run, range(25))
            run.end()
            anyio.run(_stop_half_way, run)
            self._deliver(run)
            self._assert_shows(run, expected, once=self.exactly_once)

    def test_run_goes_on_after_its_end(self, tmp_path: Path) -> None:
        """Check that a run can go on after its end."""
        with self._run(tmp_path) as run:
            expected = self._log(run, range(20))
            run.end("crashed")
            self._deliver(run)
            run.start()
            expected += self._log(run, range(20, 40))
            run.end()
            self._deliver(run)
            self._assert_shows(run, expected, once=True)

    def test_killed_at_any_moment_it_goes_on_without_loss(self, tmp_path: Path) -> None:
        """Check that a kill at any moment loses nothing."""
        for nth in itertools.count():
            with self._run(tmp_path, f"killed-{nth}") as run:
                expected = self._log(run, range(25))
                run.end()
                killed = self._kill(run, MOMENTS, nth)
                self._deliver(run)
                self._assert_shows(run, expected, once=self.exactly_once)
            if not killed:
                break

    def test_killed_again_and_again_it_goes_on_without_loss(self, tmp_path: Path) -> None:
        """Check that repeated kills lose nothing."""
        with self._run(tmp_path) as run:
            expected = self._log(run, range(50))
            run.end()
            for moment in (*MOMENTS, *MOMENTS):
                self._kill(run, {moment}, 0)
            self._deliver(run)
            self._assert_shows(run, expected, once=self.exactly_once)

    def test_killed_after_a_failure_it_goes_on_without_loss(self, tmp_path: Path) -> None:
        """Check that a kill after a failed write loses nothing."""
        for nth in range(3):
            with self._run(tmp_path, f"fails-{nth}") as run:
                expected = self._log(run, range(25))
                run.end()
                assert self._kill(run, {"before write"}, nth + 1, fails_at=nth)
                self._deliver(run)
                self._assert_shows(run, expected, once=self.exactly_once)

    def test_process_that_is_killed_is_followed_by_another(self, tmp_path: Path) -> None:
        """Check that a killed delivery process is replaced, without loss."""
        with self._run(tmp_path) as run:
            if not run.keep:
                return  # such a sink dies with the process that logs
            expected = self._log(run, range(30))
            run.end()
            slow = msgspec.structs.replace(run.backend, max_records_s=10.0)
            killer = _Killer()
            deliver_in_process(run.path, slow, name=_NAME, poll=killer.poll)
            assert killer.killed
            self._assert_balance(run)
            self._assert_shows(run, expected, once=self.exactly_once)

    def test_runs_side_by_side_keep_apart(self, tmp_path: Path) -> None:
        """Check that two runs at once do not mix."""
        with self._run(tmp_path, "first") as first, self._run(tmp_path, "second") as second:
            both = {run: list[Row]() for run in (first, second)}
            for part in _parts(self.records):
                for run, expected in both.items():
                    expected += self._log(run, part, factor=-1 if run is second else 1)
                    self._deliver(run, end=False)
            for run, expected in both.items():
                run.end()
                self._deliver(run)
                self._assert_shows(run, expected, once=True)

    def test_what_it_rejects_is_kept_with_the_reason_and_the_others_come(self, tmp_path: Path) -> None:
        """Check that rejected records become dead letters, if `rejects` is set."""
        if self.rejects is None:
            return
        with self._run(tmp_path) as run:
            expected = self._log(run, range(10))
            for step in (10, 11):
                run.log(self.rejects, step)
            expected += self._log(run, range(12, 20))
            run.end()
            cursor = self._deliver(run)
            assert cursor.rejected == 2
            kept = [msgspec.json.decode(line) for line in (run.path / DEAD_LETTERS).read_bytes().splitlines()]
            assert [line["step"] for line in kept] == [10, 11]
            assert all(line["backend"] == _NAME and line["reason"] for line in kept)
            self._assert_shows(run, expected, once=True)

    def test_two_writers_show_as_the_setting_says(self, tmp_path: Path) -> None:
        """Check the records of two processes by the backend's setting `writers`."""
        with self._run(tmp_path, several=True) as run:
            both = [run, run.join("rank1", 1, expected=2)]
            logged: list[_Logged] = []
            for part in _parts(self.records):
                logged += self._log_by_turns(both, part)
                self._deliver(run, end=False, behind=run.backend.writers == "mean")
            run.end()
            self._deliver(run)
            self._assert_shows_writers(run, logged, once=True)

    def test_killed_with_two_writers_it_goes_on_without_loss(self, tmp_path: Path) -> None:
        """Check that a kill at any moment loses nothing of a run of two processes."""
        for moment in MOMENTS:
            with self._run(tmp_path, f"killed-{MOMENTS.index(moment)}", several=True) as run:
                logged = self._log_by_turns([run, run.join("rank1", 1, expected=2)], range(20))
                run.end()
                for nth in range(2):
                    self._kill(run, {moment}, nth)
                self._deliver(run)
                self._assert_shows_writers(run, logged, once=self.exactly_once)

    def test_settings_survive_being_stored(self, tmp_path: Path) -> None:
        """Check that the settings can be stored in `run.json` and read back."""
        backend = self.make_backend(tmp_path / "runs" / "kit" / "settings")
        if execution_of(backend) != "caller":
            kept = msgspec.json.decode(msgspec.json.encode(stored(backend, "settings", _NAME)))
            assert from_stored(kept) == backend

    # Their shared parts

    @contextlib.contextmanager
    def _run(self, tmp_path: Path, name: str = "run", *, several: bool = False) -> Any:
        path = tmp_path / "runs" / "kit" / name
        with _ContractRun(path, self.make_backend(path), several=several) as run:
            yield run

    def _log(
        self, run: _ContractRun, values: Iterable[int], *, steps: list[int] | None = None, factor: int = 1
    ) -> list[Row]:
        """Log records of two keys, and write a batch to the journal every few records.

        Returns:
            The rows that must show.
        """
        rows = []
        for value in values:
            step = value if steps is None else steps[value]
            run.log({"whole": value * factor, "half": value * factor / 2}, step)
            rows += [Row(step, "whole", value * factor), Row(step, "half", value * factor / 2)]
            if value % 7 == 6:
                run.journal()
        run.journal()
        return rows

    def _log_by_turns(self, writers: list[JournaledRun], values: Iterable[int]) -> list[_Logged]:
        """Log records of two processes, and write a batch of each to the journal every few records."""
        logged = []
        for value in values:
            for rank, writer in enumerate(writers):
                writer.log({"whole": value + 100 * rank}, value)
                logged.append(_Logged(f"rank{rank}", Row(value, "whole", value + 100 * rank)))
                if value % 3 == rank:
                    writer.journal()
        for writer in writers:
            writer.journal()
        return logged

    def _assert_shows_writers(self, run: _ContractRun, logged: list[_Logged], *, once: bool) -> None:
        selection = run.backend.writers
        own, others = ([row for writer, row in logged if writer == f"rank{rank}"] for rank in (0, 1))
        if selection == "all":
            # A backend may show the writer beside it, in its own way.
            found = sorted((step, value) for step, key, value in self.read(run.path) if key == "whole")
            wanted = sorted((row.step, row.value) for _, row in logged)
            assert (found if once and (run.keep or self.exactly_once) else sorted({*found})) == wanted
        elif selection == "prefix":
            rows = [row._replace(key=f"{writer}/{row.key}") for writer, row in logged]
            self._assert_shows(run, rows, once=once)
        elif selection == "mean":
            self._assert_shows(run, [each for row in own for each in _mean_rows(row)], once=once)
        else:
            self._assert_shows(run, own, once=once)
            apart = self.read_writer(run.path, "rank1") if selection == "split" else None
            if apart is not None:
                self._assert_rows(run, [Row(*row) for row in apart], others, once=once)

    def _deliver(self, run: _ContractRun, *, end: bool = True, behind: bool = False) -> Cursor:
        cursor = deliver(run.path, run.watched(), name=_NAME, keep=run.keep)
        assert cursor.closed == end
        stats = self._assert_balance(run)
        assert stats.behind == 0 or behind
        assert stats.last_error is None
        return cursor

    def _assert_balance(self, run: _ContractRun) -> BackendStats:
        collector = StatsCollector(run.path)
        try:
            stats = collector.collect([], [], [_NAME])
        finally:
            collector.close()
        found = stats.backends[_NAME]
        assert stats.journaled == found.delivered + sum(found.skipped.values()) + found.rejected + found.behind
        assert min(found.delivered, found.rejected, *found.skipped.values(), stats.journaled) >= 0
        return found

    def _kill(self, run: _ContractRun, moments: Collection[Moment], nth: int, *, fails_at: int | None = None) -> bool:
        """Deliver until one of `moments` comes for the `nth` time, and drop everything; False where it did not come."""
        return anyio.run(_deliver_until, run, moments, nth, fails_at)

    def _assert_shows(self, run: _ContractRun, expected: list[Row], *, once: bool) -> None:
        self._assert_rows(run, [Row(*row) for row in self.read(run.path)], expected, once=once)

    def _assert_rows(self, run: _ContractRun, found: list[Row], expected: list[Row], *, once: bool) -> None:
        once = once and (run.keep or self.exactly_once)  # a sink in the caller begins with the first record each time
        for key in dict.fromkeys(row.key for row in (*expected, *found)):
            wanted = [row for row in expected if row.key == key]
            shown = [row for row in found if row.key == key]
            if not once:
                shown = _without_repeats(shown)
            assert len(shown) == len(wanted), f"{key}: {len(wanted)} were logged, {len(shown)} are shown: {shown}"
            for given, there in zip(wanted, shown, strict=True):
                assert there.step == given.step and self.same(given.value, there.value), f"{given} is shown as {there}"


class _ContractRun(JournaledRun):
    """A run with its backend, and with the sinks that were dropped while they were open."""

    def __init__(self, path: Path, backend: Backend, *, several: bool = False) -> None:
        environment = {"writer": "rank0", "rank": 0, "expected": 2} if several else {}
        super().__init__(path, backends={_NAME: backend}, environment=environment)
        self.backend = backend
        self.keep = execution_of(backend) != "caller"
        self.dropped: list[Sink] = []
        # Objects from before the run need no search for dropped sinks: with the libraries of all backends it takes 0.2 s of a core.
        self._froze = gc.get_freeze_count() <= _FROZEN_AT_START
        if self._froze:
            gc.freeze()

    def watched(self, at: Callable[[Moment], Any] | None = None) -> Backend:
        """Return the backend, whose sink announces each moment to `at`."""
        return cast(Backend, _Watched(self, at))

    def close(self) -> None:
        """Close the journal, and free the dropped sinks."""
        super().close()
        if self.dropped:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # a killed process leaves files open, too
                self.dropped.clear()
                gc.collect()
        if self._froze:
            gc.unfreeze()


class _Watched:
    """A backend whose sink announces its moments.

    All other attributes are the real backend's, whatever its class sets.
    """

    batch_records = 10  # several batches of a short run

    def __init__(self, run: _ContractRun, at: Callable[[Moment], Any] | None) -> None:
        self._run = run
        self._at = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run.backend, name)

    async def open(self, context: Context) -> Sink:
        sink = await _call(self._run.backend.open, context)
        if self._at is None:
            return _WatchedSink(sink, _pass)
        self._run.dropped.append(sink)
        return _WatchedSink(sink, self._at)


class _WatchedSink(Sink):
    def __init__(self, sink: Sink, at: Callable[[Moment], Any]) -> None:
        self._sink = sink
        self._at = at

    async def write(self, batch: Batch) -> Mapping[str, int] | None:
        await self._at("before write")
        skipped = await _call(self._sink.write, batch)
        assert skipped is None or isinstance(skipped, Mapping), f"write returns {skipped!r}, not counts by reason"
        assert sum((skipped or {}).values()) <= len(batch.records), f"{skipped} of {len(batch.records)} are skipped"
        await self._at("after write")
        return cast(Mapping[str, int] | None, skipped)

    async def checkpoint(self) -> dict[str, Any] | None:
        await self._at("before checkpoint")
        state = await _call(self._sink.checkpoint)
        await self._at("after checkpoint")
        return cast(dict[str, Any] | None, state)

    async def close(self, outcome: Outcome) -> None:
        await self._at("before close")
        await _call(self._sink.close, outcome)
        await self._at("after close")


class _Killer:
    """Kills a delivery process as soon as it has delivered or skipped a record."""

    killed = False

    def poll(self, process: SupervisedProcess, cursor: Cursor) -> None:
        """Kill the process if it is time; called every few milliseconds."""
        if (cursor.delivered or cursor.skipped) and process.group is not None and not self.killed:
            os.killpg(process.group, signal.SIGKILL)
            self.killed = True


def _mean_rows(row: Row) -> list[Row]:
    """Return what shows of the mean of this row and that of the other writer, which is larger by 100."""
    low, high = row.value, row.value + 100
    values = {row.key: (low + high) / 2, f"{row.key}/min": low, f"{row.key}/max": high, f"{row.key}/ranks": 2}
    return [Row(row.step, key, value) for key, value in values.items()]


async def _deliver_until(run: _ContractRun, moments: Collection[Moment], nth: int, fails_at: int | None) -> bool:
    settled = anyio.Event()
    seen = -1

    async def at(now: Moment) -> None:
        nonlocal seen
        seen += now in moments
        if now in moments and seen == fails_at:
            raise Retry("not now", 0.001)
        if seen == nth:
            settled.set()
            await anyio.sleep_forever()

    async def work() -> None:
        poller = Poller(run.path, {_NAME: run.watched(at)}, keep=run.keep, follow=False)
        await poller.run()
        settled.set()

    with anyio.fail_after(_LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await settled.wait()
            tasks.cancel_scope.cancel()
    return seen == nth


async def _stop_half_way(run: _ContractRun) -> None:
    """Deliver the first batch in halves, and stop between them."""
    writes = itertools.count()

    async def at(now: Moment) -> None:
        write = next(writes) if now == "before write" else None
        if write == 0:
            raise TooLarge("two halves, please")
        if write == 2:
            poller.stop()
            raise Retry("not now", 60.0)

    poller = Poller(run.path, {_NAME: run.watched(at)}, keep=run.keep, follow=False)
    await poller.run()


async def _pass(now: Moment) -> None:
    pass


async def _call(method: Callable[..., Any], *arguments: Any) -> Any:
    if inspect.iscoroutinefunction(method):
        return await method(*arguments)
    return await anyio.to_thread.run_sync(method, *arguments)


def _parts(count: int) -> Iterable[range]:
    return (range(at, min(at + 20, count)) for at in range(0, count, 20))


def _without_repeats(rows: list[Row]) -> list[Row]:
    return list({(row.step, repr(row.value)): row for row in rows}.values())
