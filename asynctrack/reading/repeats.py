"""Repeats: finds what the sessions of a resumed run logged again, in a pass of its own. Runs anywhere.

A run that was opened once needs no such pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from asynctrack._system.native import is_native
from asynctrack.journal.batch_records import BatchDecoder
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import Reader
from asynctrack.journal.writer_list import last_session
from asynctrack.queue.layout import START
from asynctrack.reading.history import Repeats, cuts_of, find_cuts
from asynctrack.reading.host_sessions import sessions_of_rings
from asynctrack.reading.scan import Batches, firsts
from asynctrack.reading.session_records import session_records
from asynctrack.records.codec import Decoder


def find_repeats(run: Path, manifest: Manifest, batches: Callable[[], Batches]) -> Repeats | None:
    """Find what later sessions of a run logged again, in memory that does not grow with its records.

    Args:
        run: its directory.
        manifest: of the run, up to date with its journal: as `RunReader.manifest` returns it.
        batches: reads the journal from its beginning; each batch comes with its reader, which is told of damage.

    Returns:
        None where it was opened once.
    """
    if count_sessions(run, manifest) < 2:
        return None
    fixed = sessions_of_rings(run, manifest)
    if is_native:
        with contextlib.suppress(OverflowError):  # a step that only Python can hold
            return Repeats(cuts_of(firsts(run, batches(), fixed)), fixed)
    return Repeats(find_cuts(session_records(run, batches(), BatchDecoder(Decoder(run)), fixed)), fixed)


def count_sessions(run: Path, manifest: Manifest) -> int:
    """Return how often a run was opened. Where its list of writers does not tell, as in runs of earlier versions, it reads the journal."""
    if last := last_session(manifest.earlier_writers, manifest.writers):
        return last
    with contextlib.closing(Reader(run / "journal")) as reader:
        return sum(frame.kind == START for batch in reader for frame in batch.frames(skip_records=True))
