"""Values: images, tables and others under W&B's names and arguments.

A kind that asynctrack does not have is recorded as a text that says so.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import asynctrack
from asynctrack.records.media_types import Value
from asynctrack.wandb.notices import unsupported, warn_unsupported


class Image(asynctrack.Image):
    """Takes W&B's arguments for an `asynctrack.Image`; boxes, masks, classes and the like are left out with a warning.

    Args:
        data_or_path: an array, a figure of matplotlib, Pillow's image, or the path of a file; see `asynctrack.Image`
            for shapes and ranges.
        mode: of Pillow, to convert to.
        caption: for people.
        args: left out with a warning.
        others: left out with a warning.

    Raises:
        InvalidValue: it is none of these, or empty, or there is no such file.
    """

    def __init__(
        self, data_or_path: Any, mode: str | None = None, caption: str | None = None, *args: Any, **others: Any
    ) -> None:
        warn_unsupported("Image", {**{"grouping": args or None}, **others})
        super().__init__(data_or_path, caption, mode=mode)


class Histogram(asynctrack.Histogram):
    """Takes W&B's arguments for an `asynctrack.Histogram`.

    Args:
        sequence: the values.
        np_histogram: counts and edges, as `numpy.histogram` returns them.
        num_bins: number of bins.
        own: further arguments of `asynctrack.Histogram`.
    """

    def __init__(
        self, sequence: Any = None, np_histogram: Sequence[Any] | None = None, num_bins: int = 64, **own: Any
    ) -> None:
        super().__init__(own.pop("values", sequence), np_histogram, num_bins, **own)


class Table(asynctrack.Table):
    """Takes W&B's arguments for an `asynctrack.Table`; types of columns are left out with a warning.

    Args:
        columns: their names.
        data: rows of cells.
        rows: the older name of `data`.
        dataframe: of pandas or polars.
        others: left out with a warning.
    """

    def __init__(
        self,
        columns: Sequence[Any] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        **others: Any,
    ) -> None:
        warn_unsupported("Table", others)
        super().__init__(columns, rows if data is None else data, dataframe=dataframe)

    def add_row(self, *row: Any) -> None:
        """Add a row; the older name of `add_data`.

        Args:
            row: its cells.
        """
        self.add_data(*row)


class Html(asynctrack.Html):
    """Takes W&B's arguments for an `asynctrack.Html`.

    Args:
        data: the text, the path of a file that ends in `.html`, or an open file.
        inject: ignored.
        caption: for people.
        others: ignored.

    Raises:
        InvalidValue: it is none of these, or there is no such file.
    """

    def __init__(self, data: Any, inject: bool = True, caption: str | None = None, **others: Any) -> None:
        super().__init__(data, caption)


class Plotly(asynctrack.Html):
    """Shows a figure of plotly as a page, or one of matplotlib as a page with a picture.

    Plotly's page needs a network to be drawn.

    Args:
        val: the figure.

    Raises:
        InvalidValueType: it is neither.
    """

    def __init__(self, val: Any) -> None:
        if hasattr(val, "to_html"):
            page = val.to_html(include_plotlyjs="cdn")
        elif hasattr(val, "savefig"):
            picture = io.BytesIO()
            val.savefig(picture, format="png")
            page = f'<img src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">'
        else:
            raise asynctrack.errors.InvalidValueType("Plotly", "a figure of plotly or matplotlib", f"{val!r:.80}")
        super().__init__(page)


class Unsupported(Value):
    """Stands for a value of a kind that only W&B has. It takes any arguments, and is recorded as a text that says so.

    Args:
        args: ignored.
        kwargs: ignored.
    """

    name = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._name = self.name or f"wandb.{type(self).__name__}"

    def wire(self) -> list[Any]:
        """Return the text, as a queue's frame holds a medium, and warn once."""
        unsupported(self._name)
        return ["text", "txt", {}, f"{self._name} is not supported".encode(), [], ""]


class Audio(Unsupported):
    """Stands for W&B's audio, recorded as a text."""


class Graph(Unsupported):
    """Stands for W&B's graph, recorded as a text."""


class JoinedTable(Unsupported):
    """Stands for W&B's joined table, recorded as a text."""


class Video(Unsupported):
    """Stands for W&B's video, recorded as a text."""


class Molecule(Unsupported):
    """Stands for W&B's molecule, recorded as a text."""

    @classmethod
    def from_smiles(cls, *args: object, **kwargs: object) -> Molecule:
        """Make a stand-in; all arguments are ignored.

        Args:
            args: ignored.
            kwargs: ignored.
        """
        return cls()

    from_rdkit = from_smiles


class Object3D(Unsupported):
    """Stands for W&B's 3D object, recorded as a text."""

    @classmethod
    def from_point_cloud(cls, *args: object, **kwargs: object) -> Object3D:
        """Make a stand-in; all arguments are ignored.

        Args:
            args: ignored.
            kwargs: ignored.
        """
        return cls()

    from_file = from_point_cloud
    from_numpy = from_point_cloud


class Plots:
    """Stands for `wandb.plot`: its functions make values of kinds that only W&B has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (Unsupported,), {"name": f"wandb.plot.{name}"})
