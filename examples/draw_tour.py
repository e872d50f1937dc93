"""Draws what a run of `asynctrack demo` found, its best tour and the annealers' curves, as one SVG file that needs nothing else.

    asynctrack demo
    python examples/draw_tour.py asynctrack_runs/berlin52/RUN tour.svg

All it knows of the run it reads from the run's directory. The picture has a background of its own, so it reads the same on light and on dark pages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log
from pathlib import Path

import asynctrack
from asynctrack.cli.demo_app.annealing import COLDEST, HOTTEST, MOVES_PER_STEP
from asynctrack.cli.demo_app.berlin52 import OPTIMUM, PLACES
from asynctrack.cli.demo_app.race import ANNEALERS

WIDTH, HEIGHT = 1280, 820
PAPER, PANEL, INK, FAINT_INK, GRID = "#f6f4ef", "#fffefb", "#1f2430", "#6b7080", "#e6e2d8"
COLOURS = ("#2f6fde", "#d9731a", "#16966a", "#b4469c")  # apart also for the colour-blind: they differ in lightness
WORDS = ("one slow annealing", "two annealings", "three annealings", "four fast annealings")
FONT = "Inter, 'Helvetica Neue', 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
CURVE_WIDTH = 500  # pixels, and buckets
STEPS_AXIS = f"steps of {MOVES_PER_STEP} tried moves"


@dataclass(frozen=True)
class ChartPanel:
    """A rectangle of the picture with an axis each way: its place, in pixels, and its range."""

    left: float
    top: float
    width: float
    height: float
    across: tuple[float, float]
    upward: tuple[float, float]
    logarithmic: bool = False

    def x(self, value: float) -> float:
        """Convert a value to pixels from the picture's left side."""
        first, last = self.across
        return self.left + self.width * (value - first) / (last - first)

    def y(self, value: float) -> float:
        """Convert a value to pixels from the picture's top."""
        scale: Callable[[float], float] = log if self.logarithmic else float
        low, high = scale(self.upward[0]), scale(self.upward[1])
        return self.top + self.height * (1 - (scale(value) - low) / (high - low))

    def frame(self) -> str:
        """Draw the rectangle itself."""
        return (
            f'<rect x="{self.left:.1f}" y="{self.top:.1f}" width="{self.width:.1f}" height="{self.height:.1f}" '
            f'rx="4" fill="{PANEL}"/>'
        )

    def rows(self, values: Iterable[float]) -> Iterable[str]:
        """Draw horizontal grid lines with their values; those outside are left out."""
        low, high = self.upward
        for value in (value for value in values if low <= value <= high):
            y = self.y(value)
            yield line(self.left, y, self.left + self.width, y, GRID)
            yield text(self.left - 8, y + 4, f"{value:,.0f}", anchor="end")

    def columns(self, values: Iterable[float], *, labels: bool = True) -> Iterable[str]:
        """Draw vertical grid lines, with their values or without."""
        for value in values:
            x = self.x(value)
            yield line(x, self.top, x, self.top + self.height, GRID)
            if labels:
                yield text(x, self.top + self.height + 18, f"{value:,.0f}", anchor="middle")


class TrialCurve:
    """A curve from `first` to `last` (both included) in `buckets` buckets of equal width.

    A bucket keeps the smallest and the largest value that fell into it, so no spike gets lost, and memory is that of the buckets.
    """

    def __init__(self, first: float, last: float, buckets: int) -> None:
        self.low: list[float | None] = [None] * buckets
        self.high: list[float | None] = [None] * buckets
        self._first = first
        self._per_unit = buckets / (last - first) if last > first else 0.0

    def add(self, x: float, y: float) -> None:
        """Add one point."""
        k = min(int((x - self._first) * self._per_unit), len(self.low) - 1)
        low, high = self.low[k], self.high[k]
        self.low[k] = y if low is None or y < low else low
        self.high[k] = y if high is None or y > high else high

    def spans(self) -> list[tuple[int, float, float]]:
        """Return the buckets that have points: number, smallest and largest value."""
        return [
            (k, low, high)
            for k, (low, high) in enumerate(zip(self.low, self.high, strict=True))
            if low is not None and high is not None
        ]


class TrialCurves:
    """The curves of one trial."""

    def __init__(self, steps: int, buckets: int) -> None:
        self.length = TrialCurve(0, steps, buckets)
        self.best = TrialCurve(0, steps, buckets)
        self.temperature = TrialCurve(0, steps, buckets)

    def add(self, step: int, data: dict[str, float]) -> None:
        """Add one record."""
        self.length.add(step, data["length"])
        self.best.add(step, data["best"])
        self.temperature.add(step, data["temperature"])


