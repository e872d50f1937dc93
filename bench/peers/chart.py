"""Draws how long `log()` takes with each peer, and what is lost when its process is killed, as one SVG that needs nothing else.

Like the picture of `examples/draw_tour.py`, whose colours it takes, it has a background of its own, so it reads the same on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

from examples.draw_tour import COLOURS, FAINT_INK, FONT, GRID, INK, PANEL, PAPER, line, text

_WIDTH: Final = 1000
_TOP, _ROW, _BELOW = 118, 25, 44
# The panels, from left to right: the times, and a bar for each rate at which a process was killed.
_TIMES: Final = (190.0, 500.0)
_LOST: Final = ((730.0, 90.0), (870.0, 90.0))
_OURS, _OTHER, _FLOOR = COLOURS[0], COLOURS[1], FAINT_INK
_TITLE: Final = "One call of log(), and what is lost when its process is killed"


class Bar(NamedTuple):
    """A peer's line.

    Attributes:
        name: of the peer.
        p50_us: of a call in a tight loop.
        p999_us: that of one in a thousand.
        lost: in percent, by rate; None where nothing is kept.
        ours: True for the one that the page is about.
        floor: True for one that is only a lower bound, which nobody could use.
    """

    name: str
    p50_us: float
    p999_us: float
    lost: tuple[float | None, float | None]
    ours: bool
    floor: bool

    @property
    def colour(self) -> str:
        return _OURS if self.ours else _FLOOR if self.floor else _OTHER


def draw(bars: Iterable[Bar], machine: str) -> str:
    """Draw the whole SVG file, the fastest first."""
    ordered = sorted(bars, key=lambda bar: bar.p50_us)
    height = _TOP + _ROW * len(ordered) + _BELOW
    parts = [
        f'<rect width="{_WIDTH}" height="{height}" fill="{PAPER}"/>',
        text(24, 36, _TITLE, size=20, fill=INK, weight=600),
        text(24, 57, machine),
        *_key(),
        *_axes(ordered),
        *(part for number, bar in enumerate(ordered) for part in _peer(bar, _middle(number), _decades(ordered))),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(_TITLE)}" font-family="{FONT}">\n{body}\n</svg>\n'
    )


def _key() -> Iterable[str]:
    left, y = _TIMES[0], 88.0
    yield _dot(left + 5, y - 4, INK, filled=True)
    yield text(left + 15, y, "median")
    yield _dot(left + 76, y - 4, INK, filled=False)
    yield text(left + 86, y, "99.9th percentile, logarithmic")
    yield text(_LOST[0][0], y, "records lost at SIGKILL", fill=INK)


def _axes(bars: Sequence[Bar]) -> Iterable[str]:
    bottom = _TOP + _ROW * len(bars)
    first, last = _decades(bars)
    for left, width in (_TIMES, *_LOST):
        yield f'<rect x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{bottom - _TOP}" rx="4" fill="{PANEL}"/>'
    for decade in range(first, last + 1):
        x = _x(10.0**decade, (first, last))
        yield line(x, _TOP, x, bottom, GRID)
        yield text(x, bottom + 18, _time(decade), anchor="middle")
    for (left, width), rate in zip(_LOST, ("20/s", "1,000/s"), strict=True):
        yield text(left, _TOP - 8, f"at {rate}")
        yield text(left, bottom + 18, "0 %")
        yield text(left + width, bottom + 18, "100 %", anchor="end")


def _peer(bar: Bar, y: float, decades: tuple[int, int]) -> Iterable[str]:
    weight, ink = (600, INK) if bar.ours else (400, INK)
    yield text(_TIMES[0] - 12, y + 4, bar.name, size=13, anchor="end", fill=_FLOOR if bar.floor else ink, weight=weight)
    middle, tail = _x(bar.p50_us, decades), _x(bar.p999_us, decades)
    yield f'<line x1="{middle:.1f}" y1="{y:.1f}" x2="{tail:.1f}" y2="{y:.1f}" stroke="{bar.colour}" stroke-width="2.5"/>'
    yield _dot(middle, y, bar.colour, filled=True)
    yield _dot(tail, y, bar.colour, filled=False)
    for (left, width), lost in zip(_LOST, bar.lost, strict=True):
        if lost is None:
            yield text(left + 5, y + 4, "keeps nothing" if bar.floor else "-", size=11)
            continue
        if lost:
            yield f'<rect x="{left:.1f}" y="{y - 7:.1f}" width="{max(1.5, width * lost / 100):.1f}" height="14" fill="{bar.colour}" fill-opacity="0.55"/>'
        yield text(left + 5, y + 4, f"{lost:.3g} %", size=11.5, fill=INK, weight=weight)


def _dot(x: float, y: float, colour: str, *, filled: bool) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" fill="{colour if filled else PANEL}" stroke="{colour}" stroke-width="2"/>'


def _middle(number: int) -> float:
    return _TOP + _ROW * (number + 0.5)


def _decades(bars: Sequence[Bar]) -> tuple[int, int]:
    """Return the powers of ten between which all times lie."""
    first = floor(log10(min(bar.p50_us for bar in bars)))
    return first, max(first + 1, ceil(log10(max(bar.p999_us for bar in bars))))


def _x(value_us: float, decades: tuple[int, int]) -> float:
    left, width = _TIMES
    return left + 10 + (width - 20) * (log10(value_us) - decades[0]) / (decades[1] - decades[0])


def _time(decade: int) -> str:
    return (
        f"{10.0**decade:g} us"
        if decade < 3
        else f"{10.0 ** (decade - 3):g} ms"
        if decade < 6
        else f"{10.0 ** (decade - 6):g} s"
    )
