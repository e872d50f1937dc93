"""Seeds: runs each in a process of its own, several at once, and says how to run one again. Runs in the simulation's command and in pytest."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import msgspec

from simulation.apart import directory_of, failure_text, kill_marked, run_apart, tidy, unshare_command
from simulation.one import Outcome
from simulation.plan import Parts, make_plan
from simulation.processes import PYTHONPATH, TESTS

# Far more than a seed needs, the deadlines in it together. Arbitrary.
_SEED_S: Final = 300.0


@functools.cache
def parts_here() -> Parts:
    """What can be had on this machine."""
    return Parts(mounts=unshare_command() is not None, hangs=unshare_command() is not None and _has_fuse())


def run_seed(seed: int, parts: Parts, keep: Path | None = None) -> tuple[Outcome, Path]:
    """Run one seed; its outcome, and its directory, which is there where something was wrong."""
    directory = directory_of(seed, "seed", keep)
    given = [str(seed), str(directory), msgspec.json.encode(parts).decode()]
    found = run_apart("simulation.one", given, Outcome, _SEED_S, mounts=parts.mounts)
    if isinstance(found, str):
        found = Outcome(seed=seed, problems=[found], plan=str(make_plan(seed, parts)))
    kill_marked([directory])
    tidy(found, directory)
    return found, directory


def run_seeds(
    seeds: Iterable[int], parts: Parts, at_once: int, keep: Path | None = None
) -> Iterator[tuple[Outcome, Path]]:
    """Run them all; each as soon as it is done."""
    waiting = iter(seeds)
    with ThreadPoolExecutor(at_once) as pool:
        start: Callable[[int], object] = lambda seed: pool.submit(run_seed, seed, parts, keep)  # noqa: E731
        running = {start(seed) for _, seed in zip(range(at_once), waiting, strict=False)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)  # type: ignore[assignment, arg-type]
            for future in done:
                if (seed := next(waiting, None)) is not None:
                    running.add(start(seed))
                yield future.result()  # type: ignore[attr-defined]


def failure(outcome: Outcome, directory: Path, parts: Parts) -> str:
    """What was wrong, the plan, and how to run it again."""
    return failure_text(outcome, directory, f"python -m tests.simulation --seed {outcome.seed}", parts)


@functools.cache
def _has_fuse() -> bool:
    if not os.path.exists("/dev/fuse") or not (TESTS / "hanging_disk.py").exists():
        return False
    script = (
        "import pathlib, tempfile; from hanging_disk import HangingDisk; a, b = map(pathlib.Path, (tempfile.mkdtemp(), tempfile.mkdtemp())); "
        "disk = HangingDisk(a, b); well = disk.mounted(); disk.close(); a.rmdir(); b.rmdir(); raise SystemExit(not well)"
    )
    command = [*(unshare_command() or []), sys.executable, "-c", script]
    return not subprocess.run(
        command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, timeout=60
    ).returncode
