"""Seeds: runs each in a process of its own, and says how to run one again. Runs in the simulation's command and in pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
from nats_server import old_server
from simulation.apart import directory_of, failure_text, kill_marked, run_apart, tidy, unshare_command
from simulation.processes import TESTS

from simulated_hosts.one import LONGEST_S, Outcome
from simulated_hosts.plan import CARRIERS, Parts, make_plan


def carrier_of_this_commit() -> str:
    """One carrier for each commit, so that all have their turn."""
    told = subprocess.run(["git", "-C", str(TESTS), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    return CARRIERS[int(told or "0", 16) % len(CARRIERS)]


def parts_here() -> Parts:
    """What can be had on this machine."""
    return Parts(
        mounts=unshare_command() is not None,
        clocks=shutil.which("cc") is not None,
        old_server="ASYNCTRACK_TEST_OLD_NATS" in os.environ and old_server().exists(),
    )


def run_seed(seed: int, carrier: str, size: str, parts: Parts, keep: Path | None = None) -> tuple[Outcome, Path]:
    """Run one seed; its outcome, and its directory, which is there where something was wrong."""
    directory = directory_of(seed, "hosts", keep)
    given = [str(seed), carrier, size, str(directory), msgspec.json.encode(parts).decode()]
    try:
        found = run_apart("simulated_hosts.one", given, Outcome, LONGEST_S + 20, mounts=parts.mounts)
    finally:
        kill_marked((directory / "collector", *(directory / "hosts").glob("*")))
    if isinstance(found, str):
        found = Outcome(seed=seed, problems=[found], plan=str(make_plan(seed, carrier, size, parts)))
    tidy(found, directory)
    return found, directory


def failure(outcome: Outcome, carrier: str, size: str, directory: Path, parts: Parts) -> str:
    """What was wrong, the plan, and how to run it again."""
    command = f"python -m tests.simulated_hosts --seed {outcome.seed} --carrier {carrier} --size {size}"
    return failure_text(outcome, directory, command, parts, f"{outcome.log}\n")
