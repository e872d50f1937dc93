"""The figures of one peer, each in processes of its own: timed, killed, with its disk full, with its server stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from bench import mounts
from bench.harness import percentile
from bench.peers.calls import Call
from bench.peers.peer import FULL, KILLED, STOPPED, TIMED, Peer
from bench.peers.scene import FINISH_S, Scene, scene

# How long a process logs before it is killed, by its rate.
KILLED_AFTER_S: Final = {"20": 3.0, "1000": 1.0}
# How long all is well before and after a disturbance.
WELL_S: Final = 0.5
# How long the disk is full or the server stopped, and how many records a second are logged meanwhile.
DISTURBED_S: Final = {FULL: 2.0, STOPPED: 5.0}
RATE: Final = {FULL: 1000, STOPPED: 100}


def measure(peer: Peer, what: str) -> dict[str, Any] | None:
    """Measure one of the peer's figures; return None where this machine does not allow it.

    Raises:
        bench.peers.scene.Failed: and why.
    """
    if what == FULL and not mounts.allowed():
        return None
    with scene(peer, own_disk=what == FULL) as place:
        if what in TIMED:
            found: dict[str, Any] = place.run(what)
            if what == "tight" and peer.count is not None:
                found |= {"returned": found["records"] + 1, "found": place.run("count")}  # one to begin with
            return found
        if what in KILLED:
            return _killed(place, what)
        if what == FULL:
            return _disturbed(place, what, lambda: mounts.full(place.data))
        return _disturbed(place, what, lambda: _stopped(place))


def _killed(place: Scene, rate: str) -> dict[str, Any]:
    """Count the records whose `log()` had returned when its process was killed, and how many of them are found."""
    with place.logging(int(rate)) as (child, made):
        time.sleep(KILLED_AFTER_S[rate])
        child.send_signal(signal.SIGKILL)
        child.wait()
        returned = sum(call.returned for call in made.made())
    place.rest()
    return {"returned": returned, "found": place.run("count")}


def _disturbed(place: Scene, what: str, disturb: Callable[[], AbstractContextManager[None]]) -> dict[str, Any]:
    """Time the calls during a disturbance, also the one that was under way when it began, and count what is found after it."""
    with place.logging(RATE[what]) as (child, made):
        time.sleep(WELL_S)
        with disturb():
            began_ns = time.monotonic_ns()
            time.sleep(DISTURBED_S[what])
            ended_ns = time.monotonic_ns()
        time.sleep(WELL_S)
        made.end()
        ended = _ended(child)
        calls, now_ns = list(made.made()), time.monotonic_ns()
    finish_s = None if ended else place.result()["finish_s"]
    place.rest()
    during = [call for call in calls if call.began_ns < ended_ns and (call.ended_ns or now_ns) > began_ns]
    return {
        **_figures(during, now_ns),
        "before_us": _p50_us([call for call in calls[1:] if call.began_ns < began_ns], now_ns),
        "raised_after": sum(call.raised for call in calls if call.began_ns >= ended_ns),
        "returned": sum(call.returned for call in calls),
        "found": place.run("count"),
        "ended": ended,
        "finish_s": finish_s,
    }


def _figures(calls: Sequence[Call], now_ns: int) -> dict[str, Any]:
    return {
        "calls": len(calls),
        "p50_us": _p50_us(calls, now_ns),
        "max_us": max(_took_ns(calls, now_ns)) / 1000,
        "raised": sum(call.raised for call in calls),
    }


def _p50_us(calls: Sequence[Call], now_ns: int) -> float | None:
    return percentile(_took_ns(calls, now_ns), 0.5) / 1000 if calls else None


def _took_ns(calls: Sequence[Call], now_ns: int) -> list[int]:
    """Sort the times of calls; a call that has not returned has taken until now."""
    return sorted((call.ended_ns or now_ns) - call.began_ns for call in calls)


def _ended(child: subprocess.Popen[bytes]) -> str:
    """Describe how a process ended; empty if it did so in time and well."""
    try:
        code = child.wait(FINISH_S)
    except subprocess.TimeoutExpired:
        return f"not in {FINISH_S:g} s"
    return "" if code == 0 else f"killed by signal {-code}" if code < 0 else "finish() raised"


@contextmanager
def _stopped(place: Scene) -> Iterator[None]:
    assert place.server is not None
    place.server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        place.server.signal(signal.SIGCONT)
