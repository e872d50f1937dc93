"""Every way a calling process can end: nothing accepted is lost or repeated, its exit is its own, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import (
    DEADLINE_S,
    INSTALLED,
    a_minute_later,
    assert_whole,
    ended,
    kernel_tells_exit_codes,
    left_in,
    manifest,
    outcome,
    records,
    run_child,
    start,
    state,
    stopped,
    the_worker,
    wait_until,
    workers,
)

import asynctrack

# How every caller begins: it opens a run, and logs. Its exit waits longer than the 5 s that a busy machine can take to deliver by threads.
BEGIN = """
import atexit, gc, os, resource, signal, sys, threading, time
import asynctrack

folder, worker = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
run = asynctrack.init("p", id="run", dir=folder, worker=worker, exit_timeout_s=20)
for i in range(300):
    if not run.log({"i": i}):
        raise SystemExit("dropped")
"""
COUNT = 300


class Caller(NamedTuple):
    """A script that opens a run, and what must be seen of it.

    Attributes:
        end: what it does after `BEGIN`; it prints how many records were accepted where that is not `COUNT`.
        code: its exit status, negative for a signal, as it would be without a run.
        status: of the run.
        says: pattern of what it writes to its standard error.
        hosts: kinds of worker that it is tried with.
        also: how many records it logs besides, as "x".
        before: what it does before `BEGIN`.
        command: the shell's, in the script's folder; `$1` is the folder, `$2` the kind of worker.
    """

    end: str = ""
    code: int = 0
    status: str = "finished"
    says: str = ""
    hosts: tuple[str, ...] = ("process", "thread")
    also: int = 0
    before: str = ""
    command: str = 'exec "$PYTHON" script.py "$@"'


def uncaught(error: str) -> str:
    """The pattern of a traceback that ends with an error."""
    return rf"Traceback \(most recent call last\):\n(.*\n)*{error}\n"


ENDS = {
    "return": Caller(),
    "exception": Caller("raise ValueError('diverged')", 1, "failed", uncaught("ValueError: diverged")),
    "exception in with": Caller("with run:\n    raise ValueError", 1, "failed", uncaught("ValueError")),
    "sys.exit(0)": Caller("sys.exit(0)"),
    "sys.exit(3)": Caller("sys.exit(3)", 3),
    "sys.exit(text)": Caller("sys.exit('diverged')", 1, says="diverged\n"),
    "sys.exit() in with": Caller("with run:\n    sys.exit()"),
    "sys.exit(0) in with": Caller("with run:\n    sys.exit(0)"),
    "sys.exit(3) in with": Caller("with run:\n    sys.exit(3)", 3, "failed"),
    "sys.exit(text) in with": Caller("with run:\n    sys.exit('diverged')", 1, "failed", "diverged\n"),
    "Ctrl-C": Caller("signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "failed", uncaught("KeyboardInterrupt")),
    "SIGTERM": Caller("signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM, "crashed"),
    "SIGHUP": Caller("signal.raise_signal(signal.SIGHUP)", -signal.SIGHUP, "crashed"),
    "SIGKILL": Caller("signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL, "crashed"),
    "SIGSEGV": Caller("signal.raise_signal(signal.SIGSEGV)", -signal.SIGSEGV, "crashed"),
    "os._exit": Caller("os._exit(0)", 0, "crashed"),
    "os.abort": Caller("os.abort()", -signal.SIGABRT, "crashed"),
    "exec": Caller("os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(5)'])", 5, "crashed"),
    "preempted, then SIGKILL": Caller(
        "run.mark_preempted()\nsignal.raise_signal(signal.SIGKILL)", -signal.SIGKILL, "preempted"
    ),
    "Ctrl-C in log()": Caller(
        """
class Interrupts:
    def __repr__(self):
        signal.raise_signal(signal.SIGINT)
        return "not reached"

run.log({"i": Interrupts()})
""",
        -signal.SIGINT,
        "failed",
        uncaught("KeyboardInterrupt"),
    ),
    "Ctrl-C at any moment": Caller(
        """
