"""Harness: the parts that all benchmarks share: the machine's description, percentiles, rounds, tables, bars, and the file with the result.

A benchmark is a module with a question as its docstring and a function `measure(quick) -> Report`. It asserts nothing:
a bar that is missed says so in the result, and by how much. Nothing here or in a result names a host or a path.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

import asynctrack
from asynctrack._system import native
from asynctrack.client import worker_registry

RESULTS: Final = Path(__file__).parent / "results"
PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

Cell = str | int | float | None


class Spread(msgspec.Struct, frozen=True):
    """A figure over several rounds."""

    median: float
    min: float
    max: float

    def __str__(self) -> str:
        middle, low, high = map(_digits, (self.median, self.min, self.max))
        return middle if low == high else f"{middle} [{low}..{high}]"


class Bar(msgspec.Struct, frozen=True):
    """A figure with its limit."""

    what: str
    bar: str
    seen: str
    met: bool


class Table(msgspec.Struct, frozen=True):
    """Rows under the same column names; one with a unit says so in its name."""

    title: str
    rows: list[dict[str, Cell | Spread]]


class Report(msgspec.Struct):
    """The results of a benchmark.

    Attributes:
        tables: all figures.
        bars: those of the design's table that this benchmark can judge.
        notes: how to read them, and what is not measured.
    """

    tables: list[Table]
    bars: list[Bar]
    notes: list[str]


def main(question: str | None, measure: Callable[..., Report], **numbers: float) -> None:
    """Run the command line of a benchmark: measure, then print tables or JSON, and save if asked to.

    Args:
        question: what it measures, how long it takes, what the machine needs.
        measure: called with `quick`, and with the `numbers`.
        numbers: further options and their defaults.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=question, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work: to see that it runs, not for figures"
    )
    parser.add_argument("--save", action="store_true", help=f"write bench/results/{name}.json")
    for option, default in numbers.items():
        parser.add_argument(f"--{option}", type=float, default=default, help=f"default: {default:g}")
    given = parser.parse_args()
    if why := core_is_missing():
        sys.exit(f"{parser.prog}: {why}")
    chosen = {option: getattr(given, option) for option in numbers}
    command = parser.prog + " --quick" * given.quick + "".join(f" --{name} {value:g}" for name, value in chosen.items())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is stopped, filled or frozen must not stay so
    try:
        result = _run(name, question, command, functools.partial(measure, given.quick, **chosen))
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: interrupted; nothing is saved")
    give_out(result, as_json=given.json, save=given.save)


def give_out(result: dict[str, Any], *, as_json: bool, save: bool) -> None:
    """Print a result, as tables or as JSON, and write it to its file if asked to."""
    encoded = msgspec.json.format(msgspec.json.encode(result), indent=1)
    if as_json:
        print(encoded.decode())
    else:
        print_result(result)
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{result['benchmark']}.json").write_bytes(encoded + b"\n")


def _run(name: str, question: str | None, command: str, measure: Callable[[], Report]) -> dict[str, Any]:
    load_before, began = os.getloadavg(), time.monotonic()
    report = measure()
    return {
        "benchmark": name,
        "question": " ".join((question or "").split("\n\n")[0].split()),
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine(),
        "load_average": {"before": rounded(load_before), "after": rounded(os.getloadavg())},
        "bars": report.bars,
        "tables": report.tables,
        "notes": report.notes,
    }


def core_is_missing() -> str | None:
    """Say what to do where the copy of the package that is measured has no native core, and nobody has asked for that; None where all is well."""
    if asynctrack.__native__ or native.is_pure:
        return None
    folder = Path(asynctrack.__file__).parent
    build = "python setup.py build_ext --inplace"
    return f"{folder} has no native core ({native.why_not}); run `{build}` there, or set {native.PURE_VARIABLE}=1 to measure the Python version"


def rounded(load: Sequence[float]) -> list[float]:
    """Round a load average to its significant digits."""
    return [round(part, 2) for part in load]


