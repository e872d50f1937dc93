"""W&B's media: turn stored images, tables, pages and texts into the SDK's own objects. Runs where the sink does.

The SDK's objects belong to one session, so they are made again each time a row is handed over.
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.records.codec import Media

# Kinds that a row can show; an artifact belongs to no row.
_SHOWN: Final = frozenset({"image", "table", "html", "text", "histogram"})


def can_show(media: Media) -> bool:
    """Return whether a row can hold a medium: a file that had changed or gone before it was stored cannot be shown."""
    return media.kind in _SHOWN and (media.kind == "histogram" or media.file is not None)


def has_tables(row: Mapping[str, Any]) -> bool:
    """Return whether a row has tables. They are artifacts at W&B, which not every server has."""
    return any(isinstance(value, Media) and value.kind == "table" for value in row.values())


def as_objects(row: Mapping[str, Any], *, tables: bool = True) -> dict[str, Any]:
    """Return a row with the SDK's objects in place of media.

    Args:
        row: names to values.
        tables: whether tables stay tables; otherwise they become pages.
    """
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
    """Format a table as HTML."""
    cells = (
        "".join(
            f"<td>{html.escape(cell if isinstance(cell, str) else msgspec.json.encode(cell).decode())}" for cell in row
        )
        for row in rows
    )
    return "<table>" + "".join(f"<tr>{row}" for row in cells) + "</table>"


def _cell(cell: Any, run: Path | None) -> Any:
    """Return a cell of a stored table as W&B takes it.

    A reference to an image becomes the image. Other lists and mappings become texts, since W&B's columns are of one
    kind.
    """
    if isinstance(cell, dict) and cell.get("_type") == "image" and run is not None:
        path = (run / str(cell.get("path"))).resolve()
        if path.is_file() and path.is_relative_to(
            (run / "media").resolve()
        ):  # otherwise the path comes from somebody else
            return importlib.import_module("wandb").Image(str(path), caption=cell.get("caption"))
    return msgspec.json.encode(cell).decode() if isinstance(cell, dict | list) else cell
