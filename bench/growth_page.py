"""Shows `bench/results/growth.json` to readers: tables and a chart in docs/explanation/performance.md. `python -m bench.growth_page [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.growth import KEYS, RECORDS, RUNS
from bench.growth_chart import Panel, draw
from bench.harness import RESULTS
from bench.pages import PERFORMANCE, bring_up_to_date, with_part

_CHART: Final = RESULTS / "growth.svg"
_IMAGE: Final = "![What a record costs as the run, its keys and the open runs grow](../../bench/results/growth.svg)"
_NONE: Final = "`python -m bench.growth --save` measures that; there is no result yet."
# Column of the result, and its head on the page.
_COLUMNS: Final = {
    RECORDS: {"records": "records", "log() us": "`log()` us", "CPU us/record": "CPU us/record", "caller MiB": "caller MiB", "worker MiB": "worker MiB", "journal bytes/record": "journal bytes/record"},
    KEYS: {"keys": "keys", "log() us": "`log()` us", "log() ns/value": "`log()` ns/value", "CPU us/record": "CPU us/record", "CPU us/value": "CPU us/value", "worker MiB": "worker MiB"},
    RUNS: {"runs": "open runs", "init() ms": "`init()` ms", "log() us": "`log()` us", "CPU us/record": "CPU us/record", "caller KiB/run": "caller KiB/run", "worker MiB": "worker MiB", "idle % of a core": "idle: % of a core"},
}  # fmt: skip

Row = dict[str, Any]


def tables(result: Row) -> str:
    """Return the part of the page: the chart, a table for each that grows, and how to read them."""
    parts = [_IMAGE]
    for title, rows in _rows(result).items():
        heads = _COLUMNS[title]
        lines = [list(heads.values()), ["---"] * len(heads)]
        lines += [[_cell(row[name]) for name in heads] for row in rows]
        parts.append(f"**{title}**")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {note}" for note in result["notes"]))
    return "\n\n".join(parts)


def chart(result: Row) -> str:
    """Return the SVG file."""
    rows, machine = _rows(result), result["machine"]
    panels = [
        Panel("records in a run", "records", _curves(rows[RECORDS], "records", "log() us", "CPU us/record")),
        Panel("keys in a record: for each value", "keys", _curves(rows[KEYS], "keys", "log() ns/value", "CPU us/value")),
        Panel("open runs, logged to in turn", "runs", _curves(rows[RUNS], "runs", "log() us", "CPU us/record")),
    ]  # fmt: skip
    return draw(panels, f"{machine['cores']} cores of {machine['cpu']}, {machine['python']}")


def _rows(result: Row) -> dict[str, list[Row]]:
    return {table["title"]: table["rows"] for table in result["tables"]}


def _curves(rows: Sequence[Row], across: str, log: str, cpu: str) -> dict[str, list[tuple[float, float]]]:
    scale = 0.001 if "ns" in log else 1.0
    return {
        "log()": [(row[across], max(row[log]["median"] * scale, 0.001)) for row in rows],
        "processor time of caller and worker": [(row[across], row[cpu]["median"]) for row in rows],
    }


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    median: float = value["median"]
    return f"{median:,.0f}" if abs(median) >= 100 else f"{median:.3g}"


def wanted() -> dict[Path, str]:
    """Return the texts that the files should have."""
    path = RESULTS / "growth.json"
    if not path.exists():
        return {PERFORMANCE: with_part(PERFORMANCE.read_text(encoding="utf-8"), "growth", _NONE)}
    result = json.loads(path.read_text(encoding="utf-8"))
    return {
        _CHART: chart(result),
        PERFORMANCE: with_part(PERFORMANCE.read_text(encoding="utf-8"), "growth", tables(result)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth_page", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the page or the chart is out of date"
    )
    sys.exit(bring_up_to_date(wanted(), check=parser.parse_args().check))


if __name__ == "__main__":
    main()
