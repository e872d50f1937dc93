"""What we say to the user never holds up the program, whatever becomes of it on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, ROOT, records, run_child

from asynctrack._system import messages
from asynctrack._system.throttle import ONCE

# Standard error is a pipe that is full and that nobody reads.
NOBODY_READS = """
import fcntl, os
out, into = os.pipe()
fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 8192)
os.write(into, bytes(8192))
os.dup2(into, 2)
"""


def run_plainly(script: str, *arguments: object) -> Any:
    """`run_child` without its watchdog, which a forked child would wait for in its end."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, timeout=DEADLINE_S, check=True
    )  # fmt: skip
    return json.loads(done.stdout)


def test_message_goes_to_the_log_of_the_package(caplog: pytest.LogCaptureFixture) -> None:
    messages.warn_now("asynctrack: the house is on fire")
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("asynctrack", "WARNING", "asynctrack: the house is on fire")
    ]


def test_message_goes_to_standard_error_where_nobody_handles_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from asynctrack._system import messages; messages.warn_now('é is \\udce9')"],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"}, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "é is \\udce9\n")


def test_message_is_said_once_in_its_time(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        messages.warn("test: a", "a", every_s=ONCE)
        messages.warn("test: b", "b", every_s=0.0)
        messages.warn(None, "c")
    messages.leave()
    assert sorted(caplog.messages) == ["a", "b", "b", "b", "c", "c", "c"]


def test_message_that_is_told_before_there_is_a_thread_is_said_at_the_end() -> None:
    script = "from asynctrack._system import messages; messages.warn(None, 'early')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (0, "early\n")


def test_message_is_said_where_no_thread_can_be_had() -> None:
    script = """
import sys
from asynctrack._system import messages
def refuse(event, arguments):
    if event == "_thread.start_new_thread":
        raise RuntimeError("no threads here")
sys.addaudithook(refuse)
messages.warn_now("alone")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (0, "alone\n")


@pytest.mark.system
@pytest.mark.parametrize("handled", ["by nobody", "by basicConfig"])
def test_standard_error_that_nobody_reads_holds_up_neither_loop_nor_end(handled: str) -> None:
    script = (
        NOBODY_READS
        + """
import json, logging, sys, time
from asynctrack._system import messages
if sys.argv[1] == "by basicConfig":
    logging.basicConfig()
messages.start()
for number in range(1000):
    messages.warn(None, f"warning {number}")
begun = time.monotonic()
messages.leave()
messages.leave()
print(json.dumps(time.monotonic() - begun), flush=True)
"""
    )
    begun = time.monotonic()
    assert run_child(script, handled) < 5
    assert time.monotonic() - begun < 10


@pytest.mark.system
@pytest.mark.parametrize("handled", ["by nobody", "by basicConfig"])
def test_child_that_is_forked_while_a_message_waits_for_its_reader_says_its_own_and_ends(handled: str) -> None:
    script = (
        NOBODY_READS
        + """
import json, logging, os, sys, time
from asynctrack._system import messages
if sys.argv[1] == "by basicConfig":
    logging.basicConfig(format="%(message)s")
messages.start()
messages.warn(None, "of the parent")
while messages._thread.waits or not messages._thread.busy:
    time.sleep(0.001)
pid = os.fork()
if not pid:
    os.read(out, 8192)
    messages.warn_now("of the child")
    sys.exit(7)
_, status = os.waitpid(pid, 0)
messages.leave()
os.set_blocking(out, False)
print(json.dumps([os.waitstatus_to_exitcode(status), os.read(out, 4096).decode()]))
"""
    )
    code, told = run_plainly(script, handled)
    assert code == 7
    assert sorted(told.split("\n")) == ["", "of the child", "of the parent"]


@pytest.mark.system
def test_handler_that_hangs_holds_up_neither_loop_nor_end_and_what_is_lost_is_counted() -> None:
    script = """
import json, logging, threading, time
from asynctrack._system import messages
gate, entered, said = threading.Event(), threading.Event(), []
class Hangs(logging.Handler):
    def emit(self, record):
        entered.set()
        gate.wait()
        said.append(record.getMessage())
logging.getLogger("asynctrack").addHandler(Hangs())
messages.start()
messages.warn(None, "warning 0")
entered.wait()
for number in range(1, 1001):
    messages.warn(None, f"warning {number}")
gate.set()
while messages._thread.waits:
    time.sleep(0.001)
messages.warn(None, "and on")
messages.leave()
gate.clear()
messages.warn(None, "the last")
print(json.dumps([said[0], said[-1], len(said)]), flush=True)
"""
    begun = time.monotonic()
    assert run_child(script) == [
        "warning 0",
        "and on (before this 800 messages were lost, since nobody read them)",
        202,
    ]
    assert time.monotonic() - begun < 10


def test_handler_that_raises_is_left_to_raise() -> None:
    script = """
import json, logging, sys
from asynctrack._system import messages
said = []
class Raises(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
        raise SystemExit(3)
logging.getLogger("asynctrack").addHandler(Raises())
messages.warn_now("one")
messages.warn_now("two")
print(json.dumps(said))
"""
    assert run_child(script) == ["one", "two"]


@pytest.mark.system
def test_handler_that_logs_into_the_run_and_finishes_it_does_not_wait_for_itself(shared_host: Path, runs: Path) -> None:
    script = """
import json, logging, sys
import asynctrack
run = asynctrack.init("p", dir=sys.argv[1])
class Finishes(logging.Handler):
    def emit(self, record):
        run.log({"warning": record.getMessage()})
        run.finish()
logging.getLogger("asynctrack").addHandler(Finishes())
run.log({"strange": object()})
run.finish()
print(json.dumps(str(run.path)))
"""
    assert len(records(Path(run_child(script, runs)))) >= 1


@pytest.mark.system
def test_closed_standard_error_is_no_harm(shared_host: Path, runs: Path) -> None:
    script = """
import json, sys
import asynctrack
sys.stderr.close()
run = asynctrack.init("p", dir=sys.argv[1])
took = run.log({"strange": object()})
run.finish()
print(json.dumps(took))
"""
    assert run_child(script, runs) is True
    assert run_child(script.replace("sys.stderr.close()", "sys.stderr = None"), runs) is True


@pytest.mark.system
def test_signal_comes_to_who_waits_for_it(shared_host: Path, runs: Path) -> None:
    script = """
import json, os, signal, sys
import asynctrack
run = asynctrack.init("p", dir=sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
print(json.dumps(signal.sigwait([signal.SIGTERM])))
"""
    assert run_child(script, runs) == signal.SIGTERM


BEHIND = """
import json, os, sys, time
import asynctrack
from asynctrack.client import health
from asynctrack.backends.visdom import Visdom
if sys.argv[2] == "soon":
    health.POLL_S = health._pause_s = health.PATIENCE_S = 0.05
limits = {"exit_timeout_s": 0.3, "finish_timeout_s": 0.3}
run = asynctrack.init("p", id="r", dir=sys.argv[1], backends=[Visdom(server_url="http://127.0.0.1:1")], **limits)
run.log({"loss": 1.0})
"""


def manifest_of(script: str, *arguments: object) -> list[str]:
    """The lines on standard error of a script that ends well, without the prefix of run r."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=2 * DEADLINE_S
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("asynctrack: run r: ") for line in lines), lines
    return [line.removeprefix("asynctrack: run r: ") for line in lines]


@pytest.mark.parametrize(
    "when", [pytest.param("soon", marks=pytest.mark.system), pytest.param("in its time", marks=pytest.mark.slow)]
)
def test_backend_that_gets_nothing_is_said_once_while_the_run_runs_and_again_at_the_end(
    rough_host: Path, runs: Path, when: str
) -> None:
    script = """
run.flush("journaled")
deadline = time.monotonic() + 20
while "failing visdom" not in {about[1] for about in asynctrack._system.messages._throttle._until if isinstance(about, tuple)}:
    assert time.monotonic() < deadline
    time.sleep(0.01)
time.sleep(0.3)
"""
    first, last = manifest_of(BEHIND + script, runs, when)
    go_on = f"the worker keeps trying; later, `asynctrack sync {runs}/p/r` delivers the rest; see docs/how_to/offline_and_sync.md"
    assert first.startswith("visdom gets nothing (Visdom at http://127.0.0.1:1 cannot be reached: ")
    assert last.startswith("1 record is not yet at visdom (Visdom at http://127.0.0.1:1 cannot be reached: ")
    assert f"); {go_on}" in first
    assert f"); {go_on}" in last


@pytest.mark.system
@pytest.mark.parametrize("end", ["", "run.finish()"])
def test_backend_that_is_behind_is_said_once_where_the_script_ends(rough_host: Path, runs: Path, end: str) -> None:
    (said,) = manifest_of(f"{BEHIND}\nrun.flush('journaled')\n{end}", runs, "later")
    assert said.startswith("1 record is not yet at visdom")
    assert f"`asynctrack sync {runs}/p/r` delivers the rest" in said


@pytest.mark.system
def test_records_of_other_processes_are_theirs_to_tell_of(rough_host: Path, runs: Path) -> None:
    script = """
import json, os, sys, time
import asynctrack
run = asynctrack.init("p", id="r", dir=sys.argv[1], finish_timeout_s=10)
run.log({"who": "parent"})
ready, go = os.pipe()
if not os.fork():
    os.close(go)
    import select
    run.log({"who": "child"})
    while not select.select([ready], [], [], 0)[0]:
        run.log({"who": "child", "text": "x" * 300})
        time.sleep(0.0005)
    os._exit(0)
while run.stats().accepted < 1000:
    time.sleep(0.01)
stats = run.finish()
os.close(go)
os.wait()
"""
    assert manifest_of(script, runs) == []


@pytest.mark.system
def test_odd_values_of_many_keys_are_counted_and_the_first_named(rough_host: Path, runs: Path) -> None:
    script = """
import sys
import asynctrack
run = asynctrack.init("p", id="r", dir=sys.argv[1])
class Odd:
    def __repr__(self):
        return "<odd>"
run.log({f"a{n}": Odd() for n in range(500)})
for n in range(500):
    run.log({f"b{n}": Odd()})
    run.log({f"b{n}": Odd()})
"""
    many = "the values of 500 keys cannot be encoded and are recorded as their repr"
    for end in ("", "run.finish()"):
        said = manifest_of(script + end, runs / f"with {end}")
        assert [line.partition("; see docs/")[0] for line in said] == [
            f"{many}: 'a0', 'a1', 'a2' and 497 more",
            f"{many}: 'b0', 'b1', 'b2' and 497 more",
        ]


# A backend in the worker's threads that fails at first, of which they tell.
FAILS_AT_FIRST = """
import json, logging, sys, threading, time
import asynctrack
from asynctrack.testing import Scripted, Trouble

def train():
    backends = ["jsonl", Scripted(troubles=(Trouble(does="fail", times=2),))]
    run = asynctrack.init("p", dir=sys.argv[1], worker="thread", backends=backends)
    for i in range(10):
        run.log({"i": i})
    return run, run.finish()
"""


@pytest.mark.system
@pytest.mark.parametrize("handled", ["by nobody", "by basicConfig", "by one that hangs"])
def test_deliveries_of_this_process_go_on_and_it_ends_while_nobody_reads_what_they_tell(
    own_host: Path, runs: Path, handled: str
) -> None:
    script = (
        FAILS_AT_FIRST
        + NOBODY_READS
        + """
class Hangs(logging.Handler):
    def emit(self, record):
        threading.Event().wait()
if sys.argv[2] == "by basicConfig":
    logging.basicConfig()
elif sys.argv[2] == "by one that hangs":
    logging.getLogger("asynctrack.delivery").addHandler(Hangs())
run, stats = train()
print(json.dumps({name: (backend_stats.behind, backend_stats.retries) for name, backend_stats in stats.backends.items()}), flush=True)
"""
    )
    begun = time.monotonic()
    assert run_child(script, runs, handled) == {"jsonl": [0, 0], "Scripted": [0, 2]}
    assert time.monotonic() - begun < 15


@pytest.mark.system
def test_what_deliveries_of_this_process_tell_is_handled_as_their_logger_is_set_up(own_host: Path, runs: Path) -> None:
    script = (
        FAILS_AT_FIRST
        + """
said = []
class Notes(logging.Handler):
    def emit(self, record):
        said.append((self.name, record.name, record.levelname, record.threadName, "ConnectionRefused" in record.getMessage()))
def only_failures(record):
    said.append("filter")
    return "ConnectionRefused" in record.getMessage()
for name in ("asynctrack.delivery", "asynctrack", None):
    handler = Notes()
    handler.name = str(name)
    logging.getLogger(name).addHandler(handler)
logging.getLogger("asynctrack.delivery").addFilter(only_failures)
run, _ = train()
logging.getLogger("asynctrack").setLevel(logging.ERROR)
logging.getLogger("asynctrack.delivery").warning("below the level")
asynctrack._system.messages.leave()
print(json.dumps(said), flush=True)
"""
    )
    told = ["asynctrack.delivery", "WARNING", "asynctrack-service", True]
    assert run_child(script, runs) == [
        "filter",
        *([name, *told] for name in ("asynctrack.delivery", "asynctrack", "None")),
    ]


@pytest.mark.system
def test_worker_process_writes_what_its_deliveries_tell_into_its_log(own_host: Path, runs: Path) -> None:
    script = FAILS_AT_FIRST.replace('worker="thread", ', "") + "run, _ = train(); print(json.dumps(str(run.path)))"
    assert "ConnectionRefusedError" in (Path(run_child(script, runs)) / "worker.log").read_text()


@pytest.mark.system
def test_journal_that_cannot_be_written_is_said_while_the_run_runs_and_once(rough_host: Path, runs: Path) -> None:
    script = """
import errno, os, shutil, sys, time
import asynctrack
from asynctrack.client import health
health.POLL_S = health._pause_s = health.PATIENCE_S = 0.05
run = asynctrack.init("p", id="r", dir=sys.argv[1], finish_timeout_s=0.1)
run.log({"loss": 1.0})
run.flush()
shutil.rmtree(run.path)
deadline = time.monotonic() + 20
while "hindered" not in {about[1] for about in asynctrack._system.messages._throttle._until if isinstance(about, tuple)}:
    assert time.monotonic() < deadline
    run.log({"loss": 1.0})
    time.sleep(0.01)
time.sleep(0.3)
run.finish()
"""
    first, *others = manifest_of(script, runs)
    assert first == "its directory has been removed or moved: move it back, or what is logged is lost"
    lost = "not journaled: the run's directory has been removed or moved, and they are lost with it"
    assert sum(line.endswith(lost) for line in others) == 1
