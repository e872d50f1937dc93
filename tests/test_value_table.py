"""The tables of `docs/reference/values.md` are what the project does, row by row; rows of libraries that are not installed are skipped, and said."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import value_table

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "values.md"


def rows(head: str) -> list[list[str]]:
    """The rows of the page's table that begins with this name."""
    text = PAGE.read_text()
    lines = text[text.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [
        [part.strip().replace("\\|", "|") for part in line.strip("|").replace("\\|", "\0").split("|")] for line in lines
    ]


@functools.cache
def kinds() -> list[list[str]]:
    return value_table.kind_rows()


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")  # what libraries have to say of each other when they are imported
@pytest.mark.parametrize(("library", "expression"), value_table.LOGGED, ids=[row[1][:40] for row in value_table.LOGGED])
def test_value_becomes_what_the_page_says(library: str, expression: str) -> None:
    if library:
        pytest.importorskip(library)
    made = value_table.logged_row(library, expression)
    assert made in rows("Logged"), (
        f"docs/reference/values.md needs: | {' | '.join(made)} |; python tests/value_table.py prints all of it"
    )


def test_page_has_no_value_that_is_not_looked_at() -> None:
    assert [row[0] for row in rows("Logged")] == [f"`{expression}`" for _, expression in value_table.LOGGED]


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, _ in value_table.KINDS])
def test_kind_is_in_each_reader_and_backend_what_the_page_says(name: str) -> None:
    for library in ("numpy", "pandas", "polars", "pyarrow", "tensorboard", "sqlalchemy", "wandb"):
        pytest.importorskip(library)
    (made,) = (row for row in kinds() if row[0] == name)
    (told,) = (row for row in rows("Kind") if row[0] == name)
    assert dict(zip(value_table.READERS, told, strict=True)) == dict(zip(value_table.READERS, made, strict=True))
