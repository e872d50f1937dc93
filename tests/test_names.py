"""A run is known by its name too, on the command line and in Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import said_here

import asynctrack
from asynctrack.errors import AmbiguousRun, NoSuchRun, NotARun
from asynctrack.journal import safe_read
from asynctrack.reading import catalog


def make_run(folder: Path, run: str, name: str, second: int = 0) -> Path:
    """A run of which there is a `run.json` alone."""
    path = folder / run
    path.mkdir(parents=True)
    said = {
        "id": path.name,
        "name": name,
        "project": path.parent.name,
        "created_at": f"2026-11-30T03:00:{second:02}.000+00:00",
        "status": "finished",
    }
    (path / "run.json").write_text(json.dumps(said))
    return path


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Runs of several names."""
    names = {
        "p/20261130-a": "baseline",
        "p/20261130-b": "with more layers/2",
        "q/20261130-c": "twice",
        "q/20261130-d": "twice",
        "p/20261130-e": "twice",
        "q/night": "20261130-a",
        "q/night-2": "night-",
        "q/night-3": "night-3",
    }
    for second, (run, name) in enumerate(names.items()):
        make_run(tmp_path, run, name, second)
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("baseline", "p/20261130-a"),
        ("p/baseline", "p/20261130-a"),
        ("with more layers/2", "p/20261130-b"),
        ("p/with more layers/2", "p/20261130-b"),
        ("p/twice", "p/20261130-e"),
        ("20261130-a", "p/20261130-a"),  # an id goes before a name
        ("q/20261130-a", "q/night"),
        ("night", "q/night"),
        ("night-", "q/night-2"),  # the beginning of two ids, and the name of one run
    ],
)
def test_run_is_found_by_its_name(named: Path, wanted: str, found: str) -> None:
    assert catalog.find(wanted, named) == named / found


@pytest.mark.parametrize("wanted", ["", "base", "q/baseline", "Baseline", "with more layers", "p/", "twice/"])
def test_name_counts_as_a_whole(named: Path, wanted: str) -> None:
    with pytest.raises((NoSuchRun, AmbiguousRun)):
        catalog.find(wanted, named)


def test_several_runs_of_one_name_are_listed_the_newest_first(named: Path) -> None:
    with pytest.raises(AmbiguousRun, match="'twice' is the name of 3 runs; give the id") as raised:
        catalog.find("twice", named)
    assert raised.value.candidates == ("p/20261130-e", "q/20261130-d", "q/20261130-c")
    assert "p/20261130-e of 2026-11-" in str(raised.value)
    with pytest.raises(AmbiguousRun, match="is the name of 2 runs"):
        catalog.find("q/twice", named)


def test_wrong_name_is_told_with_those_like_it(named: Path) -> None:
    with pytest.raises(NoSuchRun, match=r"did you mean 'baseline' \(p/20261130-a\)"):
        catalog.find("baselin", named)
    assert "did you mean 'baseline' (p/20261130-a)" in said_here("show", "baselin", "--dir", named).stderr


def test_names_are_read_only_where_no_id_fits(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    content = safe_read.read
    monkeypatch.setattr(safe_read, "read", lambda path: read.append(path) or content(path))  # type: ignore[func-returns-value]
    for wanted in ("20261130-a", "night", "q/night-3", "p/20261130-b"):
        catalog.find(wanted, named)
    assert read == []


def test_runs_whose_name_cannot_be_read_have_none(named: Path) -> None:
    for run, content in (("p/odd", "[1]"), ("p/torn", '{"name": "base'), ("p/other", '{"name": 3}'), ("p/none", "{}")):
        (named / run).mkdir()
        (named / run / "run.json").write_text(content)
    (named / "p" / "bare" / "journal").mkdir(parents=True)
    assert catalog.find("baseline", named) == named / "p" / "20261130-a"


@pytest.fixture
def first(own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in the default directory."""
    monkeypatch.chdir(tmp_path)
    with asynctrack.init("p", id="first", name="the first", backends=[]) as run:
        run.log({"loss": 1})
    return run.path


@pytest.mark.parametrize(
    "given", ["latest", "first", "fir", "p/first", "the first", "p/the first", "asynctrack_runs/p/first"]
)
def test_open_run_takes_what_the_command_line_takes(first: Path, given: str) -> None:
    assert asynctrack.open_run(given).id == "first"
    elsewhere = first.parent.parent.rename("elsewhere")
    assert asynctrack.open_run(given.replace("asynctrack_runs", "elsewhere"), dir=elsewhere).id == "first"
    assert asynctrack.open_run(given.replace("asynctrack_runs", "elsewhere"), dir="elsewhere").id == "first"


def test_path_goes_before_an_id(first: Path) -> None:
    make_run(Path(), "first", "another")
    assert asynctrack.open_run("first").manifest().name == "another"
    assert asynctrack.open_run(first).manifest().name == "the first"


def test_open_run_says_what_it_looked_for(first: Path) -> None:
    with pytest.raises(NotARun, match=r"no id and no name fits 'frist'; did you mean p/first\?"):
        asynctrack.open_run("frist")
    with pytest.raises(NotARun, match=r"is not a run: it has neither a journal/ nor a run\.json; see"):
        asynctrack.open_run(Path("first"))
    with pytest.raises(NotARun, match="in nowhere there is no run"):
        asynctrack.open_run("latest", dir="nowhere")
    make_run(Path("asynctrack_runs"), "p/fist", "the first")
    with pytest.raises(AmbiguousRun, match="is the name of 2 runs"):
        asynctrack.open_run("the first")
    with pytest.raises(AmbiguousRun, match="fits 2 runs"):
        asynctrack.open_run("fi")
