"""The table of what can go wrong quotes what is printed: its rows are made to happen in processes of their own, and compared."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import DEADLINE_S

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "how_to" / "troubles.md"

# What is said when it happens, by what the table calls it. Each prints the error, or ends as its user's script would.
ERRORS = {
    "An argument has a wrong name": "init(on_full='block')",
    "A setting has a wrong name": "init(settings={'on_full': 'block'})",
    "A backend has a wrong name": "init(backends=['jsnl'])",
    "MLflow has no address": "init(backends=['mlflow'])",
    "The id is taken": "init(id=ended.id)",
    "The run to resume is open here": "init(id='open', resume='must')",
    "The run to resume is open elsewhere": "elsewhere()",
    "The run to resume is not there": "init(id='nowhere', resume='must')",
    "`log()` comes after the end": "ended.log({'a': 1})",
    "`log()` gets no mapping": "run.log(5)",
    "A process attaches to a run that has ended": "asynctrack.attach(ended.path)",
    "Runs cannot be written there": "init(dir=__import__('sys').executable)",
}
CALLS = """
import contextlib, os, pickle, subprocess, sys
ended = init()
ended.finish()
run = init(id="open")
def elsewhere():
    code = "import asynctrack, sys; asynctrack.init('p', dir=sys.argv[1], id='open', resume='must')"
    said = subprocess.run([sys.executable, "-c", code, sys.argv[1]], capture_output=True, text=True).stderr
    raise RuntimeError(said.splitlines()[-1])
os.environ.pop("MLFLOW_TRACKING_URI", None)
for call in ERRORS:
    try:
        exec(call)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        print(" ".join(text.split()).removeprefix("RuntimeError: asynctrack.errors."), file=sys.stderr)
"""
SCRIPTS = {
    "A backend's library is missing": """
sys.modules["trackio"] = None
run = init(backends=["trackio"], exit_timeout_s=0.1)
""",
    "A run ends, and a server is still away": """
run = init(backends=[asynctrack.Visdom(server_url="http://127.0.0.1:1")], finish_timeout_s=0.1)
run.log({"a": 1}), run.log({"a": 2})
while not run.stats().backends["visdom"].last_error:
    time.sleep(0.01)
run.finish()
""",
    "Your own backend raises ten times at the same line": """
class Sink:
    def write(self, batch):
        raise KeyError("loss")
    def checkpoint(self):
        return {}
    def close(self, outcome):
        pass
class Mine(asynctrack.Backend):
    def open(self, context):
        return Sink()
run = init(backends=[Mine()], exit_timeout_s=3)
run.log({"a": 1})
while not run.stats().backends["Mine"].paused:
    time.sleep(0.01)
""",
    "A run ends, and its directory is still removed": """
run = init(finish_timeout_s=0.1)
run.log({"a": 0})
run.flush()
shutil.rmtree(run.path)
while not run._session.publisher.queue.trouble():
    run.log({"a": 1})
    time.sleep(0.01)
run.log({"a": 2}), run.log({"a": 3})
run.finish()
""",
    "The worker is killed": """
run = init()
run.log({"a": 1})
run.flush()
os.kill(run._session.publisher.producer.ring.words[WORKER_PID], signal.SIGKILL)
run.finish()
""",
    "A run ends, and records were dropped": """
run = init(queue_bytes=4096)
run.log({"a": "x" * 5000}), run.log({"a": "x" * 5000})
while run.log({"a": "x" * 1000}):
    pass
while sum(run.log({"a": "x" * 1000}) for _ in range(100)) > 98:
    pass
""",
    "A value cannot be recorded": """
run = init()
run.log({"a": object(), "b": run.log})
""",
    "`ASYNCTRACK_SHM` names no directory": """
os.environ["ASYNCTRACK_SHM"] = "/proc/nowhere"
init()
""",
}
# Several rows are seen at once.
WITH = {
    "Your own backend raises": "Your own backend raises ten times at the same line",
    "A run ends, and your own backend has not got everything": "Your own backend raises ten times at the same line",
    "A record is too large": "A run ends, and records were dropped",
    "The loop logs more than the worker writes": "A run ends, and records were dropped",
}
PRELUDE = """
import os, shutil, signal, sys, time
import asynctrack
from asynctrack.queue.layout import WORKER_PID
init = lambda **given: asynctrack.init("p", **{"dir": sys.argv[1], **given})
"""


def rows() -> dict[str, str]:
    """What is printed, by what happens."""
    cells = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in TABLE.read_text().splitlines() if line.startswith("| ")]  # fmt: skip
    assert all(len(row) == 4 for row in cells), [row for row in cells if len(row) != 4]
    return {what: said for what, said, _, _ in cells if not what.startswith(("What happens", "---"))}


def quoted(what: str) -> re.Pattern[str]:
    """The line that the table quotes; words in capitals stand for anything."""
    found = re.match(r"``(.+?) ?``(?!`)", rows()[what])
    assert found, rows()[what]
    parts = re.split(r"\b(?:N|NAME|NAMES|PATH|WHY|ID|URL|RUN|CLASS|FOLDER)\b", found[1])
    return re.compile(".+".join(map(re.escape, parts)))


def manifest_of(tmp_path: Path, script: str) -> str:
    file = tmp_path / "script.py"
    file.write_text(PRELUDE + script)
    command = [sys.executable, str(file), str(tmp_path / "runs")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * DEADLINE_S).stderr


@pytest.mark.system
def test_errors_of_calls_are_as_the_table_has_them(own_host: Path, tmp_path: Path) -> None:
    said = manifest_of(tmp_path, f"ERRORS = {list(ERRORS.values())!r}\n{CALLS}").splitlines()
    said = [line for line in said if re.match(r"[A-Z]\w+: ", line)]
    assert len(said) == len(ERRORS), said
    for what, line in zip(ERRORS, said, strict=True):
        assert quoted(what).search(line), (what, line)


@pytest.mark.system
@pytest.mark.parametrize("trouble", SCRIPTS)
def test_lines_of_a_run_are_as_the_table_has_them(rough_host: Path, tmp_path: Path, trouble: str) -> None:
    said = manifest_of(tmp_path, SCRIPTS[trouble])
    for what in (trouble, *(row for row, script in WITH.items() if script == trouble)):
        assert len(quoted(what).findall(said)) == 1, (what, said)