count = 300
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while run.log({"i": count}):
        count += 1
finally:  # of the call that was interrupted it cannot be known
    accepted = run.stats().accepted
    assert accepted - count in (0, 1)
    print(accepted)
""",
        -signal.SIGINT,
        "failed",
        uncaught("KeyboardInterrupt"),
    ),
    "SIGTERM whose handler finishes": Caller(
        "signal.signal(signal.SIGTERM, lambda *_: run.finish())\nsignal.raise_signal(signal.SIGTERM)"
    ),
    "SIGTERM whose handler exits": Caller(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\nsignal.raise_signal(signal.SIGTERM)", 143
    ),
    "SIGTERM whose handler raises": Caller(
        """
class Terminated(Exception):
    pass

def on_term(*_):
    raise Terminated

signal.signal(signal.SIGTERM, on_term)
signal.raise_signal(signal.SIGTERM)
""",
        1,
        "failed",
        uncaught("Terminated"),
    ),
    "SIGTERM whose handler finishes in the middle of log()": Caller(
        """
count = 300
def on_term(*_):
    run.finish()
    sys.exit(143)

signal.signal(signal.SIGTERM, on_term)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
try:
    while run.log({"i": count}):
        count += 1
finally:  # of the call that was interrupted it cannot be known
    accepted = run.stats().accepted
    assert accepted - count in (0, 1)
    print(accepted)
""",
        143,
    ),
    "atexit handler that logs": Caller(
        """
@atexit.register
def late():
    for i in range(300, 310):
        assert run.log({"i": i}) is (worker == "process")  # a worker that is threads has ended with the main thread
    print(310 if worker == "process" else 300)
"""
    ),
    "atexit handler that finishes": Caller("atexit.register(lambda: print(run.finish().accepted))"),
    "atexit handler that logs behind the run's end": Caller(
        """
def late():
    assert not run.log({"i": 300})
    assert run.finish().accepted == 300

atexit.unregister(asynctrack.client.shutdown._finish)
atexit.register(late)
atexit.register(asynctrack.client.shutdown._finish)  # as if `late` had been registered before the import
"""
    ),
    "finaliser that logs while modules are torn down": Caller(
        """
class Late:
    def __del__(self):
        assert not run.log({"i": 300})

late, late.itself = Late(), None
late.itself = late
sys.modules["late"] = late
"""
    ),
    "exception whose text raises": Caller(
        """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError

with run:
    raise Odd
""",
        1,
        "failed",
        uncaught(r".*Odd.*"),
    ),
    "exception whose text ends the process": Caller(
        """
class Odd(Exception):
    def __str__(self):
        raise SystemExit(3)

try:
    with run:
        raise Odd
except Odd:
    sys.exit(1)
""",
        1,
        "failed",
    ),
    "several runs": Caller(
        """
others = [asynctrack.init("p", dir=folder, worker=worker, exit_timeout_s=20) for _ in range(5)]
for other in others:
    other.log({"x": 0})
"""
    ),
    "run opened on a thread": Caller(
        """
def work():
    other = asynctrack.init("p", dir=folder, worker=worker, exit_timeout_s=20)
    for i in range(100):
        other.log({"x": i})

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
"""
    ),
    "threads that log on behind the main thread": Caller(
        """
def work():
    threading.main_thread().join()
    count = 300
    for _ in range(100):
        count += run.log({"i": count})
    print(count)

threading.Thread(target=work).start()
"""
    ),
    "executor that is not shut down": Caller(
        """
from concurrent.futures import ThreadPoolExecutor

def work():
    time.sleep(0.1)
    count = 300
    for _ in range(100):
        count += run.log({"i": count})
    print(count)

ThreadPoolExecutor(2).submit(work)
"""
    ),
    "runs that nobody holds": Caller(
        """
def trial():
    trial = asynctrack.init("p", dir=folder, worker=worker, exit_timeout_s=20)
    for i in range(100):
        trial.log({"x": i})

for _ in range(3):
    trial()
