"""Shows every bar that a benchmark sets itself, met or missed, to readers: a table in docs/explanation/performance.md. `python -m bench.bars [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from bench.harness import RESULTS
from bench.pages import PERFORMANCE, bring_up_to_date, with_part


def table() -> str:
    """Return the part of the page: a row for each bar, by benchmark."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    head = ["| Benchmark | Bar | | Seen |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *(row for result in results for row in _rows(result))])


def machine() -> str:
    """Return the line that says what was measured, where and when."""
    result = json.loads((RESULTS / "log_latency.json").read_text(encoding="utf-8"))
    found = result["machine"]
    return (
        f"asynctrack {found['asynctrack']} as of {result['date']}; {found['cores']} cores of {found['cpu']}, a virtual machine; {found['kernel']}, "
        f"{found['filesystem']}; {found['python']}, msgspec {found['msgspec']}, NumPy {found['numpy']}."
    )


def _rows(result: dict[str, Any]) -> Iterator[str]:
    for bar in result["bars"]:
        seen = bar["seen"] if bar["met"] else f"**{bar['seen']}: missed**"
        yield f"| `{result['benchmark']}` | {bar['what']} | {bar['bar']} | {seen} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bars", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    page = with_part(with_part(PERFORMANCE.read_text(encoding="utf-8"), "machine", machine()), "bars", table())
    sys.exit(bring_up_to_date({PERFORMANCE: page}, check=parser.parse_args().check))


if __name__ == "__main__":
    main()
