"""What the tests of whole runs share: conditions to wait for, workers to find and stop, children to run."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import left_children
import pytest

import asynctrack
from asynctrack.client import worker_registry
from asynctrack.reading.stats import StatsCollector

T = TypeVar("T")

# Arbitrary: far more than anything waited for here needs. Longer where each child imports a framework.
DEADLINE_S = float(os.environ.get("TEST_DEADLINE_S", "20"))
ROOT = Path(__file__).parent.parent
# Where this process has the package from, with its native core: the checkout's own copy may have none.
INSTALLED = Path(asynctrack.__file__).parent.parent
# What each child does first: a deadlock ends with every thread's stack, not with the test's time limit.
_PRELUDE = (
    f"import faulthandler, sys; faulthandler.dump_traceback_later({2 * DEADLINE_S}, exit=True); sys.argv[0] = 'child'\n"
)


def wait_until(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Wait until `condition` returns something true, and return it."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {deadline_s} s still not true: {what}"
        time.sleep(0.002)
    return found


@contextlib.contextmanager
def own_shared_memory(idle_exit_s: float = 0.05) -> Iterator[Path]:
    """A directory in shared memory for the rings of this process; in the end nothing may be left in it, and no worker."""
    shared = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="asynctrack-test-", dir=shared if shared.is_dir() else None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYNCTRACK_SHM", str(path))
        patch.setenv("ASYNCTRACK_IDLE_EXIT_S", str(idle_exit_s))
        patch.setattr(worker_registry, "_hosts", {})
        try:
            yield path
            # Threads that are stopped leave what they have not yet let go of; a process stays until it has.
            wait_until(lambda: not rings_in(path), "every queue has gone")
            worker_registry.stop_threads()
            # That no worker is seen is not enough: one may be a shell yet, which takes the directory along when it has come and gone.
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not workers(path) and not left_in(path), "nothing is left")
            assert not (left := [*workers(path), *left_in(path)]), f"left behind: {left}"
        finally:
            for pid in workers(path):
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(path)


def left_in(shared: Path) -> list[str]:
    """Rings, locks and pipes that lie in shared memory."""
    found = [Path(folder, name) for folder, folders, files in os.walk(shared) for name in (*folders, *files)]
    return sorted(str(path.relative_to(shared)) for path in found)


def rings_in(shared: Path) -> list[str]:
    """Rings that lie in shared memory, also while a worker removes them and their directories."""
    return [name for _, _, names in os.walk(shared) for name in names if name.endswith(".ring")]


def a_minute_later(shared: Path) -> None:
    """Make what callers left that were killed in the middle of something look old; what is young may be about to be used."""
    for host in shared.glob("asynctrack-*/*"):
        os.utime(host, (0, 0))


def workers(shared: Path) -> list[int]:
    """Pids of the worker processes whose rings lie in `shared`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if arguments[0] != b"sh" and any(part.startswith(os.fsencode(shared)) for part in arguments):
                    found.append(int(entry.name))
    return found


def the_worker(shared: Path) -> int:
    """The pid of the one worker."""
    wait_until(lambda: len(workers(shared)) == 1, "there is one worker")
    return workers(shared)[0]


def kill_the_worker(shared: Path) -> int:
    """Kill the one worker, and wait until it has let go of everything; its pid."""
    pid = the_worker(shared)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in workers(shared), "the worker is dead")
    return pid


def remove(directory: Path) -> None:
    """Remove a directory into which somebody may be writing."""
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


