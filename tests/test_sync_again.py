"""`asynctrack sync --to` a place from which somebody has removed what was delivered."""

from __future__ import annotations

import fcntl
import shutil
import sys
from pathlib import Path

import pytest
from test_sync import command, said

import asynctrack
from asynctrack.journal.cursor import lease_path

# Of each kind that writes here, what it writes, beside the run or in it.
PLACES = {
    "csv": "run/csv",
    "json": "run/metrics.json",
    "jsonl": "run/metrics.jsonl",
    "matplotlib": "run/plots",
    "parquet": "run/parquet",
    "sql": "metrics.db",
    "tensorboard": "run/tensorboard",
    "yaml": "run/config.yaml",
}
# A server's stand-in: its class says that it needs a network, and it keeps what it gets in a file.
FAR = """
from asynctrack.backends.base import Backend, Sink

class Far(Backend, frozen=True, kw_only=True):
    remote = True
    execution = "worker"
    def open(self, context):
        return Lines(context.directory / "far.txt")

class Lines(Sink):
    def __init__(self, path):
        self.path = path
    def write(self, batch):
        with open(self.path, "a") as file:
            file.writelines(f"{record.step}\\n" for record in batch.records)
"""


@pytest.fixture
def run(own_host: Path, tmp_path: Path) -> Path:
    """A run that has ended, without backends."""
    with asynctrack.init("p", id="run", dir=tmp_path, backends=[], config={"lr": 0.5}) as run:
        for i in range(5):
            run.log({"loss": i / 2}, step=i)
    return Path(run.path)


def remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        for file in place.parent.glob(f"{place.name}*"):  # SQLite has its log beside the database
            file.unlink()


@pytest.mark.system
@pytest.mark.parametrize("kind", PLACES)
def test_what_was_removed_here_is_delivered_again(run: Path, kind: str) -> None:
    place = run.parent / PLACES[kind]
    said("sync", run, "--to", kind)
    assert place.exists()
    remove(place)
    (report,) = said("sync", run, "--to", kind)["runs"]
    assert place.exists(), list(run.iterdir())
    assert (report["state"], report["missing"]) == ("done", {})
    assert sum(report["stats"]["backends"][kind]["skipped"].values()) in (0, 5)


def test_what_is_still_there_is_left_as_it_is(run: Path) -> None:
    said("sync", run, "--to", "jsonl")
    before = (run / "metrics.jsonl").read_bytes()
    said("sync", run, "--to", "jsonl")
    assert (run / "metrics.jsonl").read_bytes() == before
    assert not list(run.glob("metrics-*"))


@pytest.mark.system
def test_a_server_is_not_asked_what_it_has_lost_and_gets_the_run_again_if_told_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far.py").write_text(FAR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = ("sync", run, "--to", "far.Far")
    assert "--again" not in command(*arguments).stdout
    (run / "far.txt").unlink()
    told = command(*arguments)
    assert (told.returncode, (run / "far.txt").exists()) == (0, False)
    assert "p/run: Far had everything already; if it was removed there, --again delivers the whole run" in told.stdout
    again = command(*arguments, "--again")
    assert (again.returncode, (run / "far.txt").read_text().split()) == (0, ["0", "1", "2", "3", "4"]), again.stderr


@pytest.mark.system
def test_delivery_that_another_process_works_on_is_not_begun_again(run: Path) -> None:
    said("sync", run, "--to", "jsonl")
    with open(lease_path(run, "jsonl"), "r+b") as lease:
        fcntl.lockf(lease, fcntl.LOCK_EX)
        told = command("sync", run, "--to", "jsonl", "--again")
    assert told.returncode != 0
    assert "another process delivers" in told.stderr
    assert (run / "metrics.jsonl").read_text().count("\n") == 5


@pytest.mark.system
def test_module_that_lies_in_a_folder_is_found_as_the_message_says(
    own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far.py").write_text(FAR)
    monkeypatch.syspath_prepend(tmp_path)
    with asynctrack.init("p", id="run", dir=tmp_path, backends=["far.Far"], mode="offline") as run:
        run.log({"loss": 0.5}, step=7)
    monkeypatch.delitem(sys.modules, "far")
    told = command("sync", run.path)
    assert told.returncode == 1
    assert "No module named 'far'; if its module is a file, sync with PYTHONPATH=FOLDER" in told.stdout
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert command("sync", run.path).returncode == 0
    assert (run.path / "far.txt").read_text() == "7\n"
