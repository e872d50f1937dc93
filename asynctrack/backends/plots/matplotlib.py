"""Matplotlib: draw a run's curves as a picture, again and again while the run goes on. Runs in a process of its own.

Its import takes seconds, and a picture 0.1 to 0.5 s.

`plots/metrics.png` has a panel for each metric with a line for each scope, values over steps: `train/loss` and
`val/loss` are two lines of the panel "loss". A line is the mean over about two pixels. The band behind it reaches from
the least to the greatest value, so that no spike gets lost. A value that is not finite is a cross at the top. From the
thirteenth panel on there is `metrics-2.png`. A picture is replaced as a whole: a viewer never finds half of one.

Numbers are drawn; a record without any is skipped. A record that is given twice shows once.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, get_args

from asynctrack.backends.base import Context, Sink
from asynctrack.backends.plots.curves import Line, Panel, broken_steps
from asynctrack.backends.plots.drawing import (
    GRID,
    INK,
    Plot,
    PlotSink,
    label_of,
    missing,
    scopes_of,
    style_of,
    title_of,
)

Format = Literal["png", "svg"]

_PANELS: Final = 12
_COLUMNS: Final = 3
# Inches of a panel, and pixels an inch: a picture of three columns is 1,300 pixels wide and takes about 100 kB.
_WIDTH, _HEIGHT, _DPI = 4.2, 2.6, 100
# Points of a line: two pixels each.
_POINTS: Final = 170
# A line with so few points marks each: a single point would be invisible otherwise.
_FEW: Final = 12
# Names in a legend, at most: more would hide the panels.
_MOST_NAMES: Final = 20


class Matplotlib(Plot, frozen=True, kw_only=True, tag="matplotlib"):
    """Draws curves to `plots/metrics.png`; needs `pip install 'asynctrack[matplotlib]'`.

    Attributes:
        format: "png" or "svg".
    """

    needs: ClassVar[Mapping[str, str]] = {"matplotlib": "asynctrack[matplotlib]"}

    format: Format = "png"

    def more_problems(self) -> list[str]:
        """List what is wrong with `format`."""
        formats = get_args(Format)
        wrong = f"format must be one of {', '.join(map(repr, formats))}; got {self.format!r:.80}"
        return [] if self.format in formats else [wrong]

    def open(self, context: Context) -> Sink:
        """Open a sink that draws.

        Raises:
            ActionRequired: Matplotlib is missing.
        """
        return _MatplotlibSink(self, context)


class _MatplotlibSink(PlotSink):
    def __init__(self, settings: Matplotlib, context: Context) -> None:
        super().__init__(settings, context)
        try:
            import matplotlib
            import matplotlib.backends.backend_agg
            import matplotlib.figure
            import matplotlib.lines
            import matplotlib.ticker
        except ImportError as error:
            raise missing("matplotlib", "matplotlib", error) from error
        self._matplotlib: Any = matplotlib
        self._settings = settings
        self._name = context.name

    def draw(self, *, last: bool) -> None:
        panels = self.curves.panels()
        for page, at in enumerate(range(0, len(panels), _PANELS), 1):
            name = "metrics" if page == 1 else f"metrics-{page}"
            self.save(f"{name}.{self._settings.format}", self._picture(panels[at : at + _PANELS]))

    def _picture(self, panels: Sequence[Panel]) -> bytes:
        columns = 2 if len(panels) == 4 else min(len(panels), _COLUMNS)
        rows = math.ceil(len(panels) / columns)
        # Without `pyplot`, which would keep each figure. The file's metadata is fixed, so that equal curves make equal files.
        figure = self._matplotlib.figure.Figure(
            figsize=(columns * _WIDTH, rows * _HEIGHT + 0.4), dpi=_DPI, layout="constrained", facecolor="white"
        )
        self._matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
        figure.suptitle(self._name, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False)
        for at, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, at + 1)
            self._draw_panel(axes, panel, is_last_of_column=at + columns >= len(panels))
        self._draw_legend(figure, panels)
        content = io.BytesIO()
        with warnings.catch_warnings(), self._matplotlib.rc_context({"svg.hashsalt": "asynctrack"}):
            warnings.simplefilter("ignore", UserWarning)  # the font may lack letters of a name
            fixed = {"Date": None} if self._settings.format == "svg" else {"Software": None}
            figure.savefig(content, format=self._settings.format, metadata=fixed)
        return content.getvalue()

    def _draw_panel(self, axes: Any, panel: Panel, *, is_last_of_column: bool) -> None:
        axes.set_title(title_of(panel), loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_axisbelow(True)
        axes.grid(color=GRID, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#b0b7bf")
        axes.tick_params(labelsize=8, color="#b0b7bf", labelcolor=INK)
        axes.xaxis.set_major_locator(
            self._matplotlib.ticker.MaxNLocator(5, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
        )
        axes.xaxis.set_major_formatter(self._matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
        for line in panel.lines:
            self._draw_line(axes, line)
        if self._settings.is_log(panel) and any(line.curve.greatest > 0 for line in panel.lines):
            axes.set_yscale("log", nonpositive="mask")
        if is_last_of_column:
            axes.set_xlabel("step", fontsize=9, color=INK)

    def _draw_line(self, axes: Any, line: Line) -> None:
        course = line.curve.course(line.key, _POINTS)
        steps = [*course.x]
        colour, dash = style_of(line.rank)
        style = {"color": colour}
        if not course.exact:
            axes.fill_between(steps, [*course.min], [*course.max], alpha=0.25, linewidth=0.6, **style)
        few = sum(map(math.isfinite, course.mean)) <= _FEW
        marker = {"marker": ".", "markersize": 5} if few else {}
        axes.plot(steps, [*course.mean], linestyle=dash, linewidth=1.4, **marker, **style)
        if broken := broken_steps(course):
            top = [0.97] * len(broken)
            axes.plot(broken, top, "x", markersize=5, transform=axes.get_xaxis_transform(), **style)

    def _draw_legend(self, figure: Any, panels: Sequence[Panel]) -> None:
        scopes = dict(list(scopes_of(panels).items())[:_MOST_NAMES])
        looks = [style_of(rank) for rank in scopes.values()]
        lines = [self._matplotlib.lines.Line2D([], [], color=colour, linestyle=dash) for colour, dash in looks]
        if lines:
            legend = figure.legend(
                lines, map(label_of, scopes), loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK
            )
            for text in legend.get_texts():
                text.set_parse_math(False)
