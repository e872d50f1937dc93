"""Records say which process of a run has logged them, once there are several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from reading_versions import read_in_python
from support import lines

import asynctrack
from asynctrack import Memory, Record
from asynctrack._system.native import is_native
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.delivery.batcher import Batcher
from asynctrack.journal.cursor import Cursor, decode_cursor
from asynctrack.journal.frames import Frame
from asynctrack.journal.join import LABEL, Join, default_label, join_payload
from asynctrack.journal.manifest import Manifest, start_payload
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import JOIN, START
from asynctrack.testing import JournaledRun

V1 = Path(__file__).parent / "fixtures" / "v1" / "runs" / "p"


@pytest.fixture(params=["native", "python"] if is_native else ["python"], autouse=True)
def _reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        read_in_python(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[JournaledRun]:
    """A run of three writers: who opened it, and two that joined; the first record is older than both."""
    run = JournaledRun(tmp_path / "p" / "r")
    run.log({"owner": 0}, step=0)
    run.journal()
    one, two = run.join("rank1", 1), run.join("rank2", 2)
    for step in range(3):
        for writer, name in ((run, "owner"), (one, "rank1"), (two, "rank2")):
            writer.log({name: step}, step=step)
            writer.journal()
    run.end()
    with run:
        yield run


def test_run_was_created_when_the_first_start_of_its_journal_says(tmp_path: Path) -> None:
    """Another process had announced it and was killed; a third began it again, before any worker had journaled that the second had."""
    announced, first, again = (
        Manifest(id="r", name="r", project="p", created_at=f"2026-11-29T14:38:54.07{n}+00:00") for n in (4, 8, 9)
    )
    for number, start in enumerate((first, again)):
        payload = start_payload(msgspec.structs.replace(start, environment={"host": "here", "pid": number}))
        assert announced.apply(Frame(0, START, 0, 0, memoryview(payload)), number + 1)
    assert announced.created_at == first.created_at


def labels(records: list[Record]) -> list[str | None]:
    return [record.writer for record in records]


def test_records_have_the_label_of_their_writer(run: JournaledRun) -> None:
    found = list(asynctrack.open_run(run.path).records())
    assert len(found) == 10
    for record in found[1:]:
        (name,) = record.data
        assert record.writer == (default_label("", "") if name == "owner" else name)


def test_a_run_of_one_writer_has_no_labels(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1})
        run.end()
        assert labels(list(asynctrack.open_run(run.path).records())) == [None]


def test_joining_opens_no_resumed_session(run: JournaledRun) -> None:
    """A resumed session would cut what the others have logged with steps that are as high."""
    reader = asynctrack.open_run(run.path)
    assert len(list(reader.records("last"))) == 10
    assert {key: column.steps for key, column in reader.columns().items()} == {
        "owner": [0, 0, 1, 2],
        "rank1": [0, 1, 2],
        "rank2": [0, 1, 2],
    }
    assert len(reader.arrays()["rank1"].values) == 3


def test_deliveries_have_the_same_labels_from_wherever_they_begin(
    run: JournaledRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = labels(list(asynctrack.open_run(run.path).records()))
    for at_once in (1, 2, 5):
        monkeypatch.setattr(Memory, "batch_records", at_once)
        backend, cursor = Memory(), Cursor()
        found: list[str | None] = []
        while (cut := next_batch(run.path, cursor, backend)) is not None:
            found += labels(cut[0])
            cursor = cut[1]
        assert found == expected, at_once


def next_batch(run: Path, cursor: Cursor, backend: asynctrack.Backend) -> tuple[list[Record], Cursor] | None:
    """The next batch, cut by a delivery that begins here, and the cursor behind it, as it is read from its file."""
    batcher = Batcher(run, cursor, backend)
    try:
        cut = batcher.next()
    finally:
        batcher.close()
    if cut is None:
        return None
    behind = Cursor(position=cut.position, ends=cut.ends, writers=cut.writers)
    return cut.batch.records, decode_cursor(msgspec.json.encode(behind))


def test_a_downsampled_delivery_has_labels_too(run: JournaledRun) -> None:
    backend = Memory(downsample_interval_s=60)
    cut = next_batch(run.path, Cursor(), backend)
    assert cut is not None
    assert set(labels(cut[0])) >= {"rank1", "rank2"}


def test_verify_knows_the_frame_and_finds_one_that_cannot_be_read(run: JournaledRun, tmp_path: Path) -> None:
    assert unreadable_frames(run.path) == []
    harmed = JournaledRun(tmp_path / "p" / "harmed")
    harmed._add(JOIN, b"\xc0")
    harmed._add(JOIN, join_payload(Join(writer="x")).replace(b"\xa1x", b"\xa1/"))
    harmed.journal()
    harmed.close()
    assert unreadable_frames(harmed.path) == ["a frame of kind 7 cannot be read"] * 2


def unreadable_frames(run: Path) -> list[str]:
    return [problem.what for problem in JournalCheck(run).take().problems if problem.file != "run.json"]


@pytest.mark.filterwarnings("ignore::asynctrack.errors.DamagedJournal")
@pytest.mark.parametrize("name", sorted(os.listdir(V1)))
def test_runs_of_the_earlier_format_have_no_labels(name: str) -> None:
    if (V1 / name / "journal").is_dir():
        assert set(labels(list(asynctrack.open_run(V1 / name).records()))) <= {None}


def test_a_ring_that_says_nothing_is_that_of_the_owners_child() -> None:
    known = Writers(labels={1: "rank0", 2: "rank1"}, owner="rank0", several=True)
    assert [known.label_of(ring) for ring in (1, 2, 3)] == ["rank0", "rank1", "rank0"]


@pytest.mark.parametrize("label", ["", ".", "../x", "a/b", "-x", "a\n", "a" * 129, "a b"])
def test_labels_that_could_lead_elsewhere_are_none(label: str) -> None:
    with pytest.raises(ValueError, match="is no label of a writer"):
        Join(writer=label)


@pytest.mark.parametrize("host", ["node-1.site", "", "häuschen", "a/b", "x" * 300, "-"])
def test_any_host_makes_a_label(host: str) -> None:
    assert LABEL.fullmatch(default_label(host, 7))


def test_json_lines_are_what_they_were(tmp_path: Path) -> None:
    with asynctrack.init("p", dir=tmp_path, id="r") as run:
        run.log({"loss": 1.0})
    assert lines(run.path)[0].keys() >= {"loss"}
