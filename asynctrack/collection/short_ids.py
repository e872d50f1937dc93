"""Short ids: the beginnings of ids that still tell runs apart. Runs anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

# Ids that asynctrack made, which nobody knows by heart; others are people's words.
_MADE: Final = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
# Longer words of people are cut as well. Arbitrary.
_LONGEST: Final = 24
# The date, so that an id looks like one.
_SHORTEST: Final = 8


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return for each id its shortest beginning that no other has, where it is one that was made, or long; else the whole.

    Args:
        ids: of all runs that it may be taken for. One that is there twice stays whole.
    """
    found = sorted(ids)
    shared = dict.fromkeys(found, 0)
    for one, other in pairwise(found):
        common = _shared(one, other)
        shared[one] = max(shared[one], common)
        shared[other] = max(shared[other], common)
    return {one: _beginning(one, common + 1) for one, common in shared.items()}


def _shared(one: str, other: str) -> int:
    """Return in how many characters two texts begin alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _beginning(one: str, length: int) -> str:
    if _MADE.fullmatch(one) is None and len(one) <= _LONGEST:
        return one
    length = max(length, _SHORTEST)
    return one[: length + 1] if one[:length].endswith("-") else one[:length]
