"""Text: format records, config and summary as lines for people. Runs in the worker.

The lines hold no characters that a terminal would obey.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from asynctrack._system.printable import printable
from asynctrack.records.codec import Array, Media, flatten

# Characters of a value that are shown. Arbitrary.
_LONGEST: Final = 80
# Cells of a line, and items of a list in one. Arbitrary.
_MOST_CELLS: Final = 40
_MOST_ITEMS: Final = 8
# Settings that are shown in one line; `asynctrack show` has all. Arbitrary.
_MOST_PAIRS: Final = 30
# A column grows to this width at most; a wider value sticks out. Arbitrary.
_WIDEST: Final = 12
# Columns whose width is remembered.
_MOST_COLUMNS: Final = 1_000
# Numbers in this range have four decimals, others have four digits.
_LEAST: Final = 1e-3
_GREATEST: Final = 1e6

_short: Final = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxdict = 3, _MOST_ITEMS, _MOST_ITEMS
_short.maxstring = _short.maxlong = _LONGEST


class Lines:
    """Formats the lines of one run; a value is as wide as the widest of its key so far."""

    def __init__(self) -> None:
        self._widths: dict[str, int] = {}

    def of(self, step: int, total: int | None, values: Mapping[str, Any]) -> str:
        """Format these values as a line.

        Args:
            step: of the record.
            total: number of steps in all, None where that is not known.
            values: to show, by key.
        """
        of = "" if total is None else f"/{total}"
        cells = [self._cell(key, value) for key, value in islice(values.items(), _MOST_CELLS)]
        cells += [f"and {len(values) - _MOST_CELLS} more"] if len(values) > _MOST_CELLS else []
        return " | ".join([f"step={step:>{max(4, len(of) - 1)}}{of}", *cells]).rstrip()

    def _cell(self, key: str, value: Any) -> str:
        text = show(value)
        width = max(self._widths.get(key, 0), min(len(text), _WIDEST))
        if key in self._widths or len(self._widths) < _MOST_COLUMNS:
            self._widths[key] = width
        return f"{printable(key)}={text.ljust(width) if isinstance(value, str) else text.rjust(width)}"


class TROPTLines:
    """Formats lines as TROPT's `PrintTracker` prints them.

    Calls are counted from 1, floats have four decimals, and other values are as Python writes them.
    """

    def __init__(self, count: int) -> None:
        self.count: int = count

    def of(self, values: Iterable[tuple[str, Any]]) -> str:
        """Format the line of the next record."""
        self.count += 1
        return " | ".join([f"step={self.count:>4}", *_as_tropt(values)])

    def head(self, config: Mapping[str, Any]) -> str:
        """Format the config; "" where it is empty."""
        return printable(f"=== Run config: {dict(config)} ===") if config else ""

    def foot(self, summary: Mapping[str, Any]) -> str:
        """Format the summary; "" where it is empty."""
        return f"=== Run summary: {' | '.join(_as_tropt(summary.items()))} ===" if summary else ""


def pairs(data: Mapping[str, Any]) -> str:
    """Format a config or a summary as one line."""
    flat = dict(flatten(data))
    shown = [
        f"{printable(key)}={show(repr(value) if isinstance(value, float) else value)}"
        for key, value in islice(flat.items(), _MOST_PAIRS)
    ]
    return " | ".join([*shown, f"and {len(flat) - _MOST_PAIRS} more"] if len(flat) > _MOST_PAIRS else shown)


def show(value: Any) -> str:
    """Format a value in a few characters."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Array):
        return f"{value.dtype}[{'x'.join(map(str, value.shape))}]"
    if isinstance(value, Media):
        value = str(value)
    text = value[: _LONGEST + 1] if isinstance(value, str) else _short.repr(value)
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")


def _as_tropt(values: Iterable[tuple[str, Any]]) -> list[str]:
    return [printable(f"{key}={f'{value:.4f}' if isinstance(value, float) else repr(value)}") for key, value in values]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if value == 0 or _LEAST <= abs(value) < _GREATEST else f"{value:.4g}"
