"""W&B's own files: count the rows in the `.wandb` files of an offline run. Runs where the sink does.

A file is a header of 7 bytes (`:W&B`, 0xBEE1 and a version) and blocks of 32 KiB of fragments, as LevelDB's log has
them: checksum (CRC-32 of the type and the data, 4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last),
data. A block's last 6 bytes stay empty. A record is a protobuf of W&B's; one of the kind `history` is a row. A kill may
tear the end of a file; W&B's own reader leaves that out, too.
"""

from __future__ import annotations

import glob
import importlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from asynctrack.errors import JournalCorrupt

_BLOCK_BYTES: Final = 32 * 1024
_HEADER: Final = struct.Struct("<IHB")
_MAGIC: Final = b":W&B\xe1\xbe"
_START: Final = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbFile:
    """One file; each call of `rows` reads on from where the last one stopped.

    Args:
        path: of the file; it may still be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = _START
        self._begun = b""
        self._rows = 0
        self._record: Any = importlib.import_module("wandb.proto.wandb_internal_pb2").Record

    def rows(self) -> int:
        """Count the whole rows so far.

        Raises:
            JournalCorrupt: the file is not W&B's.
        """
        for payload in self._payloads():
            record = self._record()
            record.ParseFromString(payload)
            self._rows += record.WhichOneof("record_type") == "history"
        return self._rows

    def sync(self) -> None:
        """Make the file survive a power cut."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _payloads(self) -> Iterator[bytes]:
        """Yield the whole records that have come since the last call."""
        with open(self.path, "rb") as file:
            magic = file.read(len(_MAGIC))
            if not _MAGIC.startswith(magic):
                raise JournalCorrupt(self.path, 0, "it does not begin as a file of W&B's does")
            file.seek(self._at)
            data = file.read()
        began = self._at
        while (fragment := _fragment(data, self._at - began, self._at)) is not None:
            kind, payload, length = fragment
            self._at += length
            self._begun = payload if kind in (_WHOLE, _FIRST) else self._begun + payload
            if kind in (_WHOLE, _LAST):
                yield self._begun
                self._begun = b""


def offline_files(directory: Path, run_id: str) -> list[Path]:
    """Return the files of an offline run, in the order in which they were begun."""
    name = glob.escape(run_id)
    return sorted(directory.glob(f"wandb/offline-run-*-{name}*/run-{name}.wandb"))


def _fragment(data: bytes, offset: int, position: int) -> tuple[int, bytes, int] | None:
    """Read a fragment.

    Args:
        data: part of the file.
        offset: of the fragment in the data.
        position: of the fragment in the file.

    Returns:
        Its type, its data, and the number of bytes up to its end; None where it is not whole.
    """
    padding = 0
    if (left := _BLOCK_BYTES - position % _BLOCK_BYTES) < _HEADER.size:
        padding = left
    begin = offset + padding + _HEADER.size
    if begin > len(data):
        return None
    checksum, length, kind = _HEADER.unpack_from(data, offset + padding)
    payload = data[begin : begin + length]
    if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or len(payload) < length:
        return None
    if zlib.crc32(payload, zlib.crc32(bytes([kind]))) != checksum:
        return None
    return kind, payload, padding + _HEADER.size + length
