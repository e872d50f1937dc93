"""Run queue: a process's ring of a run, and the worker that empties it. A forked child makes another. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from asynctrack._system import messages
from asynctrack.client import worker_registry
from asynctrack.client.host_rings import rings_of
from asynctrack.client.worker_handle import WorkerHandle
from asynctrack.client.writer import Joining
from asynctrack.journal.join import default_label
from asynctrack.queue.layout import DONE, HEAD, JOIN, KIND_SHIFT, WORKER_PID
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.settings import Settings


class RunQueue:
    """The queue of one run in this process.

    Attributes:
        producer: puts frames into the ring. In a forked child it is the parent's, and takes nothing, until `join`.
        host: whose worker empties the ring.
        is_root: whether the run was opened in this process.
        may_decide: whether the run ends as this process does, unless another owns it.
        reopens: whether the run had ended when this process joined it.
        label: of this process's records, where the run has several writers; a forked child has its parent's.
        directory_id: device and inode of the run's directory as the run was opened.

    Args:
        path: the run's directory.
        settings: of the run.
        joining: who this process is among several writers, and where those that it joins have their rings; None for a run of one.
    """

    host: WorkerHandle
    producer: Producer

    def __init__(self, path: Path, settings: Settings, joining: Joining | None = None) -> None:
        self._path = path
        self._settings = settings
        self._joining = joining
        self.is_root: bool = joining is None or joining.opens
        self.may_decide: bool = self.is_root or (joining is not None and joining.owns)
        self.reopens: bool = joining is not None and joining.reopens
        self.label: str = default_label(os.uname().nodename, os.getpid()) if joining is None else joining.join.writer
        self._opened_by: int = os.getpid()
        self._is_released = False
        found = os.stat(path)
        self.directory_id: tuple[int, int] = (found.st_dev, found.st_ino)

    @property
    def is_own(self) -> bool:
        """Tell whether this process has made the ring; False in a forked child that has none yet."""
        return not self.producer.is_inherited

    @property
    def is_inherited(self) -> bool:
        """Tell whether this process is a forked child of the one that has opened the run or joined it."""
        return os.getpid() != self._opened_by

    @property
    def expected(self) -> int | None:
        """Return how many writers the run is to have in all, as this process was told; None where it was not."""
        return None if self._joining is None else self._joining.join.expected

    @property
    def is_released(self) -> bool:
        """Tell whether this process has let go of the ring that it has made; then nobody here waits for it any more."""
        return self.is_own and self._is_released

    def open(self, first: int) -> None:
        """Make the ring of the process that opens the run, whose first record has this number; or that joins it.

        Raises:
            FileNotFoundError: the run to join has ended.
            SharedMemoryUnavailable: there is no room for it.
        """
        directory = None if self._joining is None else self._joining.directory
        meta = self._meta(root=self.is_root, said={} if self._joining is None else self._joining.meta())
        size = self._settings.queue_bytes
        if directory is None:
            self.host, self.producer = worker_registry.open_ring(self._settings.worker, meta, size, first=first)
        else:
            self.host, self.producer = worker_registry.join(directory, meta, size)

    def join(self) -> None:
        """Make a ring for a forked child, in the same run.

        Raises:
            SharedMemoryUnavailable: there is no room for it.
        """
        meta = self._meta(root=False, said={} if self._joining is None else self._joining.meta_of_child())
        self.host, self.producer = worker_registry.open_ring(self._settings.worker, meta, self._settings.queue_bytes)
        self.is_root = self.may_decide = self.reopens = self._is_released = False
        if self._joining is not None and (self._joining.joins or not self._joining.opens):
            # Its records are those of the process that has joined, or that joins when its part is merged. A ring that says nothing is that of the owner's
            # child.
            self.producer.put(self._joining.payload_of_child(), JOIN << KIND_SHIFT, 0)

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
            ring.words[DONE] = 1  # no process then takes the missing file for an accident
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
        ring = self.producer.ring
        own = os.path.basename(ring.path) if self.is_own else None
        # A worker that let go of the run may have left the ring to the next, whose directory is another.
        paths = ring_paths(os.path.dirname(ring.found_at() or ring.path))
        return [path for path in paths if os.path.basename(path) != own and not worker_registry.is_own_ring(path)]

    def others_of_run(self) -> Iterator[Ring]:
        """Open those of them that log to this run; each is closed when the next is asked for."""
        return rings_of(str(self._path), self.others())

    def trouble(self) -> str | None:
        """Say what keeps the worker from the journal; None where nothing does, or this process has no ring."""
        return self.producer.ring.trouble() if self.is_own else None

    def _meta(self, *, root: bool, said: Mapping[str, object]) -> dict[str, object]:
        """Return what a ring's header tells the worker, which reads no frame."""
        return {
            "run": str(self._path),
            "disk": self.directory_id[0],
            "root": root,
            "linger_s": self._settings.linger_s,
            "sync_interval_s": self._settings.sync_interval_s,
            **({"straggler_s": self._settings.straggler_s} if root else {}),
            **said,
        }
