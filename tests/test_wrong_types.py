"""A value of a wrong type is named with its place, what was expected and what came, in the words of those who wrote it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from asynctrack._system.wrong_types import explain


class Inner(msgspec.Struct):
    tags: dict[str, str] = {}
    names: list[str] = []
    token: str = ""


class Outer(msgspec.Struct):
    rate: float | None = 1.0
    size: int = msgspec.field(default=1)
    inner: Inner = msgspec.field(default_factory=Inner)


@pytest.mark.parametrize(
    ("given", "at", "said"),
    [
        ({"rate": "fast"}, "", "rate must be a number or null; got 'fast'"),
        ({"size": 1.5}, "backends[0]", "backends[0].size must be a whole number; got 1.5"),
        ({"size": None}, "", "size must be a whole number; got null"),
        ({"inner": 3}, "$x", "$x.inner must be a mapping; got 3"),
        ({"inner": {"names": ["a", [2]]}}, "", "inner.names[1] must be text; got [2]"),
        ({"inner": {"tags": {"a": 1}}}, "", "a value of inner.tags must be text; got a whole number"),
        ({"inner": {"token": 12345}}, "", "inner.token must be text; got a whole number"),
        (["x"], "", "it must be a mapping; got ['x']"),
    ],
)
def test_wrong_type_is_said_in_plain_words(given: Any, at: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(given, Outer)
    assert explain(caught.value, given, at) == said


def test_words_that_are_not_known_are_repeated_with_their_place() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"size": 1}, type("Needs", (msgspec.Struct,), {"__annotations__": {"what": int}}))
    assert explain(caught.value, {"size": 1}, "here") == "here: Object missing required field `what`"
