"""What is damaged of a run is told to whoever reads it, and what is not is never called so; a `run.json` that cannot be read hides nothing; a run can be read as
soon as it is open.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Logger, answer, said_here
from support import ended, start, stopped, the_worker, wait_until, workers

import asynctrack
from asynctrack import open_run
from asynctrack._system.throttle import Throttle
from asynctrack.errors import DamagedJournal, ManifestUnreadable, NotARun
from asynctrack.journal.layout import segment_name
from asynctrack.reading import damage as told
from asynctrack.testing import JournaledRun

pytestmark = pytest.mark.usefixtures("own_state", "reading")

RECORDS = 300


@pytest.fixture(autouse=True)
def nobody_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "_throttle", Throttle())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three segments."""
    path = tmp_path / "runs" / "p" / "r"
    for part in range(3):
        with JournaledRun(path) if part == 0 else _again(path) as journal:
            for i in range(100 * part, 100 * part + 100):
                journal.log({"i": i, "text": "x" * 50}, i)
                if i % 10 == 9:
                    journal.journal()
            if part == 2:
                journal.end()
    _make_manifest(path)
    return path


def _again(path: Path) -> JournaledRun:
    return JournaledRun(path)


def _make_manifest(path: Path) -> None:
    """As the worker does: a summary of the whole journal."""
    from asynctrack.journal import manifest as manifests
    from asynctrack.journal.reader import Reader

    found = open_run(path).manifest()
    with contextlib.closing(Reader(path / "journal")) as reader:
        for _ in reader:
            pass
        found.position = reader.position
    manifests.save(path, found)


def segment(path: Path, number: int) -> Path:
    return path / "journal" / segment_name(number)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path, to: float) -> None:
    os.truncate(path, int(path.stat().st_size * to))


def cut_at_a_batch(path: Path) -> None:
    """As if the last batches had never been written."""
    from asynctrack.journal.layout import BATCH_MAGIC

    os.truncate(path, path.read_bytes().rfind(BATCH_MAGIC))


HARM: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda run: flip(segment(run, 2), segment(run, 2).stat().st_size // 2),
    "a flipped byte in the last header": lambda run: flip(
        segment(run, 3), segment(run, 3).read_bytes().rfind(b"ATB") + 20
    ),
    "an empty segment": lambda run: cut(segment(run, 2), 0),
    "an empty last segment": lambda run: cut(segment(run, 3), 0),
    "an empty first segment": lambda run: cut(segment(run, 1), 0),
    "a cut segment": lambda run: cut(segment(run, 2), 0.5),
    "a cut last segment": lambda run: cut(segment(run, 3), 0.5),
    "a last segment cut between batches": lambda run: cut_at_a_batch(segment(run, 3)),
    "a missing segment": lambda run: segment(run, 2).unlink(),
    "a missing last segment": lambda run: segment(run, 3).unlink(),
    "zeros": lambda run: segment(run, 2).write_bytes(bytes(segment(run, 2).stat().st_size)),
}


@pytest.mark.parametrize("harm", HARM)
def test_who_reads_a_damaged_run_is_told_once(harm: str, run: Path) -> None:
    HARM[harm](run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = open_run(run)
        records = list(found.records())
        found.columns()
        list(open_run(run).records())
    notes_alone = ("a last segment cut between batches", "a flipped byte in the last header")
    assert len(records) < RECORDS or harm in notes_alone
    assert len(caught) == 1
    assert (caught[0].category, caught[0].filename) == (DamagedJournal, __file__)
    assert "records may be missing" in str(caught[0].message)
    assert found.damage


@pytest.mark.system
@pytest.mark.parametrize("harm", HARM)
def test_each_command_that_reads_a_damaged_run_says_so(harm: str, run: Path) -> None:
    HARM[harm](run)
    assert json.loads(said_here("show", run, "--json").stdout)["damage"]
    assert "damaged: " in said_here("show", run).stdout
    listed = said_here("ls", run.parent.parent).stdout
    assert "damaged: p/r: " in listed
    exported = said_here("export", run, "--format", "jsonl")
    assert (exported.returncode, "left out: " in exported.stderr) == (1, True)
    assert "damaged: " in said_here("tail", run, "-n", "1000").stderr
    assert said_here("verify", run).returncode == 1


def test_a_run_that_is_whole_warns_nobody(run: Path) -> None:
    assert len(list(open_run(run).records())) == RECORDS
    assert open_run(run).damage == []
    assert json.loads(said_here("show", run, "--json").stdout)["damage"] == []
    done = [
        said_here("ls", run.parent.parent),
        said_here("tail", run),
        said_here("export", run, "--format", "jsonl"),
    ]
    assert [command.stderr for command in done] == ["", "", ""]
    assert "damaged" not in done[0].stdout


@pytest.mark.system
def test_a_live_runs_unfinished_end_is_no_damage(own_host: Path, runs: Path) -> None:
    """Warnings are errors here."""
    with asynctrack.init("p", dir=runs, linger_s=0.001) as live:

        def log() -> None:
            for _ in range(1_000):
                live.log({"x": 1.0, "text": "y" * 200})
                time.sleep(0.0005)

        thread = threading.Thread(target=log)
        thread.start()
        while thread.is_alive():
            reader = open_run(live.path)
            for _ in reader.records():
                pass
            assert reader.damage == []
        thread.join()
    assert open_run(live.path).damage == []


@pytest.mark.system
def test_the_torn_end_of_a_crash_is_no_damage(own_host: Path, runs: Path) -> None:
    logger = Logger(runs)
    logger.log(0, 50)
    logger.end("die")
    wait_until(lambda: ended(logger.run) and not workers(own_host), "the run has ended")
    last = max((logger.run / "journal").iterdir())
    # What a crash in the middle of a batch leaves, before and after somebody has brought the run home.
    said = json.loads((logger.run / "run.json").read_text())
    (logger.run / "run.json").write_text(json.dumps({**said, "status": "running", "ended_at": None}))
    os.truncate(last, last.stat().st_size - 40)
    assert len(list(open_run(logger.run).records())) == 50
    assert said_here("tail", logger.run).stderr == ""
    assert said_here("sync", logger.run).returncode == 0
    assert len(list(open_run(logger.run).records())) == 50
    assert open_run(logger.run).damage == []


def make_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def make_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def make_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


STRANGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "zeros": lambda path: path.write_bytes(bytes(500)),
    "another program's": lambda path: path.write_text('{"name": "x", "version": "1.0.0", "dependencies": {}}'),
    "a list": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a link": make_a_link,
    "a directory": make_a_directory,
    "a pipe": make_a_pipe,
}


