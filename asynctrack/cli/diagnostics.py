"""Diagnostics: checks that what asynctrack needs works on this machine, and measures its cost. Each check takes about a second."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from asynctrack._system import locks, native, trust
from asynctrack._system.private import has_interpreter_lock
from asynctrack._system.wording import counted
from asynctrack.cli.options import file_at
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.errors import SharedMemoryUnavailable
from asynctrack.queue.shm_paths import DEFAULT_RING_BYTES, SMALLEST_RING_BYTES, root_name, shared_roots, user_root
from asynctrack.worker.listing import list_workers

Status = Literal["ok", "warning", "error"]

# What one step of the loop logs: the record of the design's bars.
RECORD: Final = {"loss": 0.123, "accuracy": 0.5, "lr": 1e-3, "grad_norm": 1.7, "epoch": 3, "phase": "train"}
_CALLS: Final = 20_000
_STEP_S: Final = 200e-6
_SLICE_STEPS: Final = 100
_SLICES: Final = 80
_SYNCS: Final = 20
_BLOCK_BYTES: Final = 1 << 20
_BLOCKS: Final = 32
# Beyond these a check ends in a warning, by the design's bars or because a user would notice. Slow, noisy machines stay below.
_POOR_LOG_US: Final = 10.0
_POOR_SLOWDOWN_PERCENT: Final = 5.0
_POOR_SYNC_MS: Final = 200.0
_POOR_WRITE_MB_S: Final = 50.0
_POOR_START_MS: Final = 1000.0

_HOLD_LOCK: Final = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print('held',flush=True); sys.stdin.read()"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        check: the subject of the check.
        status: "ok"; "warning": it works, but slowly or with less; "error": it does not work.
        message: the result in words, and what to do where it is not good.
        facts: its numbers, with their units in their names.
    """

    check: str
    status: Status
    message: str
    facts: dict[str, Any] = {}


def diagnose(directory: Path) -> Iterator[Finding]:
    """Run all checks, one after the other.

    Args:
        directory: where runs are kept; what is written there is removed again.
    """
    yield _python()
    yield _core()
    yield _shared_memory()
    yield _key()
    yield _left_behind()  # before a worker of ours takes it over
    with _scratch(directory) as scratch:
        if isinstance(scratch, Finding):
            yield scratch
            return
        yield _locks(scratch)
        yield _disk(scratch)
        yield from _with_a_run(scratch)


def _python() -> Finding:
    lock = has_interpreter_lock()
    machine = platform.machine()
    message = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {machine}, {os.cpu_count()} cores"
    facts = {"version": platform.python_version(), "cores": os.cpu_count(), "interpreter_lock": lock}
    if platform.system() != "Linux" or machine not in ("x86_64", "AMD64"):
        return Finding(check="python", status="warning", message=f"{message}: not tested on this platform", facts=facts)
    return Finding(check="python", status="ok", message=message, facts=facts)


def _core() -> Finding:
    facts = {"native": native.is_native}
    if native.is_native:
        return Finding(check="core", status="ok", message="native", facts=facts)
    message = f"Python, log() takes several times as long: {native.why_not}"
    status: Status = "ok" if os.environ.get(native.PURE_VARIABLE) else "warning"
    return Finding(check="core", status=status, message=message, facts=facts)


def _shared_memory() -> Finding:
    roots = list(shared_roots())
    squatted = [root for root in roots if os.path.lexists(root_name(root)) and user_root(root) is None]
    free = {root: os.statvfs(root).f_bavail * os.statvfs(root).f_frsize for root in roots}
    facts = {"free_bytes": free}
    fits = [root for root in roots if free[root] > SMALLEST_RING_BYTES * 16]
    if not fits:
        message = f"no room for a queue in {' or '.join(roots) or 'memory'}: free some, or set ASYNCTRACK_SHM to a directory with room"
        return Finding(check="shared memory", status="error", message=message, facts=facts)
    message = f"{fits[0]}, {_mib(free[fits[0]])} free"
    if squatted:
        message += f"; {root_name(squatted[0])} may be written by others: queues get random names, and `asynctrack sync` does not find those of dead processes"
    elif fits[0] != "/dev/shm" and "ASYNCTRACK_SHM" not in os.environ:
        message += "; /dev/shm cannot be used, and queues on a disk may be slower"
    elif free[fits[0]] < 16 * DEFAULT_RING_BYTES:
        message += "; queues will be smaller than the usual 16 MiB (in a container, raise --shm-size)"
    else:
        return Finding(check="shared memory", status="ok", message=message, facts=facts)
    return Finding(check="shared memory", status="warning", message=message, facts=facts)


