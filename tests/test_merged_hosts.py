"""Hosts of a merged run: how each stands is shown while it is merged and afterwards, and their clocks are compared where an order depends on them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_support import said_here
from collector_server import PlainCarrier, ask, name_of, post_target, serving
from fake_servers import MLflowApp
from merged_rings import assert_merged, make_part, notes_of
from raw_server import RawServer
from support import wait_until
from test_merging import bring, merge
from test_tensorboard import points

import asynctrack
from asynctrack.carriers import wire
from asynctrack.carriers.cutter import bytes_behind
from asynctrack.carriers.http import HTTPCarrier
from asynctrack.carriers.message import Place
from asynctrack.carriers.parts import Part
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.delivery.batcher import Batcher
from asynctrack.errors import PartRefused
from asynctrack.journal import manifest as manifests
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.host_list import HostStats, offset_of
from asynctrack.journal.registers import Stamps, admit
from asynctrack.journal.writer_list import iso
from asynctrack.merging.folder import RunCollector
from asynctrack.merging.host_clocks import HostClocks
from asynctrack.merging.host_reports import FILE_NAME, load_reports
from asynctrack.merging.merger import Merger
from asynctrack.testing import JournaledRun, deliver

SECOND = 10**9


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return tmp_path / "out" / "p" / "r"


def shown(run: Path) -> dict[str, dict[str, Any]]:
    """What `show --hosts --json` says, by host."""
    done = said_here("show", run, "--hosts", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {row["host"]: row for row in json.loads(done.stdout)["hosts"]}


# How the hosts stand


def test_hosts_are_shown_with_what_is_merged_of_each(tmp_path: Path, merged: Path) -> None:
    merge(merged, make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2, per_batch=2, end=False))
    found = shown(merged)
    assert {host: (row["status"], row["owns"], row["records"]) for host, row in found.items()} == {
        "a": ("finished", True, 30),
        "b": ("running", False, 20),
    }
    assert found["a"]["writers"] == {"rank0": "finished", "rank1": "finished"}
    assert list(found["b"]["writers"]) == ["rank2", "rank3"]
    table = said_here("show", merged, "--hosts").stdout.splitlines()
    assert table[0] == "p/r  elsewhere"  # it has not ended, and nothing merges it here
    assert table[2].split() == ["host", "status", "writers", "records", "last", "heard", "behind", "clock"]
    assert [line.split()[:4] for line in table[3:5]] == [["a", "finished", "2", "30"], ["b", "running", "2", "20"]]
    assert table[-1].startswith("nothing merges it since ")


def test_host_that_has_ended_keeps_its_writers_where_another_opens_the_run_again(tmp_path: Path, merged: Path) -> None:
    merge(merged, make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2))
    merge(merged, make_part(tmp_path, "a", rank=0))
    found = shown(merged)
    assert found["a"]["writers"] == {"rank0": "finished", "rank1": "finished"}
    assert found["b"]["writers"] == {"rank2": "finished", "rank3": "finished"}


def test_host_that_goes_on_while_another_opens_the_run_again_loses_nothing_of_its_curves(
    tmp_path: Path, merged: Path
) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2, per_batch=4)]
    with Merger(merged) as merger:
        bring(merger, parts[0])
        bring(merger, parts[1], messages=4)
        merger.sync()
        make_part(tmp_path, "a", rank=0, per_batch=2)  # opened again
        bring(merger, parts[0])
        bring(merger, parts[1])
    run = asynctrack.open_run(merged)
    expected = [(0, step) for step in range(10)] + [(2, step) for step in range(20)]
    rows = run.to_pandas()
    assert (
        sorted((rank, step) for rank, step in zip(rows["rank"], rows["_step"], strict=True) if rank % 2 == 0)
        == expected
    )
    read = [(record.data["rank"], record.step) for record in run.records("last")]
    assert sorted(one for one in read if one[0] % 2 == 0) == expected
    assert len(run.columns()["loss"].values) == len(run.arrays()["loss"].values) == 2 * (10 + 20)
    assert len(run.columns("all")["loss"].values) == 2 * (15 + 10 + 20)


def test_lost_host_is_shown_with_when_it_was_heard_last(tmp_path: Path, merged: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2)]
    before = time.time()
    with Merger(merged) as merger:
        bring(merger, parts[0])
        bring(merger, parts[1], messages=3)
        merger.hear("b", 400.0)
        merger.name_lost(300.0)
    (lost,) = (one for one in manifests.load(merged).hosts if one.host == "b")
    assert before - 401 < lost.heard_ns / SECOND < time.time() - 399
    table = said_here("show", merged, "--hosts").stdout
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(lost.heard_ns / SECOND))
    assert f"lost since {since}" in table
    assert "b: host b was lost: nothing has come from it for 400 s" in table
    listed = said_here("ls", merged.parent.parent).stdout
    assert "1/2 (1 lost)" in listed
    with Merger(merged) as merger:  # it comes back
        bring(merger, parts[1], messages=1)
        merger.sync()
        (found,) = (one for one in manifests.load(merged).hosts if one.host == "b")
        assert (found.status, found.heard_ns) == ("running", 0)


def test_runs_are_listed_with_their_hosts(tmp_path: Path, merged: Path) -> None:
    merge(merged, make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2))
    with JournaledRun(merged.parent / "alone") as run:
        run.log({"loss": 1.0})
        run.end()
    listed = said_here("ls", merged.parent.parent).stdout.splitlines()
    assert "hosts" in listed[0].split()
    by_run = {line.split()[0]: line.split() for line in listed[1:] if line}
    assert by_run["p/r"][1:4] == ["finished", "2/2", "4"]
    assert "/" not in by_run["p/alone"][2]
    found = {run["id"]: run["hosts"] for run in json.loads(said_here("ls", merged.parent.parent, "--json").stdout)}
    assert found == {"r": {"a": "finished", "b": "finished"}, "alone": {}}


def test_run_that_a_fast_clock_began_is_shown_without_times_that_cannot_be(tmp_path: Path, merged: Path) -> None:
    merge(merged, make_part(tmp_path, "a", rank=0))
    found = manifests.load(merged)
    found.created_at = iso(time.time_ns() + 86_400 * SECOND)
    manifests.save(merged, found)
    (started,) = [line for line in said_here("show", merged).stdout.splitlines() if line.lstrip().startswith("started")]
    assert started.endswith(", by a clock that is ahead")


def test_run_of_one_machine_has_no_hosts_to_show(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.end()
    done = said_here("show", run.path, "--hosts")
    assert (done.returncode, done.stdout) == (2, "")
    assert "it has no hosts" in done.stderr


def test_what_is_behind_waited_for_and_refused_is_shown(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    with Merger(merged) as merger:
        bring(merger, part)
        merger.hear("a")
        merger.watch.report("a", behind_bytes=3_200_000, behind_s=12.0, waiting="a batch has not come yet")
        merger.watch.report("stranger", refused="its journal is that of host a")
        merger.sync()
    found = shown(merged)
    assert (found["a"]["behind_bytes"], found["a"]["behind_s"]) == (3_200_000, 12.0)
    assert found["a"]["waiting"] == "a batch has not come yet"
    assert found["a"]["heard_at"] is not None
    assert (found["stranger"]["status"], found["stranger"]["refused"]) == ("refused", "its journal is that of host a")
    table = said_here("show", merged, "--hosts").stdout
    assert "3.20 MB, 12 s" in table
    assert "a: a batch has not come yet; it is waited for" in table
    assert "stranger: its journal is that of host a" in table


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"hosts": 1}', b'{"hosts": {"a": {"heard_ns": -1e400}}}', b"[" * 9999]
)
def test_reports_that_mean_nothing_are_left_out(tmp_path: Path, merged: Path, content: bytes) -> None:
    merge(merged, make_part(tmp_path, "a", rank=0))
    (merged / FILE_NAME).write_bytes(content)
    assert load_reports(merged) is None
    assert shown(merged)["a"]["records"] == 30


def collect(run: Path, parts: Sequence[Path]) -> RunCollector:
    return RunCollector(run, [Part("p", "r", part.name.rpartition("@")[2], part) for part in parts])


def test_collector_says_how_far_behind_a_host_is(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, segment_bytes=1 << 20, end=False)
    segment = part / "journal" / "000001.atj"
    whole = segment.read_bytes()
    content = bytearray(whole)
    content[content.rindex(b"loss")] ^= 1
    segment.write_bytes(content)  # as where a network's disk shows zeros that are still to be filled
    collector = collect(merged, [part])
    collector.turn()
    (reader,) = collector.readers
    reports = load_reports(merged)
    assert reports is not None
    assert 0 < reader.behind_bytes < len(whole)
    assert (reports.pid, reports.hosts["a"].behind_bytes) == (os.getpid(), reader.behind_bytes)
    assert "fail their checksums" in str(reports.hosts["a"].waiting)
    collector.close()
    segment.write_bytes(whole)
    collector = collect(merged, [part])
    collector.turn()
    collector.close()
    reports = load_reports(merged)
    assert reports is not None
    assert (reports.hosts["a"].behind_bytes, reports.hosts["a"].waiting) == (0, None)
    assert_merged(merged, [part])


# Clocks


def test_least_of_what_was_measured_counts_and_is_said_once() -> None:
    clocks = HostClocks([])
    assert clocks.news_of("a") is None
    clocks.hear("a", 50_000_000)
    clocks.hear("a", 20_000_000)
    clocks.hear("a", 90_000_000)
    assert clocks.news_of("a") == 20_000_000
    clocks.hear("a", 1_000_000)
    assert clocks.news_of("a") is None  # so soon after
    again = HostClocks([HostStats(host="a", clock_offset_ns=20_000_000)])
    again.hear("a", 90_000_000)
    assert again.news_of("a") is None
    again.hear("a", -3 * SECOND)
    assert again.news_of("a") == -3 * SECOND


def test_offset_of_a_clock_is_kept_in_the_merged_run(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, end=False)
    with Merger(merged) as merger:
        bring(merger, part)
        merger.hear("a", offset_ns=2 * SECOND)
        merger.sync()
        assert merger.has_ended is False
    (host,) = manifests.load(merged).hosts
    assert host.clock_offset_ns == 2 * SECOND
    assert len(host.rings) == 2
    assert {offset_of([host], ring) for ring in host.rings} == {2 * SECOND}
    assert [note["offset_ns"] for note in notes_of(merged) if note["note"] == "host_clock"] == [2 * SECOND]
    assert shown(merged)["a"]["clock_offset_s"] == 2.0
    (merged / "run.json").unlink()
    assert asynctrack.open_run(merged).manifest().hosts == [host]


def test_end_of_the_run_stays_its_last_note(tmp_path: Path, merged: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    with Merger(merged) as merger:
        bring(merger, part)
        merger.hear("a", offset_ns=SECOND)
        merger.sync()
        merger.hear("a", offset_ns=-SECOND)
        merger.sync()
        assert merger.has_ended
    assert notes_of(merged)[-1]["note"] == "run_ended"
    assert manifests.load(merged).hosts[0].clock_offset_ns == SECOND


def test_changes_of_two_hosts_are_put_in_order_by_corrected_clocks() -> None:
    hosts = [HostStats(host="a", rings=("a",), clock_offset_ns=-10), HostStats(host="b", rings=("b",))]
    stamps: Stamps = {}
    assert admit(stamps, "summary", (100, "a"), {"k": "first"}, (), hosts) == ({"k": "first"}, ())
    assert admit(stamps, "summary", (95, "b"), {"k": "second"}, (), hosts) == ({"k": "second"}, ())
    assert admit(stamps, "summary", (104, "a"), {"k": "between"}, (), hosts) == ({}, ())
    assert admit(stamps, "summary", (106, "a"), {"k": "last"}, (), hosts) == ({"k": "last"}, ())


@pytest.mark.parametrize("first", ["fast", "right"])
def test_last_change_of_the_summary_counts_though_a_clock_is_fast(tmp_path: Path, merged: Path, first: str) -> None:
    """The clock of one host is an hour fast: what it has set before the other did bears a later time."""
    now_ns, hour_ns = time.time_ns(), 3600 * SECOND
    parts = {}
    for rank, (host, at_ns, best) in enumerate((("fast", now_ns + hour_ns, 1), ("right", now_ns + 5 * SECOND, 2))):
        path = parts[host] = tmp_path / "p" / f"r@{host}"
        with JournaledRun(path, environment={"rank": rank, "joins": True}, run_id="r") as run:
            run.log({"x": float(rank)}, rank, time_ns=at_ns)
            run.update("summary", {"best": best}, time_ns=at_ns)
            run.journal()
            run.end()
    with Merger(merged) as merger:
        for host in sorted(parts, key=lambda host: host != first):
            bring(merger, parts[host], messages=1)  # its start
        merger.hear("fast", offset_ns=-hour_ns)
        merger.hear("right", offset_ns=SECOND // 1000)
        merger.sync()
        for host in sorted(parts, key=lambda host: host != first):
            bring(merger, parts[host])
    assert manifests.load(merged).summary == {"best": 2}
    assert delivered_summary(merged) == {"best": 2}
    assert [record.time_ns - now_ns for record in asynctrack.open_run(merged).records()].count(hour_ns) == 1
    told = said_here("tail", merged, "--json").stdout.splitlines()
    assert [json.loads(line)["x"] for line in told] == [0.0, 1.0]


def delivered_summary(run: Path) -> dict[str, Any]:
    """The summary as a backend gets it, from the beginning."""
    batcher, found = Batcher(run, Cursor(), asynctrack.JSONLines()), dict[str, Any]()
    while (batch := batcher.next()) is not None:
        for update in batch.batch.updates:
            if update.kind == "summary":
                found.update(update.data)
    batcher.close()
    return found


def test_clock_is_measured_where_a_host_writes_while_it_is_merged(tmp_path: Path, merged: Path) -> None:
    path = tmp_path / "p" / "r@a"
    with JournaledRun(path, environment={"rank": 0, "joins": True}, run_id="r") as run:
        run.log({"loss": 1.0})
        run.journal()
        collector = collect(merged, [path])
        collector.turn()
        assert manifests.load(merged).hosts[0].clock_offset_ns is None  # it may be a copy
        for _ in range(3):
            run.log({"loss": 1.0})
            run.journal()
            collector.turn()
        collector.close()
    offset_ns = manifests.load(merged).hosts[0].clock_offset_ns
    assert offset_ns is not None
    assert abs(offset_ns) < SECOND // 10  # the disk's clock is this machine's, in ticks of some milliseconds


class OffClock(PlainCarrier):
    """The way from a host whose clock is fast."""

    fast_ns = 0

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        said = str(time.time_ns() + self.fast_ns)
        target = post_target(self._name, after, upto)
        self._check(ask(self._url, "POST", target, message, **{wire.TIME_HEADER: said}))


@pytest.mark.system
def test_clocks_and_troubles_of_hosts_that_come_by_http_are_shown(tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2)]
    with serving(tmp_path / "out") as collector:
        for part, fast_s in zip(parts, (3600, -2), strict=True):
            carrier = OffClock(collector.url, name_of(part))
            carrier.fast_ns = fast_s * SECOND
            publisher = JournalPublisher(part / "journal", carrier)
            while publisher.advance():
                pass
            publisher.close()
        stranger = PlainCarrier(collector.url, name_of(tmp_path / "p" / "r@copy"))
        with pytest.raises(PartRefused):
            JournalPublisher(parts[0] / "journal", stranger).advance()
        run = collector.directory / "p" / "r"
        wait_until(lambda: "copy" in shown(run), "the copy is told of")
        found = shown(run)
    offsets = {host: row["clock_offset_s"] for host, row in found.items()}
    assert -3600 <= offsets["a"] < -3590
    assert 2 <= offsets["b"] < 12
    assert offsets["copy"] is None
    assert "its journal is that of host a" in found["copy"]["refused"]
    assert all(found[host]["heard_at"] is not None for host in "ab")
    assert found["b"]["behind_s"] < 60
    assert_merged(run, parts)


@pytest.mark.system
def test_host_that_comes_by_http_says_how_far_behind_it_is(tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    with serving(tmp_path / "out") as collector:
        run = collector.directory / "p" / "r"
        carrier = HTTPCarrier(collector.url, name_of(part), part / "journal")
        with contextlib.closing(carrier):
            publisher = JournalPublisher(part / "journal", carrier, message_bytes=1000)
            assert publisher.advance() is not None
            assert publisher.place is not None
            left = bytes_behind(part / "journal", publisher.place)
            wait_until(lambda: shown(run)["a"]["behind_bytes"] == left, "what is to come is shown")
            told = said_here("show", run, "--hosts").stdout
            assert re.search(rf"{left / 1000:.2f} kB, [0-9.]+ s ", told), told
            while publisher.advance():
                pass
            publisher.close()
        wait_until(lambda: shown(run)["a"]["behind_bytes"] == 0, "nothing is to come")
        assert shown(run)["a"]["behind_s"] == 0


# Behind a merged run


def eight_ranks(directory: Path, merged: Path) -> None:
    """A merged run of eight ranks, two on each host; each has logged its loss at 15 steps."""
    merge(merged, *[make_part(directory, host, rank=2 * at) for at, host in enumerate("abcd")])


def test_mlflow_has_a_run_for_each_rank_of_all_hosts(tmp_path: Path, merged: Path) -> None:
    eight_ranks(tmp_path, merged)
    app = MLflowApp()
    with RawServer(app) as server:
        deliver(merged, asynctrack.MLflow(tracking_uri=server.url, writers="split"), name="mlflow")
        deliver(merged, asynctrack.MLflow(tracking_uri=server.url, writers="split"), name="mlflow")
    assert len(app.runs) == 8
    for found in app.runs.values():
        assert [(step, value) for key, _, step, value in found["metrics"] if key == "loss"] == [
            (step, float(step)) for step in range(15)
        ]


def test_tensorboard_has_a_line_for_each_rank_of_all_hosts(tmp_path: Path, merged: Path) -> None:
    eight_ranks(tmp_path, merged)
    deliver(merged, asynctrack.TensorBoard(), name="tensorboard")
    deliver(merged, asynctrack.TensorBoard(), name="tensorboard")
    folders = {path.parent for path in (merged / "tensorboard").rglob("events.*")}
    lines = [points(folder, "loss") for folder in sorted(folders)]
    assert lines == [[(step, float(step)) for step in range(15)]] * 8
