"""Plotly: write a run's curves to one HTML file, to zoom and point at in a browser. Runs in a process of its own.

`plots/metrics.html` needs neither other files nor a network: it contains plotly.js, 5 MB. With `plotlyjs="directory"`
that is in `plots/plotly.min.js` beside it, once. The page has a panel for each metric with a line for each scope, as in
`Matplotlib`. While the run goes on the page reloads itself, until somebody touches it.

Numbers are drawn; a record without any is skipped. A record that is given twice shows once.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
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

PlotlyJS = Literal["inline", "directory"]

FILE: Final = "metrics.html"
SCRIPT: Final = "plotly.min.js"

_COLUMNS: Final = 2
# Pixels of a row of panels.
_ROW: Final = 300
# Points of a line: about one a pixel, so that a zoom shows more.
_POINTS: Final = 600
# Plotly's names of the dashes.
_DASHES: Final = {"solid": "solid", "dashed": "dash", "dotted": "dot"}

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ margin: 0; font-family: system-ui, sans-serif; color: {ink}; background: white }}</style>
{script}
</head>
<body>
<div id="plot"></div>
<script>
const figure = {figure};
const plot = document.getElementById("plot");
Plotly.newPlot(plot, figure.data, figure.layout, {{responsive: true, displaylogo: false}});
{reload}
</script>
</body>
</html>
"""
# After a touch the page stays: a reload would undo a zoom.
_RELOAD: Final = """let touched = false;
plot.addEventListener("pointerdown", () => {{ touched = true; }}, true);
setInterval(() => {{ if (!touched && !document.hidden) location.reload(); }}, {every_ms});"""


class Plotly(Plot, frozen=True, kw_only=True, tag="plotly"):
    """Draws curves to `plots/metrics.html`; needs `pip install 'asynctrack[plotly]'`.

    Attributes:
        plotlyjs: "inline", in the file, or "directory", beside it.
    """

    needs: ClassVar[Mapping[str, str]] = {"plotly": "asynctrack[plotly]"}

    plotlyjs: PlotlyJS = "inline"

    def more_problems(self) -> list[str]:
        """List what is wrong with `plotlyjs`."""
        places = get_args(PlotlyJS)
        wrong = f"plotlyjs must be one of {', '.join(map(repr, places))}; got {self.plotlyjs!r:.80}"
        return [] if self.plotlyjs in places else [wrong]

    def open(self, context: Context) -> Sink:
        """Open a sink that draws.

        Raises:
            ActionRequired: Plotly is missing.
        """
        return _PlotlySink(self, context)


class _PlotlySink(PlotSink):
    def __init__(self, settings: Plotly, context: Context) -> None:
        super().__init__(settings, context)
        try:
            from plotly.offline import get_plotlyjs
        except ImportError as error:
            raise missing("plotly", "plotly", error) from error
        self._library: bytes = get_plotlyjs().encode()
        self._settings = settings
        self._name = context.name

    def draw(self, *, last: bool) -> None:
        inline = self._settings.plotlyjs == "inline"
        if not inline and not self._is_beside():
            self.save(SCRIPT, self._library)
        page = _PAGE.format(
            title=escape(self._name),
            ink=INK,
            script=f"<script>{self._library.decode()}</script>" if inline else f'<script src="{SCRIPT}"></script>',
            figure=_in_script(figure_of(self._name, self.curves.panels(), self._settings)),
            reload="" if last else _RELOAD.format(every_ms=int(self._settings.every_s * 1000)),
        )
        self.save(FILE, page.encode())

    def _is_beside(self) -> bool:
        with contextlib.suppress(OSError):
            return (self.folder / SCRIPT).stat().st_size == len(self._library)
        return False


