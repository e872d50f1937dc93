"""Documents: their links and paths lead somewhere, the map has all rooms and records, and the contributor's backend works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
from test_house import ORDER, ROOT

from asynctrack import cli
from asynctrack.errors import RunExists, SharedMemoryUnavailable

DOCUMENTS: Final = [
    *sorted(ROOT.glob("*.md")),
    *sorted(set((ROOT / "docs").rglob("*.md")) - set((ROOT / "docs" / "_build").rglob("*.md"))),
    *sorted((ROOT / "tests").glob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]
DECISIONS: Final = sorted(
    set((ROOT / "docs" / "explanation" / "decisions").glob("*.md"))
    - {ROOT / "docs" / "explanation" / "decisions" / "index.md"}
)
# Of Keep a Changelog, in its order.
SECTIONS: Final = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", path.read_text(), flags=re.M | re.S)


def headings(path: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", prose(path), re.M)


def anchor(heading: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (heading and heading not in map(anchor, headings(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_path_in_code_style_is_there(document: Path) -> None:
    paths = re.findall(r"`((?:tests|bench|docs|examples|\.ci|\.github)/[\w./-]+)`", prose(document))
    paths += re.findall(r"`(asynctrack/[\w./-]*(?:\.py|/))`", prose(document))  # without them it may be a metric
    assert [path for path in paths if not (ROOT / path).exists()] == []


NAMED_TESTS: Final = [
    (document, name, file)
    for document in DOCUMENTS
    for name, file in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", prose(document))
]


def test_every_test_that_a_document_names_is_there() -> None:
    missing = [
        f"{name(document)}: {file}::{test}"
        for document, test, file in NAMED_TESTS
        if not re.search(rf"^ *(async )?def {test}\(", (document.parent / file).read_text(), re.M)
    ]
    assert missing == []


def test_every_guarantee_names_a_test() -> None:
    """Of the tables' rows; one says that it has none, and the short one and the secrets have no column for it."""
    page = ROOT / "docs" / "explanation" / "guarantees.md"
    rows = [
        row for row in re.findall(r"^\| .* \|$", prose(page), re.M) if row.count(" | ") in (2, 3) and "---" not in row
    ]
    without = [row for row in rows if "test_" not in row and "Shown by" not in row]
    assert len(rows) > 50
    assert [row for row in without if "not by a test of its own" not in row] == []


def test_the_readme_is_short_and_has_every_extra() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200
    rows = re.findall(r"^\| (`.*`) \| ", readme[: readme.index("## Log")], re.M)
    listed = {extra for row in rows for extra in re.findall(r"`(\w+)`", row)}
    assert listed == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_the_five_numbers_are_those_of_the_results() -> None:
    bars = {
        bar["what"]: bar["seen"]
        for benchmark in ("log_latency", "hot_loop", "startup")
        for bar in json.loads((ROOT / "bench" / "results" / f"{benchmark}.json").read_text())["bars"]
    }
    tight, loop = "tight loop, {} at the machine's faster speed", "{} loop: slow-down"
    p50, p999 = (bars[tight.format(part)].split()[0] for part in ("p50", "p99.9"))
    numpy, python = (
        next(seen for what, seen in bars.items() if what.startswith(loop.format(kind)))
        for kind in ("NumPy", "pure Python")
    )
    imports, first = bars["the statement 'import asynctrack', median"], bars["init, first, worker='process', median"]
    wanted = [
        f"{float(p50):.2f} us",
        f"{float(p999):.1f} us",
        f"{float(numpy.split()[0]):.1f} % (NumPy), {float(python.split()[0]):.1f} % (pure Python)",
        f"{float(imports.split()[0]):.0f} ms, {float(first.split()[0]):.0f} ms",
    ]
    for page in (ROOT / "README.md", ROOT / "docs" / "explanation" / "performance.md"):
        assert [figure for figure in wanted if figure not in page.read_text()] == []


def pages_named_by_code() -> dict[str, set[str]]:
    """Find the pages that messages name: what is given to `see` and `page`, the `page` of errors, and what is written out."""
    named = r"""\b(?:see|page)\(['"]([^'"]+)['"]\)|^ +page = "([^"]+)"|\bdocs/([\w/]+\.md(?:#[\w-]+)?)"""
    found: dict[str, set[str]] = {f"asynctrack {command}": {page} for command, page in cli.PAGES.items()}
    for path in (ROOT / "asynctrack").rglob("*.py"):
        if pages := {"".join(parts) for parts in re.findall(named, path.read_text(), re.M)}:
            found[name(path)] = pages
    return found


