"""Session stats: the statistics of a run that this process has open. Runs in the caller.

They lie in files, and no signal ends a wait for a disk that hangs. So a thread reads them. It is waited for while the kernel says that it gets on,
and for a second while it stands still; then the last statistics are returned, with what the queue says since. Nobody else is sent until that thread
is back, and nobody at all where the worker has said that it waits for the disk.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from asynctrack._system.disk_timeout import DiskTimeout
from asynctrack.client import final_report
from asynctrack.client.publisher import Publisher
from asynctrack.queue.layout import DONE, LAST_ERRNO, NO_ANSWER
from asynctrack.reading.stats import BackendStats, RunStats, StatsCollector

# How long who reads the statistics may stand still beyond the deadline of who asks for them. Arbitrary: a run of days takes 20 ms.
STATS_WAIT_S: Final = 1.0
# Between two looks whether a slow disk answers. Arbitrary.
_POLL_S: Final = 0.01

T = TypeVar("T")


class SessionStats:
    """Takes the statistics of a run that this process has open.

    Args:
        path: the run's directory.
        publisher: of the run.
        backends: the names of the run's backends.
    """

    def __init__(self, path: Path, publisher: Publisher, backends: Sequence[str]) -> None:
        self._path = path
        self._publisher = publisher
        self._backends = backends
        self._lock = threading.RLock()
        self._waited_for_disk = False
        self._collector = StatsCollector(path)
        self._disk_timeout = DiskTimeout()
        self._last = RunStats(backends={name: BackendStats() for name in backends})

    def after_fork(self) -> None:
        """Begin anew, in a forked child, what another thread of the parent may have been at."""
        self._lock = threading.RLock()
        self._collector = StatsCollector(self._path)
        self._disk_timeout = DiskTimeout()

    def take(self) -> RunStats:
        """Take the statistics as they stand; where the disk does not answer, the last that could be read, and what the queue says."""
        with self._lock:
            # A signal handler that comes in between takes its own.
            collector, self._collector = self._collector, StatsCollector(self._path)
            try:
                self._last = self._take_in_time(collector)
                self._collector = collector
            except TimeoutError as error:  # the collector is left with who waits for the disk
                return self._last_known(error)
            except OSError:  # too many open files, perhaps; what it has read may be half of something
                collector.close()
                self._last = self._take_or_last(self._collector)
            return self._last

    def read_in_time(self, read: Callable[[], T], timeout_s: float) -> T:
        """Read the run's files.

        Raises:
            TimeoutError: their disk does not answer.
        """
        return self._disk_timeout.call(read, timeout_s)

    def disk_hangs(self) -> bool:
        """Say whether the worker waits for the disk; who has delivered everything waits for it no more, and may not say anything else."""
        if not self._publisher.queue.is_own:
            return False
        words = self._publisher.producer.ring.words
        return words[LAST_ERRNO] == NO_ANSWER and not words[DONE]

    def close(self) -> None:
        """Close the files, but where somebody waits for their disk: to close one may hang, too."""
        if not self._disk_timeout.is_over:
            self._collector.close()

    def _take_in_time(self, collector: StatsCollector) -> RunStats:
        if not self._disk_answers():
            raise TimeoutError("its disk does not answer")  # the worker waits for it already
        return self._disk_timeout.call(lambda: self._collect(collector), STATS_WAIT_S)

    def _disk_answers(self) -> bool:
        """Say whether the worker does not wait for the disk. One that is only slow is waited for a little, but once while it hangs."""
        deadline = time.monotonic() + (0.0 if self._waited_for_disk else STATS_WAIT_S)
        while (hangs := self.disk_hangs()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._waited_for_disk = hangs
        return not hangs

    def _collect(self, collector: StatsCollector) -> RunStats:
        # If the directory was replaced, the path leads to another run's statistics, or to none.
        if _which(self._path) != self._publisher.queue.directory_id:
            raise FileNotFoundError(
                errno.ENOENT, "this process cannot see the run's directory any more", str(self._path)
            )
        queue = self._publisher.queue
        own = [queue.producer.ring] if queue.is_own else []
        return collector.collect(own, queue.others(), self._backends)

    def _without_files(self) -> RunStats:
        """Return the last statistics, and what this process's queue says since."""
        queue, last = self._publisher.queue, self._last
        if not queue.is_own:
            return last
        queued = final_report.not_journaled(queue.producer)
        dropped = {**last.dropped, **queue.producer.ring.dropped()}
        accepted = max(last.accepted, final_report.accepted(queue.producer))
        return msgspec.structs.replace(
            last, accepted=accepted, journaled=accepted - queued, queued=queued, dropped=dropped
        )

    def _take_or_last(self, collector: StatsCollector) -> RunStats:
        try:
            return self._take_in_time(collector)
        except TimeoutError as error:
            return self._last_known(error)
        except OSError as error:
            self._publisher.warnings.warn(
                "stats", f"the statistics cannot be read: {error}; the numbers are those of the queue alone"
            )
            return msgspec.structs.replace(self._without_files(), backends=_unknown(self._backends))

    def _last_known(self, error: TimeoutError) -> RunStats:
        self._publisher.warnings.warn(
            "stats", f"the statistics cannot be read: {error}; these are the last that could be read"
        )
        return self._without_files()


def _unknown(names: Iterable[str]) -> dict[str, BackendStats]:
    return {name: BackendStats(known=False) for name in names}


def _which(path: Path) -> tuple[int, int] | None:
    """Identify the directory at a path; None where there is none, as for who has called `chroot` since."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
