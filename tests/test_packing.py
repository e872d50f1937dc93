"""Packing: curves as short texts: what comes out is what went in, and what is rounded stays within its band."""

from __future__ import annotations

import array
import base64
import math
import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.curves.curve import CurveBuckets
from asynctrack.ui.packing import packed, rounded


def curve_of(low: list[float], high: list[float], mean: list[float], *, exact: bool = False) -> CurveBuckets:
    def column(kind: str, values: list[float]) -> memoryview:
        return memoryview(array.array(kind, values))

    count = range(len(low))
    x = column("d", [float(at) for at in count])
    counts = column("q", [1 for _ in count])
    low, high, mean = (column("d", values) for values in (low, high, mean))  # type: ignore[assignment]
    return CurveBuckets(
        key="k", axis="step", x=x, x_min=x, x_max=x, min=low, max=high, mean=mean, last=mean, count=counts,
        not_finite=column("q", [0 for _ in count]), exact=exact,
    )  # type: ignore[arg-type]  # fmt: skip


def as_single(value: float) -> float:
    (found,) = struct.unpack("f", struct.pack("f", value))
    return float(found)


numbers = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(st.tuples(numbers, numbers, numbers).map(sorted), min_size=1, max_size=30))
def test_rounded_curve_stays_around_its_numbers_and_near_them(rows: list[list[float]]) -> None:
    low, mean, high = (list(column) for column in zip(*rows, strict=True))
    found = rounded(curve_of(low, high, mean))
    across = max(high) - min(low)
    for at in range(len(rows)):
        assert found.min[at] <= low[at] and high[at] <= found.max[at]
        for name, value in (("min", low[at]), ("mean", mean[at]), ("max", high[at])):
            assert abs(getattr(found, name)[at] - value) <= max(across, abs(value)) / 2048 + 1e-37, name
        assert found.min[at] <= found.mean[at] <= found.max[at]


@pytest.mark.parametrize("value", [1e9, -1e9, 0.9991])
def test_small_changes_of_a_large_number_stay_to_be_seen(value: float) -> None:
    steps = [as_single(value * (1 + at * 1e-4)) for at in range(10)]
    found = rounded(curve_of(steps, steps, steps)).mean.tolist()
    assert len({*found}) == 10
    assert max(abs(one - other) for one, other in zip(found, steps, strict=True)) < abs(value) * 1e-4 * 9 / 1000


def test_nan_stays_and_what_is_beyond_a_float_of_four_bytes_is_left_alone() -> None:
    found = rounded(curve_of([math.nan, 1.0], [math.nan, 2.0], [math.nan, 1.5]))
    assert math.isnan(found.min[0]) and math.isnan(found.mean[0]) and found.max[1] == 2.0
    for curve in (
        curve_of([1e300], [2e300], [1.5e300]),
        curve_of([], [], []),
        curve_of([math.nan], [math.nan], [math.nan]),
    ):
        assert rounded(curve) is curve
    single = curve_of([0.1], [0.1], [0.1], exact=True)
    assert rounded(single) is single


def test_text_is_base64_of_what_zlib_deflated() -> None:
    text = packed(b"abc" * 1000)
    assert zlib.decompress(base64.b64decode(text)) == b"abc" * 1000 and len(text) < 60
    assert msgspec.json.encode(text).count(b"\\") == 0