"""
    ),
    "asyncio": Caller(
        """
import asyncio

async def main():
    async with run:
        assert await run.alog({"i": 300})
    print(301)

asyncio.run(main())
"""
    ),
    "asyncio, left open": Caller(
        """
import asyncio

async def main():
    assert await run.alog({"i": 300})
    print(301)

asyncio.run(main())
"""
    ),
    "asyncio, exception": Caller(
        """
import asyncio

async def main():
    raise ValueError("diverged")

asyncio.run(main())
""",
        1,
        "failed",
        uncaught("ValueError: diverged"),
    ),
    "asyncio, Ctrl-C": Caller(
        """
import asyncio

async def main():
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)

asyncio.run(main())
""",
        -signal.SIGINT,
        "failed",
        uncaught("KeyboardInterrupt"),
    ),
    "asyncio, cancelled in afinish()": Caller(
        """
import asyncio

async def main():
    finishing = asyncio.create_task(run.afinish())
    await asyncio.sleep(0)
    finishing.cancel()
    try:
        await finishing
    except asyncio.CancelledError:
        return
    raise AssertionError("not cancelled")

asyncio.run(main())
"""
    ),
    "asyncio, cancelled in async with": Caller(
        """
import asyncio

async def main():
    async with run:
        await asyncio.sleep(60)

async def cancel():
    task = asyncio.create_task(main())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()

asyncio.run(cancel())
""",
        status="failed",
    ),
    "trio": Caller(
        """
import trio

async def main():
    async with run:
        assert await run.alog({"i": 300})
    print(301)

trio.run(main)
"""
    ),
    "trio, left open": Caller(
        """
import trio

async def main():
    assert await run.alog({"i": 300})
    print(301)

trio.run(main)
"""
    ),
    "trio, Ctrl-C": Caller(
        """
import trio

async def main():
    signal.raise_signal(signal.SIGINT)
    await trio.sleep(60)

trio.run(main)
""",
        -signal.SIGINT,
        "failed",
        uncaught("KeyboardInterrupt"),
    ),
    "trio, cancelled in afinish()": Caller(
        """
import trio

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.afinish)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

trio.run(main)
"""
    ),
    "an allocation that fails": Caller("bytearray(1 << 60)", 1, "failed", uncaught("MemoryError")),
    "out of memory": Caller(
        """
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
hog = []
while True:
    hog.append(bytearray(1 << 20))
""",
        1,
        "failed",
        r"(.*\n)*MemoryError\n(.*\n)*",  # a thread of ours may be the first that gets none, and Python tells that as well
        hosts=("process",),  # threads that end without memory take the process with them: pthread_exit needs some
    ),
}

STARTS = {
    "file": Caller(),
    "python -c": Caller(command='exec "$PYTHON" -c "$(cat script.py)" "$@"'),
    "python -m": Caller(command='exec "$PYTHON" -m script "$@"'),
    "standard input": Caller(command='exec "$PYTHON" - "$@" < script.py'),
    "prompt": Caller(
        says=r"(>>> .*\n|.*\n)*ZeroDivisionError: division by zero\n>>> \n",
        command='echo 1/0 | "$PYTHON" -i script.py "$@"',  # it ends a line, not the process
    ),
    "python -O": Caller(command='exec "$PYTHON" -OO script.py "$@"'),
    "python -I": Caller(command='exec "$PYTHON" -I script.py "$@"'),
    "warnings are errors": Caller(command='exec "$PYTHON" -X dev -W error script.py "$@"'),
    "warnings are errors, with a thread that delivers": Caller(
        "asynctrack.init('p', id='other', dir=folder, worker=worker, exit_timeout_s=20, backends=['jsonl', asynctrack.Memory()]).log({'x': 0})",
        command='exec "$PYTHON" -X dev -W error script.py "$@"',
    ),
    "no streams": Caller(command='exec "$PYTHON" script.py "$@" <&- >&- 2>&-'),
    "something writes to streams that are closed": Caller(
        "for fd in (0, 1, 2):\n    try:\n        os.write(fd, b'x' * 100)\n    except OSError:\n        pass",
        command='exec "$PYTHON" script.py "$@" <&- >&- 2>&-',
    ),
    "folder that is gone": Caller(command='mkdir gone; cd gone; rmdir ../gone; exec "$PYTHON" "$1/script.py" "$@"'),
    "umask 0": Caller(command='umask 0; exec "$PYTHON" script.py "$@"'),
    "umask 0077": Caller(command='umask 0077; exec "$PYTHON" script.py "$@"'),
    "no environment": Caller(
        command='exec env -i ASYNCTRACK_SHM="$ASYNCTRACK_SHM" ASYNCTRACK_IDLE_EXIT_S=0.05 "$PYTHON" script.py "$@"'
    ),
    "queue.py beside the script": Caller(
        hosts=("process",), command='echo 1/0 > queue.py; echo 1/0 > aiofiles.py; exec "$PYTHON" script.py "$@"'
    ),
    "path with modules that bear the standard library's names": Caller(
        before="""
