"""The display of the demo while it runs: a few refreshed lines on a terminal, else a line a second.

Runs on the caller's thread, from a task of the event loop.
"""

from __future__ import annotations

import shutil
from math import log
from time import monotonic
from typing import TextIO

from asynctrack.cli.demo_app.annealing import COLDEST, HOTTEST
from asynctrack.cli.demo_app.race import Race
from asynctrack.cli.demo_app.report import above_optimum_percent

__all__ = ["REFRESH_S", "Live"]

REFRESH_S = 0.13  # no multiple of a slice of the race, so that showing burdens tracked and untracked slices alike
LINE_EVERY_S = 1.0
BAR_CELLS = 10


class Live:
    """Shows a race on `out`; `show` is to be called every `REFRESH_S`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._lines_shown = 0
        # Not every terminal's encoding has blocks.
        self._cells = "█░" if (out.encoding or "").lower().startswith("utf") else "#."
        self._next_line_at = monotonic() + LINE_EVERY_S

    def show(self, race: Race) -> None:
        """Show where the race stands."""
        if self._terminal:
            lines = (_annealer_line(race, k, *self._cells) for k in range(len(race.annealers)))
            self._replace([_headline(race), *lines])
        elif monotonic() >= self._next_line_at:
            self._next_line_at += LINE_EVERY_S
            print(_headline(race), file=self._out, flush=True)

    def show_line(self, line: str) -> None:
        """Show one line instead of what was shown before; without a terminal, at most once a second."""
        if self._terminal:
            self._replace([line])
        elif monotonic() >= self._next_line_at:
            self._next_line_at += LINE_EVERY_S
            print(line, file=self._out, flush=True)

    def clear(self) -> None:
        """Take the refreshed lines away."""
        if self._terminal:
            self._replace([])

    def _replace(self, lines: list[str]) -> None:
        # A line that wraps would make "so many lines up" wrong, hence the cut.
        columns = shutil.get_terminal_size().columns
        up = f"\x1b[{self._lines_shown}F" if self._lines_shown else ""
        self._out.write(f"{up}\x1b[J" + "".join(f"{line[: columns - 1]}\n" for line in lines))
        self._out.flush()
        self._lines_shown = len(lines)


def _headline(race: Race) -> str:
    elapsed_s, best = race.elapsed_s, race.best.best_length
    rate = race.records / elapsed_s if elapsed_s else 0.0
    return (
        f"  {elapsed_s:4.1f} of {race.seconds:g} s   best tour {best:,} (+{above_optimum_percent(best):.2f} %)"
        f"   {race.records:,} records   {rate:,.0f}/s"
    )


def _annealer_line(race: Race, k: int, full: str, empty: str) -> str:
    annealer = race.annealers[k]
    warmth = log(annealer.temperature / COLDEST) / log(HOTTEST / COLDEST)
    warm = round(warmth * BAR_CELLS)
    bar = full * warm + empty * (BAR_CELLS - warm)
    return (
        f"  annealer {k + 1}   {bar} {annealer.temperature:5.1f}"
        f"   length {annealer.length:6,}   best {annealer.best_length:6,}   run {race.run_of(k)} of {annealer.runs}"
    )
