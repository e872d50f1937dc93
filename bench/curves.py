"""How long does it take to draw a run: from nothing, with the user's cache, when zoomed, and while it goes on, and how much memory?

Each figure is of a fresh process. The run of a hundred million records is synthetic: its pyramid is made up, and lies in the cache; windows in it are wide enough
to be drawn without its journal. Zooms of the other runs go down to single records.

Takes a minute, and 1.5 GB in TMPDIR. Needs NumPy. Wants two free cores.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from asynctrack.curves import saved
from asynctrack.curves.lanes import Lane
from asynctrack.curves.layout import ROW_RECORDS
from asynctrack.curves.pyramid import Pyramid
from asynctrack.curves.run_curves import RunCurves
from asynctrack.journal.writer import Writer
from asynctrack.testing import JournaledRun
from bench import reading
from bench.harness import Bar, Cell, Report, Spread, Table, bar, main, say, spread

WIDTH: Final = 300
LIVE_RECORDS: Final = 10_000
LIVE_LOOKS: Final = 20
ZOOMS: Final = 200
METRICS: Final = ("loss", "accuracy", "epoch", "grad_norm")
HUGE_RECORDS: Final = 100_000_000

_DRAW: Final = "import bench.curves as b, sys; b.draw_one(*sys.argv[1:])"
_ROOT: Final = Path(__file__).parent.parent


def measure(quick: bool) -> Report:
    part, rounds = (10, 1) if quick else (1, 3)
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        bench = Path(folder, "bench")
        say("making the runs")
        runs = {
            f"{1_000_000 // part:,} x 5": reading._make_run(bench / "1m", 1_000_000 // part, 5),
            f"{5_000_000 // part:,} x 4": reading._make_run(bench / "5m", 5_000_000 // part, 4),
            "200,000 mixed": _make_mixed(bench / "mixed", 200_000 // part),
        }
        huge = f"{HUGE_RECORDS // part:,} x 4, synthetic"
        runs[huge] = _make_huge(bench / "huge", HUGE_RECORDS // part)
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for number in range(rounds):
            for name, run in runs.items():
                for what in ("cached",) if name == huge else ("cold", "cached"):
                    say(f"round {number + 1} of {rounds}: {name}, {what}")
                    found.setdefault((name, what), []).append(_draw(what, run, zooms_deep=name != huge))
        live = [_live(bench / f"live{number}") for number in range(rounds)]
    rows: list[dict[str, Cell | Spread]] = [
        {"run": name, "from": what, **{key: spread([one[key] for one in of]) for key in of[0]}}
        for (name, what), of in found.items()
    ]
    rows_live: list[dict[str, Cell | Spread]] = [{"CPU ms per second": spread(live)}]
    tables = [
        Table(f"all metrics in {WIDTH} buckets, then {ZOOMS} windows of one", rows),
        Table(
            f"a run that logs {LIVE_RECORDS:,} records/s of four numbers, looked at {LIVE_LOOKS} times a second",
            rows_live,
        ),
    ]
    return Report(tables, _bars(found, live), NOTES)


NOTES: Final = [
    "cold: nothing in the cache, which is written afterwards, and not counted; cached: what an earlier process has left there.",
    "first ms: from nothing to curves of all metrics; zoom ms: the median and the slowest of the windows, from the whole run down to a few records.",
    "memory: growth of the process's peak, without pages of the cache's file.",
    "the journal is in the page cache; its checksums are verified.",
]


def draw_one(what: str, path: str, deep: str) -> None:
    """Draw a run in this process, and print milliseconds and bytes."""
    curves = RunCurves(Path(path), cache=what == "cached")
    reading._reset_peak()
    before, start = reading._peak_bytes(), time.perf_counter()
    curves.grow()
    names = curves.names()[:8]
    curves.curves(names, "step", None, None, WIDTH)
    first_s = time.perf_counter() - start
    memory = reading._peak_bytes() - before
    whole = curves.extent(names[0], "step")
    assert whole is not None
    choice, taken = random.Random(1), []
    for _ in range(ZOOMS):
        width = (whole[1] - whole[0]) * 10 ** -choice.uniform(0, 5 if deep == "1" else 3)
        begin = choice.uniform(whole[0], whole[1] - width)
        start = time.perf_counter()
        curves.curves([names[0]], "step", begin, begin + width, WIDTH)
        taken.append(time.perf_counter() - start)
    if what == "cold":
        saved.save(curves._pyramid)
    print(json.dumps([1e3 * first_s, 1e3 * sorted(taken)[ZOOMS // 2], 1e3 * max(taken), memory / (1 << 20)]))


def _draw(what: str, run: Path, *, zooms_deep: bool) -> dict[str, float]:
    told = subprocess.run(
        [sys.executable, "-c", _DRAW, what, str(run), "1" if zooms_deep else "0"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=_ROOT,
    )
    first, zoom, slowest, memory = json.loads(told.stdout.splitlines()[-1])
    return {"first ms": first, "zoom ms": zoom, "slowest zoom ms": slowest, "memory MiB": memory}


def _make_mixed(path: Path, count: int) -> Path:
    """Make a run of records that have ever another length: floats, integers of changing width, truths, a text, keys that come and go."""
    choice = random.Random(0)
    with JournaledRun(path) as run:
        for step in range(count):
            data: dict[str, Any] = {
                "loss": choice.random(),
                "seen": step**3 % 2 ** choice.randrange(1, 60),
                "ok": step % 3 == 0,
            }
            if step % 5 == 0:
                data[f"layer{step % 40}"] = {"norm": choice.random(), "name": "x" * (step % 20)}
            run.log(data, step)
            if step % 5000 == 4999:
                run.journal()
        run.end()
    return path


def _make_huge(path: Path, count: int) -> Path:
    """Make a short run, and a pyramid of a long one for it in the cache."""
    import numpy

    with JournaledRun(path) as run:
        for step in range(ROW_RECORDS):
            run.log(dict.fromkeys(METRICS, float(step)), step)
        run.end()
    pyramid = Pyramid(path, "last")
    pyramid.grow()
    rows = count // ROW_RECORDS
    row = numpy.zeros(rows, [("i", "i8", 4), ("u", "u4", 4)])
    first = numpy.arange(rows) * ROW_RECORDS
    row["i"][:, 0], row["i"][:, 1] = first, first + ROW_RECORDS - 1
    row["i"][:, 2:] = row["i"][:, :2] * reading.STEP_NS + reading.FIRST_NS
    row["u"][:, 3] = ROW_RECORDS
    entry = numpy.zeros(rows, [("d", "f8", 4), ("u", "u4", 4)])
    noise = numpy.random.default_rng(0).random(rows)
    entry["d"] = numpy.stack([noise, noise + 1, ROW_RECORDS * (noise + 0.5), noise + 0.5], axis=1)
    entry["u"][:, 0], entry["u"][:, 2] = ROW_RECORDS, numpy.arange(rows)
    lane = Lane(pyramid.lanes[-1].ring, 0)
    lane.add(row.tobytes(), dict.fromkeys(METRICS, entry.tobytes()))
    pyramid.lanes[:] = [lane]
    saved.save(pyramid)
    return path


def _live(path: Path) -> float:
    """Return the CPU time in ms that a second of a live run takes."""
    with JournaledRun(path) as run:
        run.end()
    writer, curves, offset, taken = Writer(path / "journal"), RunCurves(path), 0, 0.0
    each = LIVE_RECORDS // LIVE_LOOKS
    for first in range(0, 5 * LIVE_RECORDS, each):
        frames = b"".join(reading._frames(first, first + each, 4))
        writer.append(7, offset, offset + len(frames), first, frames)
        offset += len(frames)
        start = time.process_time()
        curves.grow()
        taken += time.process_time() - start
    writer.close()
    return 1e3 * taken / 5


def _bars(found: dict[tuple[str, str], list[dict[str, float]]], live: list[float]) -> list[Bar]:
    bars = []
    limits: dict[tuple[str, str], float] = {
        ("1", "cold"): 500,
        ("5", "cold"): 2000,
        ("1", "cached"): 50,
        ("5", "cached"): 50,
    }

    def median(of: list[dict[str, float]], key: str) -> float:
        return spread(one[key] for one in of).median

    for (name, what), of in found.items():
        synthetic = name.endswith("synthetic")
        limit = 50 if synthetic else limits.get((name[0] if " x " in name else "", what))
        if limit is not None:
            bars.append(bar(f"{name}, {what}: first curves", limit, median(of, "first ms"), "ms"))
            bars.append(bar(f"{name}, {what}: slowest zoom", 10, median(of, "slowest zoom ms"), "ms"))
    bars.append(bar("a live run, a second", 10, spread(live).median, "ms of CPU"))
    return bars


if __name__ == "__main__":
    main(__doc__, measure)
