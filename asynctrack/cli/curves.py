"""Curves: reads the curves of a run's metrics, and what is damaged, in memory that does not grow with the run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from asynctrack._system.native import is_native
from asynctrack.cli.media_counts import MediaCounts
from asynctrack.cli.output import ProgressLine
from asynctrack.cli.records import batches_of, decoder_of, records_in, reporter_of
from asynctrack.cli.sparklines import Sparklines
from asynctrack.cli.writers import WriterFilter
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.reader import Damage
from asynctrack.reading.damage import scan
from asynctrack.reading.history import History, LeftOut, Repeats, without
from asynctrack.reading.reader import RunReader
from asynctrack.reading.repeats import find_repeats
from asynctrack.reading.scan import Batches, blocks
from asynctrack.reading.session_records import session_records


class FoundCurves(NamedTuple):
    """Holds what a run's journal has for `show`.

    Attributes:
        curves: of all metrics.
        left_out: of their values, because it was logged again.
        media: that were logged.
        damage: what is damaged.
    """

    curves: Sparklines
    left_out: LeftOut
    media: MediaCounts
    damage: list[Damage]


def read_curves(run: Path, chosen: WriterFilter | None = None, history: History = "last") -> FoundCurves:
    """Read the curves of all metrics of the writer that was chosen, and what is damaged."""
    around = scan(run)
    repeats = _repeats(run) if history == "last" else None
    if is_native:
        with suppress(OverflowError):  # a step that only Python can hold, among repeats
            return _scanned(run, chosen, repeats, around)
    return _decoded(run, chosen, repeats, around)


def _scanned(run: Path, chosen: WriterFilter | None, repeats: Repeats | None, around: list[Damage]) -> FoundCurves:
    curves, left_out, media, damage = Sparklines(), LeftOut(), MediaCounts(), list(around)
    batches = _with_progress(run, damage)
    found = blocks(
        run,
        batches,
        _as_it_is,
        steps=repeats is not None,
        repeats=repeats,
        takes=None if chosen is None else chosen.takes_or_notes,
        left_out=left_out,
    )
    for block in found:
        curves.add_scan(block)
        media.add_scan(block)
    return FoundCurves(curves, left_out, media, list(dict.fromkeys(damage)))


def _decoded(run: Path, chosen: WriterFilter | None, repeats: Repeats | None, around: list[Damage]) -> FoundCurves:
    curves, left_out, media, damage = Sparklines(), LeftOut(), MediaCounts(), list(around)
    batches = _with_progress(run, damage)
    if repeats is None:
        for reader, batch in batches if chosen is None else chosen.of(batches):
            for record in records_in(batch, reporter_of(run, reader, batch)):
                curves.add(record.data)
                media.add(record.data)
    else:
        takes = None if chosen is None else chosen.takes_or_notes
        numbered = session_records(run, batches, decoder_of(None), repeats.fixed, takes)
        for record in without(numbered, repeats.cuts, left_out):
            curves.add(record.data)
            media.add(record.data)
    return FoundCurves(curves, left_out, media, list(dict.fromkeys(damage)))


def _repeats(run: Path) -> Repeats | None:
    with suppress(AsynctrackError, OSError, *UNREADABLE):  # of what is so damaged there is no second session to know
        return find_repeats(run, RunReader(run).manifest(), lambda: _with_progress(run, []))
    return None


def _with_progress(run: Path, damage: list[Damage]) -> Batches:
    """Yield the batches of a journal, each with its reader, and show how far that is."""
    journal = run / "journal"
    total = sum(path.stat().st_size for path in journal.glob("*")) if journal.is_dir() else 0
    done = 0
    with ProgressLine("reading the journal", total) as progress:
        for reader, batch in batches_of(run, damage):
            yield reader, batch
            done += batch.header.size
            progress.at(done)


def _as_it_is(value: Any) -> Any:
    return value
