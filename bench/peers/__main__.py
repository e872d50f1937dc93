"""What do asynctrack and its peers cost the loop that calls them, and what is left when it is killed?

Each peer and figure in a process of its own, the peers in random order, several rounds: a tight loop (the call's percentiles, records
a second, processor time of all processes, memory, `init` and `finish`), loops of 200 us steps in NumPy and in pure Python, and what is found after SIGKILL
of a process that logs 20 and 1,000 records a second.

The peers are those of bench/peers/requirements.txt, in this environment; what is not installed is left out, and said. Takes about a minute for
each peer and round. Wants two free cores, and nobody else on them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any, Final

import msgspec

from bench.harness import RESULTS, Cell, Spread, Table, machine, percentile, print_result, say, spread
from bench.peers.measure import KILLED_AFTER_S
from bench.peers.peers import PEERS

ROUNDS: Final = 3
# The longest that one process may take: the slowest peer needs half a minute to finish.
_LIMIT_S: Final = 180.0
# What a peer's own processes may do after their caller was killed.
_AFTER_KILL_S: Final = 5.0
_GROUPS: Final = Path("/sys/fs/cgroup/cpuacct")


class Measured(msgspec.Struct):
    """All rounds of one peer; a figure that failed is missing.

    Attributes:
        tight: of `bench.peers.measure.tight`, a round each.
        loops: of `loop`, by "numpy" and "python".
        killed: by rate, records whose `log()` had returned, and records that were found.
        failures: what went wrong.
    """

    tight: list[dict[str, Any]] = []
    loops: dict[str, list[dict[str, Any]]] = {}
    killed: dict[int, list[tuple[int, int]]] = {}
    failures: list[str] = []


def measure(names: list[str], rounds: int) -> dict[str, Measured]:
    """Every figure of every peer, in random order within each round."""
    found = {
        name: Measured(loops={"numpy": [], "python": []}, killed={rate: [] for rate in KILLED_AFTER_S})
        for name in names
    }
    for number in range(rounds):
        for name in random.Random(number).sample(names, len(names)):
            say(f"round {number + 1} of {rounds}: {name}")
            _round(name, found[name])
    return found


def _round(name: str, found: Measured) -> None:
    if (tight := _figure("tight", name, found)) is not None:
        found.tight.append(tight)
    for loop, figures in found.loops.items():
        if (figure := _figure(loop, name, found)) is not None:
            figures.append(figure)
    if PEERS[name].count is not None:
        for rate, outcomes in found.killed.items():
            if (outcome := _kill(name, rate, found)) is not None:
                outcomes.append(outcome)


def _figure(what: str, name: str, found: Measured) -> Any:
    with (
        tempfile.TemporaryDirectory(prefix="asynctrack-peers-", ignore_cleanup_errors=True) as directory,
        _group() as environment,
    ):
        return _run(what, name, directory, environment, found)


def _run(what: str, name: str, directory: str, environment: dict[str, str], found: Measured) -> Any:
    command = [sys.executable, "-m", "bench.peers.measure", what, name, directory]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, cwd=_root(), check=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or ""
        found.failures.append(f"{what}: {type(error).__name__}: {str(said).strip().splitlines()[-1:]}")
        return None


def _kill(name: str, rate: int, found: Measured) -> tuple[int, int] | None:
    """Records whose `log()` had returned when its process was killed, and how many of them are found."""
    with (
        tempfile.TemporaryDirectory(prefix="asynctrack-peers-", ignore_cleanup_errors=True) as directory,
        _group() as environment,
    ):
        command = [sys.executable, "-m", "bench.peers.measure", str(rate), name, directory]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=_root()
        ) as child:
            assert child.stdout is not None
            while (line := child.stdout.readline()) not in ("", "ready\n"):
                pass
            if line:
                time.sleep(KILLED_AFTER_S[rate])
            child.send_signal(signal.SIGKILL)
        if not line:
            found.failures.append(f"{rate}/s: it did not start")
            return None
        returned = int.from_bytes(Path(directory, "returned").read_bytes(), sys.byteorder)
        time.sleep(_AFTER_KILL_S)
        count = _run("count", name, directory, environment, found)
        return None if count is None else (returned, count)


@contextmanager
def _group() -> Iterator[dict[str, str]]:
    """An environment with a control group, where one can be made: it counts the processor time of all that is started in it."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    group = _GROUPS / f"asynctrack-bench-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
    except OSError:
        yield environment
        return
    try:
        yield {**environment, "BENCH_CGROUP": str(group)}
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)  # what a peer has left behind
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def _root() -> Path:
    return Path(__file__).parent.parent.parent


