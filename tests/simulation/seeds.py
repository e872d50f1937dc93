"""Seeds: runs each in a process of its own, several at once, and says how to run one again. Runs in the simulation's command and in pytest."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import msgspec

from simulation.one import Outcome
from simulation.plan import Parts, make_plan
from simulation.processes import PYTHONPATH, TESTS, marked

# Far more than a seed needs, the deadlines in it together. Arbitrary.
_SEED_S: Final = 300.0


@functools.cache
def parts_here() -> Parts:
    """What can be had on this machine."""
    return Parts(mounts=_unshare() is not None, hangs=_unshare() is not None and _has_fuse())


def run_seed(seed: int, parts: Parts, keep: Path | None = None) -> tuple[Outcome, Path]:
    """Run one seed; its outcome, and its directory, which is there where something was wrong."""
    directory = Path(tempfile.mkdtemp(prefix=f"asynctrack-seed-{seed}-", dir=keep))
    within = (_unshare() or []) if parts.mounts else []
    process = subprocess.Popen(
        [
            *within,
            sys.executable,
            "-m",
            "simulation.one",
            str(seed),
            str(directory),
            msgspec.json.encode(parts).decode(),
        ],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all it has started itself ends with it
    )
    try:
        out, err = process.communicate(timeout=_SEED_S)
        outcome = msgspec.json.decode(out.splitlines()[-1], type=Outcome)
    except (subprocess.TimeoutExpired, IndexError, msgspec.DecodeError) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        outcome = Outcome(
            seed=seed, problems=[f"the simulation itself: {error!r}\n{out}\n{err}"], plan=str(make_plan(seed, parts))
        )
    for left in marked(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(left.pid, signal.SIGKILL)
    if not outcome.problems:
        shutil.rmtree(directory, ignore_errors=True)
    return outcome, directory


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
    without = [name for name in ("mounts", "hangs") if not getattr(parts, name)]
    again = f"python -m tests.simulation --seed {outcome.seed}" + "".join(f" --without {name}" for name in without)
    problems = "\n".join(f"- {problem}" for problem in outcome.problems)
    return f"seed {outcome.seed}:\n{problems}\n{outcome.plan}\nkept in {directory}\nagain: {again}"


@functools.cache
def _unshare() -> list[str] | None:
    """A command that begins a mount namespace in which file systems can be mounted."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        with contextlib.suppress(OSError):
            if not subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
                return command
    return None


@functools.cache
def _has_fuse() -> bool:
    if not os.path.exists("/dev/fuse") or not (TESTS / "hanging_disk.py").exists():
        return False
    script = (
        "import pathlib, tempfile; from hanging_disk import HangingDisk; a, b = map(pathlib.Path, (tempfile.mkdtemp(), tempfile.mkdtemp())); "
        "disk = HangingDisk(a, b); well = disk.mounted(); disk.close(); a.rmdir(); b.rmdir(); raise SystemExit(not well)"
    )
    command = [*(_unshare() or []), sys.executable, "-c", script]
    return not subprocess.run(
        command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, timeout=60
    ).returncode
