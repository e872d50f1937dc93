"""How many records a second does a tight loop hand over, how fast do they reach the journal and the backend, and is one lost?

Five million records as fast as a loop can log them, then everything until `finish()` returns; the caller's memory over that
time; the processor time of caller and worker together, beside two loops that encode and write every record themselves; and how fast bytes
go from queue to journal when the caller is not what limits them, against the disk's own speed.

Takes two minutes, and 2 GB in TMPDIR. Wants two free cores and a disk of its own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy

import asynctrack
from asynctrack.queue.layout import HEAD, WORKER_PID
from bench.harness import Bar, Report, Spread, Table, bar, dropped, main, open_run, say, spread
from bench.processes import cpu_s

RECORDS: Final = 5_000_000
# The rivals do the same for each record, so that fewer show what one takes.
RIVAL_RECORDS: Final = RECORDS // 5
WARM_UP_RECORDS: Final = 50_000  # once around the ring: its pages are mapped, everything is imported
MIB: Final = 1 << 20
DISK_BYTES: Final = 256 * MIB
ROUNDS: Final = 10
ARRAY_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Tight:
    """One run of the tight loop; seconds from its start."""

    records: int
    queue_bytes: int
    loop_s: float
    journaled_s: float
    delivered_s: float
    accepted: int
    delivered: int
    dropped: int
    grown_bytes: int
    ring_bytes: int
    cpu_s: float


@dataclass(frozen=True)
class Own:
    """One run of a loop that writes each record itself: seconds until its file is closed, and of processor time."""

    records: int
    took_s: float
    cpu_s: float


def measure(quick: bool) -> Report:
    rounds, part = (1, 10) if quick else (ROUNDS, 1)
    records = RECORDS // part
    disk, journal, tight = [], [], []
    own: dict[str, list[Own]] = {name: [] for name in RIVALS}
    for _ in range(3 if quick else 5):
        say("disk and queue to journal")
        disk.append(_disk_bytes_per_s(DISK_BYTES // (4 if quick else 1)))
        journal.append(_journal_bytes_per_s(DISK_BYTES // (4 if quick else 1)))
    for _ in range(rounds):
        say(f"{records:,} records")
        tight.append(_tight_loop(records))
        for name, write in RIVALS.items():
            own[name].append(_own_loop(write, RIVAL_RECORDS // part))
    tables = [_tight_table(tight), _rivals_table(tight, own), _bytes_table(disk, journal)]
    return Report(tables, [*_bars(tight, disk, journal), *_rival_bars(tight, own)], NOTES)


NOTES: Final = [
    "record: 4 floats, an integer, a short string, made afresh for each call; making it is part of the loop's time.",
    "until journaled: until the journal has all, as `flush('journaled')` sees it. until delivered: until `finish()` returns, all of "
    "it in metrics.jsonl; the worker makes those lines, on its own core.",
    f"queue to journal: arrays of {ARRAY_BYTES // 1024} KiB logged with when_full='block', no backend; 'synced': until it survives a power cut. disk: "
    "the same amount by write() of 1 MiB and one fdatasync. In turn, in the same directory.",
    "encode + os.write: a line of JSON for each record, in one call of the system; the other rival writes a MessagePack frame, its length before it. Neither has a "
    "checksum, a sync or a second copy; both lie in the same directory as the journal.",
    "CPU: of the caller and of its worker, which journals and writes the JSON Lines; the making of the records is part of it, for all alike.",
    "memory: growth of the process's peak (VmHWM, reset after the warm-up) while it logs, flushes and finishes. The bar is for 10 "
    "million records; this is the most that a run of this loop took.",
    "MB is 10^6 bytes.",
]


def _tight_loop(records: int) -> Tight:
    with open_run(finish_timeout_s=300.0) as run:
        _log_all(run, 0, WARM_UP_RECORDS, pause_every=2000)
        run.flush("delivered")
        _reset_peak()
        before_bytes, words, lost_before = _peak_bytes(), run._publisher.producer.ring.words, dropped(run)
        head = words[HEAD]
        worker, used = words[WORKER_PID], time.process_time() + cpu_s(words[WORKER_PID])
        began = time.perf_counter()
        _log_all(run, WARM_UP_RECORDS, records)
        loop_s = time.perf_counter() - began
        run.flush("journaled")
        journaled_s = time.perf_counter() - began
        queue_bytes = words[HEAD] - head
        stats = run.finish()
        delivered_s = time.perf_counter() - began
        used_s = time.process_time() + cpu_s(worker) - used
        lost = sum(stats.dropped.values()) - lost_before
        return Tight(
            records, queue_bytes, loop_s, journaled_s, delivered_s, stats.accepted - WARM_UP_RECORDS + lost_before,
            stats.backends["jsonl"].delivered - WARM_UP_RECORDS + lost_before, lost,
            _peak_bytes() - before_bytes, run._publisher.producer.capacity, used_s,
        )  # fmt: skip


def _log_all(run: asynctrack.Run, first: int, count: int, pause_every: int = 0) -> None:
    for step in range(first, first + count):
        run.log(
            {
                "loss": 0.5 + step * 1e-7,
                "accuracy": 0.9 - step * 1e-8,
                "lr": 0.001 + step * 1e-9,
                "grad_norm": step * 0.5,
                "epoch": step // 1000,
                "phase": "train",
            },
            step=step,
        )
        if pause_every and step % pause_every == 0:
            run.flush("journaled")


def _write_lines(fd: int, records: int) -> None:
    encode, write = msgspec.json.Encoder().encode, os.write
    for step in range(records):
        data = {
            "loss": 0.5 + step * 1e-7,
            "accuracy": 0.9 - step * 1e-8,
            "lr": 0.001 + step * 1e-9,
            "grad_norm": step * 0.5,
            "epoch": step // 1000,
            "phase": "train",
        }
        write(fd, encode({"step": step, **data}) + b"\n")


def _write_frames(fd: int, records: int) -> None:
    encode, write = msgspec.msgpack.Encoder().encode, os.write
    for step in range(records):
        payload = encode(
            (
                step,
                {
                    "loss": 0.5 + step * 1e-7,
                    "accuracy": 0.9 - step * 1e-8,
                    "lr": 0.001 + step * 1e-9,
                    "grad_norm": step * 0.5,
                    "epoch": step // 1000,
                    "phase": "train",
                },
            )
        )
        write(fd, len(payload).to_bytes(4, "little") + payload)


ENCODE_AND_WRITE: Final = "encode + os.write"
RIVALS: Final = {ENCODE_AND_WRITE: _write_lines, "msgpack frame + os.write": _write_frames}


def _own_loop(write: Callable[[int, int], None], records: int) -> Own:
    with tempfile.NamedTemporaryFile(prefix="asynctrack-bench-", buffering=0) as file:
        write(file.fileno(), WARM_UP_RECORDS)
        used, began = time.process_time(), time.perf_counter()
        write(file.fileno(), records)
        return Own(records, time.perf_counter() - began, time.process_time() - used)


def _disk_bytes_per_s(size: int) -> dict[str, float]:
    """Measure the disk's own speed for one file from start to end."""
    chunk = os.urandom(MIB)
    with tempfile.NamedTemporaryFile(prefix="asynctrack-bench-", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(size // MIB):
            file.write(chunk)
        written_s = time.perf_counter() - began
        os.fdatasync(file.fileno())
        return {"written": size / written_s, "synced": size / (time.perf_counter() - began)}


def _journal_bytes_per_s(size: int) -> dict[str, float]:
    """Measure how fast bytes go from the queue to the journal when `log()` only waits for room."""
    data = {"values": numpy.frombuffer(os.urandom(ARRAY_BYTES), dtype=numpy.float64)}
    with open_run(backends=[], when_full="block") as run:
        began = time.perf_counter()
        for step in range(size // ARRAY_BYTES):
            run.log(data, step=step)
        run.flush("journaled")
        journaled_s = time.perf_counter() - began
        run.flush("synced")
        synced_s = time.perf_counter() - began
        moved = run._publisher.producer.ring.words[HEAD]
        return {"written": moved / journaled_s, "synced": moved / synced_s, "dropped": dropped(run)}


def _tight_table(tight: list[Tight]) -> Table:
    figures: dict[str, Callable[[Tight], float]] = {
        "records/s in the loop": lambda one: one.records / one.loop_s,
        "records/s until journaled": lambda one: one.accepted / one.journaled_s,
        "records/s until delivered": lambda one: one.delivered / one.delivered_s,
        "us per record in the loop": lambda one: 1e6 * one.loop_s / one.records,
        "MB/s queue to journal": lambda one: one.queue_bytes / one.journaled_s / 1e6,
        "dropped": lambda one: one.dropped,
        "memory grown by, KiB": lambda one: one.grown_bytes / 1024,
    }
    rows: list[dict[str, Any]] = [
        {"figure": name, "median [min..max]": spread(map(figure, tight))} for name, figure in figures.items()
    ]
    return Table(f"{tight[0].records:,} records in a tight loop, {len(tight)} rounds", rows)


def _rivals_table(tight: list[Tight], own: dict[str, list[Own]]) -> Table:
    rows: list[dict[str, Any]] = [
        {
            "way": "asynctrack, JSON Lines included",
            "records/s, with finish": spread(one.delivered / one.delivered_s for one in tight),
            "CPU us/record": spread(1e6 * one.cpu_s / one.records for one in tight),
        }
    ]
    rows += [
        {
            "way": name,
            "records/s, with finish": spread(one.records / one.took_s for one in rounds),
            "CPU us/record": spread(1e6 * one.cpu_s / one.records for one in rounds),
        }
        for name, rounds in own.items()
    ]
    return Table("All processes, beside loops that write each record themselves", rows)


def _rival_bars(tight: list[Tight], own: dict[str, list[Own]]) -> list[Bar]:
    ours, theirs = _rivals_table(tight, own).rows[:2]
    figures = []
    for row in (ours, theirs):
        speed, cpu = row["records/s, with finish"], row["CPU us/record"]
        assert isinstance(speed, Spread) and isinstance(cpu, Spread)
        figures.append((speed.median, cpu.median))
    (speed, cpu), (their_speed, their_cpu) = figures
    return [
        bar(f"CPU per record of all processes, against {ENCODE_AND_WRITE}", 1.0, cpu / their_cpu, "x"),
        bar(f"records/s with finish, against {ENCODE_AND_WRITE}", 1.0, speed / their_speed, "x", at_least=True),
    ]


def _bytes_table(disk: list[dict[str, float]], journal: list[dict[str, float]]) -> Table:
    rows: list[dict[str, Any]] = [
        {"MB/s": name, **{key: spread(one[key] / 1e6 for one in rounds) for key in ("written", "synced")}}
        for name, rounds in {"disk": disk, "queue to journal": journal}.items()
    ]
    return Table(f"Queue to journal against the disk, {len(disk)} rounds in turn", rows)


def _bars(tight: list[Tight], disk: list[dict[str, float]], journal: list[dict[str, float]]) -> list[Bar]:
    moved, own = (spread(one["written"] / 1e6 for one in rounds).median for rounds in (journal, disk))
    ring, grown = tight[0].ring_bytes, max(one.grown_bytes for one in tight)
    lost = sum(one.dropped for one in tight) + sum(int(one["dropped"]) for one in journal)
    missing = sum(one.records - one.dropped - one.delivered for one in tight)
    return [
        bar("records dropped", 0, lost),
        bar("records accepted and not delivered", 0, missing),
        bar("queue to journal (or the disk's own speed)", min(300.0, own), moved, "MB/s", at_least=True),
        bar("memory of the caller grown by: the ring and 2 MiB", (ring + 2 * MIB) / MIB, grown / MIB, "MiB"),
    ]


def _reset_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _peak_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(__doc__, measure)
