"""One seed, from its plan to the verdict: `python -m simulation.one SEED DIRECTORY PARTS`. The last line it prints is the outcome, as JSON.

Runs in a process and, where file systems can be mounted, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

import msgspec

from simulation import apart
from simulation.ledger import read_ledger
from simulation.oracle import Run, Verdict, judge
from simulation.plan import Parts, make_plan
from simulation.world import World

# How much later than its deadline a call may return here: others want the cores too.
_SLACK_S = 5.0
# Why a run may not be opened: another has it, and there is no room for its queue or its directory.
_REFUSALS = ("RunIsRunning", "SharedMemoryUnavailable", "DirectoryNotWritable")
# A seed that takes longer hangs, and says where. Arbitrary.
_LONGEST_S = 240.0


class Outcome(apart.Outcome, frozen=True, kw_only=True):
    """What became of a seed, in numbers too."""

    sessions: int = 0
    kills: int = 0
    accepted: int = 0
    lost: int = 0
    twice: int = 0
    disordered: int = 0
    dropped: int = 0
    seconds: float = 0.0


def simulate(seed: int, directory: Path, parts: Parts) -> Outcome:
    """Carry a seed's plan out in `directory`, which is empty."""
    begin = time.monotonic()
    plan = make_plan(seed, parts)
    verdict = Verdict()
    world = World(directory, plan)
    accounts = []
    try:
        world.carry_out()
        world.recover()
        accounts = [read_ledger(path) for path in sorted((directory / "ledgers").iterdir())]
        for run in plan.runs:
            living = {name for name, caller in world.callers.items() if caller.session.run == run.id} - world.removed
            mine = [account for account in accounts if account.who.rpartition("-")[0] in living]
            judge(Run(run, world.run_directory(run.id), mine, directory / "taken", directory / "metrics.db"), verdict)
        verdict.problems += _check_callers(world)
        verdict.problems += _check_left(world)
    except Exception:
        verdict.problems.append(traceback.format_exc())
    finally:
        problems = world.problems + verdict.problems
        if problems:
            world.keep()
        world.close()
    return Outcome(
        seed=seed,
        problems=problems,
        plan=str(plan),
        sessions=len(world.callers),
        kills=world.kills,
        accepted=verdict.accepted,
        lost=verdict.lost,
        twice=verdict.twice,
        disordered=verdict.disordered,
        dropped=sum(account.full for account in accounts),
        seconds=round(time.monotonic() - begin, 1),
    )


def _check_callers(world: World) -> list[str]:
    """What the processes say that log: nothing raised, every wait in its time."""
    problems = []
    for name, caller in world.callers.items():
        said = world.said(caller)
        if "Traceback" in said or "Fatal" in said:
            problems.append(f"{name} said: {said[-1500:]}")
        report = caller.report()
        if report is None:
            continue
        allowed = _REFUSALS if world.disk_of(caller.session.run) != "ill" else (*_REFUSALS, "OSError", "NotARun")
        strange = {why for why in report["refused"] if why.partition(":")[0] not in allowed}
        problems += [f"{name} was refused: {why}" for why in sorted(strange)]
        if caller.stopped:
            continue
        waits = [*report["waits"], ["finish", caller.session.finish_timeout_s, report.get("finish_s", 0.0)]]
        problems += [
            f"{name}: {what} took {took_s:.1f} s, {limit_s} were allowed"
            for what, limit_s, took_s in waits
            if took_s > limit_s + _SLACK_S
        ]
    for path in (world.directory / "ledgers").iterdir():
        account = read_ledger(path)
        owner = world.callers.get(account.who.rpartition("-")[0])
        if owner is not None and not owner.stopped and account.longest_s > _SLACK_S:
            problems.append(f"a log() of {account.who} took {account.longest_s:.1f} s")
    return problems


def _check_left(world: World) -> list[str]:
    """Nothing may be left in shared memory and where files lie for a moment, but what a killed process was about to use."""
    left = [
        str(Path(folder, name))
        for place in (world.memory, world.directory / "tmp")
        for folder, folders, files in os.walk(place)
        for name in (*folders, *files)
    ]
    rings = [path for path in left if path.endswith(".ring")]
    return [f"left in memory: {', '.join(rings)}"] if rings else []


if __name__ == "__main__":
    number, directory, parts = sys.argv[1:]
    apart.print_outcome(
        lambda: simulate(int(number), Path(directory), msgspec.json.decode(parts, type=Parts)), _LONGEST_S
    )
