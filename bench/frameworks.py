"""What does a framework's training wait for, in its own trackers and in ours? About five minutes.

It needs the frameworks, as tests/README.md says; those that are not installed are left out.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import chdir
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from bench.frameworks_drytorch import drytorch_rows, noether_rows, summary_writer_rows
from bench.frameworks_own import stable_baselines3_rows, tianshou_rows, tropt_rows
from bench.harness import Cell, Report, Spread, Table, main, say

# A row per tracker: framework, tracker, and percentiles of what a call takes.
Rows = Callable[[int, int], list[dict[str, Cell | Spread]]]
FRAMEWORKS: Final[dict[str, Rows]] = {
    "tianshou": tianshou_rows,
    "tropt": tropt_rows,
    "drytorch": drytorch_rows,
    "noether": noether_rows,
    "tensorboard": summary_writer_rows,
    "stable-baselines3": stable_baselines3_rows,
}

CALLS: Final = 1000
ROUNDS: Final = 5


def measure(quick: bool) -> Report:
    calls, rounds = (200, 1) if quick else (CALLS, ROUNDS)
    logging.disable(logging.WARNING)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as elsewhere, chdir(elsewhere):
        for name, rows_of in FRAMEWORKS.items():
            say(name)
            rows += rows_of(calls, rounds)
    tested = ", ".join(found for name in FRAMEWORKS if (found := _version(name)))
    return Report(
        tables=[Table(f"what the training waits for in one call, {calls} calls a round", rows)],
        bars=[],
        notes=[f"median [least..greatest] of {rounds} rounds", f"versions: {tested}", "max is one call of a round"],
    )


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main(__doc__, measure)