import asynctrack, os, sys

os.mkdir("traps")
for name in ("asyncio", "json", "logging", "queue", "select", "site", "sitecustomize", "zlib"):
    with open(f"traps/{name}.py", "w") as file:
        file.write("1/0")
os.environ["PYTHONPATH"] = os.path.abspath("traps")
sys.path.insert(0, os.environ["PYTHONPATH"])
""",
        hosts=("process",),
    ),
    "libraries that only the caller's path leads to": Caller(
        before="import os, sys\nsys.path[:0] = os.environ['LIBRARIES'].split(':')",
        command='exec "$BARE_PYTHON" -I script.py "$@"',
    ),
    "2,000 open files": Caller(
        before="""
import os, resource

resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(2000)]
"""
    ),
    "no more files can be opened": Caller(
        """
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = []
try:
    while True:
        files.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
""",
        says=r"(asynctrack: the worker cannot be started: .*Too many open files.*\n)?",  # where it is slow to answer
        hosts=("process",),
    ),
    "children are ignored": Caller(before="import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)"),
    "children are waited for all the time": Caller(
        before="""
import os, threading

def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            pass

threading.Thread(target=reap, daemon=True).start()
"""
    ),
    "all signals blocked": Caller(
        before="import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    ),
}
DAEMON = """
import os
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for stream in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
"""
CLOSED = """
os.closerange(3, 256)
files = [open(f"{os.getpid()}-{number}", "w") for number in range(30)]
"""
LOGGED = """
time.sleep(1)  # the worker looks after its callers twice a second
for i in range(100):
    assert run.log({"x": i})
run.flush()
gc.collect()  # what is left of a parent's queue
for file in files:
    assert os.fstat(file.fileno()).st_size == 0
