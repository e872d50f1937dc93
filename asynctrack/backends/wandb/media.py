"""W&B's media: images, tables, pages and texts as the SDK's own objects, made from the files that are stored under `media/`. Runs where the sink does.

The SDK's objects belong to one session, so they are made anew each time a row is handed over.
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.records.codec import Media

# An artifact belongs to no row.
_SHOWN: Final = frozenset({"image", "table", "html", "text", "histogram"})


def can_show(media: Media) -> bool:
    """Whether a row can hold it: what had changed or gone before it was stored has nothing to show."""
    return media.kind in _SHOWN and (media.kind == "histogram" or media.file is not None)


def has_tables(row: Mapping[str, Any]) -> bool:
    """Whether a row has tables, which are artifacts at W&B: not every server has these."""
    return any(isinstance(value, Media) and value.kind == "table" for value in row.values())


def as_objects(row: Mapping[str, Any], *, tables: bool = True) -> dict[str, Any]:
    """A row with the SDK's objects in place of media; without `tables` these are pages."""
    return {key: _object(value, tables) for key, value in row.items()}


def _object(value: Any, tables: bool) -> Any:
    if isinstance(value, list) and any(isinstance(item, Media) for item in value):
        return [_object(item, tables) for item in value]
    return _medium(value, tables) if isinstance(value, Media) else value


def _medium(media: Media, tables: bool) -> Any:
    wandb = importlib.import_module("wandb")
    if media.kind == "histogram":
        return wandb.Histogram(np_histogram=media.bins())
    if media.kind == "image":
        return wandb.Image(str(media.file), caption=media.caption)
    text = media.read().decode("utf-8", "replace")
    if media.kind == "table":
        table = msgspec.json.decode(text)
        if not tables:
            return wandb.Html(_page([table["columns"], *table["data"]]), data_is_not_path=True)
        rows = [[_cell(cell, media.run) for cell in row] for row in table["data"]]
        return wandb.Table(columns=table["columns"], data=rows, allow_mixed_types=True)
    page = text if media.kind == "html" else f"<pre>{html.escape(text)}</pre>"
    return wandb.Html(page, inject=media.kind == "text", data_is_not_path=True)


def _page(rows: list[list[Any]]) -> str:
    """A table as HTML."""
    cells = (
        "".join(
            f"<td>{html.escape(cell if isinstance(cell, str) else msgspec.json.encode(cell).decode())}" for cell in row
        )
        for row in rows
    )
    return "<table>" + "".join(f"<tr>{row}" for row in cells) + "</table>"


def _cell(cell: Any, run: Path | None) -> Any:
    """A cell of a stored table: of a reference to an image the image, of any other nest a text, since W&B's columns are of one kind."""
    if isinstance(cell, dict) and cell.get("_type") == "image" and run is not None:
        path = (run / str(cell.get("path"))).resolve()
        if path.is_file() and path.is_relative_to((run / "media").resolve()):  # else somebody else has written it
            return importlib.import_module("wandb").Image(str(path), caption=cell.get("caption"))
    return msgspec.json.encode(cell).decode() if isinstance(cell, dict | list) else cell
