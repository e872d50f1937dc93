"""LivePlot: draw a run's curves by livelossplot, in the notebook whose cell opened it, and in a file.

Runs in a process of its own.

livelossplot draws for 0.2 to 0.5 s each time, in the thread that calls it: TROPT's tracker calls it in each step. Here
it draws in a process of its own, and the notebook's kernel only replaces the last picture by the finished one. Outside
a notebook there is only `plots/live.png`.

There is a panel for each metric with a line for each scope, as in `Matplotlib`. A line goes through the least and the
greatest value of about a pixel. Numbers are drawn; a record without any is skipped. A record that is given twice shows
once.
"""

from __future__ import annotations

import base64
import importlib
import io
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from asynctrack.backends.base import Context, Outcome, Sink
from asynctrack.backends.caller_display import Display, Link, in_notebook, open_display
from asynctrack.backends.plots.curves import Panel
from asynctrack.backends.plots.drawing import Plot, PlotSink, label_of, missing

FILE: Final = "live.png"

_COLUMNS: Final = 2
# Inches of a panel, and pixels an inch.
_WIDTH, _HEIGHT, _DPI = 5.0, 3.0, 80
_POINTS: Final = 400


class LivePlot(Plot, frozen=True, kw_only=True, tag="live_plot"):
    """Draws curves by livelossplot; needs `pip install 'asynctrack[livelossplot]'`.

    Attributes:
        every_s: seconds between two pictures.
        display: name of the notebook's display; set when a run is opened.
    """

    needs: ClassVar[Mapping[str, str]] = {"livelossplot": "asynctrack[livelossplot]"}

    every_s: float = 2.0
    display: str = ""

    def prepare(self) -> LivePlot:
        """Open a display in this notebook, if it is one."""
        shown = open_display(LivePicture()) if in_notebook(sys.stdout) else ""
        return msgspec.structs.replace(self, display=shown)

    def open(self, context: Context) -> Sink:
        """Open a sink that draws.

        Raises:
            ActionRequired: livelossplot is missing.
        """
        return _LivePlotSink(self, context)


class LivePicture(Display):
    """Shows PNG files, in base64, each in place of the last one, below the cell that opened the run."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")
        self._place = self._display.display(self._display.HTML(""), display_id=True)

    def show(self, items: list[Any]) -> None:
        """Show the last of these pictures."""
        self._place.update(self._display.Image(data=base64.b64decode(items[-1]), format="png"))


class _LivePlotSink(PlotSink):
    def __init__(self, settings: LivePlot, context: Context) -> None:
        super().__init__(settings, context)
        try:
            import matplotlib

            matplotlib.use("agg")  # a notebook's kernel sets another in the environment
            import livelossplot
            import livelossplot.outputs
        except ImportError as error:
            raise missing("livelossplot", "livelossplot", error) from error
        self._library: Any = livelossplot
        self._settings = settings
        self._link = Link(settings.display)

    def draw(self, *, last: bool) -> None:
        picture = self._picture(self.curves.panels())
        self.save(FILE, picture)
        if self._settings.display:
            self._link.show([base64.b64encode(picture).decode()])

    def close(self, outcome: Outcome) -> None:
        super().close(outcome)
        if outcome != "stopped":
            self._link.show([], end=True)
        self._link.close()

    def _picture(self, panels: list[Panel]) -> bytes:
        content = io.BytesIO()

        def finish(figure: Any) -> None:
            figure.tight_layout()
            figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
            self._library.outputs.matplotlib_plot.plt.close(figure)  # otherwise pyplot keeps each figure

        output = self._library.outputs.MatplotlibPlot(
            max_cols=min(len(panels), _COLUMNS), before_plots=_arrange, after_subplot=_label, after_plots=finish
        )
        plot = self._library.PlotLosses(
            outputs=[output],
            mode="script",
            groups={panel.title: [line.key for line in panel.lines] for panel in panels},
            metric_to_name={line.key: label_of(line.scope) for panel in panels for line in panel.lines},
            step_names="step",
        )
        for panel in panels:
            for line in panel.lines:
                course = line.curve.course(line.key, _POINTS)
                for step, low, high in zip(course.x, course.min, course.max, strict=True):
                    for value in (low,) if course.exact else (low, high):
                        plot.update({line.key: value}, current_step=step)
        plot.send()
        return content.getvalue()


def _arrange(figure: Any, axes: Any, groups: int) -> None:
    rows, columns = axes.shape
    figure.set_size_inches(columns * _WIDTH, rows * _HEIGHT)
    for unused in axes.flat[groups:]:
        unused.set_visible(False)


def _label(axes: Any, group: str, steps: str) -> None:
    axes.set_title(group, loc="left", fontsize=10, parse_math=False)
    axes.set_xlabel(steps)
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend(frameon=False)
