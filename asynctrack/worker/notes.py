"""Notes: the worker's own word in a journal: of drops, of each ring's end and of the run's. Runs in the worker.

So `run.json` is a summary of the journal and nothing else, and a delivery learns of the run's end where it learns of the records, in
order. Imports the standard library only.
"""

from __future__ import annotations

from asynctrack.journal.layout import NOTES_RING
from asynctrack.queue.layout import KIND_SHIFT, NOTE, frame_size

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Any

    from asynctrack.journal.writer import Writer

# The notes of one writer take less than a TiB of positions.
_SHIFT = 40


class Notes:
    """Writes notes to a journal.

    Args:
        writer: of the journal.
    """

    __slots__ = ("_end", "_writer")

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        # Segment numbers only grow, so the notes of this writer lie behind all others, whatever the clock says.
        self._end = max(writer.ends.get(NOTES_RING, 0), writer.next_segment << _SHIFT)

    def write(self, content: dict[str, Any]) -> None:
        """Journal a note.

        Raises:
            OSError: it could not be written.
        """
        import json

        payload = json.dumps(content).encode()
        header = len(payload).to_bytes(8, "little") + (NOTE << KIND_SHIFT).to_bytes(8, "little")
        frame = (header + payload).ljust(frame_size(len(payload)), b"\0")
        self._writer.append(NOTES_RING, self._end, self._end + len(frame), 0, frame)
        self._end += len(frame)
