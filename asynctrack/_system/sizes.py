"""Sizes: numbers of bytes as people write them. Pure functions."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"([0-9]{1,18})([KMGT]?)(iB|B)?", re.IGNORECASE)
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def bytes_in(text: str) -> int | None:
    """Return the number of bytes that a text such as `64M` says, K, M, G and T being powers of 1024; None where it says none."""
    found = _SIZE.fullmatch(text.strip())
    return None if found is None else int(found[1]) << _UNITS[found[2].upper()]
