"""Draws what a record costs as records, keys and open runs grow: three panels in one SVG that needs nothing else, like `bench/peers/chart.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

from examples.draw_tour import COLOURS, FAINT_INK, FONT, GRID, INK, PAPER, ChartPanel, line, text

_WIDTH, _HEIGHT = 1000, 400
_LEFT, _TOP, _PANEL, _GAP, _HIGH = 56.0, 118.0, 268.0, 54.0, 210.0
_TITLE: Final = "What a record costs, as its run, its keys and the open runs grow"
_KEY: Final = {"log()": COLOURS[0], "processor time of caller and worker": COLOURS[1]}

Points = Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: above it.
        across: below it: what grows.
        curves: points by the name of their curve, in microseconds.
    """

    title: str
    across: str
    curves: Mapping[str, Points]


def draw(panels: Iterable[Panel], machine: str) -> str:
    """Draw the whole SVG file; both axes are logarithmic."""
    panels = [panel for panel in panels if any(panel.curves.values())]
    upward = _decades([us for panel in panels for points in panel.curves.values() for _, us in points])
    parts = [
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="{PAPER}"/>',
        text(24, 36, _TITLE, size=20, fill=INK, weight=600),
        text(24, 57, machine),
        *_key(),
        *(part for number, panel in enumerate(panels) for part in _panel(number, panel, upward)),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(_TITLE)}" font-family="{FONT}">\n{body}\n</svg>\n'
    )


def _key() -> Iterable[str]:
    for (name, colour), left in zip(_KEY.items(), (_LEFT, _LEFT + 90), strict=True):
        yield _dot(left + 5, 80, colour)
        yield text(left + 15, 84, name)


def _panel(number: int, panel: Panel, upward: tuple[int, int]) -> Iterable[str]:
    across = _decades([count for points in panel.curves.values() for count, _ in points])
    place = ChartPanel(
        left=_LEFT + number * (_PANEL + _GAP),
        top=_TOP,
        width=_PANEL,
        height=_HIGH,
        across=(across[0] - 0.1, across[1] + 0.1),
        upward=(upward[0], upward[1]),
    )
    yield place.frame()
    yield text(place.left, _TOP - 10, panel.title, fill=INK, weight=600)
    yield text(place.left + _PANEL / 2, _TOP + _HIGH + 40, panel.across, anchor="middle")
    yield from _grid(place, across, upward)
    for name, points in panel.curves.items():
        yield from _curve(place, points, _KEY[name])


def _grid(place: ChartPanel, across: tuple[int, int], upward: tuple[int, int]) -> Iterable[str]:
    for decade in range(upward[0], upward[1] + 1):
        y = place.y(decade)
        yield line(place.left, y, place.left + place.width, y, GRID)
        yield text(place.left - 6, y + 4, _time(decade), size=11, anchor="end")
    for decade in range(across[0], across[1] + 1):
        x = place.x(decade)
        yield line(x, place.top, x, place.top + place.height, GRID)
        yield text(x, place.top + place.height + 18, _count(decade), size=11, anchor="middle")


def _curve(place: ChartPanel, points: Points, colour: str) -> Iterable[str]:
    at = [(place.x(log10(count)), place.y(log10(us))) for count, us in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    yield from (_dot(x, y, colour) for x, y in at)


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}" stroke="{FAINT_INK}" stroke-width="0.4"/>'


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten between which all values lie."""
    first = floor(log10(min(values)))
    return first, max(first + 1, ceil(log10(max(values))))


def _time(decade: int) -> str:
    if decade < 0:
        return f"{10 ** (decade + 3):g} ns"
    return f"{10**decade:g} us" if decade < 3 else f"{10 ** (decade - 3):g} ms"


def _count(decade: int) -> str:
    return f"{10**decade:,}" if decade < 6 else f"{10 ** (decade - 6):,} M"
