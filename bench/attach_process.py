"""A process of a run of several: `bench.attach` starts it afresh for every sample, or has it log in turn with another.

Before it has the run it imports nothing but asynctrack, as a user's script does.
"""

# ruff: noqa: E402  # the first import is timed

from __future__ import annotations

from time import perf_counter

_BEGAN = perf_counter()

import asynctrack

_IMPORTED = perf_counter()

import json
import sys

TYPE_CHECKING = False  # what is not needed is not imported
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Calls of each block that are timed; and those that are made in one go until the ring has been written to once.
_TIMED = 2000


def come(way: str, given: str) -> None:
    """Come to a run in one of the ways, and leave it; twice. Say how long each step took.

    Args:
        way: one of `bench.attach.WAYS`.
        given: the run's path; for "pickle", the pickled run in hexadecimal digits; for "init", the directory of a run of its own.
    """
    seconds = {"import asynctrack": _IMPORTED - _BEGAN}
    for step in ("first", "again"):
        seconds[step] = _once(way, given)
    json.dump(seconds, sys.stdout)


def _once(way: str, given: str) -> float:
    calls: dict[str, Callable[[], Any]] = {
        "path": lambda: asynctrack.attach(given),
        "ancestry": asynctrack.attach,
        "log": lambda: asynctrack.log({"loss": 0.5}),
        "pickle": _loads(given),
        "init": lambda: asynctrack.init("bench", dir=given, id=f"run-{perf_counter()}"),
    }
    call = calls[way]
    began = perf_counter()
    call()
    took = perf_counter() - began
    asynctrack.finish()
    return took


def _loads(given: str) -> Callable[[], Any]:
    import pickle

    return lambda: pickle.loads(bytes.fromhex(given))  # the benchmark has made it


def log_in_turn(role: str, where: str) -> None:
    """Have a run as its owner, or attach to it; then time a cycle of blocks for each line that comes.

    Args:
        role: "owner" or "attached".
        where: the directory of the owner's run; or the run's path.
    """
    from bench.blocks import NOTHING, Blocks, Shape, Subject
    from bench.harness import dropped, percentile
    from bench.subjects import LOG, MSGPACK, log_subject

    run = asynctrack.init("bench", dir=where) if role == "owner" else asynctrack.attach(where)
    import msgspec

    log = log_subject(run)
    producer = run._publisher.producer
    while producer.head < producer.capacity:  # until then the kernel maps a page for every 4 KiB
        log.untimed(0, _TIMED)
        log.settle()
    blocks = Blocks([log, Subject(MSGPACK, MSGPACK, names={"msgspec": msgspec})], Shape(timed=_TIMED))
    blocks.round(3, warm_up=0)
    print(json.dumps(str(run.path)), flush=True)
    for _ in sys.stdin:
        (cycle,) = blocks.round(1, warm_up=0)
        ordered = {name: sorted(cycle[name].samples_ns) for name in (NOTHING, LOG, MSGPACK)}
        told = {name: [percentile(of, 0.5), percentile(of, 0.99)] for name, of in ordered.items()}
        print(json.dumps({**told, "dropped": dropped(run)}), flush=True)
    run.finish()


if __name__ == "__main__":
    {"come": come, "log": log_in_turn}[sys.argv[1]](*sys.argv[2:])
