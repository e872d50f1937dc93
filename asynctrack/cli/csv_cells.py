"""CSV cells: values of a column as RFC 4180 has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from asynctrack.backends.files.jsonl import encode_values

# How a text begins that a spreadsheet takes for a formula; OWASP lists it.
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# How a value begins in JSON that is no cell as it is: a text, a list, an object, null.
_QUOTED: Final = '"[{n'
_ODD_BEGINNINGS: Final = (b'"', b"[", b"{", b"null")
# What a cell has that is in quotes.
_TO_QUOTE: Final = (",", '"', "\r", "\n")
# What JSON Lines has for them, which CSV's readers know as numbers.
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})


class CellMaker:
    """Makes the cells of tables, and finds those that a spreadsheet takes for a formula.

    Args:
        escapes: put a quote in front of such texts.

    Attributes:
        formulas: how many there were.
        first_formula: the column of the first of them.
    """

    def __init__(self, *, escapes: bool = False) -> None:
        self.formulas = 0
        self.first_formula: str | None = None
        self._escapes = escapes

    def name(self, name: str) -> str:
        """Return the cell of a column's name."""
        if name.startswith(FORMULA):
            self._count(name, 1)
        return quoted(self._plain(name))

    def column(self, name: str, values: list[Any]) -> list[str]:
        """Convert the values of a column to cells."""
        block = encode_values(values)
        cells = block.decode().split("\n")
        cells.pop()
        if not any(odd in block for odd in _ODD_BEGINNINGS):
            return cells
        known: dict[str, tuple[str, bool]] = {}  # a column of texts has few that differ
        formulas = 0
        for at, text in enumerate(cells):
            if text[0] in _QUOTED:
                found = known.get(text)
                if found is None:
                    found = known[text] = _cell(text, self._plain)
                cells[at], is_formula = found
                formulas += is_formula
        if formulas:
            self._count(name, formulas)
        return cells

    def _plain(self, text: str) -> str:
        """Return a text that no spreadsheet takes for a formula, where that is wanted; OWASP lists how one begins."""
        return f"'{text}" if self._escapes and text.startswith(FORMULA) else text

    def _count(self, name: str, formulas: int) -> None:
        self.formulas += formulas
        self.first_formula = name if self.first_formula is None else self.first_formula


def quoted(text: str) -> str:
    """Return a text as RFC 4180 has it."""
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in _TO_QUOTE) else text


def rows_of(columns: Sequence[Iterable[str]]) -> bytes:
    """Return the lines of a table."""
    return "".join(f"{row}\r\n" for row in map(",".join, zip(*columns, strict=True))).encode()


def _cell(text: str, plain: Callable[[str], str]) -> tuple[str, bool]:
    """Convert what is no number in JSON to a cell of CSV, and say if a spreadsheet takes it for a formula."""
    if text == "null":
        return "", False
    if not text.startswith('"'):
        return quoted(text), False
    value = str(msgspec.json.decode(text))
    if value in _NOT_FINITE:
        return quoted(value), False
    return quoted(plain(value)), value.startswith(FORMULA)
