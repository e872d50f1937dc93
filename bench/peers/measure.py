"""One figure of one peer, in a process of its own: `python -m bench.peers.measure WHAT PEER DIRECTORY` writes it to `result.json`.

It stands in a directory of its own, into which goes what a peer leaves lying about, and in a control group where there are any, so the processor
time of every process that a peer starts is counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any, Final

from bench.peers.calls import calls
from bench.peers.peer import Data, Opened, Peer
from bench.peers.peers import PEERS
from bench.record import record

CALLS: Final = Path("calls")
RESULT: Final = Path("result.json")
# No loop goes on for longer: the slowest peers make a few hundred calls in it.
LOOP_S: Final = 4.0
# Steps of 200 us with tracking, and half as many before and behind it without.
STEPS: Final = 5_000
# What a peer starts in the background has time for after its first record.
_SETTLED_S: Final = 0.5


def tight(peer: Peer, directory: Path) -> dict[str, Any]:
    """Run a loop that does nothing but log: blocks of 100 timed calls, for the percentiles, and 100 untimed ones, for the rate."""
    opened, init_s = _open(peer, directory)
    memory = _rss_kib()
    used = cpu_s()
    samples_ns = array("Q")
    step, untimed_ns, began = 0, 0, perf_counter()
    while step < peer.most and perf_counter() - began < LOOP_S:
        for _ in range(100):
            step += 1
            data = record(step)
            at = perf_counter_ns()
            opened.log(data, step)
            samples_ns.append(perf_counter_ns() - at)
        at = perf_counter_ns()
        for _ in range(100):
            step += 1
            opened.log(record(step), step)
        untimed_ns += perf_counter_ns() - at
    logged = perf_counter()
    opened.finish()
    ended = perf_counter()
    time.sleep(_SETTLED_S)  # what it left to others
    return {
        "init_s": init_s,
        "samples_ns": list(samples_ns),
        "records": step,
        "records_s": step / 2 / (untimed_ns / 1e9),
        "records_s_with_finish": step / (ended - began),
        "finish_s": ended - logged,
        "cpu_us": (cpu_s() - used) / step * 1e6,
        "memory_mib": (_rss_kib() - memory) / 1024,
    }


def loop(peer: Peer, directory: Path, work: Callable[[], float]) -> dict[str, Any]:
    """Run a loop of 200 us steps: without tracking, with it, and without it again."""
    before = _steps(STEPS // 2, work, lambda data, step: None)
    opened, _ = _open(peer, directory)
    tracked = _steps(STEPS, work, opened.log)
    opened.finish()
    after = _steps(STEPS // 2, work, lambda data, step: None)
    return {"before": before, "tracked": tracked, "after": after}


def _steps(count: int, work: Callable[[], float], log: Callable[[Data, int], object]) -> dict[str, list[int]]:
    steps, logs = array("Q"), array("Q")
    began = perf_counter()
    for step in range(1, count + 1):
        at = perf_counter_ns()
        work()
        data = record(step)
        before = perf_counter_ns()
        log(data, step)
        after = perf_counter_ns()
        steps.append(after - at)
        logs.append(after - before)
        if perf_counter() - began > LOOP_S:
            break
    return {"steps_ns": list(steps), "logs_ns": list(logs)}


def at_rate(peer: Peer, directory: Path, rate: int) -> dict[str, Any]:
    """Log at a rate until told to finish, or killed; every call is in the file `calls`."""
    opened = peer.open(directory)
    with calls(CALLS) as made:
        made.make(lambda number: opened.log(record(number), number), rate, _SETTLED_S)
    began = perf_counter()
    opened.finish()
    return {"finish_s": perf_counter() - began}


def _open(peer: Peer, directory: Path) -> tuple[Opened, float]:
    began = perf_counter()
    opened = peer.open(directory)
    took = perf_counter() - began
    opened.log(record(0), 0)
    time.sleep(_SETTLED_S)
    return opened, took


def cpu_s() -> float:
    """Return the processor time of this process and of all that it has started: of its control group, or of those that have ended here."""
    group = os.environ.get("BENCH_CGROUP")
    if group:
        return int(Path(group, "cpuacct.usage").read_text()) / 1e9
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def _rss_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return 0


def main(what: str, name: str, directory: str) -> None:
    peer, path = PEERS[name], Path(directory)
    if group := os.environ.get("BENCH_CGROUP"):
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    result: Any
    if what == "tight":
        result = tight(peer, path)
    elif what in ("numpy", "python"):
        from bench.work import numpy_step, python_step

        result = loop(peer, path, numpy_step() if what == "numpy" else python_step())
    elif what == "count":
        assert peer.count is not None
        result = peer.count(path)
    else:
        result = at_rate(peer, path, int(what))
    RESULT.write_text(json.dumps(result))
    for thread in threading.enumerate():  # some peers leave threads behind that would keep us
        if thread is not threading.current_thread() and not thread.daemon:
            os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
