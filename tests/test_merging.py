"""Merging: whatever comes, in whatever order, again, cut short or never, the merged run has each batch of each host once and in order."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies
from merged_rings import assert_merged, assert_notes_merged, make_part, notes_of, rings_of
from support import run_child

import asynctrack
from asynctrack.backends.collector import Collector
from asynctrack.carriers.cutter import Cutter
from asynctrack.carriers.message import Damaged, Garbage, Place, batches_in, pack, unpack
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.errors import DamagedJournal, MergedElsewhere, NotAMergedRun, PartIncomplete, PartRefused
from asynctrack.journal import manifest as manifests
from asynctrack.journal.layout import HEADER_BYTES, segment_name
from asynctrack.journal.reader import Reader, segments
from asynctrack.merging.batch_rules import judge, judge_notes
from asynctrack.merging.folder import IntoMerger
from asynctrack.merging.merger import Merger
from asynctrack.queue.layout import FAILURE
from asynctrack.records.codec import encode_update
from asynctrack.testing import JournaledRun


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("parts")
    return [make_part(directory, host, rank=rank) for host, rank in (("a", 0), ("b", 2), ("c", 4))]


def host_of(part: Path) -> str:
    return part.name.rpartition("@")[2]


def bring(merger: Merger, part: Path, *, messages: int = 1 << 30, message_bytes: int = 1) -> None:
    """Bring what the merger lacks of a part, a batch a message."""
    publisher = JournalPublisher(part / "journal", IntoMerger(merger, host_of(part)), message_bytes=message_bytes)
    while messages and publisher.advance():
        messages -= 1
    publisher.close()


def exhaust(publisher: JournalPublisher) -> None:
    while publisher.advance():
        pass
    publisher.close()


def merge(run: Path, *parts: Path) -> manifests.Manifest:
    with Merger(run) as merger:
        for part in parts:
            bring(merger, part)
    return manifests.load(run)


def cut_all(part: Path) -> list[Any]:
    cutter = Cutter(part / "journal", Place())
    cuts = []
    while (cut := cutter.cut(1)) is not None:
        cuts.append(cut)
    cutter.close()
    return cuts


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return tmp_path / "p" / "r"


# Batches and messages


def test_batch_is_judged_by_its_positions() -> None:
    assert [judge(start, end, 100) for start, end in ((0, 50), (50, 100), (100, 150), (150, 200), (50, 150))] == [
        "repeat",
        "repeat",
        "append",
        "gap",
        "overlap",
    ]


def test_notes_of_the_next_worker_are_no_gap() -> None:
    worker = 1 << 40
    assert judge_notes(worker, worker + 80, 0) == "append"
    assert judge_notes(worker, worker + 80, worker + 80) == "repeat"
    assert judge_notes(worker + 160, worker + 240, worker + 80) == "gap"
    assert judge_notes(3 * worker, 3 * worker + 80, worker + 80) == "append"


def test_message_carries_batches_verbatim(parts: list[Path]) -> None:
    for cut in cut_all(parts[0]):
        message = unpack(cut.message)
        assert not message.settled
        assert [bad for _, bad in batches_in(message)] == [[]]


@pytest.mark.parametrize("flipped", [0, 4, 10, 24, 30, 90, 100, -1])
def test_flipped_byte_is_never_taken_for_a_batch(parts: list[Path], merged: Path, flipped: int) -> None:
    cut = cut_all(parts[0])[0]
    message = bytearray(cut.message)
    message[flipped] ^= 255
    with Merger(merged) as merger:
        with pytest.raises((PartRefused, PartIncomplete)):
            merger.take("a", cut.after, cut.upto, message)
        assert merger.hosts == []
    assert rings_of(merged) == {}


@hypothesis.given(strategies.binary(max_size=200))
def test_garbage_is_no_message(noise: bytes) -> None:
    with pytest.raises(Garbage):
        list(batches_in(unpack(noise + b"!")))


# Merging


def test_merged_run_has_every_ring_byte_for_byte(parts: list[Path], merged: Path) -> None:
    merge(merged, *parts)
    assert_merged(merged, parts)


def test_merged_batches_keep_their_time(parts: list[Path], merged: Path) -> None:
    merge(merged, *parts)
    of_parts = {
        (batch.header.ring, batch.header.end): batch.header.time_ns
        for part in parts
        for batch in Reader(part / "journal")
    }
    assert all(
        of_parts[batch.header.ring, batch.header.end] == batch.header.time_ns
        for batch in Reader(merged / "journal")
        if batch.header.ring
    )


def test_merged_run_is_an_ordinary_run(parts: list[Path], merged: Path) -> None:
    merge(merged, *parts)
    run = asynctrack.open_run(merged)
    assert run.status == "finished"
    records = list(run.records())
    assert len(records) == 90
    assert {record.writer for record in records} == {f"rank{rank}" for rank in range(6)}
    assert [record.step for record in records if record.writer == "rank3"] == list(range(15))


def test_start_of_another_host_joins_the_run(parts: list[Path], merged: Path) -> None:
    found = merge(merged, *parts)
    assert {one.writer: one.is_owner for one in found.writers} == {f"rank{rank}": rank == 0 for rank in range(6)}
    assert found.config == {"lr": 0.1, "of_a": 0, "of_b": 2, "of_c": 4}


def test_backends_of_a_part_are_none_of_the_merged_run(merged: Path) -> None:
    path = merged.parent / "r@a"
    backends = {"collector": Collector(url="http://127.0.0.1:1")}
    with JournaledRun(path, run_id="r", backends=backends) as run:
        run.log({"loss": 0.5})
        run.end()
    assert merge(merged, path).backends == {}


def test_config_of_a_joined_host_changes_nothing_that_the_run_has(tmp_path: Path, merged: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0, rate=0.1), make_part(tmp_path, "b", rank=2, rate=0.2)]
    assert merge(merged, *parts).config == {"lr": 0.1, "of_a": 0, "of_b": 2}


def test_last_change_of_the_summary_counts_whichever_host_comes_first(tmp_path: Path) -> None:
    parts = []
    for host, rank in (("a", 0), ("b", 2), ("c", 4)):
        parts.append(tmp_path / "p" / f"r@{host}")
        with JournaledRun(parts[-1], environment={"rank": rank, "joins": True}, run_id="r") as run:
            run.update("summary", {"best": rank, f"of_{host}": 1})
            run.journal()
            run.end()
    orders = itertools.permutations(parts)
    found = [merge(tmp_path / str(at) / "p" / "r", *order).summary for at, order in enumerate(orders)]
    assert found == [{"best": 4, "of_a": 1, "of_b": 1, "of_c": 1}] * 6


def test_rank_0_owns_the_run_though_it_comes_later(parts: list[Path], merged: Path) -> None:
    with Merger(merged) as merger:
        bring(merger, parts[1], messages=2)
        bring(merger, parts[0], messages=2)
        assert [(one.host, one.opens, one.owns) for one in merger.hosts] == [("b", True, False), ("a", False, True)]
    assert merge(merged, *parts).status == "finished"
    assert_merged(merged, parts)


@pytest.mark.parametrize("config_bytes", range(0, 16))
def test_joined_start_has_the_room_of_the_start_whatever_its_length(
    tmp_path: Path, merged: Path, config_bytes: int
) -> None:
    first = make_part(tmp_path, "a", rank=0)
    second = tmp_path / "p" / "r@b"
    said = {"host": "b", "pid": 7, "rank": 1, "joins": True}
    with JournaledRun(second, config={"x": "y" * config_bytes}, environment=said, run_id="r") as run:
        run.log({"loss": 1.0})
        run.end()
    assert merge(merged, first, second).config["x"] == "y" * config_bytes
    assert_merged(merged, [first, second])


def test_merging_again_changes_nothing(parts: list[Path], merged: Path) -> None:
    merge(merged, *parts)
    before = {path: path.read_bytes() for path in sorted((merged / "journal").iterdir())}
    merge(merged, *reversed(parts))
    assert {path: path.read_bytes() for path in sorted((merged / "journal").iterdir())} == before


def test_repeat_is_dropped_without_the_places_too(parts: list[Path], merged: Path) -> None:
    merge(merged, *parts)
    (merged / "hosts.json").unlink()
    merge(merged, *parts)
    assert_merged(merged, parts)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
def test_harmed_run_json_is_made_anew_though_nothing_comes(
    parts: list[Path], merged: Path, content: bytes | None
) -> None:
    merge(merged, *parts)
    before = manifests.load(merged)
    (merged / "run.json").unlink()
    if content is not None:
        (merged / "run.json").write_bytes(content)
    merge(merged, *parts)
    assert manifests.load(merged) == before


def test_host_that_the_merged_journal_has_lost_comes_again(parts: list[Path], merged: Path) -> None:
    for part in parts:
        merge(merged, part)
    (merged / "journal" / segment_name(1)).unlink()
    merge(merged, *parts)
    assert {one.host for one in manifests.load(merged).hosts} == {"a", "b", "c"}
    with pytest.warns(DamagedJournal, match="the segment is missing"):
        written = [(record.writer, record.step) for record in asynctrack.open_run(merged).records()]
    assert len(written) == len(set(written)) == 90


def test_repeat_of_what_is_merged_takes_no_place_back(parts: list[Path], merged: Path) -> None:
    cuts = cut_all(parts[0])
    with Merger(merged) as merger:
        for cut in cuts[:3]:
            merger.take("a", cut.after, cut.upto, cut.message)
        merger.sync()
        merger.take("a", cuts[0].after, cuts[0].upto, cuts[0].message)
        merger.sync()
        assert merger.place_of("a", unpack(cuts[0].message).journal) == cuts[2].upto
        merger.take("a", cuts[3].after, cuts[3].upto, cuts[3].message)
        bring(merger, parts[0])
    assert_merged(merged, parts[:1])


def test_gap_is_waited_for_and_never_appended_over(parts: list[Path], merged: Path) -> None:
    first, *others = cut_all(parts[0])
    with Merger(merged) as merger:
        merger.take("a", first.after, first.upto, first.message)
        for cut in others[1:]:
            with pytest.raises(PartIncomplete, match="has not come yet"):
                merger.take("a", cut.after, cut.upto, cut.message)
        bring(merger, parts[0])
    assert_merged(merged, parts[:1])


def test_gap_in_a_ring_is_waited_for_though_the_places_show_none(parts: list[Path], merged: Path) -> None:
    cuts = cut_all(parts[0])
    with Merger(merged) as merger:
        for cut in cuts[:3]:
            merger.take("a", cut.after, cut.upto, cut.message)
        with pytest.raises(PartIncomplete, match=r"bytes .* have not come yet"):
            merger.take("a", cuts[2].upto, cuts[5].upto, cuts[5].message)
        bring(merger, parts[0])
    assert_merged(merged, parts[:1])


def test_batch_that_is_missing_is_looked_for_in_the_journal(parts: list[Path], merged: Path) -> None:
    """As where a folder shows the next segment before the end of the one before."""

    class Skipping(IntoMerger):
        skips = True

        def send(self, after: Place, upto: Place, message: bytes) -> None:
            if Skipping.skips and after.segment == 2:
                Skipping.skips = False  # it has not come, and the publisher does not know
                return
            super().send(after, upto, message)

    with Merger(merged) as merger:
        publisher = JournalPublisher(parts[0] / "journal", Skipping(merger, "a"), message_bytes=1)
        with pytest.raises(PartIncomplete):
            exhaust(publisher)
        exhaust(publisher)
    assert_merged(merged, parts[:1])


def test_what_a_host_has_lost_for_good_is_noted_and_the_rest_merged(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, segment_bytes=1000)
    (part / "journal" / segment_name(segments(str(part / "journal"))[2])).unlink()
    with Merger(merged) as merger:
        with pytest.raises(PartIncomplete):
            bring(merger, part)
        publisher = JournalPublisher(part / "journal", IntoMerger(merger, "a"), settled_after_s=0.0)
        while True:
            with contextlib.suppress(PartIncomplete):
                if not publisher.advance():
                    break
        publisher.close()
    assert manifests.load(merged).status == "finished"
    of_part, of_merged = (_steps(run) for run in (part, merged))
    assert of_part == of_merged
    assert len(of_part["rank0"]) < 15


def _steps(run: Path) -> dict[str, list[int]]:
    with pytest.warns(asynctrack.errors.DamagedJournal):
        records = list(asynctrack.open_run(run).records())
    return {writer: [one.step for one in records if one.writer == writer] for writer in ("rank0", "rank1")}


def test_damaged_block_is_waited_for_and_then_merged_as_damaged(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, segment_bytes=1 << 20)
    segment = part / "journal" / segment_name(1)
    content = bytearray(segment.read_bytes())
    content[content.rindex(b"loss")] ^= 1
    segment.write_bytes(content)
    with Merger(merged) as merger:
        with pytest.raises(PartIncomplete, match="fail their checksums"):
            bring(merger, part)
        publisher = JournalPublisher(part / "journal", IntoMerger(merger, "a"), settled_after_s=0.0)
        while True:
            with contextlib.suppress(PartIncomplete):
                if not publisher.advance():
                    break
        publisher.close()
    of_part, of_merged = (_damage(run) for run in (part, merged))
    assert of_part == of_merged == ["a block fails its checksum"]


def _damage(run: Path) -> list[str]:
    reader = Reader(run / "journal")
    for _ in reader:
        pass
    reader.close()
    return [one.found for one in reader.damage]


# Whatever happens


class World:
    """Parts that are brought by pieces, and a merger that is restarted, killed, or loses what it has not synced."""

    def __init__(self, parts: list[Path], run: Path) -> None:
        self.cuts = [cut_all(part) for part in parts]
        self.hosts = [host_of(part) for part in parts]
        self.run = run
        self.merger = Merger(run)

    def send(self, host: int, first: int, count: int) -> None:
        for cut in self.cuts[host][first : first + count]:
            with contextlib.suppress(PartIncomplete):
                self.merger.take(self.hosts[host], cut.after, cut.upto, cut.message)

    def restart(self) -> None:
        self.merger.close()
        self.merger = Merger(self.run)

    @staticmethod
    def stop(merger: Merger) -> None:
        """End a merger as SIGKILL does."""
        merger._manifest.close()
        merger._writer._segments.close()
        merger._let_go()

    def kill(self) -> None:
        self.stop(self.merger)
        self.merger = Merger(self.run)

    def lose_power(self, kept: float, flips: bool) -> None:
        """Only a part of what is not synced is still there, and the last byte of that may be another."""
        synced, writer = self.merger._writer.synced_until, self.merger._writer
        open_segments = [(segment.number, segment.size) for segment in writer._segments]
        self.stop(self.merger)
        for number, size in open_segments:
            safe = synced.offset if number == synced.segment else HEADER_BYTES
            path, left = self.run / "journal" / segment_name(number), safe + int(kept * (size - safe))
            os.truncate(path, left)
            if flips and left > safe:
                content = path.read_bytes()
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
        self.merger = Merger(self.run)

    def finish(self, parts: list[Path]) -> None:
        for part in parts:
            bring(self.merger, part)
        self.merger.close()


STEPS = strategies.lists(
    strategies.one_of(
        strategies.tuples(
            strategies.just("send"), strategies.integers(0, 2), strategies.integers(0, 12), strategies.integers(1, 8)
        ),
        strategies.tuples(strategies.just("sync")),
        strategies.tuples(strategies.just("restart")),
        strategies.tuples(strategies.just("kill")),
        strategies.tuples(strategies.just("lose_power"), strategies.floats(0, 1), strategies.booleans()),
    ),
    max_size=25,
)


@hypothesis.given(STEPS)
@hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_any_order_repeats_and_restarts_give_the_same_rings(parts: list[Path], steps: list[tuple[Any, ...]]) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        world = World(parts, directory / "p" / "r")
        for what, *how in steps:
            if what == "sync":
                world.merger.sync()
            else:
                getattr(world, what)(*how)
        world.finish(parts)
        assert_merged(world.run, parts)
        assert_notes_merged(world.run, parts)
        found = manifests.load(world.run)
        assert (found.status, sorted(one.host for one in found.hosts)) == ("finished", ["a", "b", "c"])
        assert {one.accepted for one in found.writers} == {15}
    finally:
        shutil.rmtree(directory)


def test_hole_that_a_power_cut_leaves_before_whole_batches_is_filled(parts: list[Path], merged: Path) -> None:
    merger = Merger(merged)
    bring(merger, parts[0], messages=2)
    merger.sync()
    synced = merger._writer.synced_until
    bring(merger, parts[0], messages=4)
    World.stop(merger)
    path = merged / "journal" / segment_name(synced.segment)
    content = bytearray(path.read_bytes())
    content[synced.offset : synced.offset + 64] = bytes(64)
    path.write_bytes(content)
    merge(merged, *parts)
    assert_merged(merged, parts)


# Ends


def test_run_ends_when_all_its_hosts_have(tmp_path: Path, merged: Path) -> None:
    ended, going_on = make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2, end=False)
    assert merge(merged, ended, going_on).status == "running"


def test_run_whose_owner_has_not_come_yet_goes_on(parts: list[Path], merged: Path) -> None:
    assert merge(merged, parts[1]).status == "running"
    found = merge(merged, *parts)
    assert (found.status, [one.host for one in found.hosts if one.owns]) == ("finished", ["a"])
    assert "run_reopened" not in [note["note"] for note in notes_of(merged)]


def test_owner_that_does_not_come_is_not_waited_for_for_ever(parts: list[Path], merged: Path) -> None:
    with Merger(merged) as merger:
        bring(merger, parts[1])
        bring(merger, parts[2])
        merger.name_lost(300.0)
        merger.sync()
        assert not merger.has_ended
        for host in ("b", "c"):
            merger.hear(host, 301.0)
        merger.name_lost(300.0)
        merger.sync()
        assert merger.has_ended
    assert manifests.load(merged).status == "finished"


def test_status_is_that_of_the_owners_host(tmp_path: Path, merged: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0, status="failed"), make_part(tmp_path, "b", rank=2)]
    found = merge(merged, *reversed(parts))
    assert found.status == "failed"
    assert {one.host: one.status for one in found.hosts} == {"a": "failed", "b": "finished"}


def test_silent_host_is_named_as_lost_and_a_late_batch_reopens_the_run(tmp_path: Path, merged: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2)]
    with Merger(merged) as merger:
        bring(merger, parts[0])
        bring(merger, parts[1], messages=3)
        merger.hear("b", 400.0)
        assert merger.name_lost(300.0) == ["b"]
        merger.sync()
        assert merger.has_ended
        assert manifests.load(merged).status == "finished"
        lost = {one.host: one for one in manifests.load(merged).hosts}["b"]
        assert (lost.status, lost.error) == ("lost", "host b was lost: nothing has come from it for 400 s")
        assert {one.writer: one.status for one in manifests.load(merged).writers}["rank2"] == "crashed"
        bring(merger, parts[1], messages=1)
        merger.sync()
        assert manifests.load(merged).status == "running"
        bring(merger, parts[1])
    found = manifests.load(merged)
    assert (found.status, {one.host: one.status for one in found.hosts}) == (
        "finished",
        {"a": "finished", "b": "finished"},
    )
    assert_merged(merged, parts)


def test_run_whose_owners_host_is_lost_has_crashed(tmp_path: Path, merged: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0, end=False), make_part(tmp_path, "b", rank=2)]
    with Merger(merged) as merger:
        for part in parts:
            bring(merger, part)
        merger.hear("a", 301.0)
        merger.name_lost()
    found = manifests.load(merged)
    assert (found.status, found.error) == ("crashed", "host a was lost: nothing has come from it for 301 s")


def test_error_of_a_host_that_does_not_own_the_run_is_not_that_of_the_run(tmp_path: Path, merged: Path) -> None:
    said = {"host": "b", "pid": 7, "writer": "rank2", "rank": 2, "joins": True}
    with JournaledRun(tmp_path / "p" / "r@b", environment=said, run_id="r") as failing:
        failing.log({"loss": 1.0}, 0)
        failing._add(FAILURE, encode_update({"error": "ValueError: no"}))
        failing.journal()
        failing.end_ring()
        failing.end("failed")
    found = merge(merged, make_part(tmp_path, "a", rank=0), failing.path)
    assert (found.status, found.error) == ("finished", None)
    assert {one.writer: one.error for one in found.writers}["rank2"] == "ValueError: no"


def test_run_whose_lost_owner_comes_back_has_no_error(tmp_path: Path, merged: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2)]
    with Merger(merged) as merger:
        bring(merger, parts[0], messages=2)
        bring(merger, parts[1])
        merger.hear("a", 301.0)
        merger.name_lost()
        merger.sync()
        bring(merger, parts[0])
    found = manifests.load(merged)
    assert (found.status, found.error) == ("finished", None)


# What is refused


def test_another_journal_is_not_taken_for_a_hosts_part(tmp_path: Path, merged: Path) -> None:
    mine, other = make_part(tmp_path / "1", "a", rank=0), make_part(tmp_path / "2", "a", rank=0)
    merge(merged, mine)
    with pytest.raises(
        PartRefused, match=r"its part of the run belongs to journal .* rename the part of this one to r@NAME"
    ):
        merge(merged, other)
    assert_merged(merged, [mine])


def test_copy_of_a_part_is_refused(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    copy = part.with_name("r@z")
    shutil.copytree(part, copy)
    merge(merged, part)
    with pytest.raises(PartRefused, match="its journal is that of host a"):
        merge(merged, copy)


def test_part_of_another_run_is_refused(tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    with pytest.raises(PartRefused, match="it is of run 'r' of project 'p'"):
        merge(tmp_path / "p" / "other", part)
    assert rings_of(tmp_path / "p" / "other") == {}


def test_run_that_was_not_merged_is_left_alone(tmp_path: Path, merged: Path) -> None:
    with JournaledRun(merged) as run:
        run.log({"loss": 1.0})
    before = rings_of(merged)
    with pytest.raises(NotAMergedRun, match="a run that was not merged lies there"):
        merge(merged, make_part(tmp_path, "a", rank=0))
    assert rings_of(merged) == before


def test_link_is_not_merged_to(tmp_path: Path, merged: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    merged.parent.mkdir(parents=True)
    merged.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotAMergedRun, match="it is a link"):
        merge(merged)
    assert list((tmp_path / "elsewhere").iterdir()) == []


TRY_TO_MERGE = """
import json, sys
from pathlib import Path
from asynctrack.errors import MergedElsewhere
from asynctrack.merging.merger import Merger
try:
    Merger(Path(sys.argv[1]))
