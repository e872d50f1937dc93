"""Dead letters: records that backends will never take, one line each in `dead_letters.jsonl` of the run's directory, with the reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from asynctrack._system import permissions
from asynctrack.records.codec import Record, to_json

FILE_NAME: Final = "dead_letters.jsonl"

_encoder = msgspec.json.Encoder(enc_hook=to_json)


def keep(run: Path, backend: str, reason: str, records: Sequence[Record]) -> None:
    """Append records that a backend has rejected; on disk when it returns. After a crash one may be there twice."""
    lines = [
        {
            "backend": backend,
            "reason": reason,
            "ring": f"{record.ring:016x}",
            "number": record.number,
            "step": record.step,
            "time_ns": record.time_ns,
            "data": to_json(record.data),
        }
        for record in records
    ]
    content = memoryview(_encoder.encode_lines(lines))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(run / FILE_NAME, flags, permissions.FILE)
    try:
        while content:
            content = content[os.write(fd, content) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)
