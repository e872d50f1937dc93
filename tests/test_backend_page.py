"""The backends that the documents show keep the contract, each with the test that stands beside it there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
# Of a page: its files, the test last, and what pytest says of them.
PAGES: Final = {
    "docs/how_to/write_a_backend.md": (["webhook.py", "test_webhook.py"], r"\b18 passed"),  # as the page says
}


def files(page: str) -> dict[str, str]:
    text = (ROOT / page).read_text()
    return dict(re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", text, re.M | re.S))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_has_the_backend_and_its_test(page: str) -> None:
    assert sorted(files(page)) == sorted(PAGES[page][0])


@pytest.mark.system
@pytest.mark.timeout(200)  # the whole contract, in a pytest of its own: 8 s alone, 29 s at a load of 11 on two cores
@pytest.mark.parametrize("page", PAGES)
def test_the_backend_of_the_page_keeps_the_contract(page: str, tmp_path: Path) -> None:
    names, passed = PAGES[page]
    for name, text in files(page).items():
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # warnings are errors there, too
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", names[-1]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout
    assert re.search(passed, done.stdout), done.stdout
