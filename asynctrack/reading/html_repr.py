"""HTML repr: a run as a small table for notebooks, with the course of each metric as a line. Runs anywhere.

It has no scripts and no style sheet, so notebooks show it wherever they show tables. All that comes from a run is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from asynctrack._system.printable import printable
from asynctrack.records.codec import flatten

if TYPE_CHECKING:
    from asynctrack.curves.curve import CurveBuckets
    from asynctrack.curves.run_curves import RunCurves
    from asynctrack.journal.manifest import Manifest

# What a cell's output has room for. Arbitrary: the page and `asynctrack show` have all.
_MOST_METRICS: Final = 12
_MOST_SETTINGS: Final = 12
_LONGEST: Final = 60
# Of a sparkline, in pixels; it is drawn from a bucket for each two of them.
_WIDTH: Final = 120
_HEIGHT: Final = 20
BUCKETS: Final = _WIDTH // 2
_COLUMNS: Final = ("metric", "", "last", "min", "max", "step")


def run_as_html(manifest: Manifest, status: str, curves: RunCurves) -> str:
    """Return a run as HTML: what it is, its config, and its metrics with their first, last, least and greatest numbers."""
    names = curves.names()
    shown = names[:_MOST_METRICS]
    drawn = curves.curves(shown, "step", None, None, BUCKETS)
    rows = [_metric(key, drawn[key], curves) for key in shown]
    left = [f"and {len(names) - len(shown)} more metrics"] if len(names) > len(shown) else []
    parts = [_title(manifest, status), _settings(manifest.config), table(_COLUMNS, rows) if rows else "", *left]
    return f"<div>{''.join(f'<div>{part}</div>' for part in parts if part)}</div>"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; its cells are HTML, its titles are texts."""
    head = "".join(f"<th>{text(title)}</th>" for title in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(value: Any) -> str:
    """Return a value as escaped text, shortened where it is long."""
    said = number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    said = printable(said)
    return html.escape(said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}...")


def number(value: float | None) -> str:
    """Return a number in six figures at most; nothing for none."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) and abs(value) < 1e15 else f"{value:.6g}"


def sparkline(curve: CurveBuckets) -> str:
    """Return the course of a metric as a line within its band; nothing where it has no finite number."""
    low = min((value for value in curve.min if value == value), default=math.nan)
    high = max((value for value in curve.max if value == value), default=math.nan)
    if low != low:
        return ""
    scale = _Scale(curve.x[0], curve.x[-1], low, high)
    band = _band(curve, scale) if len(curve) > 1 and not curve.exact else ""
    lines = "".join(_line(stretch) for stretch in _stretches(curve.x, curve.mean, scale))
    title = text(f"{number(low)} to {number(high)}")
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}" '
        f'fill="none" stroke="currentColor">{band}{lines}</svg>'
    )


class _Scale:
    """Turns places and numbers to those of the picture, with a margin of two pixels."""

    def __init__(self, first: float, last: float, low: float, high: float) -> None:
        self._first, self._across = first, (last - first) or 1.0
        self._high, self._down = high, (high / 2 - low / 2) or 1.0  # half of it: the whole may be beyond a float

    def point(self, x: float, y: float) -> str:
        return f"{2 + (x - self._first) / self._across * (_WIDTH - 4):.1f},{self._of(y):.1f}"

    def _of(self, y: float) -> float:
        return 2 + (self._high / 2 - y / 2) / self._down * (_HEIGHT - 4)


def _band(curve: CurveBuckets, scale: _Scale) -> str:
    known = [at for at in range(len(curve)) if curve.min[at] == curve.min[at]]
    above = [scale.point(curve.x[at], curve.max[at]) for at in known]
    below = [scale.point(curve.x[at], curve.min[at]) for at in reversed(known)]
    return f'<polygon points="{" ".join([*above, *below])}" fill="currentColor" fill-opacity="0.2" stroke="none"/>'


def _stretches(x: Sequence[float], y: Sequence[float], scale: _Scale) -> Iterable[list[str]]:
    """Yield the points of the line, without gaps: NaN and infinities interrupt it."""
    stretch: list[str] = []
    for place, value in zip(x, y, strict=True):
        if value == value:
            stretch.append(scale.point(place, value))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _line(points: list[str]) -> str:
    if len(points) > 1:
        return f'<polyline points="{" ".join(points)}"/>'
    across, down = points[0].split(",")
    return f'<circle cx="{across}" cy="{down}" r="1.5" fill="currentColor"/>'


def _title(manifest: Manifest, status: str) -> str:
    name = f" {text(manifest.name)}" if manifest.name not in ("", manifest.id) else ""
    since = f"since {text(manifest.created_at[:19])}" if manifest.created_at else ""
    until = f" until {text(manifest.ended_at[:19])}" if manifest.ended_at else ""
    problem = f": {text(manifest.error)}" if manifest.error else ""
    return f"<b>{text(manifest.project)}/{text(manifest.id)}</b>{name}, {text(status)}{problem} {since}{until}"


def _settings(config: Mapping[str, Any]) -> str:
    found = [(key, value) for key, value in flatten(config) if not key.startswith("_")]
    shown = ", ".join(f"{text(key)} = {text(value)}" for key, value in found[:_MOST_SETTINGS])
    return f"config: {shown}{', ...' if len(found) > _MOST_SETTINGS else ''}" if shown else ""


def _metric(key: str, curve: CurveBuckets, curves: RunCurves) -> tuple[str, ...]:
    totals = curves.totals(key)
    if totals is None:
        return (text(key), "", "", "", "", "")
    low, high = (None if found is None else found.value for found in (totals.min, totals.max))
    numbers = (totals.last.value, low, high, totals.last.step)
    return (text(key), sparkline(curve), *(number(one) for one in numbers))
