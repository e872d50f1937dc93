"""Media items: images, tables, histograms and files of a run, as the page shows them. Runs in the server of the page, on a file thread.

No path comes from a request: a file is asked for by the hash that a record names, and read where that record says that it lies, without following links.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from asynctrack.journal import safe_read
from asynctrack.journal.batch_part import BatchParts
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.queue.layout import RECORD
from asynctrack.records.codec import Decoder, Media, Record
from asynctrack.records.media_types import unicode
from asynctrack.ui.journal_pass import JournalPass, MediumPlace, digest_of, media_of
from asynctrack.ui.plain_json import plain

# Rows of a table that are shown, and cells in all. Arbitrary.
_MOST_ROWS: Final = 1000
_MOST_CELLS: Final = 100_000

_IMAGES: Final = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "bmp": "image/bmp",
    "svg": "image/svg+xml",
}  # fmt: skip
_OTHERS: Final = {"html": "text/html; charset=utf-8", "text": "text/plain; charset=utf-8", "table": "application/json"}
_UNKNOWN: Final = "application/octet-stream"
_OF_ONE: Final = (OSError, *UNREADABLE)


class MediaFile(NamedTuple):
    """The bytes of a medium.

    Attributes:
        content: of its file.
        kind: the type of it, as a browser may take it.
        is_shown: whether browsers may show it; others are saved.
        name: to save it by.
    """

    content: bytes
    kind: str
    is_shown: bool
    name: str


def items_of(run: Path, found: JournalPass, key: str, first: int, count: int) -> dict[str, Any]:
    """Return some media of a key, in the order in which they were logged.

    Args:
        run: the run's directory.
        found: what its journal has.
        key: under which they were logged.
        first: how many are left out.
        count: how many are wanted.
    """
    of = found.media().get(key)
    if of is None:
        return {"items": [], "count": 0}
    gone = of.count - len(of.places)
    places = list(islice(of.places, max(0, first - gone), max(0, first + count - gone)))
    with contextlib.closing(_Records(run)) as records:
        items = [item for place in places if (item := _item(records, place)) is not None]
    return {"items": items, "count": of.count}


def file_of(run: Path, found: JournalPass, digest: str, name: str) -> MediaFile:
    """Return the file of a medium.

    Args:
        run: the run's directory.
        found: what its journal has.
        digest: by which a record names it.
        name: which file of an artifact.

    Raises:
        FileNotFoundError: no record names it, or it is not there.
        OSError: it cannot be read, or is something else.
    """
    place = found.named(digest)
    if place is None:
        raise FileNotFoundError(f"no record of this run names a file {digest!r:.80}")
    with contextlib.closing(_Records(run)) as records:
        medium = records.medium(place)
    if medium is None:
        raise FileNotFoundError("the record that names it cannot be read")
    if medium.kind == "artifact":
        return _part_of(medium, name)
    kind = _IMAGES.get(medium.format.lower()) if medium.kind == "image" else _OTHERS.get(medium.kind)
    suffix = f".{medium.format}" if medium.format else ""
    return MediaFile(_content(medium), kind or _UNKNOWN, kind is not None, f"{digest}{suffix}")


class _Records:
    """Reads records of a run by their places."""

    def __init__(self, run: Path) -> None:
        self._parts = BatchParts(run / "journal")
        self._decode = Decoder(run).record

    def close(self) -> None:
        self._parts.close()

    def medium(self, place: MediumPlace) -> Media | None:
        record = self.record(place)
        return None if record is None else _found_in(record, place)

    def record(self, place: MediumPlace) -> Record | None:
        with contextlib.suppress(*_OF_ONE):
            batch, whole = self._parts.read(place.segment, place.offset, place.begin, place.end)
            for start, _ in whole[:1]:
                frame = next(batch.frames(start))
                if frame.kind == RECORD:
                    return self._decode(frame.payload, frame.number, place.ring)
        return None


def _found_in(record: Record, place: MediumPlace) -> Media | None:
    return next((medium for key, at, medium, _ in media_of(record) if (key, at) == (place.key, place.at)), None)


def _item(records: _Records, place: MediumPlace) -> dict[str, Any] | None:
    record = records.record(place)
    medium = None if record is None else _found_in(record, place)
    if record is None or medium is None:
        return None
    item = {
        "step": record.step,
        "record": record.number,
        "time": record.time_ns / 1e9,
        "kind": medium.kind,
        "sha256": digest_of(medium),
        "caption": medium.caption,
        "name": medium.meta.get("name"),
        "format": medium.format or None,
        "width": medium.meta.get("width"),
        "height": medium.meta.get("height"),
        "size": _size(medium),
        "missing": medium.missing,
    }
    with contextlib.suppress(*_OF_ONE):
        item |= _more_of(medium)
    return {name: plain(value) for name, value in item.items() if value is not None or name == "sha256"}


def _more_of(medium: Media) -> dict[str, Any]:
    if medium.kind == "histogram":
        counts, edges = medium.bins()
        return {"counts": list(counts), "edges": list(edges)}
    if medium.kind == "table":
        return _table(medium)
    if medium.kind == "artifact":
        return {"files": [{"name": unicode(file.name), "size": file.size} for file in medium.files]}
    return {}


def _table(medium: Media) -> dict[str, Any]:
    """Return the first rows of a table."""
    rows: Sequence[Any] = medium.content or ()
    if medium.content is None:
        rows = msgspec.json.decode(_content(medium))["data"]
    columns = list(medium.meta["columns"])
    shown = min(_MOST_ROWS, _MOST_CELLS // max(1, len(columns)))
    return {
        "columns": [unicode(str(name)) for name in columns],
        "rows": [[_cell(cell) for cell in row] for row in rows[:shown]],
        "row_count": len(rows),
    }


def _cell(cell: Any) -> Any:
    return {**cell.reference(), "sha256": digest_of(cell)} if isinstance(cell, Media) else cell


def _size(medium: Media) -> int | None:
    if medium.files:
        return sum(file.size for file in medium.files)
    return len(medium.content) if isinstance(medium.content, bytes) else None


def _content(medium: Media) -> bytes:
    """Return the bytes of a medium's file, by the file or the record."""
    if (file := medium.file) is not None:
        return safe_read.read(file)
    if medium.content is None:
        raise FileNotFoundError(f"no delivery has stored it: {medium.missing or 'it is on its way, or none goes on'}")
    return medium.encode()


