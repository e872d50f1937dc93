"""Plan: what a seed makes happen: runs, their sessions, and steps that disturb them. Nothing here looks at a clock or at the system.

So a seed has the same plan each time, where the same parts of the system can be had; see `Parts`.
"""

from __future__ import annotations

import random
from typing import Any, Literal

import msgspec

BACKENDS = ("jsonl", "csv", "sql", "parquet", "own-worker", "own-process", "own-caller")
ASIDES = ("fork", "fork", "fork, which kills itself", "stats", "journaled", "synced", "delivered")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What can be had on this machine.

    Attributes:
        mounts: file systems in memory can be mounted, so that disks and shared memory can be full.
        hangs: FUSE file systems can be mounted, so that disks can hang and die.
    """

    mounts: bool = True
    hangs: bool = True

    @property
    def disks(self) -> list[str]:
        return ["good", *["small"] * self.mounts, *["ill"] * self.hangs]


class RunSession(msgspec.Struct, frozen=True, kw_only=True):
    """What one process that logs does; the places are filled in when it starts.

    Attributes:
        name: begins the names of its writers.
        most: records of each writer.
        burst, pause_s: a writer logs up to so many at once, and then waits up to so long.
        asides: what the main thread does meanwhile, one after the other.
        late: threads go on logging while the run ends.
    """

    name: str
    run: str
    backends: list[str]
    worker: Literal["process", "thread"]
    when_full: Literal["drop_newest", "block", "raise"]
    queue_bytes: int | None
    seed: int
    threads: int
    most: int
    burst: int
    pause_s: float
    pad: int
    steps: bool
    asides: list[str]
    aside_every_s: float
    late: bool
    ends: Literal["finish", "with", "raise"]
    finish_timeout_s: float = 2.0
    after_exit_max_s: float = 4.0
    dir: str = ""
    ledgers: str = ""
    weather: str = ""
    taken: str = ""
    database: str = ""
    report: str = ""


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A run: the disk it is on, and what all of its sessions have in common."""

    id: str
    disk: str
    worker: Literal["process", "thread"]
    when_full: Literal["drop_newest", "block", "raise"]
    queue_bytes: int | None
    backends: list[str]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens, so long after the one before."""

    after_s: float
    action: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.arguments.items() if name != "session")
        return f"+{self.after_s:.2f} s  {self.action} {told}".rstrip()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        end: how the callers end that are still there when all has been healed: told to, killed, or killed with everything else.
        sync_at_once: whether `sync` begins while workers still deliver.
    """

    seed: int
    parts: Parts
    runs: list[RunPlan]
    steps: list[Step]
    end: Literal["finish", "kill", "kill all"]
    sync_at_once: bool

    def __str__(self) -> str:
        runs = [
            f"{run.id} on the {run.disk} disk, {run.worker}, {run.when_full}, {run.queue_bytes}: {', '.join(run.backends)}"
            for run in self.runs
        ]
        steps = [f"{number:3} {step}" for number, step in enumerate(self.steps)]
        return "\n".join([*runs, *steps, f"then heal, {self.end}{', sync at once' if self.sync_at_once else ''}"])


class RunState:
    """What a plan foresees of a run: the callers that may be there, and which of them are stopped."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.sessions = 0
        self.callers: dict[str, bool] = {}


class Model:
    """What a plan foresees. Actions choose by it, and change it.

    Attributes:
        faults: what is ill: "small", "ill" (disks), "memory", "RUN.BACKEND", "worker".
    """

    def __init__(self, parts: Parts, runs: list[RunPlan]) -> None:
        self.parts = parts
        self.runs = {run.id: RunState(run) for run in runs}
        self.faults: set[str] = set()

    def callers(self, *, stopped: bool | None = None) -> list[tuple[str, str]]:
        """Run and name of the callers that may be there."""
        return [
            (run, name)
            for run, state in self.runs.items()
            for name, is_stopped in state.callers.items()
            if stopped is None or is_stopped == stopped
        ]


def make_plan(seed: int, parts: Parts | None = None) -> Plan:
    """The plan of a seed."""
    from simulation.actions import ACTIONS

    parts = parts or Parts()
    chance = random.Random(seed)
    runs = [_plan_run(chance, f"r{number}", parts) for number in range(chance.choice((1, 2, 2, 3)))]
    model = Model(parts, runs)
    steps: list[Step] = []
    count = chance.randint(12, 26)
    while len(steps) < count:
        name = chance.choices(list(ACTIONS), [action.weight for action in ACTIONS.values()])[0]
        if (arguments := ACTIONS[name].choose(model, chance)) is not None:
            after_s = round(chance.choice((0.0, 0.03, 0.1, 0.2, 0.3)) * (0.5 + chance.random()), 3)
            steps.append(Step(after_s=after_s, action=name, arguments=arguments))
    end = chance.choice(("finish", "finish", "kill", "kill all"))
    return Plan(seed=seed, parts=parts, runs=runs, steps=steps, end=end, sync_at_once=chance.random() < 0.4)


def plan_session(chance: random.Random, state: RunState) -> RunSession:
    """One more session of a run."""
    run = state.plan
    name = f"{run.id}-s{state.sessions}"
    state.sessions += 1
    state.callers[name] = False
    return RunSession(
        name=name,
        run=run.id,
        backends=run.backends,
        worker=run.worker,
        when_full=run.when_full,
        queue_bytes=run.queue_bytes,
        seed=chance.randrange(1 << 32),
        threads=chance.choice((1, 1, 2, 3)),
        most=chance.choice((20, 500, 2000, 2000)),
        burst=chance.choice((1, 30, 200, 1000)),
        pause_s=chance.choice((0.002, 0.02, 0.1)),
        pad=chance.choice((0, 0, 50, 2000)),
        steps=chance.random() < 0.5,
        asides=chance.sample(ASIDES, chance.randint(0, 3)),
        aside_every_s=chance.choice((0.02, 0.1)),
        late=chance.random() < 0.3,
        ends=chance.choice(("finish", "with", "raise")),
    )


def _plan_run(chance: random.Random, name: str, parts: Parts) -> RunPlan:
    others = chance.sample(BACKENDS[1:], chance.randint(1, 3))
    return RunPlan(
        id=name,
        disk=chance.choice(parts.disks),
        worker=chance.choice(("process", "process", "process", "thread")),
        when_full=chance.choice(("drop_newest", "drop_newest", "block", "raise")),
        queue_bytes=chance.choice((None, None, 65536, 1 << 20)),
        backends=[*(["jsonl"] if chance.random() < 0.9 else []), *others],
    )
