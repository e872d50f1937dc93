"""Shows `bench/results/peers.json` to readers: a table in docs/explanation/performance.md, and the chart above it. `python -m bench.peers.show [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any, Final

from bench.harness import RESULTS
from bench.pages import PERFORMANCE, bring_up_to_date, with_part
from bench.peers.chart import Bar, draw
from bench.peers.tables import DISK, KILL, LOOPS, SERVER, TIGHT, WHO

_OURS: Final = "asynctrack"
_COLUMNS: Final = (
    "", "`log()` p50 us", "p99.9 us", "NumPy loop +%", "records/s, with `finish`", "CPU us/record", "lost at SIGKILL: 20/s, 1,000/s",
    "disk full: longest `log()` ms", "server stopped: longest `log()` ms",
)  # fmt: skip

Row = dict[str, Any]


class Result:
    """The result file, by peer."""

    def __init__(self, text: str) -> None:
        found = json.loads(text)
        self.caveats: list[str] = found["caveats"]
        machine = found["machine"]
        self.machine = f"In a tight loop; {machine['cores']} cores of {machine['cpu']}, {machine['python']}"
        self._tables: dict[str, list[Row]] = {table["title"]: table["rows"] for table in found["tables"]}

    def peers(self) -> list[str]:
        return [row["peer"] for row in self._tables[TIGHT]]

    def rows(self, title: str, peer: str) -> list[Row]:
        return [row for row in self._tables.get(title, []) if row["peer"] == peer]

    def figure(self, title: str, peer: str, column: str) -> float | None:
        """Return the median of a figure, if it is there."""
        for row in self.rows(title, peer):
            if row.get(column) is not None:
                return float(row[column]["median"])
        return None

    def note(self, peer: str) -> str:
        return "".join(str(row["note"]) for row in self.rows(WHO, peer))


def table(result: Result) -> str:
    """Return the part of the page: the table, and what is not comparable in it."""
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *(_row(result, peer) for peer in result.peers())]
    return "\n".join([*lines, "", *(f"- {caveat}" for caveat in result.caveats)])


def chart(result: Result) -> str:
    """Return the SVG file."""
    return draw((bar for peer in result.peers() if (bar := _bar(result, peer))), result.machine)


def _bar(result: Result, peer: str) -> Bar | None:
    p50_us, p999_us = (result.figure(TIGHT, peer, column) for column in ("p50 us", "p99.9 us"))
    if not p50_us or not p999_us:
        return None
    lost = (result.figure(KILL, peer, "20/s: lost %"), result.figure(KILL, peer, "1000/s: lost %"))
    return Bar(peer, p50_us, p999_us, lost, peer == _OURS, "the floor" in result.note(peer))


def _row(result: Result, peer: str) -> str:
    name = peer + "\\*" * ("numbers only" in result.note(peer))
    lost = [result.figure(KILL, peer, f"{rate}/s: lost %") for rate in (20, 1000)]
    dropped = result.figure(TIGHT, peer, "lost %")
    cells = [
        name,
        _digits(result.figure(TIGHT, peer, "p50 us")),
        _digits(result.figure(TIGHT, peer, "p99.9 us")),
        _digits(result.figure(LOOPS, peer, "numpy: slow-down %")),
        _digits(result.figure(TIGHT, peer, "with finish")) + (f", lost {_digits(dropped)} %" if dropped else ""),
        _digits(result.figure(TIGHT, peer, "CPU us/record")),
        ", ".join(_digits(part, " %") for part in lost) if None not in lost else "-",
        "; ".join(_longest(row) for row in result.rows(DISK, peer)) or "-",
        "; ".join(f"{_longest(row)} ({row['server']})" for row in result.rows(SERVER, peer)) or "-",
    ]
    return _line([f"**{cell}**" if cell != "-" else cell for cell in cells] if peer == _OURS else cells)


def _longest(row: Row) -> str:
    """Describe the longest call, and the fate of the records where something went wrong."""
    raised, calls, lost = (row[name]["median"] for name in ("raised", "calls", "lost %"))
    said = [f"raised in {_digits(100 * raised / calls)} %"] * (raised > 0) + [f"lost {_digits(lost)} %"] * (lost > 0)
    return ", ".join([_digits(row["max us"]["median"] / 1000), *said])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _digits(value: float | None, unit: str = "") -> str:
    """Format a number with three digits, as many as are significant."""
    if value is None:
        return "-"
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}") + unit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.show", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the page or the chart is out of date"
    )
    check = parser.parse_args().check
    try:
        result = Result((RESULTS / "peers.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit("there is no bench/results/peers.json: python -m bench.peers --save makes it")
    page = with_part(PERFORMANCE.read_text(encoding="utf-8"), "peers", table(result))
    sys.exit(bring_up_to_date({RESULTS / "peers.svg": chart(result), PERFORMANCE: page}, check=check))


if __name__ == "__main__":
    main()
