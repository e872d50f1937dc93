"""What do asynctrack and its peers cost the loop that calls them, and what is left when something goes wrong?

Each peer and figure in processes of its own, the peers in random order, several rounds: a tight loop (the call's percentiles, records a second,
processor time of all processes, memory, `init` and `finish`), loops of 200 us steps in NumPy and in pure Python, what is found after SIGKILL
of a process that logs 20 and 1,000 records a second, and the calls while the disk is full or the server stopped.

The peers are those of bench/peers/requirements.txt, in this environment; what is not installed is left out, and said. Takes about a minute for
each peer and round. Wants two free cores, and nobody else on them; for the full disk, a user who may mount.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from statistics import mean
from typing import Any, Final

from bench import mounts
from bench.harness import core_is_missing, give_out, machine, rounded, say
from bench.peers.figures import measure
from bench.peers.peers import PEERS
from bench.peers.scene import Failed
from bench.peers.tables import CAVEATS, Measured, notes, tables

ROUNDS: Final = 3
_PROGRAM: Final = "python -m bench.peers"
# What a figure takes, until one was measured.
_FIGURE_S: Final = 9.0


def measure_all(names: list[str], rounds: int) -> dict[str, Measured]:
    """Measure every figure of every peer, in random order within each round."""
    found = {name: Measured() for name in names}
    left = [(number, name) for number in range(rounds) for name in random.Random(number).sample(names, len(names))]
    took: dict[str, list[float]] = {}
    while left:
        number, name = left[0]
        say(f"round {number + 1} of {rounds}: {name}; about {_minutes(took, [name for _, name in left]):.0f} min left")
        began = time.monotonic()
        for what in PEERS[name].figures():
            _note(name, what, found[name])
        took.setdefault(name, []).append(time.monotonic() - began)
        del left[0]
    return found


def _minutes(took: dict[str, list[float]], names: Iterable[str]) -> float:
    """Estimate how long these will take: as before, or by the number of their figures."""
    return sum(mean(took.get(name, [_FIGURE_S * len(PEERS[name].figures())])) for name in names) / 60


def _note(name: str, what: str, found: Measured) -> None:
    try:
        figure = measure(PEERS[name], what)
    except Exception as problem:  # of a peer, its processes or its files: the others are measured all the same
        said = str(problem) if isinstance(problem, Failed) else repr(problem)
        found.failures.append(f"{what}: {said}")
        say(f"{name}, {what}: {said}")
    else:
        if figure is not None:
            found.rounds.setdefault(what, []).append(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", help=f"which; all that are installed if none is named: {'; '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--save", action="store_true", help="write bench/results/peers.json")
    given = parser.parse_args()
    if unknown := [name for name in given.peers if name not in PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}")
    if why := core_is_missing():
        sys.exit(f"{_PROGRAM}: {why}")
    mounts.begin_anew("bench.peers")
    if not mounts.allowed():
        say("no disk is filled: this user may not mount")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is stopped or filled must not stay so
    try:
        result = _result(list(filter(_installed, given.peers or PEERS)), given.rounds)
    except KeyboardInterrupt:
        sys.exit(f"{_PROGRAM}: interrupted; nothing is saved")
    give_out(result, as_json=given.json, save=given.save)


def _result(names: list[str], rounds: int) -> dict[str, Any]:
    before, began = os.getloadavg(), time.monotonic()
    found = measure_all(names, rounds)
    return {
        "benchmark": "peers",
        "question": " ".join((__doc__ or "").split("\n\n")[0].split()),
        "command": f"{_PROGRAM} --rounds {rounds}",
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine() | _versions(names),
        "load_average": {"before": rounded(before), "after": rounded(os.getloadavg())},
        "bars": [],
        "tables": tables(found),
        "notes": notes(found),
        "caveats": CAVEATS,
    }


def _versions(names: list[str]) -> dict[str, str]:
    return {package: version(package) for name in names for package in PEERS[name].packages}


def _installed(name: str) -> bool:
    try:
        _versions([name])
    except PackageNotFoundError as missing:
        say(f"{name} is left out: {missing.name} is not installed")
        return False
    return True


if __name__ == "__main__":
    main()
