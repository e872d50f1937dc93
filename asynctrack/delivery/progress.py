"""Progress: how far a delivery is, in memory and in its cursor on disk. Runs with the driver."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from asynctrack._system import locks, permissions
from asynctrack._system.loop_thread import in_thread
from asynctrack.backends.base import ActionRequired
from asynctrack.delivery.lease import Lease
from asynctrack.journal.cursor import Cursor, cursor_path, lease_path, load_cursor
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import replace_file


class DeliveryProgress:
    """A cursor, and what of it is on disk: there it moves only when the sink has said that all before it is safe.

    Both are values: they are replaced, and never changed.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        lease: without which the cursor is another process's to write.
        keep: whether the cursor outlives this process; what lives in memory starts from the beginning.

    Attributes:
        cursor: how far the backend is.
        saved: the cursor that is on disk, and will be there after the next failure but for what that says.
        saved_at: monotonic seconds.
    """

    def __init__(self, run: Path, name: str, lease: Lease, *, keep: bool) -> None:
        self._run = run
        self._name = name
        self._lease = lease
        self._keep = keep
        self._reopened_at: Position | None = None
        self.saved_at = 0.0
        self.cursor = self.saved = load_cursor(run, name) if keep else Cursor()

    @property
    def dirty(self) -> bool:
        """Return True if the cursor is to be saved: the backend has advanced, or works again."""
        cursor, saved = self.cursor, self.saved
        return cursor.position != saved.position or cursor.last_error != saved.last_error

    def advance(self, cursor: Cursor) -> None:
        """Move to where the backend is by now."""
        self.cursor = cursor

    def adopt(self, inode: int) -> None:
        """Note which directory this is delivered from."""
        self.cursor = msgspec.structs.replace(self.cursor, origin_inode=inode)

    def succeed(self) -> None:
        """Note that the backend works."""
        if self.cursor.last_error is not None:
            self.cursor = msgspec.structs.replace(self.cursor, last_error=None, next_try_at=None, paused=False)

    async def save(self, **changes: Any) -> None:
        """Save the cursor with these changes: with what the sink says of itself, since the one is nothing without the other."""
        cursor = msgspec.structs.replace(self.cursor, **changes)
        await self._write(cursor)
        self.cursor = self.saved = cursor
        self.saved_at = time.monotonic()

    async def fail(self, error: str, next_try_at: str, paused: bool) -> None:
        """Note what went wrong beside the place that is saved: the sink has not said that what came since is safe.

        It is on disk before anybody is told here: who waits for a backend that is left to a person ends then, perhaps with this process.
        """
        changes = {"last_error": error, "next_try_at": next_try_at, "paused": paused}
        saved = msgspec.structs.replace(self.saved, retries=self.saved.retries + 1, **changes)
        try:
            if self._lease.held or not self._keep:  # else another process writes the cursor
                await self._write(saved)
        finally:
            self.saved = saved
            self.cursor = msgspec.structs.replace(self.cursor, retries=self.cursor.retries + 1, **changes)

    def reopen(self) -> None:
        """Go on, as the run has after its end; what lives in memory gets the whole run again."""
        self._reopened_at = self.cursor.position
        self.cursor = self.saved = msgspec.structs.replace(self.cursor, closed=False) if self._keep else Cursor()

    def catch_up(self) -> None:
        """Read the cursor anew: another may have delivered since it was read."""
        found = load_cursor(self._run, self._name)
        closed = found.closed and found.position != self._reopened_at
        self.cursor = self.saved = msgspec.structs.replace(found, closed=closed)

    def start_over(self, state: dict[str, Any] | None) -> None:
        """Go back to the beginning: the backend gets the whole run again."""
        before = self.cursor
        self.cursor = self.saved = Cursor(
            state=state, origin_inode=before.origin_inode, retries=before.retries, next_number=before.next_number
        )

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


def forget(run: Path, name: str) -> bool:
    """Set a backend's cursor to the beginning of the run: the backend was emptied or removed. Return False where a process delivers to it now."""
    make_directory(lease_path(run, name))
    fd = locks.take(lease_path(run, name))
    if fd is None:
        return False
    try:
        replace_file(cursor_path(run, name), msgspec.json.encode(Cursor()), permissions.PRIVATE_FILE)
    finally:
        os.close(fd)
    return True


def note_failure(run: Path, name: str, what: str, paused: bool = False) -> None:
    """Note in a backend's cursor why nobody delivers to it just now; do nothing where somebody does again."""
    fd = locks.take(lease_path(run, name))
    if fd is None:
        return
    try:
        cursor = load_cursor(run, name)
        noted = msgspec.structs.replace(cursor, last_error=what, paused=paused, retries=cursor.retries + 1)
        replace_file(cursor_path(run, name), msgspec.json.encode(noted), permissions.PRIVATE_FILE)
    finally:
        os.close(fd)
