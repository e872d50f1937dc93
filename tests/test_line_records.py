"""The native core makes lines of JSON of frames as Python does of their records: the same bytes, of any values and any bytes. Python's way is the specification."""

from __future__ import annotations

import gc
import math
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from delivery_support import cursor, journal
from hypothesis import strategies as st
from reading_versions import read_in_python, tries
from test_batch_records import assert_alike, batch_of
from test_fuzz import packed
from test_scan import payloads

from asynctrack import Image, JSONLines
from asynctrack._system.native import is_native
from asynctrack.backends.files.jsonl import NotFinite, encode_lines
from asynctrack.backends.files.line_records import LineBatches, LineRecords, TakenLines, last_number
from asynctrack.delivery.batcher import Batcher
from asynctrack.delivery.line_batches import line_batches
from asynctrack.journal.batch_records import BatchDecoder, Taken
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.writers import Writers
from asynctrack.records.codec import Decoder, encode_any
from asynctrack.testing import JournaledRun, deliver

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")

NO_LIMIT = 1 << 30
# A run that had others before: its records have labels.
SEVERAL = Writers(labels={7: "rank1"}, several=True)


def line_maker(not_finite: NotFinite = "text") -> LineBatches:
    made = line_batches(JSONLines(not_finite=not_finite), Path(), Decoder(), SEVERAL)
    assert made is not None
    return made


def taken(batch: FrameBatch, not_finite: NotFinite = "text", *limits: int) -> tuple[TakenLines, Taken]:
    inner, max_bytes, max_records = limits or (0, NO_LIMIT, NO_LIMIT)
    plain = BatchDecoder(Decoder(), SEVERAL)
    plain._native = None
    return line_maker(not_finite).take(batch, inner, max_bytes, max_records), plain.take(
        batch, inner, max_bytes, max_records
    )


def assert_same_lines(batch: FrameBatch, not_finite: NotFinite = "text", *limits: int) -> int:
    """Check the lines, and the records that are decoded where somebody looks; return how many the core has left to Python."""
    quick, plain = taken(batch, not_finite, *limits)
    assert quick.records.lines() == b"".join(encode_lines([record], not_finite) for record in plain.records)
    assert quick.records.lines() == encode_lines(plain.records, not_finite)
    assert len(quick.records) == len(plain.records)
    assert last_number(quick.records) == last_number(plain.records)
    assert_alike(Taken(list(quick.records), quick.others, quick.unreadable, quick.inner, True), plain)
    return sum(len(piece.odd) for piece in quick.records._pieces)


def logged(*records: dict[Any, Any], step: int | None = None) -> FrameBatch:
    frames = (packed(number, encode_any(data, step)[0]) for number, data in enumerate(records))
    return batch_of(b"".join(frames))


both_ways = st.sampled_from(["text", "null"])
names = st.sampled_from(["a", "b", "a/b", "é", "", "step", "_step", "__timestamp", '"', "a b c d e f g h"]) | st.text(
    max_size=12
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.floats(width=32) | st.text(max_size=20)
    | st.sampled_from(["null", "NaN", 'a"\\\n\x7f', b"bytes", np.float32(0.1), np.arange(3)])
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
several = st.lists(st.dictionaries(names, anything, max_size=6), max_size=5)


@tries(several, st.none() | st.integers(-(2**63), 2**64 - 1), both_ways)
def test_lines_of_any_values_are_the_same(data: list[dict[str, Any]], step: int | None, not_finite: NotFinite) -> None:
    assert_same_lines(logged(*data, step=step), not_finite)


@tries(payloads, both_ways)
def test_lines_of_any_bytes_are_the_same(payloads: list[bytes], not_finite: NotFinite) -> None:
    assert_same_lines(
        batch_of(b"".join(packed(number, payload) for number, payload in enumerate(payloads))), not_finite
    )


plain_bytes = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"\x81", b"\x82", b"\x92", b"\xa1a", b"\xa1b", b"\xa3a/b", b"\x01", b"\x80"]),
)


@tries(st.lists(st.lists(plain_bytes, max_size=8).map(b"".join), max_size=4), both_ways)
def test_lines_of_maps_of_any_bytes_are_the_same(data: list[bytes], not_finite: NotFinite) -> None:
    frames = (packed(number, b"\x93\x01\xc0" + one) for number, one in enumerate(data))
    assert_same_lines(batch_of(b"".join(frames)), not_finite)


