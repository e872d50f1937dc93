"""The native core's functions, called with arguments that nobody means: each says no, or answers, and the process goes on."""

from __future__ import annotations

import array
import itertools
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asynctrack._system.native import is_native
from asynctrack.records.codec import Record

if is_native:
    from asynctrack import _native

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")

REFUSALS = (TypeError, ValueError, IndexError, OverflowError, AttributeError, KeyError, BufferError)


class Lies:
    """Has a length and items that are not so."""

    def __len__(self) -> int:
        return 1 << 40

    def __index__(self) -> int:
        return -1

    def __getitem__(self, index: int) -> int:
        raise IndexError(index)


class RingOfNothing:
    """Looks like a ring, and has words that are too few."""

    words = memoryview(bytearray(64)).cast("Q")
    data = None
    capacity = 1 << 40


def odd_values() -> list[Any]:
    """Return one of each kind of argument that is wrong somewhere."""
    words = memoryview(mmap.mmap(-1, 1 << 16)).cast("Q")
    return [
        None, -1, 0, 1 << 62, 1 << 70, 0.5, float("nan"), "", "\ud800", b"", b"\xc1" * 64, bytearray(b"x"), memoryview(b"\xff" * 48), words, words[::2],
        memoryview(bytearray(65))[1:], array.array("d", [1.0]), (), (1 << 70,), [], [(0, 1 << 62)], [(-1, 2)], {}, {1: []}, {"a": float}, set(), dict, Record, object(),
        Lies(), RingOfNothing(), mmap.mmap(-1, 4096), Record(0, None, 0, {"a": 1}), [Record(0, "", -1, None)], [None],
    ]  # fmt: skip


def argument_lists() -> Iterator[tuple[Any, ...]]:
    """Yield none, each alone, each pair, and each as all of three to seven arguments."""
    values = odd_values()
    yield ()
    yield from ((value,) for value in values)
    yield from itertools.product(values, repeat=2)
    yield from ((value,) * count for value in values for count in range(3, 8))


def try_all(call: Callable[..., object]) -> None:
    for arguments in argument_lists():
        try:
            call(*arguments)
        except REFUSALS:
            continue


def objects() -> dict[str, Any]:
    """Make one of each of the core's classes, and one of each that nothing was given to."""
    scan = _native.Scan(1, True)
    scan.put(1, 1, [("a", 0.5), ("b", "text"), ("c", 1 << 70), ("d", [1])])
    return {
        "scan": scan,
        "empty scan": _native.Scan(1),
        "decoder": _native.FrameDecoder(Record),
        "base": _native.LogBase(),
        "method": _native.LogMethod(len),
        "buffer": scan.steps(),
        "bare put": _native.FastPut.__new__(_native.FastPut),
    }


FUNCTIONS = [name for name in dir(_native) if callable(getattr(_native, name))] if is_native else []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_with_odd_arguments_refuses_or_answers(name: str) -> None:
    try_all(getattr(_native, name))


@pytest.mark.parametrize("name", list(objects()) if is_native else [])
def test_method_with_odd_arguments_refuses_or_answers(name: str) -> None:
    methods = [method for method in dir(objects()[name]) if not method.startswith("__") or method == "__init__"]
    for method in methods:
        subject = objects()[name]  # afresh, since a call may have changed it
        member = getattr(subject, method, None)
        if callable(member):
            try_all(member)


@pytest.mark.parametrize("name", list(objects()) if is_native else [])
def test_attribute_that_is_set_to_what_is_odd_refuses_or_takes_it(name: str) -> None:
    for attribute in (member for member in dir(objects()[name]) if not member.startswith("__")):
        for value in odd_values():
            subject = objects()[name]
            try:
                setattr(subject, attribute, value)
                getattr(subject, attribute)
            except REFUSALS:
                continue
