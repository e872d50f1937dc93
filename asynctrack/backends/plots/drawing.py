"""Plots: the parts that all backends that draw curves share. Runs in their processes.

After a kill or a stop the journal is read again from its beginning, and the picture is the same. So the curves need no
saved state that would have to agree with the journal.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from asynctrack._system import permissions
from asynctrack.backends.base import (
    ActionRequired,
    Backend,
    Batch,
    Context,
    Execution,
    Outcome,
    Resend,
    Sink,
    WriterSelection,
)
from asynctrack.backends.metric_selection import MetricSelection, key_problems
from asynctrack.backends.plots.curves import Panel, PlotCurves
from asynctrack.errors import InvalidSettings
from asynctrack.journal.manifest import replace_file

# Colours that colour-blind people can tell apart: Okabe and Ito, https://jfly.uni-koeln.de/color/, without their yellow.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_ALONE: Final = "#57606a"
_DASHES: Final = ("solid", "dashed", "dotted")
# Characters of a panel's title, at most.
_LONGEST_TITLE: Final = 44
GRID: Final = "#e3e6ea"
INK: Final = "#30363d"

FOLDER: Final = "plots"

_SHORTEST_S, _LONGEST_S = 0.1, 3600.0


class Plot(Backend, frozen=True, kw_only=True):
    """Settings of a backend that draws.

    Attributes:
        keys: names or patterns (`*/loss`) of the metrics to draw, None for all; at most 200.
        every_s: seconds from one picture to the beginning of the next; the last is drawn at the run's end.
        log_scale: whether the axis of the values is logarithmic: for all metrics, or for those with these names or
            patterns.
    """

    execution: ClassVar[Execution] = "process"

    keys: list[str] | None = None
    # A picture takes 0.1 s of CPU a panel with Matplotlib, 0.01 s with Plotly.
    every_s: float = 10.0
    log_scale: bool | list[str] = False
    writers: WriterSelection = "owner"

    @property
    def batch_age_s(self) -> float:  # type: ignore[override]  # of the class elsewhere
        """Return `every_s`: each picture needs only one batch."""
        return self.every_s

    def __post_init__(self) -> None:
        problems = key_problems(self.keys)
        if isinstance(self.every_s, bool) or not isinstance(self.every_s, int | float):
            problems.append(f"every_s must be a number of seconds; got {self.every_s!r:.80}")
        elif not _SHORTEST_S <= self.every_s <= _LONGEST_S:
            problems.append(f"every_s must be from {_SHORTEST_S} to {_LONGEST_S:.0f} seconds; got {self.every_s}")
        if not isinstance(self.log_scale, bool):
            problems += [f"log_scale may be True or False, or: {each}" for each in key_problems(self.log_scale)]
        problems += self.more_problems()
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def more_problems(self) -> list[str]:
        """List what is wrong with the settings that a subclass adds."""
        return []

    def is_log(self, panel: Panel) -> bool:
        """Return whether the axis of a panel's values is logarithmic."""
        if isinstance(self.log_scale, bool):
            return self.log_scale
        keys = MetricSelection(self.log_scale)
        return any(line.key in keys for line in panel.lines)


class PlotSink(Sink):
    """Keeps the curves of a run, and draws them now and then.

    Args:
        settings: of the backend.
        context: of the run.

    Attributes:
        curves: of the run.
        folder: of the pictures.

    Raises:
        Resend: an earlier sink had records; they must come again.
    """

    def __init__(self, settings: Plot, context: Context) -> None:
        if context.state:
            raise Resend("the curves are built from the journal again", {})
        self.curves: PlotCurves = PlotCurves(MetricSelection(settings.keys))
        self.folder: Path = context.directory / FOLDER
        self._every_s = settings.every_s
        self._taken: tuple[Batch, dict[str, int]] | None = None
        self._draw_at = -math.inf
        self._stale = False

    def draw(self, *, last: bool) -> None:
        """Draw and save the picture.

        Args:
            last: whether no more records come.
        """
        raise NotImplementedError(f"{type(self).__name__} has no draw()")

    def write(self, batch: Batch) -> Mapping[str, int]:
        """Add the records of a batch to the curves, and draw them where it is time."""
        if (
            self._taken is None or self._taken[0] is not batch
        ):  # otherwise the batch could not be drawn, and comes again
            self._taken = (batch, self.curves.take(batch.records))
            self._stale = True
        if time.monotonic() >= self._draw_at:
            self._draw(last=False)
        return self._taken[1]

    def checkpoint(self) -> dict[str, Any]:
        """Return a state that only says that records have come."""
        return {"begun": True}

    def close(self, outcome: Outcome) -> None:
        """Draw the last picture."""
        if outcome != "stopped" or self._stale:
            self._draw(last=outcome != "stopped")

    def save(self, name: str, content: bytes) -> None:
        """Replace a file among the plots.

        Raises:
            ActionRequired: the folder is a link.
        """
        permissions.make_directories(self.folder)
        if os.path.islink(self.folder):
            raise ActionRequired(f"{self.folder} is a link, which may lead anywhere; make it a directory")
        replace_file(self.folder / name, content)

    def _draw(self, *, last: bool) -> None:
        if not self.curves.by_key:
            return
        self.draw(last=last)
        self._stale = False
        # Counted from the end of drawing: the last batch comes `every_s` after its first record, and must not come too early.
        self._draw_at = time.monotonic() + self._every_s


def scopes_of(panels: Sequence[Panel]) -> dict[str, int]:
    """Return the scopes for a legend, with their ranks: those of panels with several lines.

    Other panels name their scope in the title.
    """
    lines = [line for panel in panels if len(panel.lines) > 1 for line in panel.lines]
    return {line.scope: line.rank for line in lines if line.rank is not None}


def style_of(rank: int | None) -> tuple[str, str]:
    """Return a line's colour and dash. From the eighth scope on the colours repeat with another dash."""
    if rank is None:
        return _ALONE, _DASHES[0]
    return COLOURS[rank % len(COLOURS)], _DASHES[rank // len(COLOURS) % len(_DASHES)]


def title_of(panel: Panel) -> str:
    """Return a panel's title; its middle is left out where it is too long."""
    title, half = panel.title, _LONGEST_TITLE // 2
    return title if len(title) <= _LONGEST_TITLE else f"{title[: half - 3]}...{title[-half:]}"


def label_of(scope: str) -> str:
    """Return a scope's name for a legend."""
    return scope or "(no scope)"


def missing(library: str, extra: str, error: ImportError) -> ActionRequired:
    """Build the error for a library that is not installed."""
    return ActionRequired(
        f"it needs {library}, which is not installed here: pip install 'asynctrack[{extra}]' ({error})"
    )
