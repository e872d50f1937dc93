"""Wrong types: what msgspec says of a value that has a wrong type, in the words of those who wrote it. Runs anywhere. Standard library only."""

from __future__ import annotations

import re
from typing import Any

from asynctrack._system.masking import is_secret

_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
    "Path": "a path",
}
# What msgspec says: "Expected `int | null`, got `str` - at `$.tags[0]`".
_EXPECTED = re.compile(r"Expected `([^`]+)`(.*?), got `([^`]+)`(.*)")
_PLACE = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def explain(error: Exception, given: Any, at: str = "") -> str:
    """Say which value has a wrong type, what was expected, and what came.

    Args:
        error: msgspec's `ValidationError`.
        given: What was converted, as its user wrote it.
        at: The place of that, such as `backends[0].flush_s`; empty for the whole.
    """
    match = _PLACE.fullmatch(str(error))
    assert match is not None  # it takes any text
    problem, inner = match[1], match[2] or ""
    place = f"{at}{inner}".removeprefix(".") or "it"
    place = f"a value of {place.removesuffix('[...]')}" if place.endswith("[...]") else place
    expected = _EXPECTED.fullmatch(problem)
    if expected is None:
        return f"{place}: {problem}"
    types, limits, got, more = expected.groups()
    words = " or ".join(_WORDS.get(one, f"`{one}`") for one in types.split(" | "))
    return f"{place} must be {words}{limits}; got {_found(given, inner, place, got)}{more}"


def _found(given: Any, inner: str, place: str, got: str) -> str:
    """Show the value where it can be found and is no secret; else say of which type it is."""
    named = _WORDS.get(got, got)
    for name, number in _STEP.findall(inner):
        try:
            given = given[name] if name else given[int(number)]
        except (LookupError, TypeError):
            return named
    if "..." in inner or is_secret(re.split(r"\W+", place)[-1]):
        return named
    return shown(given)


def shown(value: object) -> str:
    """Return the beginning of a value, as it is written."""
    return "null" if value is None else f"{value!r:.80}"