"""
STARTS |= {
    "daemon": Caller(before=DAEMON),
    "daemon that closes all files": Caller(before=DAEMON + CLOSED),
    "daemon that closes all files, with an open run": Caller(
        DAEMON + CLOSED + LOGGED,
        also=100,
    ),
    "program that closes all files, with an open run": Caller(CLOSED + LOGGED, hosts=("process",), also=100),
}
CALLERS = {**ENDS, **STARTS}
# What threads of the caller's own make a difference to; the others are tried with them only in the slow run.
WITH_THREADS = {
    "return",
    "exception",
    "sys.exit(0)",
    "sys.exit(3) in with",
    "Ctrl-C",
    "Ctrl-C at any moment",
    "SIGTERM",
    "SIGKILL",
    "SIGTERM whose handler finishes",
    "exec",
    "atexit handler that logs",
    "finaliser that logs while modules are torn down",
    "several runs",
    "run opened on a thread",
    "threads that log on behind the main thread",
    "executor that is not shut down",
    "runs that nobody holds",
    "asyncio, cancelled in afinish()",
    "trio, cancelled in afinish()",
    "warnings are errors, with a thread that delivers",
    "something writes to streams that are closed",
    "libraries that only the caller's path leads to",
    "2,000 open files",
    "daemon",
}
# What differs but little from others: tried in the slow run only.
ALIKE = {
    "sys.exit() in with",
    "sys.exit(text) in with",
    "SIGHUP",
    "SIGSEGV",
    "os.abort",
    "SIGTERM whose handler finishes in the middle of log()",
    "exception whose text raises",
    "an allocation that fails",
    "asyncio",
    "asyncio, exception",
    "asyncio, left open",
    "trio",
    "trio, left open",
    "trio, Ctrl-C",
    "python -c",
    "python -I",
    "warnings are errors",
    "no streams",
    "umask 0",
    "umask 0077",
    "no environment",
    "children are ignored",
    "all signals blocked",
    "daemon that closes all files",
}
assert set(CALLERS) >= WITH_THREADS | ALIKE
# The commonest, in the default set.
COMMON = {"return", "exception", "Ctrl-C", "SIGKILL"}
CASES = [
    pytest.param(name, worker, marks=pytest.mark.slow if slow else () if name in COMMON else pytest.mark.system)
    for name, caller in CALLERS.items()
    for worker in caller.hosts
    for slow in [name in ALIKE or (worker == "thread" and name not in WITH_THREADS)]
]


class Seen(NamedTuple):
    """What was seen of a caller."""

    code: int
    out: str
    err: str


def call(command: list[str], folder: Path, shared: Path) -> Seen:
    """Run a caller to its end, and wait until its worker has left."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "ASYNCTRACK_SHM": str(shared),
        "ASYNCTRACK_IDLE_EXIT_S": "0.05",
        "TMPDIR": str(folder / "tmp"),
        "PYTHON": sys.executable,
        "BARE_PYTHON": os.path.realpath(sys.executable),
        "LIBRARIES": ":".join([str(INSTALLED), *sys.path]),  # an editable package is on no path
        "PYTHONPATH": str(INSTALLED),
    }
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=2 * DEADLINE_S)
    wait_until(lambda: not workers(shared), "the worker has left")
    return Seen(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def memory() -> Iterator[Path]:
    """Where the caller's directory in shared memory is."""
    root = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="asynctrack-test-", dir=root if root.is_dir() else None) as path:
        yield Path(path)
        for pid in workers(Path(path)):
            os.kill(pid, signal.SIGKILL)


# What Python tells nobody, and a worker learns from the kernel when the process has ended, if it lives on.
BY_EXIT_CODE = ("sys.exit(3)", "sys.exit(text)", "SIGTERM whose handler exits")


@pytest.mark.parametrize(("name", "worker"), CASES)
def test_nothing_is_lost_and_the_exit_is_its_own(memory: Path, tmp_path: Path, name: str, worker: str) -> None:
    caller = CALLERS[name]
    if name in BY_EXIT_CODE and worker == "process" and kernel_tells_exit_codes():
        caller = caller._replace(status="failed")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "script.py").write_text(caller.before + BEGIN + caller.end)
    seen = call(["sh", "-c", caller.command, "sh", str(folder), worker], folder, memory)
    assert seen.code == caller.code, seen.err
    assert re.fullmatch(caller.says, seen.err), seen.err
    path = folder / "p" / "run"
    if name.startswith("daemon"):  # its parent has ended, it goes on
        wait_until(
            lambda: ended(path) and manifest(path)["status"] == caller.status and left_in(memory) == [],
            "the daemon has ended",
        )
    if worker == "thread" and caller.status in ("crashed", "preempted"):  # it has died too: the next run takes over
        call([sys.executable, "-c", "import asynctrack; asynctrack.init('p', id='next').finish()"], folder, memory)
    for opened in (folder / "p").iterdir():
        wait_until(lambda opened=opened: ended(opened), "the run has ended")
        status = caller.status if opened.name != "next" else "finished"
        wait_until(lambda opened=opened, status=status: manifest(opened)["status"] == status, f"it has {status}")
        # A worker that outlives the process notes its end first, and delivers then.
        cursor = opened / "cursors" / "jsonl.json"
        wait_until(
            lambda cursor=cursor: cursor.exists() and b'"closed":true' in cursor.read_bytes(), "all is delivered"
        )
        assert_whole(opened)
    assert_whole(path, {"i": int(seen.out or COUNT), "x": caller.also})
    # A worker that its caller did not live to see is a shell yet when it is looked for, and so no worker.
    wait_until(lambda: left_in(memory) == [], "nothing is left behind")
    assert list((folder / "tmp").iterdir()) == []