def _locks(scratch: Path) -> Finding:
    """Check that the file system's locks hold between processes, which some network file systems' do not."""
    path = scratch / "lock"
    path.touch()
    command = [sys.executable, "-I", "-S", "-c", _HOLD_LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        holds = locks.is_taken(path)
    if holds:
        return Finding(check="locks", status="ok", message="a lock held by one process is seen by another")
    message = "this file system's locks do not hold: two workers could write one journal; keep runs on a local disk, with --dir"
    return Finding(check="locks", status="error", message=message)


def _disk(scratch: Path) -> Finding:
    path, block = scratch / "disk", os.urandom(_BLOCK_BYTES)
    syncs, fd = [], os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(_SYNCS):
            os.write(fd, block[:4096])
            syncs.append(_timed(lambda: os.fdatasync(fd)))
        began = time.perf_counter()
        for _ in range(_BLOCKS):
            os.write(fd, block)
        os.fdatasync(fd)
        rate = _BLOCKS * _BLOCK_BYTES / (time.perf_counter() - began) / 1e6
    except OSError as error:
        return Finding(check="disk", status="error", message=f"{scratch.parent} cannot be written: {error.strerror}")
    finally:
        os.close(fd)
        path.unlink()
    median_ms, worst_ms = 1e3 * statistics.median(syncs), 1e3 * max(syncs)
    facts = {"write_mb_s": round(rate, 1), "sync_median_ms": round(median_ms, 2), "sync_worst_ms": round(worst_ms, 2)}
    message = f"{rate:.0f} MB/s, a sync takes {median_ms:.1f} ms, at worst {worst_ms:.1f}"
    if rate < _POOR_WRITE_MB_S or median_ms > _POOR_SYNC_MS:
        return Finding(
            check="disk", status="warning", message=f"{message}: bursts wait in the queue for longer", facts=facts
        )
    return Finding(check="disk", status="ok", message=message, facts=facts)


def _with_a_run(scratch: Path) -> Iterator[Finding]:
    began = time.perf_counter()
    try:
        run = init("doctor", dir=scratch, collect="", mode="online", finish_timeout_s=10.0)
    except SharedMemoryUnavailable as error:
        yield Finding(check="worker", status="error", message=str(error))
        return
    opened_s = time.perf_counter() - began
    try:
        yield _worker(run, opened_s)
        yield _log(run)
        yield _jitter(run)
    finally:
        run.finish()


def _worker(run: Run, opened_s: float) -> Finding:
    began = time.perf_counter()
    run.log(RECORD)
    journaled = run.flush("journaled", timeout_s=10.0).queued == 0
    journaled_s = opened_s + time.perf_counter() - began
    run.flush("delivered", timeout_s=20.0)
    facts = {"init_ms": round(1e3 * opened_s, 1), "first_record_journaled_ms": round(1e3 * journaled_s, 1)}
    if not journaled:
        text = (run.path / "worker.log").read_text(errors="replace") if (run.path / "worker.log").exists() else ""
        message = f"no worker could be started in 10 s: {text.strip()[-300:] or 'it said nothing'}; try worker='thread'"
        return Finding(check="worker", status="error", message=message, facts=facts)
    message = f"init() took {1e3 * opened_s:.0f} ms, the first record was on disk after {1e3 * journaled_s:.0f} ms"
    status: Status = "warning" if 1e3 * journaled_s > _POOR_START_MS else "ok"
    return Finding(check="worker", status=status, message=message, facts=facts)


def _log(run: Run) -> Finding:
    log, clock, times = run.log, time.perf_counter_ns, []
    for step in range(_CALLS):
        before = clock()
        log(RECORD, step=step)
        times.append(clock() - before)
    p50, p99, p999 = (1e-3 * value for value in _percentiles(times, (0.5, 0.99, 0.999)))
    facts = {"p50_us": round(p50, 2), "p99_us": round(p99, 2), "p99.9_us": round(p999, 2), "calls": _CALLS}
    message = f"{p50:.1f} us at the median, p99 {p99:.1f} us, p99.9 {p999:.1f} us, clock included"
    return Finding(check="log()", status="warning" if p50 > _POOR_LOG_US else "ok", message=message, facts=facts)


def _jitter(run: Run) -> Finding:
    """Time a loop of 200 us steps in slices, with and without tracking in turn, since a machine's speed drifts by more."""
    tracked, bare, turns = [], [], _turns_of_a_step()
    for number in range(_SLICES):
        if number % 2:
            tracked.append(_slice(run.log, turns))
        else:
            bare.append(_slice(_no_log, turns))
    ratios = [sum(with_it) / sum(without) for with_it, without in zip(tracked, bare, strict=True)]
    slowdown = 100 * (statistics.median(ratios) - 1)
    tails = [1e6 * _percentiles([step for part in parts for step in part], (0.99,))[0] for parts in (bare, tracked)]
    facts = {
        "slowdown_percent": round(slowdown, 2),
        "step_p99_bare_us": round(tails[0], 1),
        "step_p99_tracked_us": round(tails[1], 1),
    }
    message = f"a loop of 200 us steps gets {slowdown:+.1f} % slower; p99 of a step {tails[0]:.0f} us without, {tails[1]:.0f} us with tracking"
    status: Status = "warning" if slowdown > _POOR_SLOWDOWN_PERCENT else "ok"
    return Finding(check="jitter", status=status, message=message, facts=facts)


def _slice(log: Callable[..., bool], turns: int) -> list[float]:
    clock, times = time.perf_counter, []
    for step in range(_SLICE_STEPS):
        before = clock()
        _work(turns)
        log(RECORD, step=step)
        times.append(clock() - before)
    return times


def _work(turns: int) -> int:
    state = 1
    for _ in range(turns):
        state = state * 48271 % 2147483647
    return state


def _turns_of_a_step() -> int:
    turns = 10_000
    return max(1, int(turns * _STEP_S / min(_timed(lambda: _work(turns)) for _ in range(20))))


def _no_log(data: dict[str, object], step: int | None = None) -> bool:
    return True


def _key() -> Finding:
    """Check for the key that tells this user's own settings and files from those of others: see `trust`."""
    path = trust.where_kept()
    if path is not None:
        return Finding(check="key", status="ok", message=f"{path} can be kept")
    message = (
        "no key can be kept in this user's home: files that are logged by their path are copied by the run's own worker alone, not by "
        "`asynctrack sync` later; set XDG_STATE_HOME to a directory of this user's own that can be written"
    )
    return Finding(check="key", status="warning", message=message)


def _left_behind() -> Finding:
    workers = list_workers()
    orphans = [queue for worker in workers if worker.pid is None for queue in worker.queues if not queue.caller_lives]
    facts = {"workers": sum(worker.pid is not None for worker in workers), "orphans": len(orphans)}
    if orphans:
        message = f"{counted(len(orphans), 'queue holds', 'queues hold')} records of processes that died with their workers: run `asynctrack sync`"
        return Finding(check="left behind", status="warning", message=message, facts=facts)
    return Finding(check="left behind", status="ok", message="no queue of a dead process", facts=facts)


@contextmanager
def _scratch(directory: Path) -> Iterator[Path | Finding]:
    missing = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=directory) as path:
            yield Path(path)
    except (FileExistsError, NotADirectoryError):
        message = (
            f"expected a directory for runs, but {file_at(directory) or directory} is a file; choose another --dir"
        )
        yield Finding(check="disk", status="error", message=message)
    except OSError as error:
        message = f"{directory} cannot be written: {error.strerror}; choose another --dir"
        yield Finding(check="disk", status="error", message=message)
    finally:
        if missing:
            with suppress(OSError):
                directory.rmdir()


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _percentiles(times: Sequence[float], parts: Sequence[float]) -> list[float]:
    ordered = sorted(times)
    return [ordered[min(int(len(ordered) * part), len(ordered) - 1)] for part in parts]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
