"""Run queue: a process's ring of a run, and the worker that empties it. A forked child makes another. Runs in the caller."""

from __future__ import annotations

import os
from pathlib import Path

from asynctrack._system import messages
from asynctrack.client import worker_registry
from asynctrack.client.worker_handle import WorkerHandle
from asynctrack.queue.layout import DONE, HEAD, WORKER_PID
from asynctrack.queue.producer import Producer
from asynctrack.settings import Settings


class RunQueue:
    """The queue of one run in this process.

    Attributes:
        producer: puts frames into the ring. In a forked child it is the parent's, and takes nothing, until `join`.
        host: whose worker empties the ring.
        is_root: whether the run was opened in this process.
        directory_id: device and inode of the run's directory as the run was opened.

    Args:
        path: the run's directory.
        settings: of the run.
    """

    host: WorkerHandle
    producer: Producer

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = settings
        self.is_root: bool = True
        self._is_released = False
        found = os.stat(path)
        self.directory_id: tuple[int, int] = (found.st_dev, found.st_ino)

    @property
    def is_own(self) -> bool:
        """Tell whether this process has made the ring; False in a forked child that has none yet."""
        return not self.producer.is_inherited

    @property
    def is_released(self) -> bool:
        """Tell whether this process has let go of the ring that it has made; then nobody here waits for it any more."""
        return self.is_own and self._is_released

    def open(self, first: int) -> None:
        """Make the ring of the process that opens the run, whose first record has this number.

        Raises:
            SharedMemoryUnavailable: there is no room for it.
        """
        self._open(first, root=True)

    def join(self) -> None:
        """Make a ring for a forked child, in the same run.

        Raises:
            SharedMemoryUnavailable: there is no room for it.
        """
        self._open(0, root=False)
        self.is_root = False

    def serve(self) -> None:
        """See to it that there is a worker."""
        messages.start()
        self.host.start(self._path / "worker.log", self.producer.ring)

    def discard(self) -> bool:
        """Give up a queue whose run could not be opened, and return whether nobody knows of it.

        From the first frame on a worker may have the run, and may be about to say so. Then it has failed, and the worker journals that.
        """
        ring = self.producer.ring
        self.producer.close("failed")
        unknown = not ring.words[HEAD]
        if unknown:
            ring.words[DONE] = 1  # so that nobody misses its file
            ring.unlink()
        elif not ring.words[WORKER_PID]:
            self.serve()
        self.host.release(ring)
        return unknown

    def release(self) -> None:
        """Leave the ring to its worker, once the producer is closed. Its words and frames can still be read."""
        if self.is_own and not self._is_released:
            self.host.release(self.producer.ring)
            self._is_released = True

    def others(self) -> list[str]:
        """List the rings of other processes that share the worker; in a forked child its parent's is one of them."""
        own = self.producer.ring.path if self.is_own else None
        return [path for path in self.host.others() if path != own]

    def trouble(self) -> str | None:
        """Say what keeps the worker from the journal; None where nothing does, or this process has no ring."""
        return self.producer.ring.trouble() if self.is_own else None

    def _open(self, first: int, *, root: bool) -> None:
        meta = {
            "run": str(self._path),
            "disk": self.directory_id[0],
            "root": root,
            "linger_s": self._settings.linger_s,
            "sync_interval_s": self._settings.sync_interval_s,
        }
        self.host, self.producer = worker_registry.open_ring(
            self._settings.worker, meta, self._settings.queue_bytes, first=first
        )
        self._is_released = False
