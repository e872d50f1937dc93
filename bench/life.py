"""A process that opens runs and says how long each step took: `bench.startup` starts it afresh for every sample.

Before its first run it imports nothing but asynctrack, as a user's script does.
"""

# ruff: noqa: E402  # the first import is timed

from __future__ import annotations

from time import perf_counter

_BEGAN = perf_counter()

import asynctrack

_IMPORTED = perf_counter()

import json
import sys
import time

from asynctrack.queue.layout import HEAD, TAIL, WORKER_PID

TYPE_CHECKING = False  # what is not needed is not imported
if TYPE_CHECKING:
    from typing import Any

RUNS = 100
FEW, MANY = 1_000, 100_000
# Between two looks at the worker's words: a fraction of what is measured, and it leaves the core to the worker.
_POLL_S = 0.0002


class Life:
    """The runs of one process, with the seconds that each step took.

    Args:
        directory: of the runs.
        settings: of each.
    """

    def __init__(self, directory: str, settings: dict[str, str]) -> None:
        self.seconds = {"import asynctrack": [_IMPORTED - _BEGAN]}
        self.dropped = 0
        self._given: dict[str, Any] = {"dir": directory, "finish_timeout_s": 60.0, **settings}
        self._disabled = settings.get("mode") == "disabled"

    def one_run(self) -> None:
        """Run a script that has nothing to say."""
        run = self._init("init: first")
        self._finish("finish: nothing logged, first run", run)

    def many_runs(self) -> None:
        """Run a script that goes on."""
        began = perf_counter()
        run = self._init("init: first")
        run.log({"loss": 0.5})
        if not self._disabled:
            self._await_worker(run, began)
        run.finish()
        for number in range(2, RUNS + 1):
            run = self._init({2: "init: second", RUNS: "init: hundredth"}.get(number, "init: others"))
            self._finish("finish: nothing logged, later run", run)
        opened = [self._init("init: others") for _ in range(RUNS - 1)]
        opened.append(self._init("init: hundredth, all of them open"))
        for run in opened:
            run.finish()
        for count in (FEW, FEW, FEW, MANY):
            run = self._init("init: others")
            _log(run, count)
            self._finish(f"finish: {count:,} records just logged", run)

    def _init(self, what: str) -> asynctrack.Run:
        began = perf_counter()
        run = asynctrack.init("bench", **self._given)
        self._add(what, began)
        return run

    def _finish(self, what: str, run: asynctrack.Run) -> None:
        began = perf_counter()
        stats = run.finish()
        self._add(what, began)
        self.dropped += sum(stats.dropped.values())
        if stats.behind:
            sys.exit(f"{what}: it returned with {stats.behind} records undelivered")

    def _await_worker(self, run: asynctrack.Run, began: float) -> None:
        """Time from the call of the first `init` until its first record is in the journal, and in the backend."""
        words = run._publisher.producer.ring.words
        while not words[WORKER_PID]:
            time.sleep(_POLL_S)
        self._add("worker: has the run", began)
        while words[TAIL] < words[HEAD]:
            time.sleep(_POLL_S)
        self._add("worker: first record journaled", began)
        run.flush("delivered")
        self._add("worker: first record delivered", began)

    def _add(self, what: str, began: float) -> None:
        self.seconds.setdefault(what, []).append(perf_counter() - began)


def _log(run: asynctrack.Run, count: int) -> None:
    for step in range(count):
        run.log(
            {
                "loss": 0.5 + step * 1e-7,
                "accuracy": 0.9 - step * 1e-8,
                "lr": 0.001 + step * 1e-9,
                "grad_norm": step * 0.5,
                "epoch": step // 1000,
                "phase": "train",
            },
            step=step,
        )


def main(plan: str, directory: str, settings: str) -> None:
    life = Life(directory, json.loads(settings))
    getattr(life, plan)()
    json.dump({"seconds": life.seconds, "dropped": life.dropped}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
