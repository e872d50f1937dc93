"""The runs of a drain: one that cannot be written is tried again, and one that the deliveries have done with is let go of. No process."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from asynctrack.worker.drained_runs import DrainedRuns
from asynctrack.worker.partings import Partings
from asynctrack.worker.relay import Relay, Superseded
from asynctrack.worker.run_journal import RunJournal


@pytest.fixture
def runs() -> DrainedRuns:
    return DrainedRuns(Relay("rounds", lambda: None), {})


@pytest.fixture
def run(runs: DrainedRuns, tmp_path: Path) -> RunJournal:
    journal = RunJournal(str(tmp_path))
    assert journal.open()
    runs.add(journal)
    return journal


def fails(run: RunJournal) -> float:
    raise OSError(errno.ENOSPC, "injected")


def works(run: RunJournal) -> float:
    return 0.5


def test_journal_that_cannot_be_written_is_tried_again_after_a_while(runs: DrainedRuns, run: RunJournal) -> None:
    assert runs.visit(run, works) == 0.5
    assert runs.retry_at(run) == 0.0
    assert runs.visit(run, fails) == 0.0
    failure = runs.failures[run.path]
    assert isinstance(failure.error, OSError)
    assert runs.visit(run, works) == 0.5
    assert runs.failures[run.path] is failure  # its time has not come: what worked need not have written anything
    failure.retry_at = 0.0
    runs.visit(run, works)
    assert runs.failures == {}
    run.close(done=False)


def test_run_that_is_opened_at_last_has_not_failed(runs: DrainedRuns, run: RunJournal) -> None:
    runs.visit(run, fails)
    runs.add(run)
    assert runs.failures == {}
    run.close(done=False)


def test_run_is_let_go_of_when_all_is_delivered(runs: DrainedRuns, run: RunJournal) -> None:
    partings = Partings(runs, works)
    run.status = "finished"
    partings.ask(run, done=True, told="finished")
    partings.advance(leaving=False)
    assert runs.by_path == {}
    assert run.gone()


def test_backends_are_told_once_more_of_an_end_that_is_another_than_they_know(
    runs: DrainedRuns, run: RunJournal
) -> None:
    told: list[RunJournal] = []
    runs.notify_growth = told.extend
    partings = Partings(runs, works)
    run.status = "failed"
    partings.ask(run, done=True, told="finished")
    partings.advance(leaving=False)
    assert told == [run]
    assert runs.by_path == {run.path: run}
    partings.ask(run, done=True, told="failed")
    partings.advance(leaving=False)
    assert runs.by_path == {}


def test_run_is_kept_while_its_journal_has_notes_that_backends_do_not_know(runs: DrainedRuns, run: RunJournal) -> None:
    told: list[RunJournal] = []
    runs.notify_growth = told.extend
    partings = Partings(runs, works)
    run.status = "finished"
    known = run.notes
    run.note({"note": "ring_ended", "ring": "1", "dropped": {}})
    partings.ask(run, done=True, told="finished", notes=known)
    partings.advance(leaving=False)
    assert told == [run]
    assert runs.by_path == {run.path: run}
    partings.ask(run, done=True, told="finished", notes=run.notes)
    partings.advance(leaving=False)
    assert runs.by_path == {}


def test_run_whose_disk_hangs_as_its_end_is_looked_at_is_let_go_of_later(runs: DrainedRuns, run: RunJournal) -> None:
    hangs = [True]

    def check(run: RunJournal) -> float:
        if hangs.pop() if hangs else False:
            raise Superseded
        run.status = "finished"
        return 0.0

    partings = Partings(runs, check)
    run.status = "crashed"
    partings.ask(run, done=True, told="finished")
    with pytest.raises(Superseded):
        partings.advance(leaving=False)
    assert runs.by_path == {run.path: run}
    partings.advance(leaving=False)
    assert runs.by_path == {}


def test_run_is_not_let_go_of_before_its_queues_are_gone(runs: DrainedRuns, run: RunJournal) -> None:
    """`asynctrack sync` looks at what is left of a run as soon as nobody has it any more."""
    seen: list[bool] = []

    class Closing(RunJournal):
        def close(self, *, done: bool) -> None:
            seen.append(self.path in runs.by_path)
            run.close(done=done)

    closing = Closing(run.path)
    runs.add(closing)
    runs.let_go(closing, True)
    assert seen == [True]
    assert runs.by_path == {}
