"""Apart: runs one seed of a simulation in a process of its own, and reads what came of it. For both simulations: `simulation` and `simulated_hosts`."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from simulation.processes import PYTHONPATH, marked


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a seed, at least; `problems` is empty where all is well."""

    seed: int
    problems: list[str]
    plan: str


AnyOutcome = TypeVar("AnyOutcome", bound=Outcome)


def directory_of(seed: int, name: str, keep: Path | None) -> Path:
    """Make a directory for a seed."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"asynctrack-{name}-{seed}-", dir=keep))


def run_apart(
    module: str, given: Sequence[str], kind: type[AnyOutcome], longest_s: float, *, mounts: bool
) -> AnyOutcome | str:
    """Run a module with these arguments, which prints an outcome; returns that, or what went wrong with the simulation itself.

    It runs in a mount namespace of its own where `mounts` is set. When it takes too long, all that it has started is killed.
    """
    process = subprocess.Popen(
        [*((unshare_command() or []) if mounts else []), sys.executable, "-m", module, *given],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all it has started itself ends with it
    )
    try:
        out, err = process.communicate(timeout=longest_s)
        return msgspec.json.decode(out.splitlines()[-1], type=kind)
    except (subprocess.TimeoutExpired, IndexError, msgspec.DecodeError) as error:
        out, err = _kill(process)
        return f"the simulation itself: {error!r}\n{out}\n{err}"
    except BaseException:
        _kill(process)
        raise


def tidy(outcome: Outcome, directory: Path) -> None:
    """Remove the directory of a seed where nothing was wrong."""
    if not outcome.problems:
        shutil.rmtree(directory, ignore_errors=True)


def kill_marked(marks: Iterable[Path]) -> None:
    """Kill the processes with these marks."""
    for mark in marks:
        for left in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGKILL)


def failure_text(outcome: Outcome, directory: Path, command: str, parts: msgspec.Struct, log: str = "") -> str:
    """What was wrong, the plan, and how to run it again: by a command, without the parts that could not be had."""
    without = [name for name, is_there in msgspec.structs.asdict(parts).items() if not is_there]
    again = command + "".join(f" --without {name}" for name in without)
    problems = "\n".join(f"- {problem}" for problem in outcome.problems)
    return f"seed {outcome.seed}:\n{problems}\n{outcome.plan}\n{log}kept in {directory}\nagain: {again}"


def print_outcome(simulate: Callable[[], Outcome], longest_s: float) -> None:
    """Run a seed in this process, and print its outcome as the last line; one that takes too long says where it hangs."""
    faulthandler.dump_traceback_later(longest_s, exit=True)
    print(msgspec.json.encode(simulate()).decode())


@functools.cache
def unshare_command() -> list[str] | None:
    """A command that begins a mount namespace in which file systems can be mounted."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        with contextlib.suppress(OSError):
            if not subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
                return command
    return None


def _kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()
