"""Pending: one batch on its way to a sink, what the sink has taken and rejected of it, and what is to come again. Values and rules only."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import msgspec

from asynctrack.backends.base import Batch, Rejected, TooLarge
from asynctrack.backends.files.line_records import last_number
from asynctrack.delivery.gathering import DeliveryBatch
from asynctrack.journal.cursor import Cursor
from asynctrack.records.codec import Record


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that the sink has not yet taken whole. A value: each answer of the sink makes another.

    It lives through retries. A batch that was split stays split while its parts are tried again, so that a retry is the same request, and the cursor
    and its counts move when all of it has an answer.

    Attributes:
        whole: as it was cut.
        parts: that the sink has not yet taken, in order.
        taken: parts that it has taken.
        media: whether there are media in it that are not yet stored.
        delivered: records that the sink has.
        rejected: records that it will never take.
        skipped: records that it does not show, by reason.
    """

    whole: DeliveryBatch
    parts: tuple[Batch, ...]
    taken: int = 0
    media: bool
    delivered: int = 0
    rejected: int = 0
    skipped: dict[str, int]

    @classmethod
    def of(cls, whole: DeliveryBatch) -> Pending:
        """Begin with a batch of which the sink has nothing yet."""
        return cls(whole=whole, parts=_filled([whole.batch]), media=whole.media, skipped=whole.skipped)

    def store(self) -> Pending:
        """Note that its media are stored."""
        return msgspec.structs.replace(self, media=False)

    def take(self, answer: object) -> Pending:
        """Note that the sink has the first part.

        Args:
            answer: of the sink: the records that it cannot show, by reason.
        """
        part, *rest = self.parts
        skipped = _counts(answer)
        return msgspec.structs.replace(
            self,
            parts=tuple(rest),
            taken=self.taken + 1,
            delivered=self.delivered + len(part.records) - sum(skipped.values()),
            skipped=_sum(self.skipped, skipped),
        )

    def refuse(self, no: TooLarge | Rejected) -> tuple[Pending, list[Record]]:
        """Note that the sink has refused the first part, or some of it.

        Returns:
            What is left, and the records that the sink will never take.

        Raises:
            ValueError: the sink says that it rejects some, and names none of them.
        """
        part, *others = self.parts
        rest, lost = split(part, no)
        left = msgspec.structs.replace(
            self, parts=(*_filled(rest), *others), rejected=self.rejected + len(lost)
        )  # fmt: skip
        return left, lost

    def move(self, cursor: Cursor) -> Cursor:
        """Return the cursor behind the batch, once the backend has all of it."""
        return msgspec.structs.replace(
            cursor,
            delivered=cursor.delivered + self.delivered,
            rejected=cursor.rejected + self.rejected,
            skipped=_sum(cursor.skipped, self.skipped),
            position=self.whole.position,
            ends=self.whole.ends,
            writers=self.whole.writers,
            means=self.whole.means,
            next_number=max(cursor.next_number, last_number(self.whole.batch.records) + 1),
        )


def split(part: Batch, no: TooLarge | Rejected) -> tuple[list[Batch], list[Record]]:
    """Split a part of which the sink has refused all or some.

    Returns:
        The parts that are to come again, and the records that the sink will never take.

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
    """Halve a part, records and updates apart: one may be refused for the other's sake."""
    records, updates = part
    if records and updates:
        return [Batch(records, []), Batch([], updates)]
    of_records, of_updates = len(records) // 2, len(updates) // 2
    return [Batch(records[:of_records], updates[:of_updates]), Batch(records[of_records:], updates[of_updates:])]


def _filled(parts: list[Batch]) -> tuple[Batch, ...]:
    return tuple(part for part in parts if any(part))


def _counts(answer: object) -> dict[str, int]:
    """Read a sink's answer; what makes no sense counts as nothing, since a sink that is given the part again would have it twice."""
    counts = {}
    for reason, count in answer.items() if isinstance(answer, Mapping) else ():
        try:
            counts[reason] = operator.index(count)
        except TypeError:
            continue
    return counts


def _sum(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts.get(reason, 0) + more.get(reason, 0) for reason in {**counts, **more}}