def writers(run: Path) -> list[int]:
    """Pids of the other processes that have a segment of the run's journal open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():  # we only read it
            with contextlib.suppress(OSError):
                files = [os.readlink(link) for link in (entry / "fd").iterdir()]
                if any(file.startswith(f"{run}/journal/") for file in files):
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process as a debugger or a laptop's lid does."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state(pid) == "T", f"{pid} has stopped")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """What a process does: R runs, S waits, T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def start(script: str, *arguments: object, within: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
    """Start a Python that runs `script`, in this environment; by the command `within`, if there is one. It ends with a test that fails."""
    child = subprocess.Popen(
        # `-P`: else the checkout, where the tests are run, comes before what is installed, and has no native core.
        [*within, sys.executable, "-P", "-c", _PRELUDE + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(INSTALLED), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    left_children.note(child)
    return child


def outcome(child: subprocess.Popen[str]) -> Any:
    """Wait for a child to end well; what its last line says, as JSON."""
    try:
        out, err = child.communicate(timeout=2 * DEADLINE_S + 5)
    except subprocess.TimeoutExpired:  # it is not left to fail a later test too
        child.kill()
        out, err = child.communicate()
        raise AssertionError(f"it has not ended\n{out}\n{err}") from None
    finally:
        child.kill()
    assert child.returncode == 0, f"exit status {child.returncode}\n{out}\n{err}"
    return json.loads(out.splitlines()[-1]) if out.strip() else None


def run_child(script: str, *arguments: object, within: Sequence[str] = (), **environment: str) -> Any:
    """Run `script` in a Python of its own to its end; what its last line says, as JSON."""
    return outcome(start(script, *arguments, within=within, **environment))


def said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> list[str]:
    """What was said, apart from what runs of earlier tests of this process still say."""
    of_tests = f"{tmp_path.parent}{os.sep}"
    return [message for message in caplog.messages if of_tests not in message or str(tmp_path) in message]


def manifest(run: Path) -> dict[str, Any]:
    """The content of `run.json`."""
    content: dict[str, Any] = json.loads((run / "run.json").read_text())
    return content


def lines(run: Path, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of a run's JSON Lines."""
    return [json.loads(line) for line in (run / file).read_bytes().splitlines()]


def records(run: Path) -> list[asynctrack.Record]:
    """The records of a run, all of it unharmed."""
    reader = asynctrack.open_run(run)
    found = list(reader.records())
    assert reader.damage == []
    return found


def values(run: Path, key: str) -> list[Any]:
    """The values of one key, in the order of the journal."""
    return [record.data[key] for record in records(run) if key in record.data]


def ended(run: Path) -> bool:
    """Whether a run has come to an end that `run.json` tells of."""
    return (run / "run.json").exists() and manifest(run)["status"] != "running"


def assert_whole(run: Path, counts: dict[str, int] | None = None) -> None:
    """Each source's values 0, 1, ... are there, once and in order, in the journal and in the JSON Lines, and the statistics balance.

    Args:
        run: one that has ended, and is delivered.
        counts: how many values there are by source; whatever is found if None.
    """
    by_source: dict[str, list[int]] = {}
    found = records(run)
    for record in found:
        for who, value in record.data.items():
            by_source.setdefault(who, []).append(value)
    expected = counts if counts is not None else {who: len(values) for who, values in by_source.items()}
    assert {who: len(values) for who, values in by_source.items()} == {who: n for who, n in expected.items() if n}
    assert all(values == list(range(len(values))) for values in by_source.values())
    delivered = [{key: value for key, value in line.items() if key[0] != "_"} for line in lines(run)]
    assert delivered == [record.data for record in found]
    stats = StatsCollector(run).collect([], [], ["jsonl"])
    assert stats.accepted == stats.journaled == stats.backends["jsonl"].delivered == len(found)


@functools.cache
def _unshare() -> list[str]:
    """A command that begins a mount namespace in which file systems can be mounted; skips the test where none can be."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        with contextlib.suppress(OSError):
            if not subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
                return command
    pytest.skip("no file system can be mounted here")


def run_confined(mounts: str, script: str, *arguments: object, **environment: str) -> Any:
    """`run_child` where the shell command `mounts` has been run before, in a mount namespace of its own."""
    return outcome(
        start(script, *arguments, within=[*_unshare(), "sh", "-c", f'{mounts} && exec "$@"', "sh"], **environment)
    )


def kernel_tells_exit_codes() -> bool:
    """Whether who is not a process's parent can learn its exit code: Linux 6.15 and newer."""
    return sys.platform == "linux" and tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
