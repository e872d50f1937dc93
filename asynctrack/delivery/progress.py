"""Progress: how far a delivery is, in memory and in its cursor on disk. Runs with the driver."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system import permissions
from asynctrack._system.loop_thread import in_thread
from asynctrack.backends.base import ActionRequired
from asynctrack.delivery.lease import Lease
from asynctrack.journal.cursor import Cursor, cursor_path, load_cursor
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import replace_file

# Between two saves of a cursor. What a crash delivers again to a backend that cannot tell is at most this much.
CHECKPOINT_INTERVAL_S: Final = 1.0


class DeliveryProgress:
    """A cursor, and what of it is on disk: there it moves only when the sink has said that all before it is safe.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        lease: without which the cursor is another process's to write.
        keep: whether the cursor outlives this process; what lives in memory starts from the beginning.

    Attributes:
        cursor: how far the backend is.
        dirty: whether it is to be saved.
    """

    def __init__(self, run: Path, name: str, lease: Lease, *, keep: bool) -> None:
        self._run = run
        self._name = name
        self._lease = lease
        self._keep = keep
        self.dirty = False
        self._saved_at = 0.0
        self._reopened_at: Position | None = None
        self._set(load_cursor(run, name) if keep else Cursor())

    @property
    def saved_ends(self) -> dict[int, int]:
        """For each ring, up to where the backend has it for good."""
        return self._saved.ends

    def is_due(self, moved: bool, expedite: bool) -> bool:
        """Whether to save: it was long ago, or somebody waits and nothing more moves."""
        age = time.monotonic() - self._saved_at
        return self.dirty and (age > CHECKPOINT_INTERVAL_S or (expedite and not moved))

    async def save(self, **changes: Any) -> None:
        """Save the cursor with these changes: with what the sink says of itself, since the one is nothing without the other."""
        cursor = msgspec.structs.replace(self.cursor, **changes)
        await self._write(cursor)
        self._set(cursor)
        self.dirty = False
        self._saved_at = time.monotonic()

    async def fail(self, error: str, next_try_at: str, paused: bool) -> None:
        """Note what went wrong beside the place that is saved: the sink has not said that what came since is safe.

        It is on disk before anybody is told here: who waits for a backend that is left to a person ends then, perhaps with this process.
        """
        changes = {"last_error": error, "next_try_at": next_try_at, "paused": paused}
        try:
            if self._lease.held or not self._keep:  # else it is another's to write
                await self._write(msgspec.structs.replace(self._saved, retries=self._saved.retries + 1, **changes))
        finally:
            for cursor in (self.cursor, self._saved):
                cursor.last_error, cursor.next_try_at, cursor.paused = error, next_try_at, paused
                cursor.retries += 1

    def succeed(self) -> None:
        """The backend works."""
        if self.cursor.last_error is not None:
            self.cursor.last_error, self.cursor.next_try_at, self.cursor.paused = None, None, False
            self.dirty = True

    def reopen(self) -> None:
        """The run has gone on after its end; what lives in memory gets the whole run again."""
        self._reopened_at = self.cursor.position
        self._set(msgspec.structs.replace(self.cursor, closed=False) if self._keep else Cursor())

    def catch_up(self) -> None:
        """Another may have delivered since the cursor was read."""
        found = load_cursor(self._run, self._name)
        self._set(msgspec.structs.replace(found, closed=found.closed and found.position != self._reopened_at))

    def start_over(self, state: dict[str, Any] | None) -> None:
        """The backend gets the whole run again."""
        before = self.cursor
        self._set(
            Cursor(
                state=state, origin_inode=before.origin_inode, retries=before.retries, next_number=before.next_number
            )
        )

    def _set(self, cursor: Cursor) -> None:
        self.cursor, self._saved = cursor, msgspec.structs.replace(cursor)

    async def _write(self, cursor: Cursor) -> None:
        self._lease.check()
        path = cursor_path(self._run, self._name)
        make_directory(path)
        try:
            await in_thread(replace_file, path, msgspec.json.encode(cursor), permissions.PRIVATE_FILE)
        except OSError:
            if self._keep:  # else it is for the statistics only: nobody goes on from there
                raise


def make_directory(path: Path) -> None:
    """Make the directory of the cursors, where it is missing.

    Raises:
        ActionRequired: it is a link.
    """
    with contextlib.suppress(FileExistsError):
        # Never the run's directory: somebody may have removed that.
        os.mkdir(path.parent, permissions.PRIVATE_DIRECTORY)
    if os.path.islink(path.parent):
        raise ActionRequired(f"{path.parent} is a link, which may lead anywhere; make it a directory")
