"""A record's values by flat names, its numbers, and numbers as floats are one thing for all who show them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.records.codec import flatten
from asynctrack.records.plain import as_float, finite, flat, items_in, numbers_in

HUGE = 10**400
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
RECORDS = st.dictionaries(
    st.text(max_size=3),
    st.recursive(LEAVES, lambda inner: st.dictionaries(st.text(max_size=3), inner) | st.lists(inner), max_leaves=10),
)


@given(RECORDS)
def test_flat_names_are_those_of_flatten_whatever_is_nested(data: dict[str, object]) -> None:
    assert dict(flat(data)) == dict(flatten(data))


def test_what_is_flat_is_not_copied() -> None:
    data = {"a": 1, "b": 0.5, "c": "text", "d": None, "e": True}
    assert flat(data) is data


@given(RECORDS, st.sampled_from(["", "above/"]))
def test_numbers_are_what_flatten_has_of_them(data: dict[str, object], parent: str) -> None:
    assert list(numbers_in(data, parent)) == [
        (name, value) for name, value in flatten(data, parent) if type(value) in (float, int, bool)
    ]


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (True, 1.0), (0.5, 0.5), (HUGE, None), (-HUGE, None), (math.nan, None), (-math.inf, None)],
)
def test_number_is_finite_or_none(value: float, number: float | None) -> None:
    assert finite(value) == number


def test_integer_beyond_every_float_is_what_its_user_says() -> None:
    assert [as_float(HUGE, "too large"), as_float(3, "too large")] == ["too large", 3.0]


def test_items_of_nested_lists_come_in_order() -> None:
    assert items_in([[1, [2]], 3, []]) == [1, 2, 3]
    assert items_in("text") == ["text"]