@tries(
    st.binary(max_size=400),
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 5),
    st.lists(st.integers(0, 40), min_size=2, max_size=4).map(sorted),
)
def test_frames_of_any_bytes_are_taken_alike(
    frames: bytes, inner: int, max_bytes: int, max_records: int, bounds: list[int]
) -> None:
    ends = [min(8 * bound, len(frames) & -8) for bound in bounds]
    whole = list(zip(ends[::2], ends[1::2], strict=False))
    assert_same_lines(batch_of(frames, whole), "text", inner, max_bytes, max_records)


def floats_to_try() -> list[float]:
    """Powers of two and of ten with their neighbours, the ends of what is written without an exponent, and some with few digits."""
    found = [math.ldexp(1.0, power) for power in range(-1074, 1024)]
    found += [
        float(f"{digits}e{power}") for digits in ("1", "9.5", "123456789", "2.5000001") for power in range(-324, 300)
    ]
    found += [digits / 10**power for digits in (1, 7, 42, 1000003, 2**53 - 1) for power in range(25)]
    found += [1.7976931348623157e308, 2.2250738585072014e-308, 9007199254740993.0, 0.0, 1e23, 8.41e21, 9.5e-7]
    neighbours = [math.nextafter(value, toward) for value in found for toward in (-math.inf, math.inf)]
    return [signed for value in found + neighbours if math.isfinite(value) for signed in (value, -value)]


def test_each_float_is_the_shortest_that_reads_back() -> None:
    values = floats_to_try()
    assert len(values) > 20_000
    batch = logged(*({"x": value} for value in values))
    assert assert_same_lines(batch) == 0
    lines = msgspec.json.Decoder().decode_lines(taken(batch)[0].records.lines())
    assert [line["x"] for line in lines] == values


@tries(st.lists(st.binary(min_size=8, max_size=8), min_size=50, max_size=200))
def test_floats_of_any_bits_are_the_same(bits: list[bytes]) -> None:
    assert assert_same_lines(logged(*({"x": struct.unpack("d", eight)[0]} for eight in bits))) == 0


def test_integers_of_each_length_are_the_same() -> None:
    values = [sign * (10**power + near) for power in range(19) for near in (-1, 0, 1) for sign in (1, -1)]
    assert assert_same_lines(logged(*({"x": value} for value in [*values, 2**64 - 1, -(2**63)]))) == 0


def test_texts_of_each_character_are_the_same() -> None:
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)]))
    pieces = [everything[at : at + 50] for at in range(0, len(everything), 50)]
    assert assert_same_lines(logged(*({"x": piece, piece: 1} for piece in pieces))) == 0


def test_lines_of_plain_records_are_made_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "record", None)
    nested = {
        "loss": 0.5,
        "ok": True,
        "none": None,
        "bad": math.nan,
        "train": {"acc": 1, "deep": {"_step": "ä\n"}},
        "_step": [1, [2.5, "x"], {}],
        "e": {},
    }
    found = line_maker().take(logged(nested, step=3), 0, NO_LIMIT, NO_LIMIT)
    line = msgspec.json.decode(found.records.lines())
    line.pop("_timestamp")
    assert line.pop("_writer") == "rank1"
    assert line == {
        "_step": 3,
        "loss": 0.5,
        "ok": True,
        "none": None,
        "bad": "NaN",
        "train/acc": 1,
        "train/deep/_step": "ä\n",
        "__step": [1, [2.5, "x"], {}],
        "e": {},
    }


def test_names_that_meet_are_left_to_python() -> None:
    batch = logged({"a/b": 1, "a": {"b": 2}}, {"a": {"b": {"c": 1}, "b/c": 2}}, {"a": 1, "b": 2})
    assert assert_same_lines(batch) == 2
    twice = b"\x93\x01\xc0\x82\xa1a\x81\xa1b\x01\xa1a\x81\xa1c\x02"  # {"a": {"b": 1}, "a": {"c": 2}}: the later counts
    assert assert_same_lines(batch_of(packed(0, twice))) == 1


def test_more_names_than_are_remembered_are_the_same() -> None:
    batches = [
        logged({f"name {number}": 1 for number in range(first, first + 20_000)}) for first in range(0, 80_000, 20_000)
    ]
    maker, plain = line_maker(), BatchDecoder(Decoder(), SEVERAL)
    for batch in batches * 2:
        found = maker.take(batch, 0, NO_LIMIT, NO_LIMIT).records.lines()
        assert found == encode_lines(plain.take(batch, 0, NO_LIMIT, NO_LIMIT).records)


