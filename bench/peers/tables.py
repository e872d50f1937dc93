"""The tables of the results, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from statistics import mean
from typing import Any, Final

import msgspec

from bench.harness import Cell, Spread, Table, percentile, spread
from bench.peers.peer import FULL, KILLED, STOPPED
from bench.peers.peers import PEERS

Row = dict[str, Cell | Spread]

# Titles, by which bench.peers.show finds them.
WHO, TIGHT, LOOPS, KILL, DISK, SERVER = (
    "Peers", "A tight loop", "A loop of 200 us steps", "Killed with SIGKILL", "Disk full", "Server stopped",
)  # fmt: skip
CAVEATS: Final = [
    "record: 4 floats, an integer, a short string, made afresh for each call. Those with * take numbers only: they write one value less.",
    "'nothing', 'deque.append' and 'msgpack encode' write nothing: they are the floor. 'trackio', 'mlflow' and 'neptune-scale' write into a local SQLite file, "
    "the others into files of their own, 'wandb, online' also to a small server on loopback that takes its part of the two cores.",
    "Who logs slowly in a tight loop, or waits for its own thread, gets less done in the same 4 s; compare the time of a call with that of a loop's step, 200 us.",
    "lost: of the records whose log() had returned; counted, not compared. The peer's own processes had 5 s to go on (wandb, online: 20 s). SIGKILL of one process: the kernel's page cache survives, so no one needed a sync.",
    "disk full: 2 s without a free block on a small file system in memory, at 1,000 records/s; server stopped: 5 s of SIGSTOP to it, at 100 records/s. "
    "A call that raised is not lost, but its loop has to catch that.",
    "medians over the rounds (and [a..b], their range), each figure in a process of its own; the loop, the peer's processes and its server share the machine's cores.",
]  # fmt: skip


class Measured(msgspec.Struct):
    """All rounds of one peer.

    Attributes:
        rounds: by figure; a round that failed is missing.
        failures: what went wrong.
    """

    rounds: dict[str, list[dict[str, Any]]] = {}
    failures: list[str] = []

    def of(self, what: str) -> list[dict[str, Any]]:
        return self.rounds.get(what, [])


def tables(found: dict[str, Measured]) -> list[Table]:
    """Return the tables of the results, with the no-op's slow-down beside every other."""
    rows: dict[str, Callable[[str, Measured], Row | None]] = {
        WHO: _who, TIGHT: _tight, LOOPS: _loops, KILL: _kill, DISK: _disk, SERVER: _server
    }  # fmt: skip
    made = [
        Table(title, [row for name, peer in found.items() if (row := of(name, peer))]) for title, of in rows.items()
    ]
    return [table for table in made if table.rows]


def notes(found: dict[str, Measured]) -> list[str]:
    return [
        *CAVEATS,
        "with finish: records a second until finish() had returned; lost: those that are not found after it. slow-down: mean step with tracking against those before and behind it in the same process; 'nothing' shows the machine's noise.",
        "raised after: calls that raised when the disk had room, or the server answered, again. finish s: what happened where finish() did not come back well; killed after 30 s.",
        *(f"{name}: {failure}" for name, peer in found.items() for failure in dict.fromkeys(peer.failures)),
    ]


def _who(name: str, measured: Measured) -> Row | None:
    peer = PEERS[name]
    if peer.of:
        return None
    return {"peer": name, "version": version(peer.packages[0]) if peer.packages else "-", "note": peer.note or "-"}


def _tight(name: str, measured: Measured) -> Row | None:
    rounds = measured.of("tight")
    if not rounds:
        return None
    ordered = [sorted(one["samples_ns"]) for one in rounds]
    shares = {"p50 us": 0.5, "p99 us": 0.99, "p99.9 us": 0.999}
    return {
        "peer": name,
        **{label: spread(percentile(one, part) / 1000 for one in ordered) for label, part in shares.items()},
        "max us": spread(one[-1] / 1000 for one in ordered),
        "records/s": _over(rounds, "records_s"),
        "with finish": _over(rounds, "records_s_with_finish"),
        "lost %": _lost(rounds) if "found" in rounds[0] else None,
        "CPU us/record": _over(rounds, "cpu_us"),
        "memory MiB": _over(rounds, "memory_mib"),
        "init ms": _over(rounds, "init_s", 1000),
        "finish ms": _over(rounds, "finish_s", 1000),
    }


def _loops(name: str, measured: Measured) -> Row | None:
    row: Row = {"peer": name}
    for loop in ("numpy", "python"):
        if rounds := measured.of(loop):
            row[f"{loop}: log() us"] = spread(mean(one["tracked"]["logs_ns"]) / 1000 for one in rounds)
            row[f"{loop}: slow-down %"] = spread(map(_slow_down, rounds))
            row[f"{loop}: p99.9 +us"] = spread(_tail_us(one["tracked"]) - _tail_us(one["before"]) for one in rounds)
    return row if len(row) > 1 else None


def _slow_down(one: dict[str, Any]) -> float:
    plain = one["before"]["steps_ns"] + one["after"]["steps_ns"]
    return float(100 * (mean(one["tracked"]["steps_ns"]) / mean(plain) - 1))


def _tail_us(steps: dict[str, list[int]]) -> float:
    return percentile(sorted(steps["steps_ns"]), 0.999) / 1000


def _kill(name: str, measured: Measured) -> Row | None:
    row: Row = {"peer": name}
    for rate in KILLED:
        if rounds := measured.of(rate):
            row[f"{rate}/s: logged"] = _over(rounds, "returned")
            row[f"{rate}/s: lost %"] = _lost(rounds)
    return row if len(row) > 1 else None


def _disk(name: str, measured: Measured) -> Row | None:
    rounds = measured.of(FULL)
    return {"peer": name, **_disturbed(rounds)} if rounds else None


def _server(name: str, measured: Measured) -> Row | None:
    rounds, peer = measured.of(STOPPED), PEERS[name]
    return {"peer": peer.of or name, "server": peer.server, **_disturbed(rounds)} if rounds else None


def _disturbed(rounds: Sequence[dict[str, Any]]) -> Row:
    ended = next((one["ended"] for one in rounds if one["ended"]), "")
    return {
        "calls": _over(rounds, "calls"),
        "before: p50 us": None if any(one["before_us"] is None for one in rounds) else _over(rounds, "before_us"),
        "p50 us": _over(rounds, "p50_us"),
        "max us": _over(rounds, "max_us"),
        "raised": _over(rounds, "raised"),
        "raised after": _over(rounds, "raised_after"),
        "lost %": _lost(rounds),
        "finish s": ended or _over(rounds, "finish_s"),
    }


def _lost(rounds: Iterable[dict[str, Any]]) -> Spread:
    return spread(100 * max(0, one["returned"] - one["found"]) / max(1, one["returned"]) for one in rounds)


def _over(rounds: Iterable[dict[str, Any]], figure: str, scale: float = 1.0) -> Spread:
    return spread(one[figure] * scale for one in rounds)
