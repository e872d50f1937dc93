"""Values by W&B's names and arguments. What asynctrack has not is recorded as a text that says so."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import asynctrack
from asynctrack.records.media_types import Value
from asynctrack.wandb.notices import unsupported, warn_unsupported


class Image(asynctrack.Image):
    """`asynctrack.Image`; boxes, masks, classes and the like are left out."""

    def __init__(
        self, data_or_path: Any, mode: str | None = None, caption: str | None = None, *args: Any, **others: Any
    ) -> None:
        warn_unsupported("Image", {**{"grouping": args or None}, **others})
        super().__init__(data_or_path, caption, mode=mode)


class Histogram(asynctrack.Histogram):
    """`asynctrack.Histogram`."""

    def __init__(
        self, sequence: Any = None, np_histogram: Sequence[Any] | None = None, num_bins: int = 64, **own: Any
    ) -> None:
        super().__init__(own.pop("values", sequence), np_histogram, num_bins, **own)


class Table(asynctrack.Table):
    """`asynctrack.Table`; types of columns are left out."""

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
        """`add_data`, by its older name."""
        self.add_data(*row)


class Html(asynctrack.Html):
    """`asynctrack.Html`."""

    def __init__(self, data: Any, inject: bool = True, caption: str | None = None, **others: Any) -> None:
        super().__init__(data, caption)


class Plotly(asynctrack.Html):
    """A figure of plotly as a page, which needs a network to be drawn; one of matplotlib as a page with a picture."""

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
    """Stands for a value that only W&B has, whatever it is made of, and is recorded as a text that says so."""

    name = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._name = self.name or f"wandb.{type(self).__name__}"

    def wire(self) -> list[Any]:
        unsupported(self._name)
        return ["text", "txt", {}, f"{self._name} is not supported".encode(), [], ""]


class Audio(Unsupported): ...


class Graph(Unsupported): ...


class JoinedTable(Unsupported): ...


class Video(Unsupported): ...


class Molecule(Unsupported):
    @classmethod
    def from_smiles(cls, *args: object, **kwargs: object) -> Molecule:
        return cls()

    from_rdkit = from_smiles


class Object3D(Unsupported):
    @classmethod
    def from_point_cloud(cls, *args: object, **kwargs: object) -> Object3D:
        return cls()

    from_file = from_point_cloud
    from_numpy = from_point_cloud


class Plots:
    """Stands for `wandb.plot`, whose functions make values that only W&B has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (Unsupported,), {"name": f"wandb.plot.{name}"})
