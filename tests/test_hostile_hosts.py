"""Hostile hosts: whoever has a token makes journals of their own, whose checksums are right and whose frames say anything. One run is theirs to spoil; no other is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from collector_server import bring, serving
from hypothesis import strategies
from merged_rings import make_part, rings_of
from support import wait_until

from asynctrack import CSV, JSON, JSONLines
from asynctrack.carriers.cutter import Cut, Cutter
from asynctrack.carriers.message import Garbage, Place, pack
from asynctrack.errors import PartRefused
from asynctrack.journal import manifest as manifests
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.layout import BatchHeader, pack_batch, salt_of
from asynctrack.merging.server.guarded_merger import BatchPost, GuardedMerger, Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.queue.layout import KIND_SHIFT, frame_size
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun

JOURNAL = b"j" * 16

anything: Any = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(1 << 63), (1 << 64) - 1)
    | strategies.floats()
    | strategies.text(max_size=5)
    | strategies.binary(max_size=5),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
# Names of fields that something reads.
fields = strategies.sampled_from(
    [
        "note",
        "host",
        "ring",
        "time_ns",
        "at",
        "journal",
        "backends",
        "status",
        "error",
        "idle",
        "offset_ns",
        "origin",
        "seen",
        "id",
        "project",
        "name",
        "created_at",
        "config",
        "summary",
        "environment",
        "writer",
        "pid",
        "rank",
        "joins",
        "owner",
        "boot",
        "expected",
        "hosts",
        "writers",
        "limits",
        "version",
        "opened_at",
        "exit_code",
        "reason",
        "message",
        "heard_ns",
        "rings",
        "lost",
    ]
)
notes = strategies.sampled_from(
    [
        "run_ended",
        "run_reopened",
        "ring_ended",
        "host_joined",
        "host_opened",
        "host_owns",
        "host_ring",
        "host_ended",
        "host_lost",
        "host_reopened",
        "host_clock",
        "host_gap",
        "worker_started",
    ]
)
said = strategies.fixed_dictionaries({}, optional={"note": notes}).flatmap(
    lambda known: strategies.dictionaries(fields, anything, max_size=6).map(lambda more: {**more, **known})
)
START_FIELDS = {"id": "r", "name": "r", "project": "p", "created_at": "2026-11-29T00:00:00+00:00"}
starts = strategies.dictionaries(fields, anything, max_size=4).map(lambda more: {**START_FIELDS, **more})


def _as_json(note: dict[str, Any]) -> bytes:
    """Notes are JSON."""
    return msgspec.json.encode(msgspec.to_builtins(note, str_keys=True))


payloads = strategies.one_of(
    strategies.binary(max_size=60),
    anything.map(msgspec.msgpack.encode),
    said.map(msgspec.msgpack.encode),
    said.map(_as_json),
    starts.map(msgspec.msgpack.encode),
)
frames = strategies.tuples(strategies.sampled_from([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 200, 255]), payloads)
batches = strategies.lists(
    strategies.tuples(strategies.sampled_from([0, 1, 2]), strategies.lists(frames, min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


def frame(kind: int, payload: bytes, number: int) -> bytes:
    header = len(payload).to_bytes(8, "little") + (kind << KIND_SHIFT | number).to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


def message_of(content: list[tuple[int, list[tuple[int, bytes]]]]) -> bytes:
    """Batches, each with where its ring is by then."""
    ends: dict[int, int] = {}
    parts = []
    for ring, told in content:
        data = b"".join(frame(kind, payload, at + 1) for at, (kind, payload) in enumerate(told))
        start = ends.get(ring, 0)
        ends[ring] = start + len(data)
        parts.append(
            pack_batch(BatchHeader(len(data), ring, start, ends[ring], 0, time.time_ns()), (data,), salt_of(JOURNAL))
        )
    return pack(JOURNAL, b"".join(parts))


def post_of(host: str, cut: Cut) -> BatchPost:
    return BatchPost(Sign(host, time.time_ns(), time.time_ns()), cut.after, cut.upto, cut.message, False)


def give(merger: GuardedMerger, post: BatchPost) -> Exception | None:
    merger.open()
    try:
        merger.take(post)
    except Exception as error:
        return error
    return None


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_part(tmp_path_factory.mktemp("honest"), "a", rank=0)


def cuts_of(part: Path) -> Iterator[Cut]:
    cutter = Cutter(part / "journal", Place())
    while (cut := cutter.cut(1)) is not None:
        yield cut
    cutter.close()


@pytest.mark.system
@hypothesis.given(content=batches, first=strategies.booleans())
@hypothesis.settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
def test_frames_that_say_anything_are_merged_or_refused_and_keep_no_other_host_out(
    honest: Path, content: Any, first: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "p" / "r"
        merger = GuardedMerger(run, ServerLimits(keep_free_bytes=0), {})
        hostile = BatchPost(Sign("evil", 0, time.time_ns()), Place(), Place(1, 1, 1), message_of(content), False)
        cuts = list(cuts_of(honest))
        before, behind = (0, len(cuts)) if first else (3, len(cuts))
        for cut in cuts[:before]:
            assert give(merger, post_of("a", cut)) is None
        error = give(merger, hostile)
        assert error is None or isinstance(error, PartRefused), error
        for cut in cuts[before:behind]:
            assert give(merger, post_of("a", cut)) is None
        merger.open()
        merger.sync()
        merger.close()
        assert _has_rings(run, honest)
        RunReader(run).manifest()
        merger.open()  # what was written is read again
        merger.sync()
        merger.close()


def _has_rings(run: Path, part: Path) -> bool:
    """Return whether each ring of a part is in the merged run, but for its first frame: that may be a join."""
    found, expected = rings_of(run), rings_of(part)
    return all(found[ring][-100:] == data[-100:] and len(found[ring]) == len(data) for ring, data in expected.items())


@pytest.mark.system
def test_backends_that_a_host_names_lead_the_collector_nowhere(tmp_path: Path) -> None:
    part, elsewhere = tmp_path / "p" / "r@evil", tmp_path / "elsewhere"
    elsewhere.mkdir()
    named = {"json": JSON(file=str(elsewhere / "1.json")), "jsonl": JSONLines(), "csv": CSV()}
    with JournaledRun(part, backends=named, run_id="r") as run:
        run.log({"loss": 1.0})
        run.journal()
        run.end()
    another_user = {"XDG_STATE_HOME": str(tmp_path / "state")}
    merged = tmp_path / "runs" / "p" / "r"
    with serving(tmp_path / "runs", "--backends", "json", environment=another_user) as collector:
        bring(collector.url, part)
        wait_until(lambda: load_cursor(merged, "json").closed, "the run is delivered")
    assert list(elsewhere.iterdir()) == []
    assert list(merged.glob("*.json*")) != []
    assert not (merged / "metrics.jsonl").exists()
    assert not (merged / "csv").exists()


def test_clock_that_cannot_be_harms_nobody(tmp_path: Path, honest: Path) -> None:
    run = tmp_path / "p" / "r"
    merger = GuardedMerger(run, ServerLimits(keep_free_bytes=0), {})
    for cut, sent_ns in zip(cuts_of(honest), (0, (1 << 63) - 1, 1, 0), strict=False):
        post = BatchPost(Sign("a", sent_ns, time.time_ns()), cut.after, cut.upto, cut.message, False)
        assert give(merger, post) is None
        merger.sync()
    merger.close()
    assert [one.host for one in manifests.load(run).hosts] == ["a"]
    RunReader(run).manifest()


def test_names_of_hosts_that_bring_nothing_are_not_remembered(tmp_path: Path, honest: Path) -> None:
    run = tmp_path / "p" / "r"
    merger = GuardedMerger(run, ServerLimits(keep_free_bytes=0), {})
    assert give(merger, post_of("a", next(cuts_of(honest)))) is None
    nothing = pack(JOURNAL, pack_batch(BatchHeader(0, 0, 0, 0, 0, 0), (b"",), salt_of(JOURNAL)))
    for message in (pack(JOURNAL, b""), nothing):
        post = BatchPost(Sign("made-up", 0, time.time_ns()), Place(), Place(9, 9, 9), message, False)
        assert isinstance(give(merger, post), Garbage | PartRefused)
    merger.sync()
    merger.close()
    assert "made-up" not in (run / "hosts.json").read_text()


def test_host_with_more_processes_than_a_run_may_have_is_refused_and_the_others_go_on(
    tmp_path: Path, honest: Path
) -> None:
    run, cuts = tmp_path / "p" / "r", list(cuts_of(honest))
    rings = len(rings_of(honest))
    merger = GuardedMerger(run, ServerLimits(keep_free_bytes=0, rings=rings + 5), {})
    for cut in cuts[:-2]:
        assert give(merger, post_of("a", cut)) is None
    content = [(ring + 1, [(1, msgspec.msgpack.encode([1]))]) for ring in range(100)]
    hostile = BatchPost(Sign("evil", 0, time.time_ns()), Place(), Place(1, 1, 1), message_of(content), False)
    error = give(merger, hostile)
    assert isinstance(error, PartRefused)
    assert f"the run has the rings of {rings + 5} processes" in str(error)
    for cut in cuts[-2:]:
        assert give(merger, post_of("a", cut)) is None
    merger.sync()
    merger.close()
    assert _has_rings(run, honest)
    assert len(rings_of(run)) == rings + 5