# A caller that says when it is ready, and ends when it is told to.
WAITS = """
import asynctrack, os, signal, sys, threading, time

folder, worker = sys.argv[1], "process"

def init(**settings):
    return asynctrack.init("p", dir=folder, exit_timeout_s=0.5, finish_timeout_s=0.5, **settings)

def wait():
    print("ready", flush=True)
    sys.stdin.readline()

def log():
    for i in range(300):
        assert run.log({"i": i})

run = init(id="run")
run.flush()
"""


@contextlib.contextmanager
def waiting(runs: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A caller that has come to its first `wait()`."""
    child = start(WAITS + script, runs)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def go_on(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def has_ended(child: subprocess.Popen[str], says: str = "") -> None:
    """It ends by itself, and soon."""
    out, err = child.communicate(timeout=DEADLINE_S)
    assert (child.returncode, out, err) == (0, "", says)


def not_journaled(run: Path) -> str:
    return f"asynctrack: run run: 300 records are not journaled; the worker keeps trying; later, `asynctrack sync {run}` recovers them\n"


def assert_served(shared: Path, run: Path, status: str = "finished") -> None:
    wait_until(lambda: ended(run) and not workers(shared), "the run has ended and its worker has left")
    assert_whole(run, {"i": 300})
    assert manifest(run)["status"] == status
    assert left_in(shared) == []


@pytest.mark.system
def test_end_waits_once_for_all_runs_whose_worker_hangs(own_host: Path, runs: Path) -> None:
    with waiting(runs, "more = [init() for _ in range(60)]\nwait()\nlog()") as child:
        with stopped(the_worker(own_host)):
            go_on(child)
            has_ended(child, not_journaled(runs / "p" / "run"))  # one after the other would take 30 s
            assert manifest(runs / "p" / "run")["status"] == "running"
        assert_served(own_host, runs / "p" / "run")
    assert {manifest(path)["status"] for path in (runs / "p").iterdir()} == {"finished"}


@pytest.mark.system
def test_ctrl_c_while_the_end_waits_ends_the_wait(own_host: Path, runs: Path) -> None:
    script = """
import atexit

run.finish()
run = asynctrack.init("p", dir=folder, id="patient", exit_timeout_s=3600)
run.flush()
atexit.register(print, "ending", flush=True)
wait()
log()
"""
    with waiting(runs, script) as child:
        with stopped(the_worker(own_host)):
            go_on(child)
            assert child.stdout is not None
            assert child.stdout.readline() == "ending\n"
            wait_until(lambda: state(child.pid) == "S", "it waits")
            child.send_signal(signal.SIGINT)
            has_ended(child)
        assert_served(own_host, runs / "p" / "patient")


@pytest.mark.system
def test_ctrl_c_at_the_first_step_of_the_end_ends_the_wait(own_host: Path, runs: Path) -> None:
    script = """
from asynctrack.client.run_lock import RunLock

release = RunLock.release

def interrupted(self):
    RunLock.release = release
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)  # the main thread gets it here, or while it waits for this one

