"""How long does it take to read a run: `arrays()`, `to_arrow()`, `to_pandas()`, `show` and `export`, and how much memory?

Runs of five million records with four numbers and of two million with three, read in a fresh process per round, by the native core and by the
Python version in turn. The Python version reads a tenth of each run, and its seconds are given for the whole.

Takes two minutes, and 1 GB in TMPDIR. Needs the extra `pandas`, and pyarrow. Wants two free cores.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

import asynctrack
from asynctrack import cli
from asynctrack._system.native import PURE_VARIABLE, is_native
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import frame_size
from asynctrack.testing import JournaledRun
from bench.harness import Bar, Cell, Report, Spread, Table, bar, main, say, spread

LONG_RECORDS: Final = 5_000_000
SHORT_RECORDS: Final = 2_000_000
# The Python version takes 30 s for what the core reads in 2.
PYTHON_PART: Final = 10
BATCH_RECORDS: Final = 20_000
FIRST_NS: Final = 1_760_000_000_000_000_000
STEP_NS: Final = 200_000

_READ: Final = "import bench.reading as b, sys; b.read_one(*sys.argv[1:])"
_ROOT: Final = Path(__file__).parent.parent


def measure(quick: bool) -> Report:
    part, rounds = (10, 1) if quick else (1, 3)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        say("making the runs")
        runs = _make_runs(Path(folder), part)
        for number in range(rounds):
            for what, (size, _) in SUBJECTS.items():
                for version in ("native", "python") if is_native else ("python",):
                    run, records = runs[size, version]
                    say(f"round {number + 1} of {rounds}: {what}, {version}, {records:,} records")
                    found.setdefault((what, version), []).append(_read(what, run, records, version))
    return Report([_table(found, part)], _bars(found), NOTES)


NOTES: Final = [
    f"arrays, to_arrow, to_pandas: {LONG_RECORDS:,} records of three floats and an integer; show, export: {SHORT_RECORDS:,} records of two floats and an integer.",
    f"the Python version reads 1/{PYTHON_PART} of each run; its seconds are those times {PYTHON_PART}, its memory is that of the tenth.",
    "memory: growth of the process's peak while it reads, with everything imported before, and the same divided by the bytes of the result's arrays.",
    "the journal is in the page cache; its checksums are verified by every reader.",
]


def read_one(what: str, path: str) -> None:
    """Read a run in this process, and print seconds, CPU seconds, growth of the peak in bytes, and bytes of the result."""
    read = SUBJECTS[what][1]
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # what an earlier round has read is not there
        read(_make_run(Path(folder, "bench", "warm"), 100, 3))  # imports, and what a library sets up once
        _reset_peak()
        before, wall, cpu = _peak_bytes(), time.perf_counter(), time.process_time()
        size = read(Path(path))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([wall, cpu, _peak_bytes() - before, size]))


def _reset_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _peak_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def _arrays(run: Path) -> int:
    curves = asynctrack.open_run(run).arrays()
    return sum(curve.steps.nbytes + curve.values.nbytes for curve in curves.values())


def _to_arrow(run: Path) -> int:
    size: int = asynctrack.open_run(run).to_arrow().nbytes
    return size


def _to_pandas(run: Path) -> int:
    return int(asynctrack.open_run(run).to_pandas().memory_usage(index=False).sum())


def _command(*words: str) -> Callable[[Path], int]:
    def read(run: Path) -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main([words[0], str(run), *words[1:]]) == 0
        return 0

    return read


def _export(format: str) -> Callable[[Path], int]:
    def read(run: Path) -> int:
        file = run.parent / f"{run.name}.{format}"
        _command("export", "--format", format, "--output", str(file))(run)
        file.unlink()
        return 0

    return read


SUBJECTS: Final[dict[str, tuple[str, Callable[[Path], int]]]] = {
    "arrays()": ("long", _arrays),
    "to_arrow()": ("long", _to_arrow),
    "to_pandas()": ("long", _to_pandas),
    "show": ("short", _command("show")),
    "export --format jsonl": ("short", _export("jsonl")),
    "export --format csv": ("short", _export("csv")),
}
LIMITS_S: Final = {"arrays()": 3, "to_arrow()": 3, "to_pandas()": 3, "show": 1, "export --format jsonl": 4, "export --format csv": 4}  # fmt: skip
MOST_MEMORY: Final = 3


def _make_runs(folder: Path, part: int) -> dict[tuple[str, str], tuple[Path, int]]:
    made = {}
    for size, count, width in (("long", LONG_RECORDS, 4), ("short", SHORT_RECORDS, 3)):
        for version, divisor in (("native", 1), ("python", PYTHON_PART)):
            records = count // part // divisor
            made[size, version] = (_make_run(folder / "bench" / f"{size}-{version}", records, width), records)
    return made


def _make_run(path: Path, count: int, width: int) -> Path:
    """Write the journal of a run, as the drain does, without a queue."""
    with JournaledRun(path) as run:
        run.end()
    writer, offset = Writer(path / "journal"), 0
    for first in range(0, count, BATCH_RECORDS):
        frames = b"".join(_frames(first, min(count, first + BATCH_RECORDS), width))
        writer.append(7, offset, offset + len(frames), first, frames)
        offset += len(frames)
    writer.close()
    return path


def _frames(first: int, end: int, width: int) -> Iterator[bytes]:
    encode = msgspec.msgpack.Encoder().encode
    for step in range(first, end):
        payload = encode((FIRST_NS + step * STEP_NS, step, numbers(step, width)))
        header = len(payload).to_bytes(8, "little") + step.to_bytes(8, "little")
        yield (header + payload).ljust(frame_size(len(payload)), b"\0")


def numbers(step: int, width: int) -> dict[str, float]:
    """Return what a record of a run that is read has: so many numbers."""
    data = {
        "loss": 0.5 + step * 1e-7,
        "accuracy": 0.9 - step * 1e-8,
        "epoch": step // 1000,
        "grad_norm": step * 0.5,
        "lr": 1e-3 - step * 1e-11,
    }
    return dict(list(data.items())[:width])


def _read(what: str, run: Path, records: int, version: str) -> dict[str, float]:
    environment = {**os.environ, PURE_VARIABLE: "1" if version == "python" else ""}
    told = subprocess.run(
        [sys.executable, "-c", _READ, what, str(run)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=_ROOT,
        env=environment,
    )
    wall_s, cpu_s, grown, size = json.loads(told.stdout.splitlines()[-1])
    times = PYTHON_PART if version == "python" else 1
    figures = {"s": wall_s * times, "CPU us/record": 1e6 * cpu_s / records, "memory MiB": grown / (1 << 20)}
    return {**figures, "memory/result": grown / size} if size else figures


def _table(found: dict[tuple[str, str], list[dict[str, float]]], part: int) -> Table:
    rows: list[dict[str, Cell | Spread]] = [
        {"read": what, "version": version, **{key: spread([one[key] for one in rounds]) for key in rounds[0]}}
        for (what, version), rounds in found.items()
    ]
    return Table(f"{LONG_RECORDS // part:,} records x 4, {SHORT_RECORDS // part:,} records x 3", rows)


def _bars(found: dict[tuple[str, str], list[dict[str, float]]]) -> list[Bar]:
    bars = []
    for what, limit_s in LIMITS_S.items():
        if (rounds := found.get((what, "native"))) is None:
            continue
        bars.append(bar(what, limit_s, spread(one["s"] for one in rounds).median, "s"))
        if "memory/result" in rounds[0]:
            memory = spread(one["memory/result"] for one in rounds).median
            bars.append(bar(f"{what}: peak memory", MOST_MEMORY, memory, "x the result"))
    return bars


if __name__ == "__main__":
    main(__doc__, measure)
