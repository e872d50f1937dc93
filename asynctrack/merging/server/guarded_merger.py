"""Guarded merger: the merger of one run as strangers may use it: opened when it is needed, within limits, and read anew where something was not foreseen.

Runs on the threads of a collector, one call at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from asynctrack._system import trust
from asynctrack._system.throttle import Throttle
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import stored
from asynctrack.carriers import wire
from asynctrack.carriers.message import Garbage, Place, batches_in, unpack
from asynctrack.errors import AsynctrackError, PartIncomplete, PartRefused
from asynctrack.journal import host_list
from asynctrack.journal.host_list import HostList
from asynctrack.journal.reader import segments
from asynctrack.merging.merger import Merger
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.received_files import ReceivedFiles, is_all_received
from asynctrack.merging.server.refused import Refused
from asynctrack.merging.server.run_room import RunRoom

T = TypeVar("T")

_log = logging.getLogger("asynctrack.collector")

# A run that has ended, and of which nobody has asked for so long, is closed; what comes late opens it again. Arbitrary.
CLOSE_AFTER_S: Final = 60.0


class Sign(NamedTuple):
    """A sign of a host's life: a request.

    Attributes:
        host: its name.
        sent_ns: when it was sent, by the host's clock; nanoseconds since the epoch.
        received_ns: when it came, by the clock of this machine; None where it has waited on its way, and says nothing of clocks.
        behind_bytes: how much the host's journal has behind what comes with it; None where it does not say.
    """

    host: str
    sent_ns: int
    received_ns: int | None
    behind_bytes: int | None = None

    @property
    def offset_ns(self) -> int | None:
        """Return by how much the clock of this machine is ahead of the host's, at most."""
        return None if self.received_ns is None else self.received_ns - self.sent_ns


class BatchPost(NamedTuple):
    """Holds what a host has sent.

    Attributes:
        sign: that it gives with it.
        after: the place before the first batch.
        upto: the place behind the last.
        body: the message, as it came.
        is_deflated: whether it is to be inflated.
    """

    sign: Sign
    after: Place
    upto: Place
    body: bytes
    is_deflated: bool

    def message(self, limits: ServerLimits) -> bytes:
        """Return the message.

        Raises:
            InflatesTooFar: it is too large.
            Garbage: it cannot be inflated.
        """
        return wire.inflated(self.body, limits.inflated_bytes) if self.is_deflated else self.body


class FileAccess(NamedTuple):
    """Says who wants to do something with the files of a run.

    Attributes:
        sign: that it gives with it.
        journal: the id of its journal.
        size: how many bytes it adds.
    """

    sign: Sign
    journal: bytes
    size: int