@dataclass(frozen=True)
class Drawing:
    """The contents of the picture: the best tour, found by annealer `winner`, and the curves of all trials over `steps` steps."""

    caption: str
    tour: Sequence[int]
    length: int
    winner: int
    steps: int
    trials: Mapping[int, TrialCurves]

    def of_annealer(self, k: int) -> list[TrialCurves]:
        """Return the curves of one annealer's trials, in order."""
        return [self.trials[trial] for trial in sorted(self.trials) if trial % ANNEALERS == k]


def main(run: Path, file: Path) -> None:
    """Draw a run into a file.

    Raises:
        SystemExit: the run is not one of the demo's, or has not finished.
    """
    reader = asynctrack.open_run(run)
    summary = reader.summary
    if not {"best", "tour"} <= summary.keys():
        sys.exit(f"{run} has no tour: expected a run of `asynctrack demo` that has finished; it is {reader.status}")
    file.write_text(draw(drawing_of(reader, summary["best"], summary["tour"])), encoding="utf-8")


def drawing_of(run: asynctrack.RunReader, length: int, tour: Sequence[int]) -> Drawing:
    """Read the contents of the picture from a run whose best tour is known."""
    count, steps, winner = 0, 0, 0
    first_ns = last_ns = None
    for record in run.records():
        count, steps = count + 1, max(steps, record.step)
        first_ns, last_ns = first_ns or record.time_ns, record.time_ns
        if record.data["length"] == length:
            winner = record.data["trial"] % ANNEALERS
    seconds = (last_ns - first_ns) / 1e9 if first_ns and last_ns else 0.0
    return Drawing(
        caption=f"52 places in Berlin, four annealers in one event loop: {count:,} records in {seconds:.3g} s",
        tour=tour,
        length=length,
        winner=winner,
        steps=steps,
        trials=curves_of(run.records(), steps, CURVE_WIDTH),
    )


def curves_of(records: Iterable[asynctrack.Record], steps: int, buckets: int) -> dict[int, TrialCurves]:
    """Return the curves of each trial, all of them over `steps` steps."""
    trials: dict[int, TrialCurves] = {}
    for record in records:
        trial = int(record.data["trial"])
        if trial not in trials:
            trials[trial] = TrialCurves(steps, buckets)
        trials[trial].add(record.step, record.data)
    return trials


def draw(picture: Drawing) -> str:
    """Draw the whole SVG file."""
    above = 100.0 * (picture.length - OPTIMUM) / OPTIMUM
    verdict = "the shortest there is" if picture.length == OPTIMUM else f"{above:.2f} % longer than the shortest"
    title = f"A tour of berlin52, {picture.length:,} long: {verdict}"
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        text(40, 50, title, size=25, fill=INK, weight=600),
        text(40, 77, picture.caption, size=14.5),
        *_map(picture.tour, COLOURS[picture.winner]),
        *_temperatures(picture),
        *_lengths(picture),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}" font-family="{FONT}">\n{body}\n</svg>\n'
    )


def _map(tour: Sequence[int], colour: str) -> Iterable[str]:
    panel = ChartPanel(80, 132, 560, 384, (-40, 1785), (-25, 1225))
    corners = " ".join(f"{panel.x(x):.1f},{panel.y(y):.1f}" for x, y in (PLACES[place] for place in tour))
    yield _heading(panel, "The 52 places, and the best tour through them", "TSPLIB's units")
    yield panel.frame()
    yield from panel.rows(range(0, 1201, 300))
    yield from panel.columns(range(0, 1501, 300))
    yield (
        f'<polygon id="tour" points="{corners}" fill="{colour}" fill-opacity="0.09" stroke="{colour}" '
        f'stroke-width="2.2" stroke-linejoin="round"/>'
    )
    for x, y in PLACES:
        centre = f'cx="{panel.x(x):.1f}" cy="{panel.y(y):.1f}"'
        yield f'<circle {centre} r="3.4" fill="{PANEL}" stroke="{INK}" stroke-width="1.6"/>'


def _temperatures(picture: Drawing) -> Iterable[str]:
    panel = ChartPanel(80, 600, 560, 150, (0, picture.steps), (COLDEST * 0.8, HOTTEST * 1.25), logarithmic=True)
    yield _heading(panel, "Temperature", "units of length, logarithmic")
    yield panel.frame()
    yield from panel.rows((5, 10, 30, 100, 300))
    yield from panel.columns(_ticks(picture.steps))
    yield text(panel.left + panel.width / 2, panel.top + panel.height + 40, STEPS_AXIS, anchor="middle")
    for k in reversed(range(ANNEALERS)):
        yield from (_stroke(panel, trial.temperature, COLOURS[k]) for trial in picture.of_annealer(k))


