"""One seed, from its plan to the verdict: `python -m simulated_hosts.one SEED CARRIER SIZE DIRECTORY PARTS`. The last line it prints is the outcome, as JSON.

Runs in a process and, where file systems can be mounted, in a mount namespace of its own.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from pathlib import Path

import msgspec
from clock_library import build_clock
from simulation import apart

from simulated_hosts.oracle import HostPart, Verdict, check_delivered, deliver, judge
from simulated_hosts.plan import Parts, make_plan
from simulated_hosts.world import World

# A seed that takes longer hangs, and says where. Arbitrary.
LONGEST_S = 280.0


class Outcome(apart.Outcome, frozen=True, kw_only=True):
    """What became of a seed, in numbers too."""

    accepted: int = 0
    merged: int = 0
    rings: int = 0
    log: str = ""
    seconds: float = 0.0


def simulate(seed: int, carrier: str, size: str, directory: Path, parts: Parts) -> Outcome:
    """Carry a seed's plan out in `directory`, which is empty."""
    begin = time.monotonic()
    plan = make_plan(seed, carrier, size, parts)
    world = World(directory, plan, build_clock(directory) if parts.clocks else None)
    verdict = Verdict()
    try:
        world.carry_out()
        _judge(world, verdict)
    except Exception:
        verdict.problems.append(traceback.format_exc())
    finally:
        world.close()
    problems = world.problems + verdict.problems
    if problems and parts.mounts:
        shutil.copytree(world.collecting.out, directory / "kept-out", dirs_exist_ok=True)
    return Outcome(
        seed=seed,
        problems=problems,
        plan=str(plan),
        accepted=verdict.accepted,
        merged=verdict.merged,
        rings=verdict.rings,
        log=(directory / "log").read_text() if (directory / "log").exists() else "",
        seconds=round(time.monotonic() - begin, 1),
    )


def _judge(world: World, verdict: Verdict) -> None:
    collecting, database = world.collecting, world.directory / "metrics.db"
    hosts = [
        HostPart(
            machine.name,
            machine.part,
            [account for who in machine.ranks if (account := machine.account(who)) is not None],
            machine.killed,
            machine.has_died,
        )
        for machine in world.machines
    ]
    verdict.problems += deliver(collecting.asynctrack(), collecting.environment, collecting.run, database)
    judge(collecting.run, hosts, verdict)
    verdict.problems += check_delivered(collecting.run, database, verdict.merged)


if __name__ == "__main__":
    number, carrier, size, directory, parts = sys.argv[1:]
    apart.print_outcome(
        lambda: simulate(int(number), carrier, size, Path(directory), msgspec.json.decode(parts, type=Parts)), LONGEST_S
    )
