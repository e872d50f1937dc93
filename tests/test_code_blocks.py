"""Each code block of the README and of the documents runs alone, as a reader would run it, and prints what its page says."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Final

import pytest
from code_blocks import CodeBlock, code_blocks, run
from test_house import ROOT

PAGES: Final = [
    ROOT / "README.md",
    *sorted(set((ROOT / "docs").rglob("*.md")) - set((ROOT / "docs" / "_build").rglob("*.md"))),
]
BLOCKS: Final = [block for page in PAGES for block in code_blocks(page)]
# The first pages that a newcomer reads are tried by default, the others as `system`.
FIRST: Final = {"README.md", "first_run.md"}


def ids(block: CodeBlock) -> str:
    return f"{block.page.relative_to(ROOT)}:{block.line}"


def missing(block: CodeBlock) -> list[str]:
    """The libraries that a block imports and that are not here."""
    return sorted(name for name in block.imports() if not _is_here(name) and f"{name}.py" not in dict(block.files))


def _is_here(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=ids(block), marks=[] if block.page.name in FIRST else [pytest.mark.system])
        for block in BLOCKS
        if block.not_run is None
    ],
)
def test_block_runs_alone_and_prints_what_its_page_says(block: CodeBlock, tmp_path: Path) -> None:
    if lacking := missing(block):
        assert "pip install" in block.page.read_text(), f"the page must say how to get {lacking}"
        pytest.skip(f"needs {', '.join(lacking)}")
    assert run(block, sys.executable, tmp_path).problem == ""


def test_a_block_that_is_not_run_says_why_and_is_python() -> None:
    for block in BLOCKS:
        ast.parse(block.text, ids(block))
        assert block.not_run is None or len(block.not_run) > 5, ids(block)


def test_a_block_that_fails_or_prints_something_else_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- file: helper.py -->\n```python\nX = 1\n```\n\n```python\nimport helper\n```\n\n<!-- file: data.txt -->\n```text\n7\n```\n\n```python\nprint(open('data.txt').read(), end='')\n```\n\n<!-- prints -->\n```text\n8\n```\n\n"
        "```python\nraise SystemExit(3)\n```\n\n<!-- not run: it needs a key -->\n```python\nimport nothing\n```\n"
    )
    helped, other, failing, unrun = code_blocks(page)
    assert missing(helped) == []
    assert "it prints\n7" in run(other, sys.executable, tmp_path).problem
    assert run(other._replace(prints="7\n"), sys.executable, tmp_path).problem == ""
    assert "exit code 3" in run(failing, sys.executable, tmp_path).problem
    assert unrun.not_run == "it needs a key"
    assert missing(unrun) == ["nothing"]
