"""The pages of the backends have every backend, and every setting of each."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest

import asynctrack
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import KINDS

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference" / "backends"
CLASSES = {kind: getattr(asynctrack, path.rpartition(".")[2]) for kind, path in KINDS.items()}
# Their fields are what they have kept, and no settings.
WITHOUT_SETTINGS = {"memory", "yaml"}

sys.path.append(str(ROOT / "docs" / "_ext"))
from backend_settings import COMMON, settings_table  # noqa: E402


def index_row(kind: str) -> list[str]:
    (row,) = re.findall(rf"^\| \[`\w+`\]\([^)]+\) \| `{kind}` \| .*$", (PAGES / "index.md").read_text(), re.M)
    return [cell.strip() for cell in row.strip("|").split("|")]


def shown(name: str) -> list[str]:
    """The names of the settings in the table of a class."""
    return re.findall(r"^\| `(\w+)` \|", settings_table(name), re.M)


@pytest.mark.parametrize("kind", KINDS)
def test_index_says_the_class_the_extra_and_where_it_runs(kind: str) -> None:
    backend = CLASSES[kind]
    name, _, extra, runs, *_ = index_row(kind)
    assert f"[`{backend.__name__}`]" in name
    for argument in backend.needs.values():
        assert argument.removeprefix("asynctrack[").removesuffix("]") in extra
    if isinstance(backend.execution, str):
        assert {"worker": "worker", "process": "a process of its own", "caller": "caller"}[backend.execution] in runs


def test_every_backend_shows_its_settings_on_one_page() -> None:
    found = re.findall(
        r"^```\{backend-settings\} (\w+)$", "\n".join(page.read_text() for page in PAGES.glob("*.md")), re.M
    )
    wanted = {backend.__name__ for kind, backend in CLASSES.items() if kind not in WITHOUT_SETTINGS} | {"Backend"}
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT_SETTINGS))
def test_every_setting_is_in_the_table_with_its_meaning(kind: str) -> None:
    backend: type[Backend] = CLASSES[kind]
    own = {field.name for field in msgspec.structs.fields(backend)} - {*COMMON, "references", "display", "watched"}
    assert own <= set(shown(backend.__name__))
    assert not re.search(r"\|  \|$", settings_table(backend.__name__), re.M)


def test_settings_of_all_backends_are_on_the_first_page_only() -> None:
    assert shown("Backend") == list(COMMON)
    assert set(shown("CSV")) == {"folder"}
    assert "stall_timeout_s" in shown("Parquet"), "where another default holds, it is shown again"
