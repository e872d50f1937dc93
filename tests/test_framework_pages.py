"""The pages of frameworks: each has the script of `examples/` as it is, and each drop-in has a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ROOT / "docs" / "how_to" / "frameworks"
# A page may be named after what its reader has, not after our module.
MODULES: Final = {"tensorboard_scripts": "tensorboard"}
_BLOCK: Final = re.compile(r"^<!-- example: (\S+) -->\n(?:<!-- not run: [^\n]+ -->\n)?```\w+\n(.*?)^```$", re.M | re.S)


def pages() -> list[str]:
    return sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "index")


def files_of(page: str) -> list[tuple[str, str]]:
    """The files that a page shows: their names, and their text as the page has it."""
    return _BLOCK.findall((PAGES / f"{page}.md").read_text())


@pytest.mark.parametrize("page", pages())
def test_the_script_of_a_page_is_that_of_the_examples(page: str) -> None:
    shown = files_of(page)
    assert shown, "a page shows a file of examples/, behind <!-- example: NAME -->"
    assert [name for name, text in shown if (ROOT / name).read_text() != text] == []


@pytest.mark.parametrize("page", pages())
def test_a_page_imports_the_module_that_it_is_about(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text()
    assert f"asynctrack.integrations.{MODULES.get(page, page)}" in text


def test_every_drop_in_has_a_page_that_the_index_lists() -> None:
    index = (PAGES / "index.md").read_text()
    assert sorted(re.findall(r"^\| \[[^\]]+\]\((\w+)\.md\)", index, re.M)) == pages()
    modules = {MODULES.get(page, page) for page in pages()}
    defined = {
        path.stem.removesuffix("_base")
        for path in (ROOT / "asynctrack" / "integrations").glob("*.py")
        if is_drop_in(path)
    }
    assert modules == defined


def is_drop_in(path: Path) -> bool:
    return re.search(r"^class (?:Async\w+|SummaryWriter)\b", path.read_text(), re.M) is not None


def test_every_example_of_a_framework_is_on_a_page() -> None:
    shown = {name for page in pages() for name, _ in files_of(page)}
    used = {
        f"examples/{path.name}"
        for path in (ROOT / "examples").iterdir()
        if path.is_file() and "asynctrack.integrations" in path.read_text()
    }
    assert shown == used