def test_long_records_and_long_names_are_left_to_python() -> None:
    assert_same_lines(logged({"x": "é\0" * 300_000}, {"n" * 2000: 1}, {"n" * 600: {"m" * 600: 1}}, {"x": 1}))


def test_deep_nests_are_left_to_python() -> None:
    deep: Any = 1
    for level in range(70):
        deep = {f"k{level}": deep} if level % 2 else [deep]
        assert_same_lines(logged({"x": deep}))


@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_a_line_does_not_depend_on_the_others_of_its_block(nest: bytes) -> None:
    for levels in (60, 64, 65, 66, 80, 140):
        deep = b"\x93\x01\xc0\x81\xa1a" + nest * levels + b"\x01"
        assert_same_lines(batch_of(packed(0, deep) + packed(1, b"\x93\x01\xc0\x81\xa1b\xc0")))


def test_records_are_looked_at_like_a_list() -> None:
    batch = logged(*({"n": number} for number in range(10)))
    records = taken(batch)[0].records
    more = taken(batch)[0].records
    records.extend(more)
    assert [record.data["n"] for record in records] == [*range(10)] * 2
    assert records[-1].data == {"n": 9}
    assert [record.data["n"] for record in records[3:5]] == [3, 4]
    assert len(records) == 20
    assert records
    assert last_number(records) == 9
    assert not LineRecords(encode_lines, BatchDecoder(Decoder()))
    assert last_number([]) == -1
    assert repr(records) == "<LineRecords, 20 in 2 pieces>"


def test_a_subclass_and_a_display_get_records() -> None:
    class Mine(JSONLines, frozen=True, kw_only=True, tag="mine, of lines"):
        pass

    assert line_batches(Mine(), Path(), Decoder(), Writers()) is None
    for settings in ({"downsample_interval_s": 1.0}, {"writers": "owner"}):
        assert line_batches(JSONLines(**settings), Path(), Decoder(), Writers()) is None


@pytest.mark.parametrize("not_finite", ["text", "null"])
def test_a_delivery_writes_the_same_file_with_and_without_the_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, not_finite: NotFinite
) -> None:
    backend = JSONLines(file="lines.jsonl", not_finite=not_finite)
    written = []
    with JournaledRun(tmp_path / "p" / "a") as run:
        for step in range(5000):
            run.log({"loss": step / 7, "bad": math.inf, "n": {"phase": "träin"}}, step)
            if step % 500 == 0:
                run.log({"image": Image(np.zeros((2, 2, 3), np.uint8)), "array": np.arange(3), "big": 2**70}, step)
        run.end()
    for again in range(2):
        cursor = deliver(run.path, backend, keep=False) if again else deliver(run.path, backend)
        assert cursor.delivered == 5010
        assert cursor.next_number == 5010
        written.append((run.path / "lines.jsonl").read_bytes())
        (run.path / "lines.jsonl").rename(tmp_path / f"{again}")
        read_in_python(monkeypatch)
    assert written[0] == written[1]
    assert written[0].count(b"\n") == 5010


def test_a_batch_of_lines_has_more_bytes_than_one_of_records(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 20_000)
    found = {}
    for backend in (JSONLines(), JSONLines(writers="owner")):
        batcher = Batcher(run.path, cursor(run.path), backend)
        while batcher.gather():
            pass
        cut = batcher.take(expedite=True)
        assert cut is not None
        found[backend.writers] = len(cut.batch.records)
        batcher.close()
    assert found["all"] > 3 * found["owner"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the collector runs between instructions only")
def test_an_encoder_refuses_to_encode_within_itself() -> None:
    from asynctrack._native import LineEncoder

    encoder, met = LineEncoder(7, False), []
    odd = packed(0, b"\x93\x01\xc0\x81\x01\x02")
    frames = memoryview(odd * 5000)  # more tuples than Python keeps for the next time

    def take() -> int:
        return len(encoder.take(frames, [(0, len(frames))], 0, NO_LIMIT, NO_LIMIT)[3])

    def collected(phase: str, details: dict[str, int]) -> None:
        try:
            take()
        except RuntimeError as error:
            met.append(str(error))

    before = gc.get_threshold()
    gc.callbacks.append(collected)
    try:
        gc.set_threshold(1)
        take()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)
    assert "a LineEncoder encodes for one thread at a time; make one for each" in met
    assert take() == 5000
