"""Between the acceptance of a record and the return of `log()` nothing runs that is not ours: no stream, handler, hook or file of the user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import records, run_child
from versions import NATIVE

pytestmark = pytest.mark.usefixtures("own_host")

# Whatever can be put in our way at once. `log` returns what each call returned, and notes what was asked of hooks meanwhile.
HOSTILE = """
import json, logging, os, shutil, signal, sys, threading, time, warnings
import asynctrack

folder, what, stream, handler = sys.argv[1:]
inside, events, waits, forbids = set(), [], threading.Event(), True

def hook(event, arguments):
    if forbids and threading.get_ident() in inside:
        events.append(event)
        raise RuntimeError(f"{event} is forbidden")

class Stream:
    encoding, errors, closed = "utf-8", "strict", False
    def write(self, text):
        if stream == "blocks":
            waits.wait()
        raise OSError("nobody writes here")
    def flush(self):
        if stream != "ends":
            self.write("")
    def fileno(self):
        raise OSError("no file")
    def isatty(self):
        return True

class Handler(logging.Handler):
    def emit(self, record):
        if handler == "blocks":
            waits.wait()
        raise SystemExit("no log here")
    def filter(self, record):
        raise RuntimeError("no filter either")

took, longest = [], 0.0

def log(data, step=None):
    global longest
    begun = time.perf_counter()
    inside.add(threading.get_ident())
    try:
        result = run.log(data, step)
    finally:
        inside.discard(threading.get_ident())
    longest = max(longest, time.perf_counter() - begun)
    took.append(result)
    return result

warnings.simplefilter("error")
run = asynctrack.init("p", dir=folder, queue_bytes=1 << 16, backends=[])
log({"n": 0})
run.flush("journaled")
sys.addaudithook(hook)
if stream != "stays":
    sys.stderr = Stream()
if handler != "none":
    logging.getLogger("asynctrack").addHandler(Handler())
"""

END = """
stream = "ends"
waits.set()
print(json.dumps({"path": str(run.path), "took": took, "longest": longest, "events": sorted(set(events))}), flush=True)
"""

KILLED = """
for round in range(3):
    pid = None
    while not pid:
        pid = run._publisher.producer.ring.words[asynctrack.client.worker_handle.WORKER_PID]
        pid = pid if os.path.exists(f"/proc/{pid}") else None
        log({"wait": 1})
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    for n in range(250):  # more than the queue holds
        log({"n": n, "text": "x" * 300})
        time.sleep(0.002)
"""

STOPPED = """
pid = run._publisher.producer.ring.words[asynctrack.client.worker_handle.WORKER_PID]
os.kill(pid, signal.SIGSTOP)
for n in range(400):  # twice what the queue holds
    log({"n": n, "text": "x" * 300})
    time.sleep(0.001)
os.kill(pid, signal.SIGCONT)
"""

AWAY = """
os.mkdir(folder + "/cwd")
os.chdir(folder + "/cwd")
os.rmdir(folder + "/cwd")
shutil.rmtree(run.path)
for n in range(400):  # twice what the queue holds
    log({"n": n, "text": "x" * 300})
    time.sleep(0.001)
"""

OVERSIZE = """
for n in range(100):
    log({"n": n, "text": "x" * 100_000})
"""


@pytest.mark.system
@pytest.mark.parametrize(("stream", "handler"), [("raises", "raises"), ("blocks", "blocks"), ("stays", "none")])
@pytest.mark.parametrize("what", ["killed", "stopped", "away", "oversize"])
def test_nothing_foreign_runs_in_log(own_host: Path, runs: Path, what: str, stream: str, handler: str) -> None:
    script = {"killed": KILLED, "stopped": STOPPED, "away": AWAY, "oversize": OVERSIZE}[what]
    told = run_child(HOSTILE + script + END, runs, what, stream, handler)
    assert told["events"] == []
    assert told["longest"] < 1
    assert told["took"][0] is True
    if what == "oversize":
        assert not any(told["took"][1:])
    elif what == "killed":
        assert len(records(Path(told["path"]))) == sum(told["took"])
    else:
        assert sum(told["took"]) > 100


# A child's first record makes it a queue of its own, which hooks see: one that forbids it turns the record away, and that is all.
FORKED = """
pid = os.fork()
if not pid:
    threading.Timer(20, os._exit, [3]).start()
    for n in range(50):
        log({"n": n})
    forbidden, took[:] = list(took), []
    forbids = False
    time.sleep(1.1)  # it tries again after a second
    for n in range(50):
        log({"n": n})
    child = {"forbidden": forbidden, "took": took, "longest": longest}
    with open(folder + "/child", "w") as file:
        file.write(json.dumps(child))
    run.finish()
    os._exit(0)
os.waitpid(pid, 0)
for n in range(50):
    log({"n": n})
"""

# They see each call of Python's, also ours. Nothing can be done about that; what they raise and log must harm nobody.
TRACED = """
forbids = False  # to set a tracer is a call that hooks see
logged = []
def look(frame, event, argument):
    if threading.get_ident() not in inside or os.path.basename(os.path.dirname(frame.f_code.co_filename)) not in ("asynctrack", "queue"):
        return None
    inside.discard(threading.get_ident())
    if "logs" in what:
        logged.append(run.log({"n": -1}))
    else:
        raise LookupError("a tracer of the user's")
    return None
setter = sys.setprofile if "profile" in what else sys.settrace
for n in range(300):
    setter(look)
    try:
        log({"n": n})
    except LookupError:
        took.append(None)
    setter(None)
    log({"n": n})
"""


@pytest.mark.system
@pytest.mark.parametrize(("stream", "handler"), [("raises", "raises"), ("blocks", "blocks"), ("stays", "none")])
def test_nothing_foreign_holds_up_a_forked_child_whose_queue_is_forbidden(
    own_host: Path, runs: Path, stream: str, handler: str
) -> None:
    told = run_child(HOSTILE + FORKED + END, runs, "forked", stream, handler)
    child = json.loads((runs / "child").read_text())
    assert child["forbidden"] == [True] + [False] * 50  # the parent's first, then its own
    assert child["took"] == [True] * 50
    assert told["took"] == [True] * 51
    assert max(told["longest"], child["longest"]) < 1
    assert len(records(Path(told["path"]))) == 101


@pytest.mark.system
@pytest.mark.parametrize("setter", ["profile", "trace"])
@pytest.mark.parametrize("what", ["logs", "raises"])
def test_tracer_that_logs_or_raises_in_log_loses_no_record_that_was_accepted(
    version: str, own_host: Path, runs: Path, what: str, setter: str
) -> None:
    end = END.replace('"took": took,', '"took": took, "logged": logged,')
    told = run_child(HOSTILE + TRACED + end, runs, f"{what} {setter}", "stays", "none")
    there = [record.data["n"] for record in records(Path(told["path"]))]
    accepted = sum(bool(result) for result in [*told["took"], *told["logged"]])
    assert len(there) >= accepted
    if what == "logs":
        assert len(there) == accepted and told["logged"].count(True) == there.count(-1)
        assert version == NATIVE or there.count(-1) > 100  # most calls are one of C, in which there is nothing to trace
    else:
        assert accepted >= 301  # those that nobody traced