except MergedElsewhere as error:
    print(json.dumps(str(error)))
"""


def test_second_merger_of_a_run_is_refused(parts: list[Path], merged: Path) -> None:
    with Merger(merged) as merger:
        bring(merger, parts[0], messages=2)
        with pytest.raises(MergedElsewhere, match=f"process {os.getpid()} writes to"):
            Merger(merged)
        told = run_child(
            TRY_TO_MERGE,
            merged,
        )
        assert f"process {os.getpid()} writes to" in told
        bring(merger, parts[0])
    assert_merged(merged, parts[:1])


def test_full_disk_loses_nothing(parts: list[Path], merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Merger(merged) as merger:
        bring(merger, parts[0], messages=3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", _no_room)
            with pytest.raises(OSError, match="No space left"):
                bring(merger, parts[0])
        bring(merger, parts[0])
    assert_merged(merged, parts[:1])


def _no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_journal_that_begins_anew_under_the_same_segment_number_is_read_from_its_beginning(tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, segment_bytes=1 << 20)
    place = cut_all(part)[3].upto
    assert Cutter(part / "journal", place).place == place
    assert Cutter(part / "journal", Place(place.segment, place.offset, place.made_ns + 1)).place == Place()


def test_message_of_another_journal_fails_its_checksums(parts: list[Path]) -> None:
    message = unpack(cut_all(parts[0])[0].message)
    with pytest.raises(Garbage):
        list(batches_in(unpack(pack(b"\0" * 16, bytes(message.batches)))))
    assert issubclass(Damaged, Garbage)
