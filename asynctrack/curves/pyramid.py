"""Pyramid: a run's journal as rows of records at several levels, which grow with it. Runs anywhere.

It is made in one pass. Where a later session has logged steps again that are left out, a second pass leaves them out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from asynctrack._system.native import is_native
from asynctrack.curves.cuts import CutCounts, Cuts, History, cuts_of
from asynctrack.curves.lanes import JournalPlace, Lane, OpenRow
from asynctrack.curves.layout import row_at
from asynctrack.curves.media_counts import MediaCounts
from asynctrack.curves.native_parts import new_buckets
from asynctrack.curves.progress import Progress
from asynctrack.curves.python_buckets import Pick
from asynctrack.curves.record_feed import RecordFeed
from asynctrack.curves.totals import LoggedNumber, MetricTotals
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Damage, Reader, journal_id_of
from asynctrack.queue.layout import START


class ReadBatch(NamedTuple):
    """A batch of a journal that was read.

    Attributes:
        before: the place from which it was looked for.
        batch: the batch.
        is_plain: whether it has no media for certain.
    """

    before: Position
    batch: FrameBatch
    is_plain: bool


Watch = Callable[[ReadBatch], None]


class Pyramid:
    """The pyramid of a run.

    Args:
        run: its directory.
        history: "last" leaves out what was logged again after a resume; "all" does not.
        takes: tells of each batch of the journal, in their order, if its records count; None for all.
        native: False has Python do all.

    Attributes:
        run: its directory.
        history: as it was given.
        lanes: the records of each ring and session, in the order in which they began.
        last_batch: the segment and the offset of the batch that was read last.
        damage: that was met so far.
        position: behind the last batch that was read.
    """

    def __init__(
        self,
        run: Path,
        history: History = "all",
        *,
        takes: Callable[[FrameBatch], bool] | None = None,
        native: bool = is_native,
    ) -> None:
        self.run: Path = run
        self.history: History = history
        self.lanes: list[Lane]
        self.last_batch: tuple[int, int] | None
        self.damage: list[Damage]
        self.position: Position
        self._takes = takes
        self._is_native = native
        self._journal: bytes | None
        self._ends: dict[int, int]
        self._firsts: list[dict[str, int]]
        self._cuts: Cuts
        self._fixed: dict[int, int]
        self._own: list[Lane]  # lanes that grow
        self._places: dict[tuple[int, int], int]  # among these
        self._totals: dict[str, MetricTotals]  # of the other lanes
        self._names: list[str]
        self._indices: dict[str, int]
        self._restart([], {})

    @property
    def progress(self) -> Progress:
        """Return how far the journal was read."""
        firsts = [{**first} for first in self._firsts]
        self._note_firsts(firsts)
        return Progress(
            self._journal or b"",
            self.position,
            {**self._ends},
            self._last,
            self._begun,
            firsts,
            self._cuts,
            self._fixed,
            self.left_out,
            dict(self.media.by_kind),
            list(self.media.newest),
            self.damage,
            self.is_rounded,
        )

    @property
    def left_out(self) -> CutCounts:
        """Return what was cut."""
        rows, values = self._feed.scan.cut
        return CutCounts(self._left_out.rows + rows, self._left_out.values + values)

    @property
    def is_rounded(self) -> bool:
        """Return whether a step, a time or an integer was beyond 64 bits, and is not as it was logged."""
        return self._feed.is_rounded

    @property
    def media(self) -> MediaCounts:
        """Return the media that were logged."""
        return self._feed.media

    @property
    def cuts(self) -> Cuts:
        """Return for each session the steps from which on keys are left out."""
        return self._cuts

    def resume(self, progress: Progress, lanes: list[Lane], totals: dict[str, MetricTotals]) -> None:
        """Go on where another pyramid of this run has stopped, with its lanes and totals."""
        self._restart(progress.cuts, progress.fixed)
        self._journal, self.position, self._ends = progress.journal, progress.position, {**progress.ends}
        self._last, self._begun, self._firsts = progress.last, progress.begun, progress.firsts
        self.lanes, self._totals = lanes, totals
        self.damage, self._left_out = [*progress.damage], progress.left_out
        self._feed.media = MediaCounts(progress.media, progress.newest)
        self._feed.is_rounded = progress.rounded
        self._session = -1

    def grow(
        self,
        fixed: Mapping[int, int] | None = None,
        *,
        cuts: Cuts | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Read what the journal has since.

        Args:
            fixed: the sessions of rings that belong to another than that in which they stand; see `reading.host_sessions`.
            cuts: for each session the steps from which on keys are left out, where not all batches are taken; None finds them.
            watch: gets each batch that was read.
        """
        fixed = {} if fixed is None or self.history == "all" else dict(fixed)
        journal = journal_id_of(str(self.run / "journal"))
        is_other = self._journal not in (None, journal) or (cuts is not None and cuts != self._cuts)
        if is_other or any(fixed.get(of) != self._fixed.get(of) for of in self._rings()):
            self._restart(cuts or [], fixed)
        self._journal, self._fixed = journal, fixed
        self._read(watch)
        while cuts is None and self.history == "last" and self._last:
            found = cuts_of(self.progress.firsts)
            if not self._leaves_out_more(found):
                if found != self._cuts:
                    self._cuts, self._session = found, -1
                break
            self._restart(found, fixed)
            self._journal = journal
            self._read(watch)

    def names(self) -> list[str]:
        """Return the names of all metrics, in the order of their first numbers."""
        return list(dict.fromkeys([*self._totals, *self._names]))

    def totals(self, metric: str) -> MetricTotals | None:
        """Return what a metric comes to; None where it has no number."""
        before = self._totals.get(metric)
        if (index := self._indices.get(metric)) is None:
            return before
        count, broken, total, lost, *picks = self._buckets.totals(index)
        first, last, low, high = map(self._logged, picks)
        assert first is not None and last is not None
        found = MetricTotals(count, broken, first, last, low, high, total, lost)
        return found if before is None else before.followed_by(found)

    def open_rows(self, metrics: tuple[str, ...] | None = None) -> Iterator[OpenRow]:
        """Yield the rows that are not full yet, with the entries of these metrics, or of all."""
        wanted = tuple(self._indices[name] for name in metrics or () if name in self._indices)
        if metrics is not None and not wanted:
            return
        for index, row, entries in self._buckets.open(wanted):
            yield OpenRow(self._own[index], row, {self._names[at]: entry for at, entry in entries.items()})

    def _restart(self, cuts: Cuts, fixed: dict[int, int]) -> None:
        self._feed = RecordFeed(self.run, native=self._is_native)
        self._buckets = new_buckets(self._feed.scan)
        self._journal = None
        self.last_batch = None
        self.damage = []
        self._left_out = CutCounts()  # of the other lanes
        self.position = Position()
        self._ends = {}
        self._last, self._begun, self._session = 0, False, -1
        self._firsts = []
        self._cuts, self._fixed = cuts, fixed
        self.lanes = []
        self._own = []
        self._places = {}
        self._totals = {}
        self._names = []
        self._indices = {}

    def _rings(self) -> set[int]:
        return {lane.ring for lane in self.lanes}

    def _read(self, watch: Watch | None) -> None:
        with contextlib.closing(Reader(self.run / "journal", self.position, self._ends)) as reader:
            try:
                for batch in reader:
                    is_taken, decoded = self._takes is None or self._takes(batch), self._feed.decoded
                    if is_taken:
                        self._take(batch, reader)
                    else:
                        self._pass_over(batch)
                    before, self.position = self.position, batch.after
                    self.last_batch = batch.segment, batch.offset
                    if watch is not None:
                        watch(ReadBatch(before, batch, is_taken and decoded == self._feed.decoded))
            finally:
                self._learn_names()
                self.damage = list(dict.fromkeys([*self.damage, *reader.damage]))

    def _take(self, batch: FrameBatch, reader: Reader) -> None:
        lane = self._lane_of(batch)
        for at in self._feed.read(batch, batch.whole, reader.report):
            self._store(lane, JournalPlace(batch.segment, batch.offset, at))
            self._start()
            lane = self._lane_of(batch)
        self._store(lane, JournalPlace(batch.segment, batch.offset, batch.header.length))

    def _pass_over(self, batch: FrameBatch) -> None:
        """Leave out the records of a batch; the sessions that begin in it count."""
        for frame in batch.frames(skip_records=True):
            if frame.kind == START:
                self._start()

    def _start(self) -> None:
        """Begin a session; what comes before the first start belongs to the first."""
        if self._begun:
            self._last += 1
        self._begun = True

    def _lane_of(self, batch: FrameBatch) -> Lane:
        """Find or make the lane to which what comes next belongs."""
        ring = batch.header.ring
        session = self._fixed.get(ring, self._last)
        if session != self._session:
            self._note_firsts(self._firsts)
            self._session = session
            self._feed.begin_session(self._cuts[session] if session < len(self._cuts) else {})
        index = self._places.get((ring, session))
        if index is None:
            index = self._places[ring, session] = len(self._own)
            self._own.append(Lane(ring, session))
            self.lanes.append(self._own[-1])
        self._buckets.begin(index, batch.segment, batch.offset)
        return self._own[index]

    def _store(self, lane: Lane, end: JournalPlace) -> None:
        lane.end = end
        if (found := self._buckets.take()) is None:
            return
        rows, entries = found
        if entries and max(entries) >= len(self._names):
            self._learn_names()
        lane.add(rows, {self._names[at]: more for at, more in entries.items()})
        lane.steps_in_order, lane.times_in_order = self._buckets.order(self._places[lane.ring, lane.session])

    def _learn_names(self) -> None:
        for name in self._buckets.names(len(self._names)):
            self._indices[name] = len(self._names)
            self._names.append(name)

    def _note_firsts(self, into: list[dict[str, int]]) -> None:
        """Note the least steps of the session of which something came last."""
        if self._session < 0:
            return
        into += ({} for _ in range(len(into), self._session + 1))
        first = into[self._session]
        for name, step in self._feed.scan.firsts().items():
            first[name] = min(step, first.get(name, step))

    def _leaves_out_more(self, cuts: Cuts) -> bool:
        """Say if numbers are there that these cuts leave out."""
        highest: dict[int, int] = {}
        for lane, step in [*((lane, lane.highest_step()) for lane in self.lanes), *self._open_steps()]:
            highest[lane.session] = max(step, highest.get(lane.session, step))
        return any(
            step <= highest[session] and step < self._cut(session, key)
            for session in highest
            for key, step in (cuts[session] if session < len(cuts) else {}).items()
        )

    def _cut(self, session: int, key: str) -> int:
        cut = self._cuts[session] if session < len(self._cuts) else {}
        return cut.get(key, 1 << 63)

    def _open_steps(self) -> Iterator[tuple[Lane, int]]:
        for found in self.open_rows():
            yield found.lane, row_at(found.row, 0).step_high

    def _logged(self, pick: Pick | None) -> LoggedNumber | None:
        if pick is None:
            return None
        value, step, record, lane = pick
        return LoggedNumber(value, step, record, self._own[lane].ring)
