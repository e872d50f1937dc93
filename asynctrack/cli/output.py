"""Output: prints tables, numbers, spark lines and JSON for commands. Styled by `rich` where that is installed and a terminal reads it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO, TypeVar

import msgspec

from asynctrack._system.printable import printable
from asynctrack.records.codec import Array, Media, to_json

T = TypeVar("T")

BLOCKS: Final = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS: Final = "_.:-=+*#"
# What stands in a spark line for a value that is not finite.
_NOT_FINITE: Final = "x"

STATE_STYLES: Final = {
    "running": "green",
    "failed": "red",
    "crashed": "red",
    "preempted": "yellow",
    "lost": "bold red",
    "elsewhere": "yellow",
    "damaged": "bold red",
    "unreadable": "bold red",
}

_GAP: Final = 2
# A text of one character, in whose place any other stands.
_MARK: Final = "x"
# A cell that may be cut keeps so many characters. Arbitrary.
_SHORTEST_CUT: Final = 12
# Characters of a line before and after the one that a mark points at. Arbitrary.
_BESIDE_MARK: Final = 60
# Between two updates of a line of progress.
_PROGRESS_S: Final = 0.1


class Styled(NamedTuple):
    """Text and its style, as `rich` names it."""

    text: str
    style: str = ""


Piece = str | Styled


class TableColumn(NamedTuple):
    """A column of a table.

    Attributes:
        title: above it.
        right: align it to the right, as numbers are.
        rank: where the terminal is too narrow the column with the highest rank is left out first; 0 stays.
        cut: shorten its cells where the terminal is too narrow.
    """

    title: str = ""
    right: bool = False
    rank: int = 0
    cut: bool = False


class Output:
    """Prints lines and tables for people, as wide as the terminal if the stream is one."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self.width: int | None = shutil.get_terminal_size().columns if self._out.isatty() else None
        self.blocks = BLOCKS if _can_print(BLOCKS, self._out) else ASCII_BLOCKS
        self._cut_mark = "…" if self.blocks is BLOCKS else "~"
        self._console = _console(self._out) if self.width is not None else None
        self._codes_by_style: dict[str, tuple[str, str]] = {}

    def line(self, *pieces: Piece, indent: int = 0) -> None:
        """Print one line; without pieces an empty one."""
        styled = [Styled(" " * indent), *map(self._clean, pieces)]
        while styled and not styled[-1].text.strip():
            styled.pop()
        self._write(styled)

    def heading(self, title: str) -> None:
        """Print a title."""
        self.line()
        self.line(Styled(title, "bold"))

    def table(
        self, columns: Sequence[TableColumn], rows: Iterable[Sequence[Piece]], *, indent: int = 0, titles: bool = True
    ) -> None:
        """Print rows in aligned columns."""
        rows = list(rows)
        found = [
            self._column(column.title if titles else None, [row[at] for row in rows])
            for at, column in enumerate(columns)
        ]
        room = None if self.width is None else self.width - indent
        shown = _fit(columns, [width for *_, width in found], room)
        texts = [self._padded(found[at][0], width, found[at][2], columns[at].right) for at, width in shown.items()]
        before, between = " " * indent, " " * _GAP
        if self._console is None:
            self._out.writelines([(before + between.join(row)).rstrip() + "\n" for row in zip(*texts, strict=True)])
            return
        styles = [found[at][1] for at in shown]
        for row, of in zip(zip(*texts, strict=True), zip(*styles, strict=True), strict=True):
            cells = [
                Styled(text if at == 0 else between + text, style)
                for at, (text, style) in enumerate(zip(row, of, strict=True))
            ]
            self._write(_without_end([Styled(before), *cells]))

    def _column(self, title: str | None, pieces: Sequence[Piece]) -> tuple[list[str], list[str], int]:
        """Return the texts of a column, their styles, and the width of the widest."""
        given = pieces if title is None else [Styled(title, "dim"), *pieces]
        texts = [piece if isinstance(piece, str) else piece[0] for piece in given]
        styles = ["" if isinstance(piece, str) else piece[1] for piece in given]
        if not (whole := "".join(texts)).isascii() or not whole.isprintable():
            texts = [self._clean(text).text for text in texts]
            return texts, styles, max(map(width_of, texts), default=0)
        return texts, styles, max(map(len, texts), default=0)

    def _padded(self, texts: list[str], width: int, widest: int, right: bool) -> list[str]:
        """Return the texts of a column as wide as that."""
        if widest > width:
            texts = [shorten(text, width, self._cut_mark) for text in texts]
        if right:
            return [" " * (width - width_of(text)) + text for text in texts]
        return [text + " " * (width - width_of(text)) for text in texts]

    def _write(self, pieces: Iterable[Styled]) -> None:
        """Write a line of pieces that are clean."""
        line = ""
        for text, style in pieces:
            before, after = (
                self._codes(style, self._console) if style and text and self._console is not None else ("", "")
            )
            line += f"{before}{text}{after}"
        self._out.write(line + "\n")

    def _codes(self, style: str, console: Any) -> tuple[str, str]:
        """Return what the terminal is told before and after a text of a style. To ask `rich` for each text takes a second for ten thousand rows."""
        codes = self._codes_by_style.get(style)
        if codes is None:
            with console.capture() as capture:
                console.print(_MARK, style=style, end="")
            before, _, after = capture.get().partition(_MARK)
            codes = self._codes_by_style[style] = before, after
        return codes

    def fit(self, text: str, used: int = 0) -> str:
        """Cut `text` to the room that a terminal's line has left beside `used` characters."""
        text = self._clean(text).text
        return text if self.width is None else shorten(text, max(self.width - used, _SHORTEST_CUT), self._cut_mark)

    def spark(self, values: Sequence[float]) -> str:
        """Draw a line of blocks, each as high as its value."""
        return spark(values, self.blocks)

    def _clean(self, piece: Piece) -> Styled:
        """Escape what would move the cursor, and what the stream cannot encode."""
        text, style = cell = Styled(piece) if isinstance(piece, str) else piece
        if text.isascii() and text.isprintable():
            return cell
        text = printable(text)
        if not _can_print(text, self._out):
            encoding = self._out.encoding
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        return Styled(text, style)


