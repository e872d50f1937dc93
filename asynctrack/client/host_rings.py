"""Host rings: the rings that this process has in the directory of a host, and those of other processes there. Runs in the caller."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from asynctrack.client.handshake import write_handshake
from asynctrack.queue import producer, recreate
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import SMALLEST_RING_BYTES, fresh_ring_path, is_closed, ring_bytes, ring_paths


class HostRings:
    """The rings in one directory. Every method may be called from any thread.

    Attributes:
        own: The rings of this process by their paths; None stands for one that is being made.

    Args:
        directory: The directory of the host.
    """

    def __init__(self, directory: str) -> None:
        self.own: dict[str, Ring | None] = {}
        self._directory = directory
        self._producers: dict[str, Producer] = {}
        self._is_shared = False  # True in a forked child: the parent uses the directory too

    def open(
        self, meta: dict[str, Any], queue_bytes: int | None, poll: Callable[[Ring, bool], None], *, first: int = 0
    ) -> Producer:
        """Make a ring of this size, or of the largest smaller one that there is room for.

        Args:
            meta: What the worker has to know of the run.
            queue_bytes: The size; None for as much as the memory allows.
            poll: Called by the producer now and then, with the ring.
            first: The number of the first record.

        Raises:
            FileNotFoundError: The directory is gone.
            OSError: There is no room.
        """
        self._keep_place()
        size = ring_bytes(self._directory) if queue_bytes is None else 1 << (queue_bytes - 1).bit_length()
        while True:
            path = fresh_ring_path(self._directory)
            # Before the file exists: another thread that took it for another process's and closed it would drop our lock.
            self.own[path] = None
            try:
                ring = self.own[path] = Ring.create(path, size, meta, first=first)
                self._producers[path] = producer.create(ring, functools.partial(poll, ring))
                return self._producers[path]
            except OSError as error:
                del self.own[path]
                if error.errno not in (errno.ENOSPC, errno.EFBIG) or size <= SMALLEST_RING_BYTES:
                    raise
                size //= 2

    def close(self, ring: Ring) -> None:
        """Close a ring of this process."""
        self.own.pop(ring.path, None)
        self._producers.pop(ring.path, None)
        ring.close()

    def make_again(self, ring: Ring) -> None:
        """Make the file of a ring of this process again, and the directory around it.

        Raises:
            OSError: It cannot be made.
        """
        self._make_place()
        self._producers[ring.path].make_again()

    def fetch(self, ring: Ring, own: Collection[str]) -> bool:
        """Bring a ring of this process back from the directory of another host, whose worker is gone; see `recreate.fetch`.

        Args:
            ring: The ring.
            own: The directories of all hosts of this process.

        Raises:
            OSError: It cannot be brought.
        """
        ours = {os.path.basename(path) for path in self.own}
        return recreate.fetch(ring, own, ours, self._make_place)

    def others(self) -> list[str]:
        """List the rings of other processes that share the worker."""
        return [path for path in ring_paths(self._directory) if path not in self.own]

    def others_of(self, run: str) -> Iterator[Ring]:
        """Open the rings of other processes that log to a run; each is closed when the next is asked for."""
        return rings_of(run, self.others())

    def after_fork(self) -> None:
        """Forget the parent's rings, in a forked child. No lock, no system call."""
        self._is_shared = True
        self.own = {}
        self._producers = {}

    def _keep_place(self) -> None:
        """Make the directory again that somebody has removed, where rings are in use whose worker still looks there for others."""
        if (self.own or self._is_shared) and not (os.path.isdir(self._directory) or is_closed(self._directory)):
            self._make_place()

    def _make_place(self) -> None:
        recreate.make_place(self._directory)
        with contextlib.suppress(FileExistsError):
            write_handshake(self._directory)


def rings_of(run: str, paths: Iterable[str]) -> Iterator[Ring]:
    """Open those rings that belong to a run; each is closed when the next is asked for."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(Ring.attach(path)) as ring:
            if ring.meta["run"] == run:
                yield ring
