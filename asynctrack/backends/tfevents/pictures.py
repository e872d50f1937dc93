"""Pictures: encode images, tables, pages and other media for TensorBoard. Runs in a delivery.

An image is a message `Summary.Image` of `summary.proto`, with the bytes of its file; a table is Markdown; a page of
HTML and a text are texts.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from asynctrack.backends.tfevents.histogram import encode_counts, encode_histogram
from asynctrack.backends.tfevents.messages import block, number, text
from asynctrack.records import png
from asynctrack.records.codec import Array, Media, to_json

# Rows of a table, at most: more would slow the dashboard down. Arbitrary.
_MOST_ROWS: Final = 100
_RGB: Final = 3


def picture(name: str, media: Media) -> bytes:
    """Encode a summary's value with an image or a histogram; empty where there is nothing in it."""
    if media.kind == "histogram":
        message = encode_histogram(media.content) if isinstance(media.content, Array) else encode_counts(*media.bins())
        return b"" if message is None else block(1, text(1, name), block(5, message))
    try:
        content = media.read()
    except FileNotFoundError:  # the file was gone or changed before it was stored
        return b""
    width, height = png.size_of(content) or (0, 0)
    return block(1, text(1, name), block(4, number(1, height), number(2, width), number(3, _RGB), block(4, content)))


def words(media: Media) -> str | None:
    """Return a text or a page, or a table as Markdown; None for other media."""
    if media.kind == "table":
        return _markdown(media)
    if media.kind not in ("text", "html"):
        return None
    try:
        return media.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _markdown(table: Media) -> str:
    """Format the first rows of a table."""
    rows = [table.meta["columns"], ["---"] * len(table.meta["columns"]), *table.content[:_MOST_ROWS]]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    more = len(table.content) - _MOST_ROWS
    return "\n".join([*lines, *([f"\n{more} more rows"] if more > 0 else [])])


def _cell(value: Any) -> str:
    plain = (
        value
        if isinstance(value, str)
        else str(value)
        if isinstance(value, Media)
        else msgspec.json.encode(to_json(value)).decode()
    )
    return plain.replace("|", "\\|").replace("\n", " ")
