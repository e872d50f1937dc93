"""File sender: brings files that were logged by their paths to a collector, by the journal's carrier. Runs on a host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.backends.base import Retry, TooLarge
from asynctrack.carriers import file_wire
from asynctrack.carriers.base import CollectorCarrier, FileTooLarge, SlowCollector
from asynctrack.carriers.file_wire import CHUNK_BYTES, PlacedMedium, Placing, SentFile
from asynctrack.errors import PartIncomplete

# How often the collector may ask again for what it had. Arbitrary: bytes are damaged on the way, or somebody clears its disk.
_TRIES: Final = 3
# Smaller ones bring no server more than larger ones. Arbitrary.
_LEAST_CHUNK_BYTES: Final = 4096


class FileSender:
    """Sends files.

    Args:
        carrier: of the journal, which has located it.
    """

    def __init__(self, carrier: CollectorCarrier) -> None:
        self._carrier = carrier
        self._chunk_bytes = CHUNK_BYTES

    def __repr__(self) -> str:
        return f"<FileSender by {self._carrier!r}>"

    def bring(self, medium: PlacedMedium, place: Path) -> Iterator[Placing]:
        """Bring a medium: yields after each piece, with what the collector has said last. Its end is that the collector has all of it for good.

        Args:
            medium: of files, or why it has none.
            place: of its file, or of the folder of its files.

        Raises:
            FileTooLarge: the collector does not take it.
            OSError: a file cannot be read; or a `Signal`, as the carrier's `send` raises it.
        """
        files = {file.sha256: (place / name if name else place, file) for name, file in medium.files.items()}
        tries = dict.fromkeys(files, 0)
        while True:
            placing = self._place(medium)
            yield placing
            if not placing.lacks:
                return
            for sha256, here in placing.lacks.items():
                if sha256 not in files or tries[sha256] >= _TRIES:
                    raise Retry(f"the collector asks again and again for {medium.path}")
                tries[sha256] += 1
                path, file = files[sha256]
                for _ in self._send(path, file, here):
                    yield placing

    def _place(self, medium: PlacedMedium) -> Placing:
        try:
            answer = self._carrier.ask_of_files("POST", f"/{file_wire.MEDIA}", {}, msgspec.json.encode(medium))
        except TooLarge as error:  # of more names than the server takes in a request
            raise FileTooLarge(str(error)) from error
        try:
            return msgspec.json.decode(answer, type=Placing)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Retry(f"the collector has answered with something else than a `Placing`: {answer[:80]!r}") from error

    def _send(self, path: Path, file: SentFile, here: int) -> Iterator[None]:
        """Send a file from where the collector has it; yields after each chunk."""
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as content:
            while True:
                content.seek(here)
                chunk = content.read(min(self._chunk_bytes, max(0, file.size - here)))
                if not chunk and here < file.size:
                    raise Retry(f"{path} has become shorter")
                here = self._put(file, here, chunk)
                yield
                if here >= file.size:
                    return

    def _put(self, file: SentFile, here: int, chunk: bytes) -> int:
        """Send a chunk; returns from where the collector wants the next."""
        query = {file_wire.OFFSET: str(here), file_wire.SIZE: str(file.size)}
        try:
            self._carrier.ask_of_files("PUT", f"/{file_wire.FILES}/{file.sha256}", query, chunk)
        except PartIncomplete as error:
            if error.seen == here:  # all of it was there, and was not what it should be
                raise Retry(f"the collector does not take a file: {error.why}") from error
            return min(error.seen, file.size)
        except SlowCollector:  # which is asked again; smaller chunks come through slow lines
            self._chunk_bytes = max(_LEAST_CHUNK_BYTES, self._chunk_bytes // 2)
            raise
        except FileTooLarge:
            raise
        except TooLarge as error:
            if self._chunk_bytes <= _LEAST_CHUNK_BYTES:
                raise FileTooLarge(str(error)) from error
            self._chunk_bytes //= 2
            return here
        return here + len(chunk)
