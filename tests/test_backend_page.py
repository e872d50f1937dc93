"""The backend on the page "Write a backend" keeps the contract, with the test that stands beside it there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "how_to" / "write_a_backend.md"


def files() -> dict[str, str]:
    return dict(re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def test_the_page_has_the_backend_and_its_test() -> None:
    assert list(files()) == ["webhook.py", "test_webhook.py"]


@pytest.mark.system
@pytest.mark.timeout(200)  # the whole contract, in a pytest of its own: 8 s alone, 12 s at a load of 14 on two cores
def test_the_backend_of_the_page_keeps_the_contract(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # warnings are errors there, too
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "test_webhook.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b16 passed", done.stdout), done.stdout  # as the page says