def figure_of(name: str, panels: Sequence[Panel], settings: Plot) -> dict[str, Any]:
    """Build the figure as plotly.js takes it."""
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    named = scopes_of(panels)
    data, axes, titles, known = [], {}, [], set[str]()
    for at, panel in enumerate(panels):
        number = "" if at == 0 else str(at + 1)
        for line in panel.lines:
            new = line.scope in named and line.scope not in known
            known |= {line.scope} if len(panel.lines) > 1 else set()
            data += _traces(line, number, in_legend=new and len(panel.lines) > 1)
        is_log = settings.is_log(panel) and any(line.curve.greatest > 0 for line in panel.lines)
        is_last_of_column = at + columns >= len(panels)
        axes[f"xaxis{number}"] = {**_AXIS, "title": {"text": "step" if is_last_of_column else "", "standoff": 8}}
        axes[f"yaxis{number}"] = {**_AXIS, "type": "log" if is_log else "linear", "exponentformat": "power"}
        titles.append(_title(title_of(panel), number))
    layout = {
        "title": {"text": f"<b>{_text(name)}</b>", "x": 0.01, "xanchor": "left"},
        "font": {"color": INK, "size": 12},
        "grid": {"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.12, "ygap": 0.3},
        "height": rows * _ROW + 120,
        "margin": {"l": 60, "r": 20, "t": 90, "b": 50},
        "annotations": titles,
        "hovermode": "x",
        "legend": {"x": 1.02, "y": 1},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        **axes,
    }
    return {"data": data, "layout": layout}


_AXIS: Final[dict[str, Any]] = {"gridcolor": GRID, "linecolor": "#b0b7bf", "zeroline": False, "automargin": True}


def _traces(line: Line, number: str, *, in_legend: bool) -> list[dict[str, Any]]:
    """Build the traces of a curve: its band, its line, and its steps that are not finite."""
    course = line.curve.course(line.key, _POINTS)
    colour, dash = style_of(line.rank)
    common = {
        "xaxis": f"x{number}",
        "yaxis": f"y{number}",
        "legendgroup": line.scope or "-",
        "name": label_of(_text(line.scope)),
    }
    traces: list[dict[str, Any]] = []
    if not course.exact:
        around = [
            *zip(course.x, course.max, strict=True),
            *reversed([*zip(course.x, course.min, strict=True)]),
        ]
        band = [(step, value) for step, value in around if math.isfinite(value)]
        style = {
            "mode": "lines",
            "fill": "toself",
            "fillcolor": f"{colour}40",
            "line": {"width": 0},
            "hoverinfo": "skip",
        }
        x, y = [step for step, _ in band], [value for _, value in band]
        traces.append({**common, **style, "x": x, "y": y, "showlegend": False})
    means = [value if math.isfinite(value) else None for value in course.mean]
    style = {
        "mode": "lines" if len(means) > 1 else "markers",
        "line": {"color": colour, "width": 1.6, "dash": _DASHES[dash]},
    }
    traces.append(
        {**common, **style, "marker": {"color": colour}, "x": [*course.x], "y": means, "showlegend": in_legend}
    )
    if broken := broken_steps(course):
        known = [value for value in course.max if math.isfinite(value)]
        style = {"mode": "markers", "marker": {"symbol": "x", "color": colour, "size": 7}, "hovertext": "not finite"}
        traces.append(
            {
                **common,
                **style,
                "x": broken,
                "y": [max(known, default=0.0)] * len(broken),
                "showlegend": False,
            }
        )
    return traces


def _title(text: str, number: str) -> dict[str, Any]:
    return {
        "text": _text(text), "xref": f"x{number} domain", "yref": f"y{number} domain", "x": 0, "y": 1.02, "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 13},
    }  # fmt: skip


def _text(text: str) -> str:
    """Escape text so that Plotly shows it as it is: Plotly takes some tags, and `$` for TeX."""
    return escape(text, quote=False).replace("$", "&#36;")


def _in_script(figure: dict[str, Any]) -> str:
    return json.dumps(figure, allow_nan=False).replace("<", "\\u003c")
