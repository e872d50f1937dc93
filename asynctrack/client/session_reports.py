"""Session reports: what is said of a run that is open or ends here: its queue, its journal, its backends, its children. Runs in the caller.

`final_report` has the words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asynctrack._system import fork, messages
from asynctrack._system.wording import counted
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import stored
from asynctrack.client import final_report
from asynctrack.client.publisher import Publisher
from asynctrack.errors import AsynctrackError
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.reading.stats import RunStats

T = TypeVar("T")

_has_forked = False


class ReadFiles(Protocol):
    """Reads files of a run."""

    def __call__(self, read: Callable[[], T]) -> T: ...


class SessionReports:
    """Says what is wrong with a run.

    Args:
        path: the run's directory.
        publisher: of the run.
        backends: those that are to have everything in the end, by their names.
        joined: the stored settings of such backends, where this process has joined the run and another has opened them.
    """

    def __init__(
        self,
        path: Path,
        publisher: Publisher,
        backends: dict[str, Backend],
        joined: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._path = path
        self._publisher = publisher
        self._backends = backends
        self._joined = joined or {}

    def report_queue(self) -> None:
        """Say what of this process is not journaled. Reads memory only."""
        warnings = self._publisher.warnings
        warnings.report_encode_errors(last=True)
        if not self._publisher.queue.is_own:
            self._publisher.report_turned_away()
            return
        producer = self._publisher.producer
        lost, said = final_report.dropped(producer)
        if lost > self._publisher.reported_drops:
            self._publisher.reported_drops = lost
            warnings.warn("dropped", said)
        if count := final_report.not_journaled(producer):
            what = f"{counted(count, 'record is', 'records are')} not journaled"
            warnings.warn("queued", what + final_report.recovery_hint(self._path, producer))

    def report_backends(self, stats: RunStats, read_files: ReadFiles) -> None:
        """Say which backends do not have everything, but for those that are to wait; `read_files` reads files."""
        queue = self._publisher.queue
        if not queue.is_own:
            return
        alone = not any(queue.others_of_run())
        backends = {**self._joined, **{name: stored(backend, "", name) for name, backend in self._backends.items()}}
        try:
            found = read_files(
                lambda: list(final_report.undelivered(self._path, stats, backends, queue.producer, alone=alone))
            )
        except OSError as error:  # the disk fails, or does not answer
            found = final_report.unknown(self._path, stats, error)
        for name, text in found:
            self._publisher.warnings.warn(f"behind {name}", text)

    def report_others(self, read_files: ReadFiles) -> None:
        """Say which other processes have failed, as far as the worker knows by now, and what they have set differently; `read_files` reads a file."""
        queue = self._publisher.queue
        if queue.is_own and queue.may_decide:
            ring = f"{queue.producer.ring.id:016x}"
            with contextlib.suppress(AsynctrackError, OSError):
                for about, said in read_files(lambda: list(final_report.of_other_writers(self._path, ring))):
                    self._publisher.warnings.warn(about, said, once=True)
        if _has_forked and queue.is_root and queue.is_own:
            with contextlib.suppress(AsynctrackError, OSError):
                if said := read_files(lambda: final_report.failed_children(self._path)):
                    self._publisher.warnings.warn("children", said, once=True)

    def report_late(self, take_stats: Callable[[], RunStats]) -> None:
        """Say which means lack records that came too late, where the run ends as this process does, or had ended when it came; `take_stats` reads files."""
        queue = self._publisher.queue
        chosen: list[object] = [backend.writers for backend in self._backends.values()]
        chosen += [settings.get("writers") for settings in self._joined.values()]
        if "mean" in chosen and queue.is_own and (queue.may_decide or queue.reopens):
            for name, text in final_report.late_for_means(take_stats()):
                self._publisher.warnings.warn(f"late {name}", text, once=True)

    def any_has_failed(self) -> bool:
        """Say whether a backend has failed at its last try."""
        return any(load_cursor(self._path, name).last_error for name in self._backends)

    def backend_gets_nothing(self, name: str, cursor: Cursor) -> None:
        """Say that a backend has failed for some seconds. On the health monitor's thread."""
        if not messages.due((self._path, f"lacks {name}")):  # it was said as the run was opened
            return
        hint = final_report.delivery_hint(self._path, stored(self._backends[name], "", name), cursor.paused)
        self._publisher.warnings.warn(
            f"failing {name}", f"{name} gets nothing ({cursor.last_error}); {hint}", once=True
        )

    def journal_is_hindered(self, what: str) -> None:
        """Say that the journal could not be written for some seconds. On the health monitor's thread."""
        self._publisher.warnings.warn("hindered", final_report.hindered(what, self._publisher.producer))


def read_now(read: Callable[[], T]) -> T:
    """Read where this is called: on a thread that may wait."""
    return read()


@fork.in_parent
def _after_fork_in_parent() -> None:
    global _has_forked
    _has_forked = True
