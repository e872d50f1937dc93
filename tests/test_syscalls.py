"""A small run is killed at one system call after the other, and its calls fail one after the other: nothing accepted is lost.

`strace` counts the calls of each thread by itself, so "the k-th write" is that of whichever thread comes to its own k-th first.
By default every k that is a power of eight is tried, behind the mark "slow" every one until the run gets through.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from support import a_minute_later, left_in, lines, manifest, records, start, state, wait_until, workers

import asynctrack
from asynctrack.cli.sync_job import SyncJob
from asynctrack.cli.sync_plan import plan_sync
from asynctrack.errors import NotARun

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.timeout(120),
]

Host = Literal["thread", "process"]

# Stops itself before its run opens, so that nothing of Python's own start is counted. What is accepted is noted in shared memory.
CHILD = """
import logging, mmap, os, signal
import aiofiles, anyio, asyncio, anyio._backends._asyncio
import asynctrack, asynctrack.delivery.polling, asynctrack.worker.threads

folder, host, told = sys.argv[1:4]
with open(told, "r+b") as file:
    accepted = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
logging.basicConfig(filename=os.devnull)
os.kill(os.getpid(), signal.SIGSTOP)
try:
    run = asynctrack.init("p", id="run", dir=folder, worker=host, sync_interval_s=0.01, linger_s=0.01, finish_timeout_s=2)
except OSError:  # it says so at once, and nothing is accepted
    raise SystemExit from None
for i in range(6):
    accepted[0] += run.log({"i": i, "half": i / 2}, step=2 * i)
    if i % 3 == 2:
        run.flush("delivered", timeout_s=2)
        run.summary["last"] = i
run.finish()  # and not a word on standard output: that is a write, too
"""


class Fault(NamedTuple):
    """What happens at a system call: `errno` is raised instead of it, or the process is killed."""

    call: str
    error: int | None = None

    def at(self, k: int, *, for_good: bool) -> str:
        what = "signal=KILL" if self.error is None else f"error={errno.errorcode[self.error]}"
        return f"inject={self.call}:{what}:when={k}{'+' if for_good else ''}"

    def __str__(self) -> str:
        return f"{self.call}-{'KILL' if self.error is None else errno.errorcode[self.error]}"


KILLS = [Fault(call) for call in ("write", "rename", "fdatasync", "fsync", "unlink,unlinkat", "mkdir", "ftruncate")]
FAULTS = [
    Fault("write", errno.ENOSPC),
    Fault("write", errno.EIO),
    Fault("write", errno.EINTR),  # once: Python repeats it until it works
    Fault("fdatasync", errno.EIO),
    Fault("fsync", errno.EIO),
    Fault("rename", errno.EIO),
    Fault("openat", errno.EMFILE),
    Fault("unlink,unlinkat", errno.EACCES),
    Fault("mkdir", errno.ENOSPC),
    Fault("fallocate", errno.ENOSPC),
    Fault("ftruncate", errno.EIO),
]


def went_through(shared: Path, folder: Path, host: Host, fault: Fault, k: int, *, for_good: bool = False) -> bool:
    """Run the child with a fault at each thread's k-th call, see to what it left, and check it; False where no thread came so far."""
    told = folder / "told"
    folder.mkdir()
    told.write_bytes(bytes(8))
    runs = folder / "runs"
    child = start(CHILD, runs, host, told)
    trace = folder / "trace"
    wait_until(lambda: state(child.pid) == "T", "it has stopped")
    inject = [f"-e{fault.at(k, for_good=for_good)}", f"-etrace={fault.call}"]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", trace, *inject, "-p", str(child.pid)])
    try:
        wait_until(lambda: "TracerPid:\t0" not in Path(f"/proc/{child.pid}/status").read_text(), "it is traced")
        os.kill(child.pid, signal.SIGCONT)
        out, err = child.communicate(timeout=40)
    finally:
        child.kill()
        tracer.terminate()  # it lets go of what still runs
        tracer.wait()
    log = trace.read_text()
    if fault.error is not None:
        assert child.returncode == 0, f"{fault} at {k}: exit status {child.returncode}\n{out}\n{err}"
    with told.open("r+b") as file, mmap.mmap(file.fileno(), 8) as word:
        accepted = int.from_bytes(word[:], "little")
    wait_until(lambda: not workers(shared), "its worker has left, or died")
    assert_nothing_is_lost(runs / "p" / "run", accepted, f"{fault} at {k}")
    return "(INJECTED)" in log or "killed by SIGKILL" in log


def assert_nothing_is_lost(run: Path, accepted: int, where: str) -> None:
    if not run.exists() and accepted == 0:
        return
    try:
        plan_sync(run)
        with SyncJob([run]) as work:
            wait_until(lambda: work.poll() and work.done, f"{where}: all is delivered")
        asynctrack.open_run(run)
    except NotARun:  # it died before it had said anything
        assert accepted == 0, where
        return
    found = [record.data["i"] for record in records(run)]
    assert found in (list(range(accepted)), list(range(accepted + 1))), where
    assert [line["i"] for line in lines(run)] == found, where
    assert manifest(run)["status"] in ("finished", "crashed"), where
    summary = asynctrack.open_run(run).summary
    assert summary.get("last", 5) in (2, 5), where


def try_each(shared: Path, folder: Path, host: Host, fault: Fault, *, every: bool, for_good: bool = False) -> None:
    k = 1
    while went_through(shared, folder / str(k), host, fault, k, for_good=for_good):
        k = k + 1 if every else k * 8
    assert k > 1 or fault.call in ("ftruncate", "fallocate", "mkdir"), f"{fault.call} is never called"
    a_minute_later(shared)
    asynctrack.init("p", id="next", dir=folder).finish()  # its worker clears away what was left
    wait_until(lambda: not workers(shared), "its worker has left")
    assert left_in(shared) == []


@pytest.mark.system
@pytest.mark.parametrize(
    ("host", "fault"), [("process", KILLS[0]), ("thread", KILLS[1]), ("thread", KILLS[2])], ids=str
)
def test_killed_at_a_system_call_nothing_is_lost(own_host: Path, tmp_path: Path, host: Host, fault: Fault) -> None:
    try_each(own_host, tmp_path, host, fault, every=False)


@pytest.mark.system
@pytest.mark.parametrize("fault", [FAULTS[0], FAULTS[3], FAULTS[6]], ids=str)
def test_nothing_is_lost_when_a_call_fails_once(own_host: Path, tmp_path: Path, fault: Fault) -> None:
    try_each(own_host, tmp_path, "thread", fault, every=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("host", "fault"),
    [
        *((host, fault) for fault in KILLS for host in ("thread", "process")),
        *(("thread", Fault(call)) for call in ("openat", "close", "mmap")),  # a process imports with hundreds of them
    ],
    ids=str,
)
def test_killed_at_every_system_call_nothing_is_lost(own_host: Path, tmp_path: Path, host: Host, fault: Fault) -> None:
    try_each(own_host, tmp_path, host, fault, every=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("host", ["thread", "process"])
@pytest.mark.parametrize(
    ("fault", "for_good"),
    [
        pytest.param(fault, for_good, id=f"{fault}-{'for good' if for_good else 'once'}")
        for fault in FAULTS
        for for_good in (False, True)
        if not (for_good and fault.error == errno.EINTR)
    ],
)
def test_nothing_is_lost_when_any_call_fails(
    own_host: Path, tmp_path: Path, host: Host, fault: Fault, for_good: bool
) -> None:
    try_each(own_host, tmp_path, host, fault, every=True, for_good=for_good)
