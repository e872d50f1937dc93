"""Kept files: copies what was logged by its path into a host's part, in a folder that hosts share: who merges it finds it there. Runs with the driver, on a thread.

It stands where a carrier stands, and brings nothing anywhere: the journal is where it is merged from. Of each file that a record names the part gets a copy, or a
note that says why there is none, and where the file is.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from asynctrack.carriers.cutter import Cutter
from asynctrack.carriers.message import Place
from asynctrack.delivery import media_store
from asynctrack.delivery.carried_files import FilesFirst
from asynctrack.delivery.logged_files import files_in_message, why_too_large
from asynctrack.journal.layout import Position
from asynctrack.records.media_types import Media

# What is done at once, before somebody may stop the delivery. Arbitrary.
_STEP_S: Final = 2.0


class KeptFiles:
    """The files of one part.

    Args:
        run: the directory of this host's part of the run.
        host: its name.
        max_bytes: of the files of one medium; larger ones stay where they are, and a note says where that is.
        position: up to where the files of the journal are there.
    """

    def __init__(self, run: Path, host: str, max_bytes: int, position: Position) -> None:
        self._run = run
        self._host = host
        self._max_bytes = max_bytes
        self._place = Place(position.segment, position.offset)
        self._waiting: list[Media] = []

    def __repr__(self) -> str:
        return f"<KeptFiles of {self._run}, {len(self._waiting)} waiting>"

    @property
    def waits(self) -> bool:
        """Return whether there are files to copy."""
        return bool(self._waiting)

    @property
    def merges(self) -> bool:
        """Return True: what is missing is said where the part is merged."""
        return True

    @property
    def asks_again(self) -> bool:
        """Return False: nobody else says where to go on."""
        return False

    def locate(self, journal: bytes) -> Place:
        """Return up to where the files of the journal are there."""
        with contextlib.closing(Cutter(self._run / "journal", Place())) as cutter:
            return cutter.place_at(self._place.segment, self._place.offset)

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        """Go on behind a message.

        Raises:
            FilesFirst: it names files that are not there yet: `advance` copies them.
        """
        self._waiting = [
            media for media in files_in_message(message, self._run) if media.file is None and media.missing is None
        ]
        if self._waiting:
            raise FilesFirst
        self._place = upto

    def advance(self, position: Position) -> None:
        """Copy a part of the files that wait.

        Raises:
            OSError: the disk does not take them.
            Signal: a person has to mend something.
        """
        until = time.monotonic() + _STEP_S
        while self._waiting and time.monotonic() < until:
            media = self._waiting[0]
            why = why_too_large(media, self._max_bytes, self._host)
            if why is None:
                media_store.store_one(self._run, media, str(media.path))
            else:
                media_store.note_missing(self._run, media, why)
            self._waiting.pop(0)

    def keep(self, position: Position) -> None:
        """Do nothing: there is no collector that can be away."""

    def close(self) -> None:
        """Close nothing."""
