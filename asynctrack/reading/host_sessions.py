"""Host sessions: to which session of a merged run the records of each process belong. Runs anywhere.

A session begins where the host that has opened the run opens it again. Other hosts may go on meanwhile, and what they bring before and behind that comes as the
network has it. So a process of another host belongs to the last session in which anything came of it: what it logs, no other process logs again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import Reader
from asynctrack.journal.writer_list import last_session
from asynctrack.queue.layout import START


def sessions_of_rings(run: Path, manifest: Manifest) -> dict[int, int]:
    """Find the sessions of the processes of all hosts but the one that has opened the run; none where it was opened once. Reads the journal.

    Args:
        run: the run's directory.
        manifest: of the run.

    Returns:
        For each ring the number of its session, from 0. Others belong to the session in which they stand.
    """
    if len(manifest.hosts) < 2 or last_session(manifest.earlier_writers, manifest.writers) < 2:
        return {}
    others = {int(ring, 16) for one in manifest.hosts if not one.opens for ring in one.rings}
    found: dict[int, int] = {}
    session = -1
    with contextlib.closing(Reader(run / "journal")) as reader:
        for batch in reader:
            if batch.header.ring in others:
                found[batch.header.ring] = max(0, session)
            else:
                session += sum(frame.kind == START for frame in batch.frames(skip_records=True))
    return found
