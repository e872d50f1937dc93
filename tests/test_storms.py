"""Storms of Ctrl-C, signal handlers, finalisers, tracers and threads that log: no deadlock, and what was accepted is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import lines, records, run_child

pytestmark = pytest.mark.usefixtures("shared_host", "version")

# Every source counts by itself, so that its order can be checked, and notes the calls that returned True and False.
# Of a call that Ctrl-C interrupted it cannot be known.
STORM = """
import gc, itertools, json, os, random, signal, sys, threading, time
import asynctrack

folder, weather, queue_bytes, when_full, seconds = sys.argv[1:]
weather, queue_bytes, seconds = set(weather.split("+")), int(queue_bytes), float(seconds)
run = asynctrack.init(
    "p", dir=folder, queue_bytes=queue_bytes, when_full=when_full, worker="thread" if "in-thread" in weather else "process"
)
offered, accepted, refused, busy = {}, {}, {}, set()

def say(source):
    n = offered[source] = offered.get(source, -1) + 1
    took = run.log({"source": source, "n": n})
    (accepted if took else refused).setdefault(source, []).append(n)

def say_once(source):  # a handler that interrupts itself would be out of order by its own doing
    if source not in busy:
        busy.add(source)
        try:
            say(source)
        finally:
            busy.discard(source)

class Noisy:
    def __init__(self):
        self.itself = self
    def __del__(self):
        say_once(f"finaliser {threading.get_ident()}")

def trace(frame, event, argument):
    if "asynctrack" in frame.f_code.co_filename:
        say_once("tracer")
    return trace

def work(source, until):
    while time.monotonic() < until and offered.get(source, 0) < most:
        if "finalisers" in weather:
            Noisy()
        say(source)

def interrupt(until):
    chance = random.Random()
    while time.monotonic() < until:
        os.kill(os.getpid(), signal.SIGINT)
        interrupt.count += 1
        time.sleep(chance.random() * 0.003)

def on_interrupt(*_):
    global armed
    if armed:  # main is where it can be caught
        armed = False
        raise KeyboardInterrupt

most = 4_000 if "in-thread" in weather else 20_000
interrupt.count = caught = 0
armed = False
signal.signal(signal.SIGINT, on_interrupt)
until = time.monotonic() + seconds
if "switches" in weather:
    sys.setswitchinterval(1e-6)
if "signals" in weather:
    signal.signal(signal.SIGALRM, lambda *_: say_once("signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
if "finalisers" in weather:
    gc.set_threshold(1, 1000, 1000)
threads = [threading.Thread(target=work, args=(f"thread {i}", until)) for i in range(3 if "threads" in weather else 0)]
if "interrupts" in weather:
    threads.append(threading.Thread(target=interrupt, args=(until,)))
for thread in threads:
    thread.start()
again = True
while again:
    try:
        armed = True
        if "tracer" in weather:
            sys.settrace(trace)
        work("main", until)
        again = armed = False
    except KeyboardInterrupt:
        caught += 1
sys.settrace(None)
gc.set_threshold(700, 10, 10)
signal.setitimer(signal.ITIMER_REAL, 0)
for thread in threads:
    thread.join()
stats = run.finish()
print(json.dumps({
    "path": str(run.path), "offered": offered, "accepted": accepted, "refused": refused, "interrupts": interrupt.count,
    "caught": caught, "count": stats.accepted, "dropped": sum(stats.dropped.values()),
    "delivered": stats.backends["jsonl"].delivered,
}))
"""


def found_by_source(run: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for record in records(run):
        found.setdefault(record.data["source"], []).append(record.data["n"])
    return found


def brave(
    runs: Path, weather: str, queue_bytes: int, when_full: str = "drop_newest", seconds: float = 0.7
) -> dict[str, Any]:
    """Go through a storm, and check that what was accepted is found, once and in the order of each source."""
    told: dict[str, Any] = run_child(STORM, runs, weather, queue_bytes, when_full, seconds)
    run = Path(told["path"])
    found = found_by_source(run)
    unknown = 0
    for source in told["offered"]:
        there, accepted = found.get(source, []), told["accepted"].get(source, [])
        if source.startswith(("main", "thread")):
            assert there == sorted(set(there)), f"{source}: out of order, or twice"
            assert set(accepted) <= set(there), f"{source}: accepted and lost"
        else:  # came in between other calls: they may overtake each other, and Ctrl-C may hit one that is on its way
            assert len(there) - len(set(there)) <= told["caught"], f"{source}: twice"
            assert len(set(accepted) - set(there)) <= told["caught"], f"{source}: accepted and lost"
        assert not set(told["refused"].get(source, [])) & set(there), f"{source}: refused and found"
        unknown += len(there) - len(accepted)
    assert unknown <= told["caught"]
    assert sum(map(len, found.values())) == told["count"] == told["delivered"] == len(lines(run))
    return told


WEATHERS = [
    "signals",
    *(
        pytest.param(weather, marks=pytest.mark.system)
        for weather in (
            "interrupts",
            "finalisers",
            "tracer",
            "threads+switches",
            "signals+finalisers+threads+switches",
            "signals+finalisers+threads+switches+in-thread",
        )
    ),
    pytest.param("interrupts+signals+finalisers+tracer+threads+switches", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("weather", WEATHERS)
def test_what_was_accepted_in_a_storm_is_found_in_order(runs: Path, weather: str) -> None:
    told = brave(runs, weather, 1 << 20)
    for source in weather.split("+"):
        if source == "interrupts":
            assert told["interrupts"] > 10
        elif source not in ("switches", "in-thread"):
            assert any(name.startswith(source.rstrip("s")) for name in told["accepted"])


@pytest.mark.slow
@pytest.mark.parametrize("when_full", ["drop_newest", "block"])
@pytest.mark.parametrize("weather", ["signals+finalisers+tracer", "interrupts+signals+finalisers+threads+switches"])
def test_what_was_accepted_in_a_storm_by_the_smallest_queue_is_found_in_order(
    runs: Path, weather: str, when_full: str
) -> None:
    brave(runs, weather, 4096, when_full)