class ProgressLine:
    """One line on stderr that shows how far a long task is, if stderr is a terminal."""

    def __init__(self, what: str, total: float) -> None:
        self._what = what
        self._total = total
        self._shows = sys.stderr.isatty()
        self._next_at = time.monotonic() + 5 * _PROGRESS_S  # a shorter task needs no progress line
        self._shown = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def at(self, done: float) -> None:
        """Show how much is done."""
        if self._shows and (now := time.monotonic()) >= self._next_at:
            self._next_at = now + _PROGRESS_S
            part = min(1.0, done / self._total) if self._total else 1.0
            sys.stderr.write(f"\r\x1b[K{self._what} {100 * part:3.0f} %")
            sys.stderr.flush()
            self._shown = True


def with_progress(what: str, items: Sequence[T]) -> Iterator[T]:
    """Yield items, and show how far that is, as `ProgressLine` does."""
    with ProgressLine(what, len(items)) as progress:
        for at, item in enumerate(items):
            progress.at(at)
            yield item


def print_json(document: Any, out: TextIO | None = None) -> None:
    """Print one JSON document: in lines for a terminal, else in one. NaN and infinities are strings, as in JSON Lines."""
    out = sys.stdout if out is None else out
    encoded = msgspec.json.encode(_encodable(to_json(document)))
    out.write(json_text((msgspec.json.format(encoded, indent=2) if out.isatty() else encoded).decode()) + "\n")


def json_text(text: str) -> str:
    r"""Escape the control characters that JSON leaves in its texts, as `\u009b`: a terminal would obey them."""
    return text if text.isprintable() else "".join(map(_as_json, text))


@contextlib.contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Print Python's warnings as messages for people, for a while."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def warn(message: str) -> None:
    """Print a message for people on stderr, beside the output."""
    text = printable(" ".join(message.split()))
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr.write(f"asynctrack: {text.encode(encoding, 'backslashreplace').decode(encoding)}\n")


def pointed_at(text: str, position: int) -> list[str]:
    """Return a line of a text and a line with a mark below its character, counted from 1."""
    start = max(0, position - 1 - _BESIDE_MARK)
    before, after = (
        "".join(char if char.isprintable() else " " for char in part)
        for part in (text[start : position - 1], text[position - 1 : position - 1 + _BESIDE_MARK])
    )
    return [f"  {before}{after}".rstrip(), " " * (2 + width_of(before)) + "^"]


