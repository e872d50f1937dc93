"""What a run is called, where it lies, how it is opened beside others, and what is said of that."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import pty
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DEADLINE_S, manifest, values, wait_until

import asynctrack
from asynctrack import Image, Run, TensorBoard, Tracker
from asynctrack.cli import main
from asynctrack.errors import DirectoryNotWritable, InvalidRunId, SharedMemoryUnavailable
from asynctrack.integrations.naming import directory_name, project_name
from asynctrack.settings import project_directory

pytestmark = pytest.mark.usefixtures("shared_host")

NAMES = [
    "größe", "α-sweep", "实验 1", "lr=0.1 (seed 3) + more", "a+b", "caf\udce9", "-x", " lead", "n,o;t'e\"s", "per%cent", "back\\slash",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, from another current directory."""
    path, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    path.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.chdir(elsewhere)
    return path


# Names


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
def test_a_project_is_called_as_it_was_given_and_has_a_directory_of_its_own(
    runs: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with asynctrack.init(name, id="one", dir=runs, backends=["jsonl", "tensorboard"]) as run:
        run.log({"x": 1})
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert (run.project, manifest(run.path)["project"]) == (shown, shown)
    (directory,) = runs.iterdir()
    assert directory.name.isascii()
    assert set(directory.name) & set("/\\()+=*?'\"\n") == set()
    assert main(["ls", str(runs)]) == 0
    assert f"{shown}/one" in capsys.readouterr().out
    assert main(["ls", str(runs), f"--project={shown}"]) == 0
    assert f"{shown}/one" in capsys.readouterr().out
    assert main(["show", f"--dir={runs}", "--", f"{shown}/one"]) == 0
    with asynctrack.init(name, id="one", dir=runs, resume="must") as run:
        run.log({"x": 2})
    assert values(run.path, "x") == [1, 2]


def test_no_two_projects_have_one_directory() -> None:
    alike = ["größe", "gr__e", "gr_ße", "gröfe", "a+b", "a=b", "a_b", "a(b", *("x" * n + "ö" for n in (126, 127))]
    alike += [project_directory(name) for name in alike]  # whoever takes another's directory for a name
    assert len({project_directory(name) for name in alike if "~" not in name}) == len(
        set(alike) - {n for n in alike if "~" in n}
    )
    assert project_directory("a+b") != project_directory(project_directory("a+b"))
    assert all(len(project_directory(name)) <= 128 for name in alike)


def test_what_frameworks_call_things_becomes_names_that_differ() -> None:
    for make in (project_name, directory_name):
        names = ["a/b", "a_b", "a//b", "../a", ".a", "", "x" * 300, "x" * 301, "latest", "-a", "caf\udce9"]
        assert len({make(name) for name in names}) == len(names)
        assert make("plain 1.0") == "plain 1.0"
    assert project_name("größe (1)") == "größe (1)"


@pytest.mark.parametrize("id", ["latest", "-x", "--all", "-", " x"])
def test_an_id_that_the_command_line_reads_otherwise_is_refused(runs: Path, id: str) -> None:
    with pytest.raises(InvalidRunId, match=r"not starting with .* and not 'latest', which is the newest run; got"):
        asynctrack.init("p", id=id, dir=runs)
    assert not runs.exists()


@pytest.mark.parametrize("what", ["name", "id", "project", "group", "notes"])
def test_a_name_may_be_a_text_of_another_library(runs: Path, what: str) -> None:
    run = asynctrack.init(**{"project": "p", "dir": runs, "backends": [], what: np.str_("text")})
    run.finish()
    found = asynctrack.open_run(run.path).manifest()
    assert "text" in (found.name, found.id, found.project, *found.labels.values())


def test_a_long_name_does_not_widen_the_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asynctrack.init("p", name="n" * 3000, dir=runs).finish()
    main(["ls", str(runs)])
    assert max(map(len, capsys.readouterr().out.splitlines())) < 200
    main(["ls", str(runs), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["name"] == "n" * 3000


# Paths


def test_a_path_that_begins_at_home_is_one_at_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "p.png").write_bytes(b"\x89PNG")
    (home / "files").mkdir()
    (home / "files" / "f.txt").write_text("content")
    board = TensorBoard(dir="~/board")
    with asynctrack.init("p", id="run", dir="~/runs", backends=["jsonl", board]) as run:
        run.log({"x": 1, "picture": Image("~/p.png"), "files": asynctrack.Artifact("m", path="~/files")})
    assert run.path == home / "runs" / "p" / "run"
    assert len([file for file in run.path.glob("media/**/*") if file.is_file()]) == 2
    (home / "tracker.json").write_text('{"project": "p", "dir": "~/runs", "config": {"a": 1}}')
    for tracker in (Tracker("p", dir=Path("~/runs")), Tracker.from_config("~/tracker.json")):
        assert tracker.init().path.parent == home / "runs" / "p"
        tracker.finish()
    assert len(asynctrack.open_run("~/runs/p/run").columns()["x"].values) == 1
    assert asynctrack.load_metrics("~/runs/p/run")[""][1]["x"] == [1.0]
    for arguments in (
        ["ls", "~/runs"],
        ["show", "~/runs/p/run"],
        ["show", "run", "--dir", "~/runs"],
        ["export", "run", "--dir=~/runs", "--format=csv", "--output=~/out.csv"],
        ["sync", "~/runs"],
        ["verify", "~/runs/p/run"],
        ["rm", "run", "--dir=~/runs", "--yes"],
    ):
        assert main(arguments) == 0, arguments
    capsys.readouterr()
    assert (home / "out.csv").exists()
    assert not (home / "runs" / "p" / "run").exists()
    assert list(home.glob("board/**/events*"))
    assert list(Path.cwd().iterdir()) == []


# One run, and its end


@pytest.mark.parametrize(
    ("finish", "status"),
    [
        (lambda run: run.finish(exit_code=0), "finished"),
        (lambda run: run.finish(exit_code=1), "failed"),
        (lambda run: run.finish(exit_code=True), "failed"),
        (lambda run: run.finish(exit_code=np.int64(3)), "failed"),
        (lambda run: run.finish(exit_code=2), "failed"),
        (lambda run: run.finish({"a": 1}, 2), "failed"),
        (lambda run: asyncio.run(run.afinish(exit_code=1)), "failed"),
        (lambda run: asynctrack.finish(exit_code=1), "failed"),
    ],
)
def test_an_exit_code_other_than_0_is_a_failure(runs: Path, finish: Callable[[Run], Any], status: str) -> None:
    run = asynctrack.init("p", dir=runs)
    run.log({"x": 1})
    assert finish(run).journaled == 1
    assert asynctrack.open_run(run.path).status == status


def test_a_tracker_takes_an_exit_code_too(runs: Path) -> None:
    tracker = Tracker("p", dir=runs)
    path = tracker.init().path
    tracker.finish(exit_code=1)
    assert asynctrack.open_run(path).status == "failed"


def test_a_copy_of_what_holds_a_run_holds_the_same_run(runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        assert copy.deepcopy({"run": run})["run"] is run is copy.copy(run)
        scope = copy.deepcopy(run.scope("train"))
        scope.log({"x": 1})
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(run, protocol)) is run
    assert values(run.path, "x") == []
    assert asynctrack.open_run(run.path).columns()["train/x"].values == [1]


@pytest.mark.parametrize("worker", ["process", "thread"])
def test_runs_that_have_finished_keep_no_file_open(runs: Path, worker: Any) -> None:
    kept = [asynctrack.init("p", dir=runs, worker=worker)]
    kept[0].finish()
    before = len(os.listdir("/proc/self/fd"))
    for i in range(10):
        kept.append(asynctrack.init("p", dir=runs, worker=worker))
        kept[-1].log({"i": i})
        kept[-1].finish()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert [run.stats().journaled for run in kept[1:]] == [1] * 10
    assert "finished, 1 offered" in repr(kept[-1])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_that_keeps_three_thousand_runs_works(own_host: Path, runs: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        kept = []
        for i in range(3000):
            run = asynctrack.init("p", dir=runs, backends=[], queue_bytes=4096)
            run.log({"i": i})
            run.finish()
            kept.append(run)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sum(run.stats().journaled for run in kept) == 3000


def test_too_many_open_files_are_called_that(runs: Path) -> None:
    script = """
import asynctrack, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
runs = []
try:
    while len(runs) < 100:
        runs.append(asynctrack.init("p", dir=sys.argv[1], backends=[]))
except OSError as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", script, str(runs)], capture_output=True, text=True, timeout=60).stdout
    kinds = (SharedMemoryUnavailable.__name__, DirectoryNotWritable.__name__)
    assert said.startswith(kinds)
    assert "Too many open files: close files or finish() runs that are open, or raise the limit" in said
    assert "free some" not in said
    assert "choose another dir" not in said
    opened = list((runs / "p").iterdir())
    assert len(opened) > 5
    for path in opened:  # the worker has no such limit
        wait_until(lambda path=path: asynctrack.open_run(path).status == "finished", f"{path} has ended")  # type: ignore[misc]  # bound


# What is said


def on_a_terminal(script: str, *arguments: object, **environment: str) -> str:
    """What a script prints whose standard error is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stderr=theirs,
        stdout=theirs,
        env={**os.environ, "ASYNCTRACK_QUIET": "", **environment},
    ) as child:
        os.close(theirs)
        said = b"".join(_pieces(ours))
        os.close(ours)
    assert child.returncode == 0, said
    return said.decode()


def _pieces(terminal: int) -> Iterator[bytes]:
    while select.select([terminal], [], [], DEADLINE_S)[0]:
        try:
            piece = os.read(terminal, 10_000)
        except OSError:  # the other end is closed
            return
        if not piece:
            return
        yield piece


GREETED = """
import asynctrack, multiprocessing, os, sys
def child():
    asynctrack.init("child", dir=sys.argv[1]).finish()
run = asynctrack.init("größe", id="run", dir=sys.argv[1])
run.log({"x": 1})
pid = os.fork()
if pid == 0:
    asynctrack.init("forked", dir=sys.argv[1]).finish()
    os._exit(0)
os.waitpid(pid, 0)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
asynctrack.init("off", dir=sys.argv[1], mode="disabled").finish()
run.finish()
"""


def test_who_sits_at_a_terminal_is_told_once_where_a_run_is(runs: Path) -> None:
    said = on_a_terminal(GREETED, runs, PYTHONIOENCODING="utf-8")
    (path,) = [path for path in runs.iterdir() if path.name.startswith("gr_")]
    assert said.splitlines() == [f"asynctrack: run größe/run -> {path}/run (asynctrack show '{path}/run')"]


def test_a_run_in_its_usual_place_is_shown_as_the_latest(tmp_path: Path) -> None:
    script = "import asynctrack, os, sys; os.chdir(sys.argv[1]); asynctrack.init('p', id='run').finish()"
    assert on_a_terminal(script, tmp_path).splitlines() == [
        "asynctrack: run p/run -> asynctrack_runs/p/run (asynctrack show latest)"
    ]


@pytest.mark.system
def test_who_wants_no_line_gets_none(runs: Path) -> None:
    script = "import asynctrack, sys; asynctrack.init('p', dir=sys.argv[1]).finish()"
    assert on_a_terminal(script, runs, ASYNCTRACK_QUIET="1") == ""
    piped = subprocess.run([sys.executable, "-c", script, str(runs)], capture_output=True, text=True, timeout=60)
    assert (piped.stdout, piped.stderr) == ("", "")


@pytest.mark.system
def test_a_stream_that_fails_does_not_keep_a_run_from_opening(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def isatty(self) -> bool:
            raise RuntimeError("no such thing")

    monkeypatch.setattr(sys, "stderr", Broken())
    run = asynctrack.init("p", dir=runs)
    monkeypatch.undo()
    run.finish()
    assert run.stats().journaled == 0