def tables(found: dict[str, Measured]) -> list[Table]:
    """What was found, with the no-op's slow-down beside every other."""
    return [
        Table("A tight loop", [_tight_row(name, peer.tight) for name, peer in found.items() if peer.tight]),
        Table(
            "A loop of 200 us steps",
            [_loop_row(name, peer) for name, peer in found.items() if any(peer.loops.values())],
        ),
        Table(
            "Killed with SIGKILL", [_kill_row(name, peer) for name, peer in found.items() if any(peer.killed.values())]
        ),
    ]


def _tight_row(name: str, rounds: list[dict[str, Any]]) -> dict[str, Cell | Spread]:
    def over(figure: str, scale: float = 1.0) -> Spread:
        return spread(one[figure] * scale for one in rounds)

    ordered = [sorted(one["samples_ns"]) for one in rounds]
    shares = {"p50 us": 0.5, "p99 us": 0.99, "p99.9 us": 0.999}
    return {
        "peer": name,
        **{label: spread(percentile(one, part) / 1000 for one in ordered) for label, part in shares.items()},
        "max us": spread(one[-1] / 1000 for one in ordered),
        "records/s": over("records_s"),
        "with finish": over("records_s_with_finish"),
        "CPU us/record": over("cpu_us"),
        "memory MiB": over("memory_mib"),
        "init ms": over("init_s", 1000),
        "finish ms": over("finish_s", 1000),
    }


def _loop_row(name: str, peer: Measured) -> dict[str, Cell | Spread]:
    row: dict[str, Cell | Spread] = {"peer": name}
    for loop, rounds in peer.loops.items():
        if rounds:
            row[f"{loop}: log() us"] = spread(mean(one["tracked"]["logs_ns"]) / 1000 for one in rounds)
            row[f"{loop}: slow-down %"] = spread(map(_slow_down, rounds))
            row[f"{loop}: p99.9 +us"] = spread(_tail_us(one["tracked"]) - _tail_us(one["before"]) for one in rounds)
    return row


def _slow_down(one: dict[str, Any]) -> float:
    plain = one["before"]["steps_ns"] + one["after"]["steps_ns"]
    return 100 * (mean(one["tracked"]["steps_ns"]) / mean(plain) - 1)


def _tail_us(steps: dict[str, list[int]]) -> float:
    return percentile(sorted(steps["steps_ns"]), 0.999) / 1000


def _kill_row(name: str, peer: Measured) -> dict[str, Cell | Spread]:
    row: dict[str, Cell | Spread] = {"peer": name}
    for rate, outcomes in peer.killed.items():
        if outcomes:
            row[f"{rate}/s: logged"] = spread(returned for returned, _ in outcomes)
            row[f"{rate}/s: lost %"] = spread(100 * max(0, returned - count) / returned for returned, count in outcomes)
    return row


def _versions(names: list[str]) -> dict[str, str]:
    return {package: version(package) for name in names for package in PEERS[name].packages}


def _installed(name: str) -> bool:
    try:
        _versions([name])
    except PackageNotFoundError as missing:
        say(f"{name} is left out: {missing.name} is not installed")
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", help=f"which; all that are installed if none is named: {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--save", action="store_true", help="write bench/results/peers.json")
    given = parser.parse_args()
    if unknown := [name for name in given.peers if name not in PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}")
    names = list(filter(_installed, given.peers or PEERS))
    before, began = os.getloadavg(), time.monotonic()
    found = measure(names, given.rounds)
    result = {
        "benchmark": "peers",
        "question": " ".join((__doc__ or "").split("\n\n")[0].split()),
        "command": f"python -m bench.peers --rounds {given.rounds}",
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine() | _versions(names),
        "load_average": {"before": list(before), "after": list(os.getloadavg())},
        "bars": [],
        "tables": tables(found),
        "notes": _notes(names, found),
    }
    encoded = msgspec.json.format(msgspec.json.encode(result), indent=1)
    if given.json:
        print(encoded.decode())
    else:
        print_result(result)
    if given.save:
        (RESULTS / "peers.json").write_bytes(encoded + b"\n")


def _notes(names: list[str], found: dict[str, Measured]) -> list[str]:
    return [
        "record: 4 floats, an integer, a short string, made afresh for each call.",
        "a [b..c]: median and range over the rounds, each of which has a process of its own for each figure.",
        "slow-down: mean step with tracking against those before and behind it in the same process; 'nothing' shows the machine's noise.",
        "lost: of the records whose log() had returned when the process was killed; its other processes had 5 s to go on.",
        *(f"{name}: {PEERS[name].note}." for name in names if PEERS[name].note),
        *(f"{name}: {failure}" for name in names for failure in found[name].failures),
    ]


if __name__ == "__main__":
    main()
