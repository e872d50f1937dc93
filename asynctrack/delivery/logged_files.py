"""Logged files: finds in batches of a journal the media that were logged by their paths, and says where their files are. Pure functions.

Most batches have none, which a search for a few bytes shows: nothing is decoded then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asynctrack.carriers.message import Garbage, batches_in, unpack
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.layout import NOTES_RING
from asynctrack.queue.layout import CHECKPOINT, CONFIG, RECORD, SUMMARY
from asynctrack.records.codec import Decoder
from asynctrack.records.media_types import Media, media_in, unicode

# With which the bytes of a medium begin that can be a file: its extension type, a list of six, and its kind. See `records.codec`. The search takes 0.15 ms for half
# a MiB, which has some 5,000 records: 0.03 us each. Measured on one core of a busy machine.
_ANY: Final = re.compile(rb"\x03\x96(?:\xa8artifact|\xa5image|\xa4html)")
# Paths that are named where files are too large. Arbitrary.
_MOST_NAMED: Final = 3
_UPDATES: Final = frozenset({CONFIG, SUMMARY, CHECKPOINT})


def may_name_files(data: bytes | memoryview) -> bool:
    """Return False if there is surely no medium in these bytes that was logged by its path."""
    return _ANY.search(data) is not None


def files_in_message(message: bytes, run: Path) -> list[Media]:
    """Return the media of a message that were logged by their paths, each once. A message that is damaged has none.

    Args:
        message: of batches, see `carriers.message`.
        run: where these media lie, once they are stored.
    """
    found: dict[str | None, Media] = {}
    if may_name_files(message):
        decoder = Decoder(run)
        try:
            for batch, _ in batches_in(unpack(message)):
                found.update((media.path, media) for media in files_in(batch, decoder))
        except Garbage:  # whoever takes it says so
            return []
    return list(found.values())


def files_in(batch: FrameBatch, decoder: Decoder) -> Iterator[Media]:
    """Yield the media of a batch that were logged by their paths.

    Args:
        batch: with its frames.
        decoder: of the run.
    """
    if batch.header.ring == NOTES_RING or not may_name_files(batch.data):
        return
    for frame in batch.frames():
        if may_name_files(frame.payload):
            yield from (media for media in media_in(_data_of(frame, decoder)) if media.files and media.path)


def why_too_large(media: Media, max_bytes: int, host: str) -> str | None:
    """Return why the files of a medium are too large; None where they are not.

    Args:
        media: that was logged by its path.
        max_bytes: of its files together.
        host: where they are.
    """
    size = sum(file.size for file in media.files)
    if size <= max_bytes:
        return None
    return (
        f"it has {size} bytes, and at most {max_bytes} are sent (ASYNCTRACK_COLLECT_FILE_BYTES); {places(media, host)}"
    )


def places(media: Media, host: str) -> str:
    """Return where the files of a medium lie, for people."""
    named = [f"{host}:{unicode(file.place)}" for file in media.files[:_MOST_NAMED]]
    more = len(media.files) - len(named)
    return f"it is {', '.join(named)}" + (f" and {more} more" if more else "")


def _data_of(frame: Frame, decoder: Decoder) -> object:
    """Return what a frame has set; None where it sets nothing, or cannot be read."""
    try:
        if frame.kind == RECORD:
            return decoder.record(frame.payload, frame.number).data
        return decoder.update(frame.payload)[1] if frame.kind in _UPDATES else None
    except (ValueError, TypeError, RecursionError):
        return None
