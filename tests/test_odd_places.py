"""Runs in directories with odd names, long paths, behind symlinks, and relative to a current directory that changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import assert_whole, manifest, run_child

import asynctrack
from asynctrack.errors import DirectoryNotWritable, RunIsRunning

pytestmark = pytest.mark.usefixtures("shared_host")

ODD = {
    "spaces": " a b ",
    "unicode": "läuft-実験-🚀",
    "a newline": "two\nlines",
    "a return": "a\rb",
    "quotes": "a'b\"c`$(d)`;e&f|g",
    "what a ring's text has": "root=False\nrun=else",
    "a percent sign": "%s%n%(name)s",
    "a dash": "-rf",
    "no text": os.fsdecode(b"\xff\xfe"),
    "two dots": "..odd",
    "a star": "[*?]",
    "a backslash": "a\\b",
}


@pytest.fixture(params=["process", "thread"])
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def log(run: asynctrack.Run, first: int = 0, count: int = 100) -> None:
    for i in range(first, first + count):
        assert run.log({"i": i})


@pytest.mark.system
@pytest.mark.parametrize("name", ODD)
def test_directory_of_any_name_holds_runs(runs: Path, name: str, worker: str) -> None:
    for first in (0, 100):
        run = asynctrack.init("p", id="run", dir=runs / ODD[name], worker=worker, resume="allow")
        log(run, first)
        assert run.finish().dropped == {}
    assert_whole(runs / ODD[name] / "p" / "run", {"i": 200})
    assert manifest(run.path)["status"] == "finished"


def test_caller_whose_own_name_is_no_text(runs: Path) -> None:
    run_child(
        """
import os, sys
import asynctrack

sys.argv.append(os.fsdecode(b"\\xff"))
with asynctrack.init("p", id="run", dir=sys.argv[1]) as run:
    run.log({"i": 0})
""",
        runs,
    )
    assert_whole(runs / "p" / "run", {"i": 1})


def deep(runs: Path, size: int) -> Path:
    """A directory whose path has so many bytes."""
    path = str(runs)
    while size - len(path) > 101:
        path += "/" + "d" * min(100, size - len(path) - 2)
    path += "/" + "e" * (size - len(path) - 1)
    assert len(path) == size
    return Path(path)


def test_run_in_a_directory_with_a_long_path(runs: Path, worker: str) -> None:
    with asynctrack.init("p", id="run", dir=deep(runs, 3800), worker=worker) as run:
        log(run)
    assert_whole(run.path, {"i": 100})


@pytest.mark.parametrize("size", [3900, 4000, 4080, 4090, 4095, 4200])
def test_path_that_is_too_long_is_told_by_init(runs: Path, size: int) -> None:
    directory = deep(runs, size)
    with pytest.raises(DirectoryNotWritable, match="File name too long"):
        asynctrack.init("p", id="run", dir=directory)


def test_relative_directory_is_that_of_the_call(
    runs: Path, tmp_path: Path, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = asynctrack.init("p", id="run", dir="runs", worker=worker)
    monkeypatch.chdir("elsewhere")
    log(run)
    run.finish()
    assert run.path == runs / "p" / "run"
    assert_whole(run.path, {"i": 100})
    assert not any(Path().iterdir())


def test_current_directory_that_was_removed_is_told(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DirectoryNotWritable, match="No such file or directory"):
        asynctrack.init("p", dir="runs")
    with asynctrack.init("p", id="run", dir=runs) as run:
        log(run)
    assert_whole(run.path, {"i": 100})


def test_directory_behind_a_symlink_holds_runs(runs: Path, tmp_path: Path, worker: str) -> None:
    runs.mkdir()
    (tmp_path / "link").symlink_to(runs)
    with asynctrack.init("p", id="run", dir=tmp_path / "link", worker=worker) as run:
        log(run)
    assert run.path == runs / "p" / "run"  # one name, however it is reached
    assert_whole(runs / "p" / "run", {"i": 100})


def test_run_that_is_open_under_another_name_is_not_opened_twice(
    runs: Path, tmp_path: Path, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrack.client.preparation._END_WAIT_S", 0.1)
    runs.mkdir()
    (tmp_path / "link").symlink_to(runs)
    run = asynctrack.init("p", id="run", dir=tmp_path / "link", worker=worker)
    log(run)
    run.flush()
    with pytest.raises(RunIsRunning):
        asynctrack.init("p", id="run", dir=runs, worker=worker, resume="allow")
    log(run, 100)
    run.finish()
    again = asynctrack.init("p", id="run", dir=runs, worker=worker, resume="allow")
    log(again, 200)
    again.finish()
    assert_whole(runs / "p" / "run", {"i": 300})
