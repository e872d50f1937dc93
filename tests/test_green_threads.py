"""gevent and eventlet put threads in place of Python's that run only while no other of theirs does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from asynctrack import open_run

PATCH = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\n",
}
SCRIPT = """
import asynctrack, sys
got = []
memory = asynctrack.Memory()
kinds = {"jsonl": "jsonl", "memory": memory, "console": asynctrack.Console(), "subscriber": asynctrack.Subscriber(got.append)}
run = asynctrack.init("p", id="a", dir=sys.argv[1], backends=[kinds[sys.argv[2]]], worker=sys.argv[4])
for i in range(100):
    assert run.log({"i": i})
if sys.argv[3] == "finish":
    stats = run.finish()
    backend_stats = stats.backends[sys.argv[2]]
    assert (stats.journaled, backend_stats.delivered + backend_stats.skipped.get("downsampled", 0), backend_stats.behind) == (100, 100, 0), stats
    assert sys.argv[2] != "memory" or memory.history["i"] == list(range(100))
    assert sys.argv[2] != "subscriber" or sum(type(event).__name__ == "Metrics" for event in got) == 100
"""
LIBRARIES = [
    pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed"))
    for name in PATCH
]


def run_script(library: str, first: str, runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = {
        "patched first": PATCH[library] + SCRIPT,
        "imported first": "import asynctrack\n" + PATCH[library] + SCRIPT,
    }
    command = [sys.executable, "-c", script[first], str(runs), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("end", ["finish", pytest.param("the script's end", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["jsonl", "memory", "console", pytest.param("subscriber", marks=pytest.mark.slow)])
def test_runs_are_whole_under_green_threads(library: str, end: str, kind: str, own_host: Path, runs: Path) -> None:
    first = "patched first" if end == "finish" else "imported first"
    done = run_script(library, first, runs, kind, end, "process")
    assert (done.returncode, done.stderr) == (0, "")
    assert "i=99" in done.stdout or kind != "console"
    assert [record.data["i"] for record in open_run(runs / "p" / "a").records()] == list(range(100))
    assert open_run(runs / "p" / "a").status == "finished"


@pytest.mark.parametrize("library", LIBRARIES)
def test_worker_of_threads_is_refused_under_green_ones_with_what_to_do(
    library: str, own_host: Path, runs: Path
) -> None:
    done = run_script(library, "patched first", runs, "jsonl", "finish", "thread")
    assert done.returncode == 1
    assert f"{library} has put its own in their place" in done.stderr
    assert "use worker='process'" in done.stderr
    assert not list(runs.glob("p/*"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_we_say_is_said_under_green_threads(library: str, own_host: Path, runs: Path) -> None:
    script = PATCH[library] + (
        "import asynctrack, sys\nrun = asynctrack.init('p', dir=sys.argv[1])\nrun.log({'x': object()})\nrun.finish()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(runs)], capture_output=True, text=True, timeout=50)
    assert "the value of 'x' cannot be encoded" in done.stderr