run.finish()
run = asynctrack.init("p", dir=folder, id="patient", exit_timeout_s=3600)
run.flush()
RunLock.release = interrupted
wait()
log()
"""
    with waiting(runs, script) as child:
        with stopped(the_worker(own_host)):
            go_on(child)
            has_ended(child)
        assert_served(own_host, runs / "p" / "patient")


@pytest.mark.system
def test_worker_that_is_slow_to_start_holds_nobody_up(own_host: Path, runs: Path) -> None:
    child = start(WAITS.replace("run.flush()", "wait()") + "log()", runs)
    worker = the_worker(own_host)
    with stopped(worker):
        go_on(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        has_ended(child, not_journaled(runs / "p" / "run"))
    assert_served(own_host, runs / "p" / "run")


@pytest.mark.system
@pytest.mark.parametrize("where", ["the same process", "another process"])
def test_worker_killed_behind_finish_is_made_up_for_by_the_next_run(own_host: Path, runs: Path, where: str) -> None:
    again = "asynctrack.init('p', id='next', dir=folder).finish()"
    script = f"""
wait()
log()
assert run.finish().queued == 300
wait()
{again if where == "the same process" else ""}
"""
    with waiting(runs, script) as child:
        worker = the_worker(own_host)
        with stopped(worker):
            go_on(child)
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not workers(own_host), "the worker is gone")
        go_on(child)
        has_ended(child, not_journaled(runs / "p" / "run"))
    if where == "another process":
        assert manifest(runs / "p" / "run")["status"] == "running"  # nobody is there to say otherwise
        asynctrack.init("p", id="next", dir=runs).finish()
    assert_served(own_host, runs / "p" / "run")


def test_caller_killed_in_finish_has_finished(own_host: Path, runs: Path) -> None:
    script = """
run.finish()
run = asynctrack.init("p", dir=folder, id="patient")
run.flush()
wait()
log()
print("finishing", flush=True)
run.finish()
"""
    with waiting(runs, script) as child:
        with stopped(the_worker(own_host)):
            go_on(child)
            assert child.stdout is not None
            assert child.stdout.readline() == "finishing\n"
            wait_until(lambda: state(child.pid) == "S", "it waits")
            child.kill()
            child.wait()
        assert_served(own_host, runs / "p" / "patient")


LATE = """
import atexit, json, sys

def late():
    stats = run.finish()
    print(json.dumps([stats.accepted, stats.journaled, stats.queued, stats.dropped]))

atexit.register(late)  # before the import, and so called behind the end of the run
import asynctrack

run = asynctrack.init("p", id="run", dir=sys.argv[1], exit_timeout_s=0.2, finish_timeout_s=3600)

for i in range(150):
    assert run.log({"i": i})
run.flush()
print("ready", flush=True)
sys.stdin.readline()
for i in range(150, 300):
    assert run.log({"i": i})
"""


@pytest.mark.parametrize("queue", ["there", "removed"])
def test_finish_behind_the_end_of_the_run_returns_at_once_and_counts_what_was_accepted(
    own_host: Path, runs: Path, queue: str
) -> None:
    with start(LATE, runs) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with stopped(the_worker(own_host)):
            if queue == "removed":
                for ring in own_host.rglob("*.ring"):
                    ring.unlink()
            go_on(child)
            assert outcome(child) == [300, 150, 150, {}]
        wait_until(lambda: ended(runs / "p" / "run") and not workers(own_host), "the run has ended")
    assert_whole(runs / "p" / "run", {"i": 300})
    assert manifest(runs / "p" / "run")["status"] == "finished"


@pytest.mark.system
def test_signal_handler_that_finishes_while_finish_runs_gets_the_same(own_host: Path, runs: Path) -> None:
    counts = run_child(
        """
import asynctrack, json, signal, sys, time

run = asynctrack.init("p", id="run", dir=sys.argv[1])
for i in range(30_000):
    assert run.log({"i": i})
results = []

def on_alarm(*_):
    results.append(run.finish())
    if len(results) < 1000:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
result = run.finish()
while len(results) < 1000:
    time.sleep(0.001)
assert all(other is result for other in results)
print(json.dumps([result.accepted, result.behind]))
""",
        runs,
    )
    assert counts == [30_000, 0]
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert_whole(runs / "p" / "run", {"i": 30_000})


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_ctrl_c_in_init_leaves_nothing_half_open(own_host: Path, runs: Path, worker: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    opened = run_child(
        """
import asynctrack, asynctrack.worker.threads, json, random, signal, sys

