"""`bench.growth` measures and is shown: a short measurement gives a chart and tables in which nothing is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from support import ROOT

from asynctrack._system.native import PURE_VARIABLE

SHOW = """
import json, sys
from bench.growth_page import chart, tables
result = json.load(sys.stdin)
print(json.dumps([chart(result), tables(result)]))
"""


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_short_measurement_of_growth_becomes_chart_and_tables(own_host: None) -> None:
    # The checkout's own copy is measured, which may have no core.
    result = bench("-m", "bench.growth", "--quick", "--json")
    figures = [
        figure["median"] for table in result["tables"] for row in table["rows"] for name, figure in row.items()
        if name.startswith(("CPU", "worker MiB"))
    ]  # fmt: skip
    assert len(figures) > 20 and all(figure > 0 for figure in figures)
    drawing, tables = bench("-c", SHOW, given=json.dumps(result))
    assert len(ElementTree.fromstring(drawing).findall("{*}polyline")) == 6
    assert tables.count("\n| ") >= sum(len(table["rows"]) for table in result["tables"])


def bench(*arguments: str, given: str = "") -> Any:
    """Run Python in the root of the checkout, and return what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, PURE_VARIABLE: os.environ.get(PURE_VARIABLE) or "1"},
        input=given,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
