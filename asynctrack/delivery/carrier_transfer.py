"""Carrier transfer: brings a host's journal to a collector by a carrier, as `Transfer` brings records to a sink. Runs with the driver.

What the collector has it says itself: its word, which it gives when it is asked and with each message that it takes, moves the cursor. So a cursor that is lost or
old costs nothing, and a collector that has lost its disk gets everything again.

In a folder that hosts share nothing travels: there it only looks for files that records name by path, for `KeptFiles`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from asynctrack.backends.base import ActionRequired, Retry, TooLarge, Unreachable
from asynctrack.backends.collector import Collector
from asynctrack.backends.nats_address import is_nats
from asynctrack.backends.part_files import PartFiles
from asynctrack.carriers.base import CollectorCarrier, SlowCollector
from asynctrack.carriers.cutter import Cut
from asynctrack.carriers.message import Place
from asynctrack.carriers.parts import split_name
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.carriers.wire import PartName
from asynctrack.delivery.calls import Calls
from asynctrack.delivery.carried import Carried
from asynctrack.delivery.carried_files import CarriedFiles, FilesFirst
from asynctrack.delivery.gathering import NEVER_S
from asynctrack.delivery.kept_files import KeptFiles
from asynctrack.delivery.lease import Lease
from asynctrack.delivery.next_step import Found, Situation, save_is_due
from asynctrack.delivery.progress import DeliveryProgress
from asynctrack.delivery.reports import Reports
from asynctrack.delivery.transfer import Hooks, sleep
from asynctrack.errors import PartIncomplete, PartRefused
from asynctrack.journal.layout import Position
from asynctrack.journal.run_end import ended_at

# A message of fewer bytes is followed by the next after a while only, with what has come until then: the size of messages decides on what they cost both sides.
_SMALL_BYTES: Final = 128 * 1024
_LINGER_S: Final = 0.5
# Where there was nothing, it is looked again after so long. Arbitrary: each look takes about 0.5 ms, on a thread.
_LOOK_S: Final = 0.2
# A host with nothing to send asks where it is, so that the collector knows that it lives, and it knows of a stream that was set back. A tenth of what a collector waits by
# default.
_SIGN_OF_LIFE_S: Final = 30.0
# Between two tries to reach a collector while somebody waits for it. Arbitrary: a try takes a millisecond.
_CALL_S: Final = 1.0
# Between two looks for files to copy while the collector is away. Arbitrary.
_KEEP_S: Final = 1.0
# What is missing in the journal is looked for again after so long. Arbitrary.
_MISSING_S: Final = 1.0


class CarrierTransfer:
    """Brings one journal.

    Args:
        run: the directory of this host's part of the run.
        backend: where it goes; or that only files are looked for.
        lease: of the delivery.
        progress: how far the collector is.
        reports: who says what happens.
        stopping: set when the transfer is to end soon.
    """

    def __init__(
        self,
        run: Path,
        backend: Collector | PartFiles,
        lease: Lease,
        progress: DeliveryProgress,
        reports: Reports,
        stopping: anyio.Event,
    ) -> None:
        self._run = run
        self._journal = run / "journal"
        self._backend = backend
        self._calls = Calls(lease)
        self._progress = progress
        self._reports = reports
        self._stopping = stopping
        self._carrier: CarriedFiles | KeptFiles | None = None
        self._publisher: JournalPublisher | None = None
        self._carried = Carried(self._journal, progress.cursor)
        self._heard_at = 0.0
        self._rest_until = 0.0
        self._rests = False
        self._misses = False
        self._calls_nobody = False
        self._has_ended: bool | None = None  # None: to be looked for

    def __repr__(self) -> str:
        return f"<CarrierTransfer of {self._run} by {self._backend!r}>"

    @property
    def busy_since(self) -> float | None:
        """Return since when it has waited for the collector, in monotonic seconds; None while it does not."""
        return self._calls.busy_since

    def due_in(self) -> float:
        """Compute the seconds until the journal is looked at again; infinite where it was looked at just now."""
        return max(0.0, self._rest_until - time.monotonic()) if self._rests else NEVER_S

    async def round(self, hooks: Hooks) -> Found:
        """Bring one message, or find that there is nothing to bring, and save the cursor where that is due."""
        self._rests = time.monotonic() < self._rest_until and not hooks.expedite()
        found = Found.NOTHING if self._rests else await self._bring()
        progress = self._progress
        situation = Situation(
            now=time.monotonic(),
            found=found,
            expedite=hooks.expedite(),
            dirty=progress.dirty,
            saved_at=progress.saved_at,
        )
        if found is Found.RUN_END:
            await self._save(closed=True, last_error=None, next_try_at=None, paused=False)
        elif save_is_due(situation):
            await self._save()
        return found

    async def rest(self, seconds: float, expedite: Callable[[], bool]) -> None:
        """Wait until the next try, and copy meanwhile the files that records name by path. Where nobody is there, that is soon while somebody waits."""
        begun_at, keep_at = time.monotonic(), 0.0
        while not self._stopping.is_set():
            rested_s = (now := time.monotonic()) - begun_at
            most_s = min(seconds, _CALL_S) if self._calls_nobody and expedite() else seconds
            if rested_s >= most_s:
                return
            if now >= keep_at:
                keep_at = now + _KEEP_S
                await self._keep_files()
            await sleep(self._stopping, min(most_s - rested_s, _LOOK_S))

    async def pause(self) -> None:
        """Save the cursor, unless that is done."""
        try:
            if self._progress.dirty:
                await self._save()
        except Exception as error:  # the collector will say where it is
            self._reports.say(f"its cursor could not be saved: {self._reports.describe(error)}")
        await self.abandon()

    async def abandon(self) -> None:
        """Close what is open."""
        publisher, carrier, self._publisher, self._carrier = self._publisher, self._carrier, None, None
        if publisher is not None and carrier is not None:
            await self._calls.call(publisher.close)
            await self._calls.call(carrier.close)

    @property
    def _who(self) -> str:
        return (
            f"the collector at {self._backend.url}" if isinstance(self._backend, Collector) else "the search for files"
        )

    async def _bring(self) -> Found:
        publisher = self._publisher or self._begin()
        asks = self._carrier is not None and self._carrier.asks_again
        if asks or time.monotonic() - self._heard_at >= _SIGN_OF_LIFE_S:
            publisher.close()  # it asks where to go on
        asks = publisher.place is None
        self._calls_nobody = False
        try:
            if self._carrier is not None and self._carrier.waits:
                await self._calls.in_thread(self._carrier.advance, self._carried.position)
                return Found.UNKNOWN
            cut = await self._calls.call(publisher.advance)
        except FilesFirst:
            return Found.UNKNOWN
        except Unreachable:
            self._calls_nobody = True
            raise
        except PartIncomplete as error:
            if self._misses:
                raise Retry(f"something is missing in the journal: {error.why}", _MISSING_S) from error
            self._misses = True  # it is looked for at once
            return Found.UNKNOWN
        except PartRefused as error:
            raise ActionRequired(f"{self._who} refuses this part of the run: {error.why}") from error
        except TooLarge as error:
            if publisher.shrink(for_good=True):
                return Found.UNKNOWN
            raise ActionRequired(f"{error}: a batch cannot be made smaller; it has to take more") from error
        except SlowCollector:
            publisher.shrink(for_good=False)
            raise
        self._misses = False
        if publisher.place is None:
            return Found.NOTHING  # the journal has not begun
        begin = _position(publisher.place if cut is None else cut.after)
        if begin != self._carried.position:
            await self._calls.call(self._carried.move, begin)
        return await self._note(cut, asks=asks)

    async def _note(self, cut: Cut | None, *, asks: bool) -> Found:
        """Note what the collector has by now, and find out whether that is all there will be."""
        now = time.monotonic()
        if asks or cut is not None:
            self._heard_at = now
        if cut is not None:
            self._carried.add(cut.batches, _position(cut.upto))
            self._has_ended = None
        is_large = cut is not None and len(cut.message) >= _SMALL_BYTES
        self._rest_until = 0.0 if is_large else now + (_LOOK_S if cut is None else _LINGER_S)
        before = self._progress.cursor
        if self._carried.position != before.position:
            self._progress.advance(msgspec.structs.replace(before, position=self._carried.position))
        if cut is not None:
            return Found.BATCH
        if self._has_ended is None:
            self._has_ended = await self._calls.call(ended_at, self._journal, self._carried.position) is not None
        return Found.RUN_END if self._has_ended else Found.NOTHING

    async def _save(self, **changes: Any) -> None:
        self._progress.advance(await self._calls.call(self._carried.cursor, self._progress.cursor))
        await self._progress.save(**changes)

    async def _keep_files(self) -> None:
        """Copy the files that records name by path: they may be written again before the collector is back."""
        if self._carrier is not None:
            try:
                await self._calls.in_thread(self._carrier.keep, self._carried.position)
            except Exception as error:  # they are copied when they are sent
                self._reports.say(f"files could not be copied: {self._reports.describe(error)}")

    def _begin(self) -> JournalPublisher:
        """Begin from where the collector is, which the first step asks.

        Raises:
            ActionRequired: the directory has not the name of a host's part.
        """
        named = split_name(self._run.name)
        if named is None:
            raise ActionRequired(
                f"{self._run} has another name than a host's part of a run, which is RUN@HOST; rename it back"
            )
        self._carrier = self._carrier_of(PartName(self._run.parent.name, *named))
        check = None if self._carrier.merges else self._check
        self._publisher = JournalPublisher(self._journal, self._carrier, check=check)
        self._carried = Carried(self._journal, self._progress.cursor)
        return self._publisher

    def _check(self, cut: Cut) -> int:
        """Return how many batches have nothing missing before them: whoever keeps them would not notice, and this host may be gone when they are merged."""
        run, _, host = self._run.name.rpartition("@")
        return self._carried.check(run, host, cut.batches, _position(cut.after))

    def _carrier_of(self, part: PartName) -> CarriedFiles | KeptFiles:
        backend = self._backend
        if isinstance(backend, PartFiles):
            return KeptFiles(self._run, part.host, backend.file_bytes, self._progress.cursor.position)
        carrier = _carrier_to(backend.url, part, self._journal)
        return CarriedFiles(self._run, part.host, carrier, backend.file_bytes, self._reports)


def _carrier_to(url: str, name: PartName, journal: Path) -> CollectorCarrier:
    if is_nats(url):
        from asynctrack.carriers.nats.carrier import NATSCarrier  # which needs another loop

        return NATSCarrier(url, name, journal)
    from asynctrack.carriers.http import HTTPCarrier

    return HTTPCarrier(url, name, journal)


def _position(place: Place) -> Position:
    return Position(place.segment, place.offset)