def _part_of(medium: Media, name: str) -> MediaFile:
    """Return a file of an artifact: one of those that the record names."""
    names = [file.name for file in medium.files]
    folder = medium.file
    if name not in names or folder is None:
        raise FileNotFoundError(f"expected &name= with one of {len(names)} files of the artifact; got {name!r:.200}")
    place = folder if folder.is_file() else folder / name
    below = [*place.relative_to(folder).parents] if place != folder else []
    if ".." in place.parts or any((folder / one).is_symlink() for one in below):
        raise FileNotFoundError("it lies behind a link")
    return MediaFile(safe_read.read(place), _UNKNOWN, False, name.rpartition("/")[2])


def headers_of(file: MediaFile, scripts: bool) -> Mapping[str, str]:
    """Return the headers that make a file harmless, also where it is opened by itself.

    Args:
        file: to send.
        scripts: whether its own scripts may run, in a frame where they reach nothing.
    """
    policy = (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; worker-src blob:; "
        if scripts
        else "sandbox; default-src 'none'; "
    )
    policy += "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data:; frame-ancestors 'self'"
    name = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "_" for sign in file.name)[:200]
    disposition = "inline" if file.is_shown else "attachment"
    return {
        "content-security-policy": policy,
        "content-disposition": f'{disposition}; filename="{name}"',
        "cache-control": "private, max-age=86400",
    }