def count(number: int) -> str:
    """Format 1234567 as "1,234,567"."""
    return f"{number:,}"


def short_count(number: float) -> str:
    """Format 1234567 as "1.23M"."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            scale = 1e3 if unit == "k" else size
            return _three_digits(number / scale) + unit
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.2g}"


def size(number: int) -> str:
    """Format bytes in the decimal units that disks are sold in."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= scale:
            return f"{_three_digits(number / scale)} {unit}"
    return f"{number} B"


def duration(seconds: float) -> str:
    """Format seconds in the one unit that says most."""
    for scale, unit in ((365.25 * 86400, "y"), (86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * scale or (unit == "min" and seconds >= 100):
            return f"{seconds / scale:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.2g} s"


def rate(per_s: float | None) -> str:
    """Format records per second."""
    return "-" if per_s is None else f"{short_count(per_s)}/s"


def number(value: float, digits: int = 5) -> str:
    """Format a value of a metric with `digits` digits; integers in full."""
    if isinstance(value, int):
        return (
            str(value) if abs(value) < 10**15 else f"{float(value):.{digits - 2}e}" if abs(value) < 10**300 else "huge"
        )
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 2}e}"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def brief(value: Any, most: int = 40) -> str:
    """Format any logged value in at most `most` characters."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Array):
        return f"{value.dtype}[{'x'.join(map(str, value.shape))}]"
    if isinstance(value, Media):
        value = str(value)
    text = value if isinstance(value, str) else msgspec.json.encode(_encodable(to_json(value))).decode()
    return shorten(printable(text), most, "...")


def spark(values: Sequence[float], blocks: str = BLOCKS) -> str:
    """Draw a line of one block per value, from the lowest to the highest of them; NaN and infinities are an "x"."""
    halves = [_half(value) for value in values]  # of the whole the range may be more than a float can hold
    finite = [half for half in halves if math.isfinite(half)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = len(blocks) - 1
    if low == high:
        return "".join(blocks[0] if math.isfinite(half) else _NOT_FINITE for half in halves)
    return "".join(
        blocks[round(top * ((half - low) / (high - low)))] if math.isfinite(half) else _NOT_FINITE for half in halves
    )


def _half(value: float) -> float:
    try:
        return value / 2
    except OverflowError:  # an integer beyond any float
        return math.inf


def shorten(text: str, most: int, mark: str) -> str:
    """Cut a text to at most `most` characters of a terminal."""
    if width_of(text) <= most:
        return text
    kept, room = "", most - len(mark)
    for char in text:
        room -= width_of(char)
        if room < 0:
            break
        kept += char
    return kept + mark


def width_of(text: str) -> int:
    """Return how many characters of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1 for char in text
    )


def _fit(columns: Sequence[TableColumn], widths: Sequence[int], room: int | None) -> dict[int, int]:
    """Return the widths of the columns that are shown: first cells are cut, then columns left out."""
    shown = dict(enumerate(widths))
    while room is not None and (over := sum(shown.values()) + _GAP * (len(shown) - 1) - room) > 0:
        slack = {at: width - _SHORTEST_CUT for at, width in shown.items() if columns[at].cut and width > _SHORTEST_CUT}
        least = max(shown, key=lambda at: columns[at].rank)
        if over > sum(slack.values()) and columns[least].rank:
            del shown[least]
            continue
        for at in sorted(slack, key=lambda at: -slack[at]):
            taken = min(slack[at], over)
            shown[at] -= taken
            over -= taken
        break
    return shown


def _without_end(pieces: list[Styled]) -> list[Styled]:
    """Remove the blanks at the end of a row."""
    while pieces and not pieces[-1].text.strip():
        pieces.pop()
    if pieces:
        pieces[-1] = pieces[-1]._replace(text=pieces[-1].text.rstrip())
    return pieces


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def _as_json(char: str) -> str:
    if char.isprintable() or char == "\n":
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _can_print(text: str, out: TextIO) -> bool:
    try:
        text.encode(getattr(out, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _console(out: TextIO) -> Any:
    """Return a console of `rich`; None where it is not installed, or where no style is wanted: https://no-color.org."""
    if "NO_COLOR" in os.environ or not _can_print(BLOCKS, out):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=out, highlight=False, markup=False, emoji=False)


def _encodable(value: Any) -> Any:
    """Replace what UTF-8 cannot hold in strings: the name of a directory may be any bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(str(key)): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value
