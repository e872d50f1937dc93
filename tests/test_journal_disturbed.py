"""Journals that somebody disturbs: something else in their place, removed under a run, limits on the length of a file."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from cli_support import asynctrack_
from support import kill_the_worker, lines, rings_in, run_child, the_worker, values, wait_until

import asynctrack
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.errors import DamagedJournal, NoJournalDirectory
from asynctrack.journal.manifest import Manifest, save, start_payload
from asynctrack.queue.layout import KIND_SHIFT, START, frame_size
from asynctrack.worker.run_journal import RunJournal


def frame(payload: bytes, kind: int) -> bytes:
    header = len(payload).to_bytes(8, "little") + (kind << KIND_SHIFT).to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


def test_run_whose_first_note_is_of_drops_is_said_to_be_unharmed(tmp_path: Path) -> None:
    """A child's queue may be journaled before its parent's, which has the start."""
    run = RunJournal(str(tmp_path))
    assert run.open()
    assert run.writer is not None
    run.note({"note": "dropped", "ring": "0" * 16, "dropped": {"full": 3}})
    start = frame(start_payload(Manifest(id="r", project="p", name="r", created_at="2026-01-01T00:00:00Z")), START)
    run.writer.append(7, 0, len(start), 0, start)
    run.note({"note": "run_ended", "status": "finished", "time_ns": 1})
    run.close(done=True)
    told = asynctrack.open_run(tmp_path).manifest()
    assert told.dropped == {"full": 3}
    save(tmp_path, told)
    found = JournalCheck(tmp_path).take()
    assert found.problems == []
    assert found.dropped == {"full": 3}


@pytest.fixture
def run(shared_host: Path, tmp_path: Path) -> Path:
    with asynctrack.init(project="p", id="r", dir=tmp_path) as run:
        run.log({"a": 1})
    return Path(run.path)


@pytest.mark.system
@pytest.mark.parametrize("what", ["a file", "a pipe"])
def test_what_lies_in_a_journals_place_is_named_with_what_to_do(what: str, run: Path, tmp_path: Path) -> None:
    journal = run / "journal"
    shutil.rmtree(journal)
    if what == "a file":
        journal.write_text("x")
    else:
        os.mkfifo(journal)
    with pytest.raises(NoJournalDirectory, match="move that away"):
        list(asynctrack.open_run(run).records())
    with pytest.raises(NoJournalDirectory, match="move that away"):
        asynctrack.init(project="p", id="r", dir=tmp_path, resume="allow")
    for command in ("verify", "sync", "show") if what == "a file" else ():  # each takes half a second
        said = asynctrack_(command, run)
        assert said.returncode != 0
        assert "move that away" in said.stdout + said.stderr
        assert "Traceback" not in said.stderr
    journal.unlink()
    assert [record.data for record in asynctrack.open_run(run).records()] == [{"a": 1}]
    with asynctrack.init(project="p", id="r", dir=tmp_path, resume="allow") as resumed:
        resumed.log({"a": 2})
    assert values(run, "a") == [2]


def test_journal_that_is_removed_under_a_run_is_begun_again(own_host: Path, runs: Path) -> None:
    run = asynctrack.init(project="p", dir=runs, backends=["jsonl"])
    for i in range(100):
        run.log({"i": i})
    assert run.flush(timeout_s=10).behind == 0
    pid = the_worker(own_host)
    shutil.rmtree(run.path / "journal")
    for i in range(100, 200):
        run.log({"i": i})
    wait_until(lambda: len(lines(run.path)) == 200, "the files have all of it")
    assert the_worker(own_host) == pid
    run.finish()
    assert [line["i"] for line in lines(run.path)] == list(range(200))
    with pytest.warns(DamagedJournal, match="the segment is missing"):  # its records are lost to who reads the journal
        found = asynctrack.open_run(run.path)
    assert [record.data["i"] for record in found.records()][-100:] == list(range(100, 200))
    assert "was removed; another is begun" in (run.path / "worker.log").read_text()


@pytest.mark.system
def test_limit_on_the_length_of_a_file_begins_another_segment(own_host: Path, runs: Path) -> None:
    found = run_child(
        """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
import asynctrack
run = asynctrack.init(project="p", id="r", dir=sys.argv[1], backends=[])
for i in range(3000):
    run.log({"i": i, "x": "y" * 1000})
    if i % 100 == 0: run.flush(timeout_s=10)
stats = run.finish()
print(json.dumps([stats.accepted, stats.journaled]))
""",
        runs,
        ASYNCTRACK_SHM="/dev/shm",
    )
    assert found == [3000, 3000]
    assert len(list((runs / "p" / "r" / "journal").iterdir())) > 2
    assert values(runs / "p" / "r", "i") == list(range(3000))


def test_queue_of_a_run_that_was_removed_with_all_its_folders_is_given_up(own_host: Path, runs: Path) -> None:
    """The disk that had it is there, so nobody waits for it to come back; the next worker does not inherit the queue."""
    run = asynctrack.init(project="p", dir=runs, backends=["jsonl"])
    run.log({"i": 0})
    kill_the_worker(own_host)
    shutil.rmtree(runs)
    run.log({"i": 1})
    begun = time.monotonic()
    run.finish()
    assert time.monotonic() - begun < 20
    wait_until(lambda: not rings_in(own_host), "the queue is gone")
