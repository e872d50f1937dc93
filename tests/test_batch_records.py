"""The native core decodes batches as Python does: the same records or the same that cannot be read, of any values and any bytes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from reading_versions import tries
from test_fuzz import packed
from test_scan import alike, payloads, records

from asynctrack._system.native import is_native
from asynctrack.journal.batch_records import BatchDecoder, Taken
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import BatchHeader
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import PAD, RECORD
from asynctrack.records.codec import Decoder, Record, encode_any
from asynctrack.testing import JournaledRun

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")


def batch_of(frames: bytes, whole: list[tuple[int, int]] | None = None) -> FrameBatch:
    header = BatchHeader(len(frames), 7, 0, len(frames), 0, 0)
    return FrameBatch(1, 64, header, memoryview(frames), whole or [(0, len(frames))])


def both(
    batch: FrameBatch, inner: int = 0, max_bytes: int = 1 << 30, max_records: int = 1 << 30
) -> tuple[Taken, Taken]:
    native, plain = BatchDecoder(Decoder()), BatchDecoder(Decoder())
    plain._native = None
    return native.take(batch, inner, max_bytes, max_records), plain.take(batch, inner, max_bytes, max_records)


def assert_alike(native: Taken, plain: Taken) -> None:
    assert alike([fields(record) for record in native.records], [fields(record) for record in plain.records])
    assert [tuple(frame) for frame in native.others] == [tuple(frame) for frame in plain.others]
    assert [frame.number for frame in native.unreadable] == [frame.number for frame in plain.unreadable]
    assert native.inner == plain.inner


def fields(record: Record) -> tuple[Any, ...]:
    return record.number, record.step, record.time_ns, record.data, record.ring, record.writer


@tries(payloads)
def test_payloads_of_any_bytes_give_the_same_records(payloads: list[bytes]) -> None:
    assert_alike(*both(batch_of(b"".join(packed(number, payload) for number, payload in enumerate(payloads)))))


@tries(st.lists(st.tuples(records, st.none() | st.integers(-(2**63), 2**64 - 1)), max_size=8))
def test_records_of_any_values_are_the_same(logged: list[tuple[dict[str, Any], int | None]]) -> None:
    frames = b"".join(packed(number, encode_any(data, step)[0]) for number, (data, step) in enumerate(logged))
    assert_alike(*both(batch_of(frames)))


stretches = st.lists(st.integers(0, 40), min_size=2, max_size=4).map(sorted)


@tries(
    st.binary(max_size=400),
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 5),
    stretches,
    known=((b"", 0, 1, 1, [0, 0]),),
)
def test_frames_of_any_bytes_are_taken_alike(
    frames: bytes, inner: int, max_bytes: int, max_records: int, bounds: list[int]
) -> None:
    ends = [min(8 * bound, len(frames) & -8) for bound in bounds]
    whole = list(zip(ends[::2], ends[1::2], strict=False))
    assert_alike(*both(batch_of(frames, whole), inner, max_bytes, max_records))


kinds = st.sampled_from([RECORD, RECORD, 1, 2, 8, PAD])
frames = st.tuples(st.integers(0, 2**56 - 1), st.just(msgspec.msgpack.encode((1, None, {"a": 0.5}))), kinds)


@tries(st.lists(frames, max_size=12), st.integers(0, 500), st.integers(0, 9))
def test_pieces_end_where_they_did(frames: list[tuple[int, bytes, int]], max_bytes: int, max_records: int) -> None:
    batch = batch_of(b"".join(packed(*frame) for frame in frames))
    inner = 0
    while inner < len(batch.data) and (max_bytes and max_records):
        native, plain = both(batch, inner, max_bytes, max_records)
        assert_alike(native, plain)
        inner = native.inner


def test_records_share_the_texts_of_their_keys() -> None:
    payload = msgspec.msgpack.encode((1, None, {"a long name of a metric": 0.5}))
    taken, _ = both(batch_of(packed(0, payload) + packed(1, payload)))
    (one,), (other,) = (record.data for record in taken.records)
    assert one is other


def test_records_do_not_share_their_data() -> None:
    payload = msgspec.msgpack.encode((1, None, {"a": 0.5, "b": 1}))
    taken, _ = both(batch_of(packed(0, payload) + packed(1, payload) + packed(2, payload)))
    taken.records[1].data["a"] = 2.0
    taken.records[1].data["c"] = 3.0
    assert taken.records[0].data == taken.records[2].data == {"a": 0.5, "b": 1}


def test_a_decoder_refuses_to_decode_within_itself() -> None:
    from asynctrack._native import FrameDecoder as Native

    class Reentrant:
        def __new__(cls, *fields: Any) -> Any:
            native.take(memoryview(frame), [(0, len(frame))], 0, 100, 100, 7)

    native, frame = Native(Reentrant), packed(0, msgspec.msgpack.encode((1, None, {"a": 0.5})))
    with pytest.raises(RuntimeError, match="one thread at a time"):
        native.take(memoryview(frame), [(0, len(frame))], 0, 100, 100, 7)
    with pytest.raises(RuntimeError, match="one thread at a time"):  # and so it is free again
        native.take(memoryview(frame), [(0, len(frame))], 0, 100, 100, 7)


def test_stretches_beyond_the_frames_are_refused() -> None:
    from asynctrack._native import FrameDecoder as Native

    for whole in ([(0, 25)], [(-8, 8)], [(16, 8)]):
        with pytest.raises(ValueError, match="expected a stretch of 24 bytes"):
            Native(Record).take(memoryview(bytes(24)), whole, 0, 100, 100, 7)


def test_records_of_a_batch_are_counted_as_its_frames_are(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(50):
            run.log({"x": "y" * step}, step)
            if step % 7 == 0:
                run.update("config", {"step": step})
            if step % 20 == 0:
                run.journal()
        run.journal()
        run.end()
    with contextlib.closing(Reader(run.path / "journal")) as reader:
        found = [(batch.count_records(), sum(frame.kind == RECORD for frame in batch.frames())) for batch in reader]
    assert sum(count for count, _ in found) == 50
    assert all(count == frames for count, frames in found)