class GuardedMerger:
    """The merger of one run, which is opened when something is to be merged.

    Attributes:
        path: the run's directory.
        used_at: when a host has last asked of it.
        device: the file system that it is on, once it was open.

    Args:
        path: the run's directory.
        limits: of the collector.
        backends: to which the merged run is delivered.
        may_write: says, right before each write, whether there may be one; None where only the run's lock decides.
    """

    def __init__(
        self,
        path: Path,
        limits: ServerLimits,
        backends: Mapping[str, Backend],
        *,
        may_write: Callable[[], bool] | None = None,
    ) -> None:
        self.path = path
        self._may_write = may_write
        self.used_at = time.monotonic()
        self.device = 0
        self._limits = limits
        self._backends = backends
        self._files = ReceivedFiles(path, limits.file_bytes)
        self._room = RunRoom(path, self._files, limits)
        self._merger: Merger | None = None
        self._is_made_here = False
        self._inode = 0
        self._throttle = Throttle()

    def __repr__(self) -> str:
        return f"<GuardedMerger of {self.path}, {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Return whether it has the run's lock."""
        return self._merger is not None

    @property
    def hosts(self) -> HostList:
        """Return the hosts of the run, as far as that is open."""
        return self._merger.hosts if self._merger is not None else []

    @property
    def has_ended(self) -> bool:
        """Return whether the run has ended, as far as it is open."""
        return self._merger is not None and self._merger.has_ended

    def is_there(self) -> bool:
        """Return whether there is more of the run than files that its first message is to name; lets go of one that somebody has removed, or replaced: its hosts bring it again."""
        if self._merger is not None:
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    return True
            self.close()
        return not is_all_received(self.path)

    def check_beginning(self, post: BatchPost) -> None:
        """See that a run may be begun by what a host has sent.

        Raises:
            Garbage: it may not: there are no whole batches in it.
            InflatesTooFar: it is too large.
        """
        if next(batches_in(unpack(post.message(self._limits))), None) is None:
            raise Garbage("expected a message with batches, and it has none")

    def open(self) -> None:
        """Open the run.

        Raises:
            MergedElsewhere: another process writes to it.
            NotAMergedRun: a run that nobody merged is there, or a link.
            OSError: the directory cannot be made or written.
        """
        if self._merger is None:
            self._is_made_here = is_all_received(self.path)
            self._merger = Merger(
                self.path, backends=self._of_merged, may_write=self._may_write, most_rings=self._limits.rings
            )
            found = os.stat(self.path)
            self._inode, self.device = found.st_ino, found.st_dev
            self._room.count()

    def _of_merged(self, named: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the backends of the merged run: what its host names, for `asynctrack sync`, and those of this collector. Of one name this user's own counts."""
        mine = {name for name, given in named.items() if trust.is_sealed(self.path.name, name, given)}
        ours = {name: stored(backend, self.path.name, name) for name, backend in self._backends.items()}
        return {**named, **{name: given for name, given in ours.items() if name not in mine}}

    def place_of(self, sign: Sign, journal: bytes) -> Place:
        """Return up to where a host's journal is merged and safe; it is a sign of life, too."""

        def ask(merger: Merger) -> Place:
            place = merger.place_of(sign.host, journal)
            if host_list.find(merger.hosts, sign.host) is not None:
                merger.hear(sign.host, offset_ns=sign.offset_ns)
            return place

        return self._do(ask, sign)

    def take(self, post: BatchPost) -> None:
        """Merge what a host has sent; it is safe after the next `sync`."""
        self._do(lambda merger: self._take(merger, post), post.sign, len(post.body))

    def with_files(self, size: int, act: Callable[[ReceivedFiles], T]) -> T:
        """Do something with the files of the run, of a host that has just given a sign of its life. Also while another call goes on.

        Args:
            size: how many bytes that adds.
            act: what to do.

        Raises:
            Refused: there is no room.
        """
        with self._room.take(size, "file"):
            return act(self._files)

    def look(self) -> None:
        """Name the hosts that are lost, and close the run if it has ended and nobody needs it."""
        self._do(lambda merger: merger.name_lost(self._limits.lost_after_s))
        if self.has_ended and time.monotonic() - self.used_at > CLOSE_AFTER_S:
            self.close()

    def tell(self) -> None:
        """Note what is known by now; see `Merger.tell`."""
        self._do(lambda merger: merger.tell())

    def sync(self, *, is_on_disk: bool = False) -> None:
        """Make what was taken safe.

        Args:
            is_on_disk: that it is, since `tell` was called; see `Merger.sync`.

        Raises:
            Refused: the run is closed.
            OSError: it cannot be synced.
        """
        try:
            is_safe = self._do(lambda merger: merger.sync(is_on_disk=is_on_disk))
        except Garbage as error:  # whose it was is not known: nobody is to blame
            raise Refused("not_now", f"the run cannot be written: {error}") from error
        if not is_safe:
            raise OSError(f"{self.path} cannot be synced to its disk")

    def discard_nothing(self) -> None:
        """Remove what was made for a run of which nothing was taken."""
        if self._merger is not None and not self._merger.hosts and not segments(os.fspath(self.path / "journal")):
            if self._is_made_here:
                shutil.rmtree(self.path, ignore_errors=True)  # while its lock is ours
            self.close()
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    def close(self) -> None:
        """Sync what can be synced, and close."""
        merger, self._merger = self._merger, None
        if merger is not None:
            if merger.has_ended:
                self._files.clear()
            try:
                merger.close()
            except Exception:  # what a stranger has sent was not foreseen; its lock is given back all the same
                _log.exception("%s: closed, and not all is synced", self.path)

    def _do(self, act: Callable[[Merger], T], sign: Sign | None = None, coming: int = 0) -> T:
        merger = self._merger
        if merger is None:
            raise Refused("not_now", "the run has been closed; try again")
        try:
            return act(merger)
        except (AsynctrackError, OSError, Refused, ValueError) as error:
            if sign is not None:
                _tell_of(merger, sign, coming, error)
            raise
        except (
            Exception
        ) as error:  # what a stranger has sent was not foreseen; what the merger knows by then is read anew
            if self._throttle.admit("unforeseen"):
                _log.exception("%s: what was sent cannot be merged", self.path)
            self.close()
            raise Garbage(f"what was sent cannot be merged: {type(error).__name__}") from error

    def _take(self, merger: Merger, post: BatchPost) -> None:
        message, sign = post.message(self._limits), post.sign
        self._check_hosts(merger, sign.host)
        with self._room.take(len(message), "run"):
            merger.take(sign.host, post.after, post.upto, message)
        if host_list.find(merger.hosts, sign.host) is None:
            raise Garbage("expected a message with batches, and it has none")
        merger.hear(sign.host, offset_ns=sign.offset_ns)
        behind_s = _behind_s(merger, sign) if sign.behind_bytes != 0 else 0.0
        merger.watch.report(sign.host, behind_bytes=sign.behind_bytes, behind_s=behind_s)

    def _check_hosts(self, merger: Merger, host: str) -> None:
        limits = self._limits
        if host_list.find(merger.hosts, host) is None and len(merger.hosts) >= limits.hosts:
            problem = f"the run has {limits.hosts} hosts, and may have no more (--max-hosts of the collector)"
            raise Refused("too_large", problem, limit="hosts")


def _tell_of(merger: Merger, sign: Sign, coming: int, error: Exception) -> None:
    """Say of a host that it is refused, or waited for with what came, for who looks at the run."""
    may_come = isinstance(error, Refused) and error.refusal.code in ("not_now", "disk_full")
    if may_come or isinstance(error, PartIncomplete):
        behind = None if sign.behind_bytes is None or not coming else sign.behind_bytes + coming
        merger.watch.report(sign.host, behind_bytes=behind, behind_s=_behind_s(merger, sign), waiting=str(error))
    elif isinstance(error, PartRefused | Refused | ValueError):
        merger.watch.report(sign.host, refused=str(error))


def _behind_s(merger: Merger, sign: Sign) -> float | None:
    """Return how many seconds there are between what a host has written by now and what is merged of it; None where nothing is known to be."""
    _, written_ns = merger.taken_of(sign.host)
    return max(0.0, (sign.sent_ns - written_ns) / 1e9) if written_ns else None
