"""What the tests of merging share: parts of hosts, and a comparison of the rings of their journals with those of the merged one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asynctrack.journal.frames import walk
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.manifest import Status, read_note
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import JOIN, START
from asynctrack.testing import JournaledRun


def rings_of(run: Path) -> dict[int, bytes]:
    """The bytes of each ring in a run's journal; nothing may be missing, twice or damaged."""
    found: dict[int, bytes] = {}
    reader = Reader(run / "journal")
    for batch in reader:
        if batch.header.ring != NOTES_RING:
            assert batch.header.start == len(found.get(batch.header.ring, b""))
            found[batch.header.ring] = found.get(batch.header.ring, b"") + bytes(batch.data)
    assert reader.damage == []
    reader.close()
    return found


def assert_merged(merged: Path, parts: Sequence[Path], lost: Sequence[Path] = ()) -> None:
    """Each ring of the parts is in the merged run, byte for byte; but one start of several is a join there, in the same place.

    Of the parts that were lost it may have beginnings only.
    """
    found = rings_of(merged)
    expected = {ring: data for part in parts for ring, data in rings_of(part).items()}
    for part in lost:
        expected |= {ring: data[: len(found[ring])] for ring, data in rings_of(part).items() if ring in found}
    assert found.keys() == expected.keys()
    starts = 0
    for ring, data in expected.items():
        first = next(walk(memoryview(data), 0, len(data)))
        if first.kind == START and found[ring] != data:
            joined = next(walk(memoryview(found[ring]), 0, len(found[ring])))
            assert joined.kind == JOIN
            assert found[ring][first.end :] == data[first.end :]
        else:
            starts += first.kind == START
            assert found[ring] == data
    assert starts == 1


def notes_of(run: Path) -> list[dict[str, Any]]:
    """The notes in a run's journal, in order."""
    reader = Reader(run / "journal")
    notes = [read_note(frame) for batch in reader if batch.header.ring == NOTES_RING for frame in batch.frames()]
    reader.close()
    return notes


def assert_notes_merged(merged: Path, parts: Sequence[Path]) -> None:
    """Each note of each part is in the merged run once, in order, with its origin."""
    found = notes_of(merged)
    for part in parts:
        host = part.name.rpartition("@")[2]
        of_host = [note for note in found if note.get("origin") == host]
        assert [note["note"].replace("host_ended", "run_ended") for note in of_host] == [
            note["note"] for note in notes_of(part)
        ]
        places = [note["at"] for note in of_host]
        assert places == sorted(set(places))


def make_part(
    directory: Path,
    host: str,
    *,
    rank: int,
    batches: int = 5,
    per_batch: int = 3,
    segment_bytes: int = 2000,
    end: bool = True,
    status: Status = "finished",
    rate: float = 0.1,
    project: str = "p",
    run: str = "r",
) -> Path:
    """A host's part of a run, of two processes; the first rank owns the run if it is 0."""
    path = directory / project / f"{run}@{host}"
    said = {"host": host, "pid": 100 + rank, "writer": f"rank{rank}", "rank": rank, "joins": True}
    with JournaledRun(
        path, config={"lr": rate, f"of_{host}": rank}, environment=said, run_id=run, segment_bytes=segment_bytes
    ) as journaled:
        other = journaled.join(f"rank{rank + 1}", rank + 1)
        for batch in range(batches):
            for step in range(batch * per_batch, (batch + 1) * per_batch):
                journaled.log({"loss": float(step), "rank": rank}, step)
                other.log({"loss": float(step), "rank": rank + 1}, step)
            journaled.journal()
            other.journal()
        other.end_ring()
        journaled.end_ring()
        if end:
            journaled.end(status)
    return path