faulthandler.cancel_dump_traceback_later()
folder, worker, chance = sys.argv[1], sys.argv[2], random.Random(int(sys.argv[3]))
opened, opening = [], False

def press(*_):
    if opening:  # another thread may have taken the signal before the timer was set back, and pass it on later
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, press)
for number in range(20):
    try:
        opening = True
        signal.setitimer(signal.ITIMER_REAL, 0.0002 + chance.random() * 0.02)
        run = asynctrack.init("p", id=f"run-{number}", dir=folder, worker=worker)
        opening = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        continue
    assert run.log({"i": 0})
    run.finish()
    opened.append(run.id)
print(json.dumps(opened))
""",
        runs,
        worker,
        seed,
    )
    a_minute_later(own_host)
    asynctrack.init("p", id="next", dir=runs).finish()
    wait_until(lambda: not workers(own_host), "the worker has left")
    for run in (runs / "p").iterdir():
        if run.name in (*opened, "next"):
            assert manifest(run)["status"] == "finished"
            assert_whole(run, {"i": int(run.name != "next")})
        elif (run / "run.json").exists():
            assert manifest(run)["status"] in ("failed", "crashed", "finished")
    assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_daemon_thread_that_logs_while_the_interpreter_ends_loses_nothing(
    own_host: Path, runs: Path, worker: str
) -> None:
    (runs / "p").mkdir(parents=True)
    accepted = runs / "accepted"
    accepted.write_bytes(bytes(8))
    script = """
import asynctrack, mmap, sys, threading, time

run = asynctrack.init("p", id="run", dir=sys.argv[1], worker=sys.argv[2])
file = open(sys.argv[3], "r+b")
accepted = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

def log():
    i = 0
    while run.log({"i": i}):
        i += 1
        accepted[0] = i
        time.sleep(0)

threading.Thread(target=log, daemon=True).start()
time.sleep(0.05)
"""
    assert run_child(script, runs, worker, accepted) is None
    run = runs / "p" / "run"
    wait_until(lambda: ended(run) and not workers(own_host), "the worker has left")
    told = int.from_bytes(accepted.read_bytes(), "little")
    found = len(records(run))
    assert told > 0
    assert found - told in (0, 1)  # the thread may have been frozen between the record and its note
    assert_whole(run, {"i": found})
    assert manifest(run)["status"] == "finished"
    assert left_in(own_host) == []


PYTEST = """
import asynctrack, logging, os, signal, sys

def test_left_open():
    logging.basicConfig(force=True)  # speaks to a stream that is closed when the test has ended
    run = asynctrack.init("p", id="run", dir="runs", worker="{worker}")
    for i in range(300):
        assert run.log({{"i": i}})
    if "{worker}" == "process":
        run.flush()
        worker = run._publisher.producer.ring.words[20]
        os.kill(worker, signal.SIGKILL)  # what is said about it comes later
"""


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_run_left_open_by_a_test_ends_without_a_word(own_host: Path, tmp_path: Path, worker: str) -> None:
    (tmp_path / "test_it.py").write_text(PYTEST.format(worker=worker))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(INSTALLED), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
    )
    assert done.returncode == 0
    assert re.fullmatch(r"\.\s+\[100%\]\n1 passed in \S+s\n", done.stdout), done.stdout
    assert done.stderr == ""
    assert_served(own_host, tmp_path / "runs" / "p" / "run")


def test_umask_that_takes_the_owners_rights_is_refused_with_a_reason(own_host: Path, runs: Path) -> None:
    told = run_child(
        """
import asynctrack, ctypes, json, os, sys

for capability in (1, 2):  # else root may write where nobody may
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
if not os.environ.get("AGAIN"):
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "AGAIN": "1"})
os.umask(0o777)
try:
    asynctrack.init("p", dir=sys.argv[1])
except asynctrack.errors.DirectoryNotWritable as error:
    print(json.dumps(str(error)))
""",
        runs,
    )
    assert "Permission denied; choose another dir=" in told
    runs.chmod(0o700)
    assert left_in(own_host) == []
