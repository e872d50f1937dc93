"""Curves: reads the curves of a run's metrics, what is damaged, and what else its journal has for `show`."""

from __future__ import annotations

from typing import NamedTuple

from asynctrack.cli.output import ProgressLine
from asynctrack.cli.sparklines import Sparklines
from asynctrack.curves.cuts import CutCounts
from asynctrack.curves.media_counts import MediaCounts
from asynctrack.curves.pyramid import ReadBatch
from asynctrack.journal.reader import Damage
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader


class FoundCurves(NamedTuple):
    """Holds what a run's journal has for `show`.

    Attributes:
        curves: of all metrics.
        left_out: of their values, because it was logged again.
        media: that were logged.
        damage: what is damaged.
    """

    curves: Sparklines
    left_out: CutCounts
    media: MediaCounts
    damage: list[Damage]


def read_curves(reader: RunReader, writer: str | None = None, history: History = "last") -> FoundCurves:
    """Read the curves of all metrics of the writer that was chosen, and what is damaged. A progress line shows how far that is."""
    journal = reader.path / "journal"
    total = sum(path.stat().st_size for path in journal.glob("*")) if journal.is_dir() else 0
    done = 0

    def watch(read: ReadBatch) -> None:
        nonlocal done
        done += read.batch.header.size
        progress.at(done)

    with ProgressLine("reading the journal", total) as progress:
        curves = reader._run_curves(history, writer=writer, watch=watch)
    return FoundCurves(Sparklines(curves), curves.left_out, curves.media, reader.damage)
