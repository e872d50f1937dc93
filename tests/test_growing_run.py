"""Tests of looking at what was appended to a run that goes on."""

from __future__ import annotations

import time
from pathlib import Path

import asynctrack
from asynctrack.client.run_state import other_workers
from asynctrack.collection.growing_run import GrowingRun
from asynctrack.collection.run_summary import RunSummary, look_at

_LONGEST_S = 20.0


def _grown(run: asynctrack.Run, path: Path) -> tuple[GrowingRun, RunSummary]:
    """Log until what was appended tells how the run has grown: its `run.json` may be replaced at its beginning."""
    end, step = time.monotonic() + _LONGEST_S, 0
    while time.monotonic() < end:
        growing = GrowingRun(path)
        seen = look_at(path, other_workers(), growing.count).summary
        for _ in range(50):
            run.log({"loss": 1 / (step + 1), "lr": 0.1}, step=step)
            step += 1
        run.flush("journaled")
        if (found := growing.grown(seen)) is not None:
            return growing, found
    raise AssertionError("a whole look was asked for each time")


def test_what_was_appended_tells_what_a_whole_look_does(tmp_path: Path) -> None:
    with asynctrack.init("p", dir=tmp_path) as run:
        path = Path(run.path)
        _, grown = _grown(run, path)
        whole = look_at(path, other_workers()).summary
        assert grown.records >= 50
        assert (grown.records, grown.step, grown.last, grown.status) == (
            whole.records,
            whole.step,
            whole.last,
            whole.status,
        )


def test_a_run_that_has_ended_is_looked_at_whole(tmp_path: Path) -> None:
    with asynctrack.init("p", dir=tmp_path) as run:
        path = Path(run.path)
        growing, grown = _grown(run, path)
        assert growing.grown(grown) is None  # nothing was appended: who works on it may have died
        run.log({"loss": 0.0})
    assert growing.grown(grown) is None
