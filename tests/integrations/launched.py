"""Scripts that launchers start: what each of their processes logs, and what a run then has of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import INSTALLED, ended, lines, manifest, records, wait_until

import asynctrack
from asynctrack.journal.writer_list import WriterStats

# Arbitrary: ten times what they take on a machine that has nothing else to do.
_LONGEST_S = 200.0

# The module `told`, beside each script: a process logs 0, 1, ... under the label that it is to have in the run.
_TOLD = """
import itertools, os

_numbers = itertools.count()


def label():
    return f"rank{os.environ['RANK']}" if "RANK" in os.environ else f"{os.uname().nodename}:{os.getpid()}"


def told(log, count=20):
    for _ in range(count):
        assert log({label(): next(_numbers)}) is True
    return label()
"""


def launch(
    folder: Path, script: str, *arguments: object, by: Sequence[str] = (), fails: bool = False, **environment: str
) -> str:
    """Run a script by a launcher's command; its last line, or what it says on standard error if it is to fail."""
    (folder / "told.py").write_text(_TOLD)
    (folder / "script.py").write_text(script)
    surroundings = {**os.environ, "PYTHONPATH": str(INSTALLED), "OMP_NUM_THREADS": "1", **environment}
    for name in ("RANK", "WORLD_SIZE", "ASYNCTRACK_RUN"):
        surroundings.pop(name, None)
    done = subprocess.run(
        [sys.executable, *by, "script.py", *map(str, arguments)],
        cwd=folder, env=surroundings, capture_output=True, text=True, timeout=_LONGEST_S,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else (done.stdout.splitlines() or [""])[-1]


def counts(told: Sequence[str]) -> dict[str, int]:
    """How much each process has logged: 20 records each time that its label was told."""
    return {label: 20 * times for label, times in Counter(told).items()}


def assert_has(run: Path, expected: dict[str, int], *, status: str = "finished") -> dict[str, WriterStats]:
    """A run has what its processes have logged, and ends as its owner did; its writers.

    Each record is there once, in its writer's order and under its label, in the journal and in the JSON Lines.
    """
    wait_until(lambda: ended(run), "the run has ended")
    writers = asynctrack.open_run(run).writers
    (owner,) = (one.writer for one in writers if one.is_owner)
    found: dict[str, list[Any]] = {}
    for record in records(run):
        ((name, value),) = record.data.items()
        assert record.writer == name or (record.writer is None and name == owner)  # before another came
        found.setdefault(name, []).append(value)
    assert {name: len(values) for name, values in found.items()} == expected
    # What has logged to an earlier run counts on.
    assert all(values == list(range(values[0], values[0] + len(values))) for values in found.values())
    rows = [(line.get("_writer", owner), line) for line in lines(run)]
    assert Counter((writer, line[writer]) for writer, line in rows) == Counter(
        (name, n) for name, values in found.items() for n in values
    )
    assert manifest(run)["status"] == status
    of_label = {one.writer: one for one in writers}
    assert len(of_label) == len(writers)
    assert {name: one.accepted for name, one in of_label.items() if one.accepted} == expected
    return of_label
