"""Pending: one batch on its way to a sink, what the sink has taken and rejected of it, and what is to come again. Reads and writes nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from asynctrack.backends.base import Batch, Rejected, TooLarge
from asynctrack.delivery.batcher import DeliveryBatch
from asynctrack.journal.cursor import Cursor
from asynctrack.records.codec import Record


class Pending:
    """A batch that the sink has not yet taken whole.

    Attributes:
        whole: as it was made.
        parts: that the sink has not yet taken, in order.
        begun: whether it has taken any.
        media: whether there are media in it that are not yet stored.
        rejected: records that the sink will never take.
    """

    def __init__(self, whole: DeliveryBatch) -> None:
        self.whole = whole
        self.parts = deque(filter(any, [whole.batch]))
        self.begun = False
        self.media = whole.media
        self.rejected = 0
        self._delivered = 0
        self._skipped = dict(whole.skipped)

    def take(self, part: Batch, skipped: object) -> None:
        """The sink has a part, but for what it cannot show."""
        self.replace([])
        self.begun = True
        self._delivered += len(part.records)
        if isinstance(skipped, Mapping):  # else it has the part all the same: given again, it would have it twice
            for reason, count in skipped.items():
                self._delivered -= count
                self._skipped[reason] = self._skipped.get(reason, 0) + count

    def replace(self, rest: list[Batch]) -> None:
        """What is left of the part that comes first."""
        self.parts.popleft()
        self.parts.extendleft(filter(any, reversed(rest)))

    def advance(self, cursor: Cursor) -> None:
        """The backend has all of it: the cursor moves behind it."""
        cursor.delivered += self._delivered
        cursor.rejected += self.rejected
        cursor.skipped = _sum(cursor.skipped, self._skipped)
        cursor.position, cursor.ends = self.whole.position, self.whole.ends
        if self.whole.batch.records:
            cursor.next_number = max(cursor.next_number, self.whole.batch.records[-1].number + 1)


def split(part: Batch, no: TooLarge | Rejected) -> tuple[list[Batch], list[Record]]:
    """What of a part is to come again, after the sink has refused all or some of it, and the records that it will never take.

    Raises:
        ValueError: it says that it rejects some, and names none of them.
    """
    records, updates = part
    which = no.which if isinstance(no, Rejected) else None
    if which is None and len(records) + len(updates) > 1:
        return _halves(part), []
    if not records:
        return [], []
    lost = [record for index, record in enumerate(records) if which is None or index in which]
    if not lost:
        raise ValueError(f"the backend rejects none of these records: {sorted(which or ())}") from no
    return [Batch([record for index, record in enumerate(records) if index not in (which or {0})], updates)], lost


def _halves(part: Batch) -> list[Batch]:
    """Two smaller parts, records and updates apart: one may be refused for the other's sake."""
    records, updates = part
    if records and updates:
        return [Batch(records, []), Batch([], updates)]
    of_records, of_updates = len(records) // 2, len(updates) // 2
    return [Batch(records[:of_records], updates[:of_updates]), Batch(records[of_records:], updates[of_updates:])]


def _sum(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts.get(reason, 0) + more.get(reason, 0) for reason in {**counts, **more}}
