"""Merged state: what the merged journal itself says of how far each host is, read once when a merger begins. Imported by the merger."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asynctrack.journal import host_list
from asynctrack.journal.host_list import HostList
from asynctrack.journal.layout import NOTES_RING, Position
from asynctrack.journal.manifest import Manifest, find_start, read_note
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import NOTE


class MergedState:
    """The facts about a merged run that decide on what comes next.

    Attributes:
        hosts: that have a part of it.
        ends: for each ring, up to where it is merged.
        notes: for each host, up to where its worker's notes are.
        owners: for each ring, the host whose it is.
        config: names in the config that the run was opened with; None while it is not opened.
        end: the note that says how the run has ended; None while it goes on, or where other notes came behind that.
        has_ended: whether the run was said to have ended, and not to go on.
        opened_by_other: whether a process has opened it that is one of several, and not the one whose end is the run's.
        owner_came: whether that one has come.
    """

    def __init__(self) -> None:
        self.hosts: HostList = []
        self.ends: dict[int, int] = {}
        self.notes: dict[str, int] = {}
        self.owners: dict[int, str] = {}
        self.config: frozenset[str] | None = None
        self.end: dict[str, Any] | None = None
        self.has_ended = False
        self.opened_by_other = False
        self.owner_came = False

    @classmethod
    def read(cls, journal: Path) -> MergedState:
        """Read a merged journal: the headers of all batches, and the notes."""
        state = cls()
        with contextlib.closing(Reader(journal, Position(), state.ends, bodies=False)) as headers:
            for batch in headers:
                is_note = batch.header.ring == NOTES_RING
                if not (is_note or (state.config is None and batch.header.start == 0)):
                    continue
                with contextlib.closing(Reader(journal, Position(batch.segment, batch.offset))) as reader:
                    found = reader.next()
                if found is None:
                    continue
                if is_note:
                    for frame in found.frames():
                        if frame.kind == NOTE:
                            state.learn(read_note(frame))
                elif (start := find_start(found)) is not None:
                    state.open(start)
        return state

    @property
    def is_strange(self) -> bool:
        """Return whether something in it came by another way than a merger."""
        return any(ring != NOTES_RING and ring not in self.owners for ring in self.ends)

    @property
    def awaits_owner(self) -> bool:
        """Return whether the process is missing yet whose end is the run's."""
        return self.opened_by_other and not self.owner_came

    def open(self, start: Manifest) -> None:
        """Take into account how the run was opened."""
        said = start.environment
        rank = said.get("rank")
        self.config = frozenset(start.config)
        self.opened_by_other = bool(said.get("joins")) and isinstance(rank, int) and rank > 0

    def learn(self, note: Mapping[str, Any]) -> None:
        """Take a note of the merged journal into account."""
        kind, host = note["note"], note.get("host")
        self.hosts = host_list.learn(self.hosts, note)
        if kind == "host_ring" and isinstance(host, str):
            self.owners.setdefault(int(note["ring"], 16), host)
        if isinstance(origin := note.get("origin"), str):
            self.notes[origin] = max(self.notes.get(origin, 0), note.get("at", 0))
        self.end = dict(note) if kind == "run_ended" else None
        self.owner_came = self.owner_came or kind == "host_owns"
        if kind in ("run_ended", "run_reopened"):
            self.has_ended = kind == "run_ended"
