"""Kills an optimiser with SIGKILL half-way, and counts which of its records survived.

The optimiser is a child process. It counts each log() that returned True in a small mapped file, which outlives it;
the parent compares these counts with what is read back from the run.
"""

from __future__ import annotations

import mmap
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import anyio

import asynctrack
from asynctrack.cli.demo_app.live import REFRESH_S, Live
from asynctrack.cli.demo_app.race import ANNEALERS, Race
from asynctrack.cli.demo_app.report import KillReport

__all__ = ["PROJECT", "count", "demonstrate", "optimise"]

PROJECT = "berlin52"
DROPPED = ANNEALERS  # the word after those of the annealers
START_DEADLINE_S = 30.0  # for an interpreter to start and a run to open; arbitrary
END_DEADLINE_S = 60.0  # for the worker to notice, to drain and to mark the run; arbitrary
POLL_S = 0.02


def optimise(counters: Path, *, folder: Path, seconds: float, seed: int) -> int:
    """Log each step in the child, count what was accepted, and wait to be killed."""
    words = _map(counters)
    with asynctrack.init(PROJECT, config={"seed": seed}, dir=folder, collect="", mode="online") as run:

        def log(data: Mapping[str, float], step: int | None = None) -> bool:
            accepted = run.log(data, step=step)
            words[int(data["trial"]) % ANNEALERS if accepted else DROPPED] += 1
            return accepted

        print(run.path, flush=True)
        anyio.run(Race(log, seconds=seconds, seed=seed, alternate=False).run)
    return 0


def demonstrate(*, folder: Path, seconds: float, seed: int, quiet: bool) -> KillReport | None:
    """Start an optimiser from the parent, kill it, and count. Return None if it did not get that far."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-demo-") as scratch:
        counters = Path(scratch, "counters")
        counters.write_bytes(bytes(8 * (ANNEALERS + 1)))
        child = _start(counters, folder, seconds, seed)
        try:
            path = _path_reported_by(child)
            after_s = _wait_until_half_way(child, _map(counters), seconds / 2, quiet) if path else 0.0
        finally:
            child.kill()
            child.wait()
        counted = list(_map(counters))
    if path is None or child.returncode >= 0:
        print(f"asynctrack demo: the optimiser did not get half-way (status {child.returncode})", file=sys.stderr)
        return None
    return count(path, counted, after_s, _wait_until_over(path))


def count(path: Path, counted: Sequence[int], killed_after_s: float, status: str) -> KillReport:
    """Compare what is found at `path` with `counted`: records accepted from each annealer, then those dropped."""
    steps = [Counter[int]() for _ in range(ANNEALERS)]
    for record in asynctrack.open_run(path).records():
        steps[record.data["trial"] % ANNEALERS][record.step] += 1
    accepted = counted[:ANNEALERS]
    return KillReport(
        killed_after_s=round(killed_after_s, 2),
        accepted=sum(accepted),
        found=sum(len(one) for one in steps),
        uncounted=sum(max(len(one) - n, 0) for one, n in zip(steps, accepted, strict=True)),
        missing=sum(max(n - len(one), 0) for one, n in zip(steps, accepted, strict=True)),
        repeated=sum(one.total() - len(one) for one in steps),
        dropped=counted[DROPPED],
        gaps=sum(max(one, default=-1) + 1 - len(one) for one in steps),
        status=status,
        path=str(path),
    )


def _start(counters: Path, folder: Path, seconds: float, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "asynctrack", "demo", "--_child", str(counters), "--dir", str(folder)]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    # A session of its own: Ctrl-C is for the parent, which then kills at once.
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _path_reported_by(child: subprocess.Popen[str]) -> Path | None:
    """Read the path of the child's run; return None if it ended, or did not say so in time."""
    assert child.stdout is not None  # for mypy: it is a pipe
    ready, _, _ = select.select([child.stdout], [], [], START_DEADLINE_S)
    line = child.stdout.readline().rstrip("\n") if ready else ""
    return Path(line) if line else None


def _wait_until_half_way(child: subprocess.Popen[str], words: memoryview, half_s: float, quiet: bool) -> float:
    """Wait `half_s`, and for a first record, or for Ctrl-C. Return how long that was, in seconds."""
    live = None if quiet else Live(sys.stdout)
    started_at = now = monotonic()
    deadline = started_at + half_s + START_DEADLINE_S
    with suppress(KeyboardInterrupt):
        while now < deadline and child.poll() is None:
            accepted, left_s = sum(words[:ANNEALERS]), max(started_at + half_s - now, 0)
            if accepted and not left_s:
                break
            if live is not None:
                live.show_line(f"  {accepted:,} records accepted; process {child.pid} will be killed in {left_s:.1f} s")
            sleep(min(REFRESH_S, max(left_s, POLL_S)))
            now = monotonic()
    if live is not None:
        live.clear()
    return monotonic() - started_at


def _wait_until_over(path: Path) -> str:
    """Wait until the worker has seen the kill and drained what was left. Return the run's status."""
    deadline = monotonic() + END_DEADLINE_S
    while (status := _status(path)) in ("running", "lost") and monotonic() < deadline:
        sleep(POLL_S)
    return status


def _status(path: Path) -> str:
    try:
        return asynctrack.open_run(path).status
    except asynctrack.errors.NotARun:  # killed before the worker had written anything
        return "running"


def _map(counters: Path) -> memoryview:
    """Map the file as 8-byte words. A word is stored at once, so a kill leaves the old count or the new one."""
    with counters.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