def machine() -> dict[str, str | int]:
    """Return what the figures depend on: processor, kernel, Python, and the versions of what was run."""
    facts: dict[str, str | int] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "filesystem": _filesystem(tempfile.gettempdir()),
        "asynctrack": asynctrack.__version__,
        "native": asynctrack.__native__,
    }
    for package in ("msgspec", "anyio", "aiofiles", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            facts[package] = version(package)
    return facts


def say(text: str) -> None:
    """Tell the person who waits what is being measured."""
    print(f"  {text} ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def open_run(below: Path | None = None, **settings: Any) -> Iterator[asynctrack.Run]:
    """Open a run in a temporary directory (`below` one, else of `TMPDIR`), which is removed with it; the worker has taken its ring."""
    with (
        tempfile.TemporaryDirectory(prefix="asynctrack-bench-", dir=below) as directory,
        asynctrack.init("bench", dir=directory, **settings) as run,
    ):
        run.flush("delivered")
        yield run


@contextlib.contextmanager
def own_worker(shared_memory: Path | None = None) -> Iterator[None]:
    """Give the runs that are opened in this context a worker of their own, with its queue in `shared_memory` instead of `/dev/shm`."""
    before, root = worker_registry._hosts, os.environ.get("ASYNCTRACK_SHM")
    worker_registry._hosts = {}
    if shared_memory is not None:
        os.environ["ASYNCTRACK_SHM"] = str(shared_memory)
    try:
        yield
    finally:
        worker_registry._hosts = before
        os.environ.pop("ASYNCTRACK_SHM", None)
        if root is not None:
            os.environ["ASYNCTRACK_SHM"] = root


def dropped(run: asynctrack.Run) -> int:
    """Return how many records `log()` has dropped so far."""
    return sum(run.stats().dropped.values())


def percentile(ordered: Sequence[int], part: float) -> int:
    """Return the value that this part of the sorted samples lies below."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def percentiles_us(samples_ns: array[int], timer_ns: float) -> dict[str, float]:
    """Return p50, p99, p99.9 and max in microseconds, without the time to read the clock."""
    ordered = sorted(samples_ns)
    figures = {name: percentile(ordered, part) for name, part in PERCENTILES.items()}
    return {name: max(ns - timer_ns, 0) / 1000 for name, ns in {**figures, "max": ordered[-1]}.items()}


def spread(values: Iterable[float]) -> Spread:
    """Return the median and the range of one figure per round."""
    values = list(values)
    return Spread(*(float(f"{value:.4g}") for value in (median(values), min(values), max(values))))


def spreads(rounds: Sequence[dict[str, float]], suffix: str = "") -> dict[str, Spread]:
    """Return the spread of each name in the rounds' dicts."""
    return {f"{name}{suffix}": spread([figures[name] for figures in rounds]) for name in rounds[0]}


def bar(what: str, limit: float, seen: float, unit: str = "", *, at_least: bool = False) -> Bar:
    """Judge a figure: at most `limit`, or at least."""
    met = seen >= limit if at_least else seen <= limit
    sign, unit = (">=" if at_least else "<="), f" {unit}" if unit else ""
    return Bar(what, f"{sign} {limit:g}{unit}", f"{_digits(seen)}{unit}", met)


def print_result(result: dict[str, Any]) -> None:
    print(f"\n{result['benchmark']}: {result['question']}")
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    load = result["load_average"]
    print(f"load average {load['before']} before, {load['after']} after; took {result['seconds']} s")
    for table in result["tables"]:
        print(f"\n{table.title}")
        _print_rows(table.rows)
    print("\nBars")
    _print_rows(
        [{"": "met" if b.met else "MISSED", "what": b.what, "bar": b.bar, "seen": b.seen} for b in result["bars"]]
    )
    print("\n" + "\n".join(f"- {note}" for note in result["notes"]))


def _print_rows(rows: Sequence[dict[str, Cell | Spread]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(cell: Cell | Spread) -> str:
    if cell is None:
        return "-"
    return _digits(cell) if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def _digits(value: float) -> str:
    """Format a number with three digits, as many as are significant."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _filesystem(path: str) -> str:
    """Return the type of the file system that a path lies on."""
    mounts = []
    with contextlib.suppress(OSError), open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1:3] for line in file]
    above = [(len(point), kind) for point, kind in mounts if Path(path).resolve().is_relative_to(point)]
    return max(above, default=(0, "unknown"))[1]