def test_every_page_that_the_code_names_is_there() -> None:
    found = pages_named_by_code()
    assert {
        "asynctrack/errors.py",
        "asynctrack/client/final_report.py",
        "asynctrack/cli/commands/ls.py",
    } <= found.keys()
    for place, pages in found.items():
        for page in pages:
            path, _, heading = page.partition("#")
            assert (ROOT / "docs" / path).is_file(), f"{place} names docs/{page}"
            assert not heading or heading in map(anchor, headings(ROOT / "docs" / path)), f"{place} names docs/{page}"


def test_help_and_errors_end_with_the_page_where_more_stands() -> None:
    assert cli.PAGES.keys() == cli.COMMANDS.keys()
    assert str(RunExists("a", "runs/a")).endswith("to get a new one; see docs/tutorial/resume.md")
    assert str(SharedMemoryUnavailable(["/dev/shm"], OSError(28, "full"))).endswith("#a-small-devshm")
    shown = subprocess.run([sys.executable, "-m", "asynctrack", "sync", "--help"], capture_output=True, text=True)
    assert shown.stdout.endswith("more: docs/how_to/offline_and_sync.md\n")


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# A thing's `name`\n\n[good](a.md#a-things-name) and [bad](a.md#another)\n")
    with pytest.raises(AssertionError, match="another"):
        test_every_link_leads_to_a_file_and_a_heading(document)


def test_the_map_has_every_room_in_the_order_of_the_house() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "DESIGN.md").read_text(), re.M)
    rooms = [room.strip("/") for row in rows for room in re.findall(r"`([\w/]+)`", row)]
    assert rooms == ORDER


def test_the_map_names_only_what_is_there() -> None:
    text = (ROOT / "DESIGN.md").read_text()
    has_c = (ROOT / "asynctrack" / "_native").is_dir()  # a wheel has no sources in C
    for path in re.findall(r"`(\w+/[\w/]+\.(?:py|c))`", text):
        assert (ROOT / path).is_file() or (path.endswith(".c") and not has_c), f"DESIGN.md names {path}"
    duties = re.findall(r"^\| `(\w+)/` \| (.*?) \|", text, re.M)
    assert len(duties) >= 10
    for room, duty in duties:
        for name in re.findall(r"`(\w+/?)`", duty):
            found = ROOT / "asynctrack" / room / name
            assert found.is_dir() if name.endswith("/") else found.with_suffix(".py").is_file(), (
                f"{room}/ has no {name}"
            )


def test_the_index_of_decisions_lists_every_record() -> None:
    index = ROOT / "docs" / "explanation" / "decisions" / "index.md"
    listed = re.findall(r"\]\((\w+\.md#[^)]+)\)", prose(index))
    there = [f"{file.name}#{anchor(heading)}" for file in DECISIONS for heading in headings(file)[1:]]
    assert sorted(listed) == sorted(there)
    assert len(there) > 50


def test_the_glossary_has_few_terms_and_a_line_for_each() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| (.*) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)[1:]
    assert 20 <= len(rows) <= 25
    assert [term for term, meaning in rows if not meaning.endswith(".")] == []


@pytest.mark.parametrize("file", DECISIONS, ids=name)
def test_every_record_says_what_was_decided_or_measured(file: Path) -> None:
    _, *records = re.split(r"^## ", file.read_text(), flags=re.M)
    assert records
    says = re.compile(r"^- \*\*(Decision|Measured)\*\*: |^\| ", re.M)
    assert [record.partition("\n")[0] for record in records if not says.search(record)] == []


def test_the_changelog_has_the_sections_of_keep_a_changelog() -> None:
    titles = re.findall(r"^## (.*)$", prose(ROOT / "CHANGELOG.md"), re.M)
    assert titles[0] == "Unreleased"
    for version in re.split(r"^## ", prose(ROOT / "CHANGELOG.md"), flags=re.M)[1:]:
        found = re.findall(r"^### (.*)$", version, re.M)
        assert found and found == [section for section in SECTIONS if section in found]
