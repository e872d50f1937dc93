"""The report of a demo: the facts as `--json` prints them, and as lines for people."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TextIO

from asynctrack.cli.demo_app.berlin52 import OPTIMUM

__all__ = ["Facts", "KillReport", "above_optimum_percent", "kill_summary", "summary"]


@dataclass(frozen=True)
class Facts:
    """The results of a race."""

    seconds: float
    seed: int
    steps: int  # of all annealers, tracked or not
    step_us: float  # of the median slice
    accepted: int  # records for which log() returned True
    dropped: int
    found: int  # records read back from the run
    log_p50_us: float
    log_p99_us: float
    log_calls_timed: int
    timer_us: float  # time to read the clock; already subtracted from the two above
    speed_with_tracking_percent: float | None  # of the loop's speed without; None where too few slices were run
    slices: int
    slice_s: float
    best: int
    optimum: int
    above_optimum_percent: float
    tour: list[int]
    path: str


@dataclass(frozen=True)
class KillReport:
    """The results of killing an optimiser."""

    killed_after_s: float
    accepted: int  # log() had returned True, and that had been counted
    found: int  # different records read back
    uncounted: int  # found beyond those: accepted, and killed before it was counted
    missing: int
    repeated: int
    dropped: int  # log() had returned False
    gaps: int  # steps missing between an annealer's first and last
    status: str
    path: str

    @property
    def whole(self) -> bool:
        """Return True if each record that was accepted is there, once."""
        return not (self.missing or self.repeated or self.gaps > self.dropped)


def above_optimum_percent(length: int) -> float:
    """Return by how many percent a tour is longer than the shortest."""
    return 100.0 * (length - OPTIMUM) / OPTIMUM


def summary(facts: Facts, out: TextIO) -> Iterator[str]:
    """Yield the lines for people at the end of a race, styled if `out` is a terminal."""

    def row(name: str, value: str, note: str) -> str:
        return f"  {name:<12}{_bold(f'{value:>9}', out)}   {_dim(note, out)}"

    speed = facts.speed_with_tracking_percent
    yield ""
    yield f"  {_bold('berlin52', out)}: four annealers in one event loop, {facts.seconds:g} s"
    yield ""
    yield row("best tour", f"{facts.best:,}", _optimum_note(facts))
    yield row(
        "records", f"{facts.accepted:,}", f"accepted; {facts.dropped:,} dropped; {facts.found:,} read back from disk"
    )
    yield row(
        "log()",
        f"{facts.log_p50_us:.1f} us",
        f"median of {facts.log_calls_timed:,} calls; p99 {facts.log_p99_us:.1f} us",
    )
    yield row("loop speed", "-" if speed is None else f"{speed:.1f} %", _speed_note(facts))
    yield ""
    yield from _where_next(facts.path)


def kill_summary(kill_report: KillReport, out: TextIO) -> Iterator[str]:
    """Yield the lines for people after a kill."""
    found = f"{kill_report.found:,} were found afterwards"
    lost = f"{kill_report.missing:,} MISSING" if kill_report.missing else "none missing"
    twice = f"{kill_report.repeated:,} TWICE" if kill_report.repeated else "none twice"
    yield ""
    yield f"  {kill_report.accepted:,} records had been accepted when the process was killed;"
    yield f"  {found}, {_bold(lost, out)}, {twice}."
    yield ""
    if kill_report.uncounted:
        yield _dim(
            f"  ({kill_report.uncounted} accepted so late that the process was killed before it had counted it)", out
        )
    if kill_report.dropped or kill_report.gaps:
        yield f"  {kill_report.dropped:,} were dropped by log(); {kill_report.gaps:,} steps are missing"
    yield f"  killed with SIGKILL after {kill_report.killed_after_s:.1f} s; the run is marked {kill_report.status!r}"
    yield ""
    yield from _where_next(kill_report.path)


def _optimum_note(facts: Facts) -> str:
    if facts.best == facts.optimum:
        return "0.00 % from the optimum: there is no shorter one"
    return f"{facts.above_optimum_percent:.2f} % above the optimum of {facts.optimum:,}"


def _speed_note(facts: Facts) -> str:
    return f"of its speed without tracking (every other {facts.slice_s:g} s); steps of {facts.step_us:,.0f} us"


def _where_next(path: str) -> Iterator[str]:
    path = _short(path)
    yield f"  run         {path}"
    yield "  next        " + f"tail -n 3 {shlex.quote(path + '/metrics.jsonl')}"
    yield (
        "              "
        + f"python -c {shlex.quote(f'import asynctrack; print(asynctrack.open_run({json.dumps(path)}))')}"
    )
    missing = "" if find_spec("starlette") else "   # needs: pip install 'asynctrack[ui]'"
    yield f"              asynctrack ui {shlex.quote(path)}{missing}"


def _short(path: str) -> str:
    """Return the path relative to the current folder, where that is shorter."""
    return min(path, os.path.relpath(path), key=len)


def _bold(text: str, out: TextIO) -> str:
    return f"\x1b[1m{text}\x1b[22m" if _styled(out) else text


def _dim(text: str, out: TextIO) -> str:
    return f"\x1b[2m{text}\x1b[22m" if _styled(out) else text


def _styled(out: TextIO) -> bool:
    return out.isatty() and "NO_COLOR" not in os.environ  # https://no-color.org
