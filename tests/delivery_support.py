"""What the tests of delivery share: processes to find and kill, statistics to balance, backends that do what they are told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until, workers

from asynctrack.client import worker_registry
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.reading.stats import BackendStats, RunStats
from asynctrack.testing import JournaledRun, taken


@contextlib.contextmanager
def rough_shared_memory() -> Iterator[Path]:
    """A directory in shared memory for rings; in the end the workers are killed, and what they had started must go with them."""
    shared = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="asynctrack-test-", dir=shared if shared.is_dir() else None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYNCTRACK_SHM", str(path))
        patch.setenv("ASYNCTRACK_IDLE_EXIT_S", "0.05")
        patch.setattr(worker_registry, "_hosts", {})
        try:
            yield path
            worker_registry.stop_threads()
            kill_workers(path)
            wait_until(lambda: not workers(path), "what the workers had started has ended")
        finally:
            for pid in workers(path):
                kill(pid)
            shutil.rmtree(path)


def deliverers(shared: Path) -> list[int]:
    """Pids of the delivery processes of the workers whose rings lie in `shared`."""
    return [pid for pid in workers(shared) if b"asynctrack.delivery.process" in command(pid)]


def kill_workers(shared: Path) -> None:
    """SIGKILL the workers, but not their delivery processes."""
    for pid in set(workers(shared)) - set(deliverers(shared)):
        kill(pid)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def command(pid: int) -> bytes:
    """The command line of a process, empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def processes(argument: str) -> list[int]:
    """Pids of the processes that were started with this argument."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if argument.encode() in command(pid).split(b"\0")]


def cursor(run: Path, name: str = "backend") -> Cursor:
    return load_cursor(run, name)


def assert_balanced(stats: RunStats) -> None:
    """Every record of the journal is somewhere, in the statistics of each backend."""
    assert stats.accepted == stats.journaled + stats.queued
    for name, backend_stats in stats.backends.items():
        assert stats.journaled == gone(backend_stats) + backend_stats.behind, (name, backend_stats)
        assert (
            min(backend_stats.delivered, backend_stats.rejected, backend_stats.behind, *backend_stats.skipped.values())
            >= 0
        )


def gone(backend_stats: BackendStats) -> int:
    return backend_stats.delivered + backend_stats.rejected + sum(backend_stats.skipped.values())


def steps(run: Path, **file: Any) -> list[int]:
    """Steps of the records that a scripted backend has taken, in that order."""
    return [record.step for record in taken(run, **file)]


def journal(path: Path, count: int, *, end: bool = True) -> JournaledRun:
    """A run of so many records whose steps are 0, 1, ...; its journal is closed."""
    with JournaledRun(path) as run:
        for step in range(count):
            run.log({"i": step}, step)
        if end:
            run.end()
        run.journal()
    return run
