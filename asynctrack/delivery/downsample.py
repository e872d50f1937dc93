"""Downsample: of each stretch of time the records that hold the first, the last, the least and the greatest value of each key. For displays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from asynctrack.records.codec import Record, flatten

_NUMBERS: Final = frozenset({bool, int, float})  # as they are read from a journal, never a subclass


class Downsampler:
    """Takes records in order and keeps the few that show what happened between the first and the last of them."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._least: dict[str, tuple[float, int]] = {}
        self._greatest: dict[str, tuple[float, int]] = {}
        self._kept: dict[int, Record] = {}
        self._taken = 0

    def __len__(self) -> int:
        """Count the records taken."""
        return self._taken

    def add(self, records: Iterable[Record]) -> None:
        """Take more records; those that no key needs any more are forgotten."""
        for record in records:
            index, self._taken = self._taken, self._taken + 1
            self._kept[index] = record
            for key, value in flatten(record.data):
                self._first.setdefault(key, index)
                self._last[key] = index
                if type(value) in _NUMBERS and value == value:  # NaN is neither the least nor the greatest
                    if key not in self._least or value < self._least[key][0]:
                        self._least[key] = (value, index)
                    if key not in self._greatest or value > self._greatest[key][0]:
                        self._greatest[key] = (value, index)
        needed = self._needed()
        self._kept = {index: record for index, record in self._kept.items() if index in needed}

    def kept(self) -> list[Record]:
        """Return the records that are kept, in order."""
        return list(self._kept.values())

    def _needed(self) -> set[int]:
        extremes = (index for found in (self._least, self._greatest) for _, index in found.values())
        return {*self._first.values(), *self._last.values(), *extremes}