def _lengths(picture: Drawing) -> Iterable[str]:
    longest = max((high for one in picture.trials.values() for _, _, high in one.length.spans()), default=4 * OPTIMUM)
    span = (OPTIMUM * 0.93, longest * 1.04)
    panels = [
        ChartPanel(740, 158 + k * 157, CURVE_WIDTH, 121, (0, picture.steps), span, True) for k in range(ANNEALERS)
    ]
    yield _heading(panels[0], "Length of the tour", "band: each step; line: best of its trial; logarithmic", 38)
    for k, panel in enumerate(panels):
        yield from _annealer(panel, k, picture.of_annealer(k), picture.steps)
    yield text(panels[-1].left + CURVE_WIDTH / 2, panels[-1].top + panels[-1].height + 40, STEPS_AXIS, anchor="middle")


def _annealer(panel: ChartPanel, k: int, trials: Sequence[TrialCurves], steps: int) -> Iterable[str]:
    """Draw the row of one annealer."""
    bests = (f"{min(low for _, low, _ in trial.best.spans()):,.0f}" for trial in trials)
    yield text(panel.left, panel.top - 8, f"Annealer {k + 1}: {WORDS[k]}", fill=COLOURS[k], weight=600)
    yield text(panel.left + panel.width, panel.top - 8, "best " + ", ".join(bests), anchor="end", fill=COLOURS[k])
    yield panel.frame()
    yield from panel.rows((10_000, 15_000, 20_000))
    yield from panel.columns(_ticks(steps), labels=k == ANNEALERS - 1)
    yield _optimum(panel)
    for trial in trials:
        yield _band(panel, trial.length, COLOURS[k])
        yield _stroke(panel, trial.best, COLOURS[k])


def _optimum(panel: ChartPanel) -> str:
    y = panel.y(OPTIMUM)
    return line(panel.left, y, panel.left + panel.width, y, INK, dash="2 4") + text(
        panel.left - 8, y + 4, f"{OPTIMUM:,}", anchor="end", fill=INK
    )


def _band(panel: ChartPanel, curve: TrialCurve, colour: str) -> str:
    """Draw an area from the smallest to the largest value of each bucket."""
    spans = [(_bucket_x(panel, curve, k), panel.y(low), panel.y(high)) for k, low, high in curve.spans()]
    top = [f"{x:.1f},{high:.1f}" for x, _, high in spans]
    bottom = [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(spans)]
    # The stroke keeps a band visible where it is thinner than a pixel.
    return (
        f'<polygon points="{" ".join(top + bottom)}" fill="{colour}" fill-opacity="0.28" stroke="{colour}" '
        f'stroke-opacity="0.28" stroke-width="0.8"/>'
    )


def _stroke(panel: ChartPanel, curve: TrialCurve, colour: str) -> str:
    """Draw a line that goes down through each bucket, as a best length and a temperature do."""
    points: list[str] = []
    for k, low, high in curve.spans():
        x = _bucket_x(panel, curve, k)
        points += [f"{x:.1f},{panel.y(value):.1f}" for value in ((high, low) if high > low else (low,))]
    return (
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.9" '
        f'stroke-linejoin="round" stroke-linecap="round"/>'
    )


def _bucket_x(panel: ChartPanel, curve: TrialCurve, k: int) -> float:
    return panel.left + panel.width * (k + 0.5) / len(curve.low)


def _ticks(steps: int) -> list[int]:
    """Choose four to ten round numbers from 0 to `steps`."""
    size = 1
    while steps / size > 10:
        size *= 10
    for part in (5, 2):
        if size % part == 0 and steps / (size // part) <= 10:
            return list(range(0, steps + 1, size // part))
    return list(range(0, steps + 1, size))


def _heading(panel: ChartPanel, name: str, unit: str, above: float = 12) -> str:
    return (
        f'<text x="{panel.left}" y="{panel.top - above}" font-size="14" font-weight="600" fill="{INK}">{escape(name)}'
        f'<tspan dx="8" font-size="12" font-weight="400" fill="{FAINT_INK}">{escape(unit)}</tspan></text>'
    )


def text(
    x: float, y: float, words: str, *, size: float = 12, anchor: str = "start", fill: str = FAINT_INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{fill}">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashes}/>'


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/draw_tour.py RUN FILE")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