@pytest.mark.system
@pytest.mark.parametrize("what", STRANGE)
def test_a_run_json_that_cannot_be_read_hides_nothing(what: str, own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", id="r", dir=runs, config={"lr": 0.5}) as first:
        first.log({"x": 1.0})
        first.finish({"best": 1})
    STRANGE[what](first.path / "run.json")
    with pytest.warns(DamagedJournal, match=r"run\.json.* the journal stands in"):
        found = open_run(first.path)
    assert (found.status, found.config, found.summary) == ("finished", {"lr": 0.5}, {"best": 1})
    assert [record.data for record in found.records()] == [{"x": 1.0}]
    shown = answer("show", first.path)
    assert (shown["status"], shown["config"], len(shown["damage"])) == ("finished", {"lr": 0.5}, 1)
    assert "run.json" in said_here("ls", runs).stdout
    assert said_here("export", first.path, "--format", "jsonl").returncode == 0
    assert said_here("verify", first.path).returncode == 1
    assert said_here("sync", first.path).returncode == 0
    with asynctrack.init("p", id="r", dir=runs, resume="must") as second:
        second.log({"x": 2.0})
    found = open_run(first.path)
    assert [record.data["x"] for record in found.records()] == [1.0, 2.0]
    assert (found.damage, found.config, json.loads((first.path / "run.json").read_text())["status"]) == (
        [],
        {"lr": 0.5},
        "finished",
    )


def test_a_damaged_run_json_without_a_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p" / "r"
    path.mkdir(parents=True)
    (path / "run.json").write_text("{")
    with pytest.raises(NotARun, match=r"run\.json cannot be read .* there is no journal/ beside it") as caught:
        open_run(path)
    assert isinstance(caught.value, ManifestUnreadable)
    assert "run.json" in said_here("ls", tmp_path).stdout


# As soon as it is open


def test_a_run_can_be_read_as_soon_as_it_is_open(own_host: Path, runs: Path) -> None:
    for number in range(8):
        with asynctrack.init("p", dir=runs, config={"number": number}, backends=[]) as run:
            found = open_run(run.path)
            assert (found.id, found.status, found.config) == (run.id, "running", {"number": number})
            run.log({"x": 1})
        assert [record.data for record in found.records()] == [{"x": 1}]


@pytest.mark.system
def test_a_run_can_be_read_before_its_worker_has_seen_it(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", id="first", dir=runs), stopped(the_worker(own_host)):
        script = """
import asynctrack, os, sys
run = asynctrack.init("p", id="killed", dir=sys.argv[1], config={"lr": 0.5})
os.kill(os.getpid(), 9)
"""
        with asynctrack.init("p", id="second", dir=runs, config={"lr": 0.5}, finish_timeout_s=0.01) as run:
            found = open_run(run.path)
            assert (found.status, found.config, list(found.records())) == ("running", {"lr": 0.5}, [])
            shown = answer("show", "latest", "--dir", runs)
            assert (shown["id"], shown["status"], shown["config"]) == ("second", "running", {"lr": 0.5})
            tailed = said_here("tail", "latest", "--dir", runs)
            assert (tailed.returncode, tailed.stdout, tailed.stderr) == (0, "", "")
            assert {listed["id"] for listed in answer("ls", runs)} == {"first", "second"}
    start(script, runs).communicate()
    killed = runs / "p" / "killed"
    assert open_run(killed).config == {"lr": 0.5}
    wait_until(lambda: ended(killed), "its worker has said how it ended")
    assert open_run(killed).status == "crashed"


def test_a_run_that_cannot_be_opened_leaves_no_directory(own_host: Path, runs: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(asynctrack.AsynctrackError):
        patch.setenv("ASYNCTRACK_SHM", "/proc/nowhere")
        patch.setattr("asynctrack.client.worker_registry._hosts", {})
        asynctrack.init("p", id="r", dir=runs, queue_bytes=1 << 62)
    assert not (runs / "p" / "r").exists()
