"""Publisher: brings one host's journal to the merger by a carrier, from where that has it. Runs on the host, or in the collector of a shared folder.

It keeps nothing: after anything that raises it asks the carrier again where to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from asynctrack.carriers.base import Carrier
from asynctrack.carriers.cutter import MESSAGE_BYTES, Cut, Cutter
from asynctrack.carriers.message import Place
from asynctrack.errors import PartIncomplete

# What has been missing for so long, or in a journal to which nothing was written for so long, is lost: the caches of network file systems show what was written after a
# minute at most, by their defaults.
SETTLED_AFTER_S: Final = 120.0

# The smallest message to which one shrinks that takes too long. Arbitrary: it takes a second at 16 KiB/s.
_SLOW_BYTES: Final = 16 * 1024


class JournalPublisher:
    """Brings one journal.

    Args:
        journal: the directory of the host's journal.
        carrier: the way to the merger.
        settled_after_s: seconds after which what is missing in the journal counts as lost.
        message_bytes: of a message, about.
        check: says how many batches of a message may be sent, unless that is settled; raises `PartIncomplete` where it is none.
    """

    def __init__(
        self,
        journal: Path,
        carrier: Carrier,
        *,
        settled_after_s: float = SETTLED_AFTER_S,
        message_bytes: int = MESSAGE_BYTES,
        check: Callable[[Cut], int] | None = None,
    ) -> None:
        self._journal = journal
        self._carrier = carrier
        self._settled_after_s = settled_after_s
        self._check = check
        self._most_bytes = self._message_bytes = message_bytes
        self._last: Cut | None = None
        self._cutter: Cutter | None = None
        self._gap: PartIncomplete | None = None
        self._gap_since = 0.0
        self._gap_text = ""

    def __repr__(self) -> str:
        return f"<JournalPublisher of {self._journal}>"

    @property
    def place(self) -> Place | None:
        """Return up to where the merger has the journal; None where it is to be asked."""
        return None if self._cutter is None else self._cutter.place

    def advance(self) -> Cut | None:
        """Bring one message, and return it; None where the journal has nothing more.

        Raises:
            PartIncomplete: something is missing in the journal, which may still come.
            PartRefused: the merger does not take it.
            OSError: the journal cannot be read, or the carrier does not get through; it may raise a `backends.base.Signal` instead.
        """
        try:
            self._last = None
            cutter = self._cutter = self._cutter or self._begin()
            if cutter is None:
                return None
            cut = self._last = self._cut(cutter)
            if cut is not None:
                self._carrier.send(cut.after, cut.upto, cut.message)
                self._gap = None
                self._message_bytes = min(2 * self._message_bytes, self._most_bytes)
            return cut
        except BaseException as error:
            self._remember(error)
            self.close()
            raise

    def shrink(self, *, for_good: bool) -> bool:
        """Cut smaller messages, as the last was too large or took too long; returns False where it cannot be cut, being of one batch.

        Args:
            for_good: whether messages of that size never come through; else they grow again with each that does.
        """
        if self._last is None or len(self._last.batches) < 2:
            return False
        smaller = max(1, min(self._message_bytes, len(self._last.message)) // 2)
        if for_good:
            self._most_bytes = smaller
        self._message_bytes = smaller if for_good else max(smaller, min(_SLOW_BYTES, self._message_bytes))
        return True

    def close(self) -> None:
        """Close the journal; the next step asks the merger again where to go on."""
        if self._cutter is not None:
            self._cutter.close()
            self._cutter = None

    def _cut(self, cutter: Cutter) -> Cut | None:
        """Cut the next message, as far as it may be sent."""
        settled = self._is_settled(cutter)
        cut = cutter.cut(self._message_bytes, settled=settled)
        if cut is None or settled or self._check is None or (most := self._check(cut)) == len(cut.batches):
            return cut
        cutter.close()
        self._cutter = Cutter(self._journal, cut.after)
        return self._cutter.cut(self._message_bytes, max_batches=most)

    def _is_settled(self, cutter: Cutter) -> bool:
        """Return whether what was found missing has not come for so long that it never will."""
        if self._gap is None:
            return False
        return max(time.monotonic() - self._gap_since, cutter.still_s()) >= self._settled_after_s

    def _remember(self, error: BaseException) -> None:
        """Remember since when the same is missing, also where a carrier has taken messages since: one that keeps them learns of it later."""
        self._gap = error if isinstance(error, PartIncomplete) else None
        if self._gap is not None and str(self._gap) != self._gap_text:
            self._gap_since, self._gap_text = time.monotonic(), str(self._gap)

    def _begin(self) -> Cutter | None:
        """Ask where to go on, or look for what is missing; None where the journal has not begun."""
        cutter = Cutter(self._journal, Place())
        if not cutter.journal_id:
            cutter.check()
            return None
        place = self._carrier.locate(cutter.journal_id)
        if self._gap is not None and self._gap.ring is not None:
            place = cutter.find(self._gap.ring, self._gap.seen) or place
        return Cutter(self._journal, place)
