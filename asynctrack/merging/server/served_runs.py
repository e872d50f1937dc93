"""Served runs: the merged runs of a collector, each opened when a host asks for it, and closed when nobody needs it. Runs in its loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from asynctrack.backends.base import Backend
from asynctrack.carriers.message import Place
from asynctrack.carriers.wire import PartName
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.host_list import HostStats
from asynctrack.merging.host_places import FILE_NAME
from asynctrack.merging.server import received_files
from asynctrack.merging.server.group_sync import GroupSync
from asynctrack.merging.server.guarded_merger import BatchPost, FileAccess, GuardedMerger, Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.received_files import ReceivedFiles
from asynctrack.merging.server.refused import Refused
from asynctrack.merging.server.served_run import RunNews, ServedRun

T = TypeVar("T")

# Runs that are written at once: more would not be quicker on one disk, and those that wait meanwhile share a sync. Arbitrary.
_THREADS: Final = 8
# Files that are written or checked at once. Arbitrary.
_FILE_THREADS: Final = 4
# Between two looks at a run, for hosts that are lost and whether it is needed.
_LOOK_S: Final = 5.0
_TICK_S: Final = 0.25


class RunChange(msgspec.Struct, frozen=True, kw_only=True):
    """Tells how a merged run is, when that has changed.

    Attributes:
        path: its directory.
        hosts: that have a part of it.
        has_ended: whether all of them have ended, or are lost.
        trouble: why it cannot be written; None where it can.
    """

    path: str
    hosts: list[HostStats]
    has_ended: bool
    trouble: str | None = None


class ServedRuns:
    """The runs below a directory.

    Args:
        directory: for the merged runs, as `PROJECT/RUN`.
        limits: of the collector.
        backends: to which merged runs are delivered.
        tell: is told how a run is when that has changed; in the loop.
        may_write: says, right before each write to a run, by its id, whether there may be one; None where no other machine may merge it.
    """

    def __init__(
        self,
        directory: Path,
        limits: ServerLimits,
        backends: Mapping[str, Backend],
        tell: Callable[[RunChange], None],
        *,
        may_write: Callable[[str], bool] | None = None,
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._backends = backends
        self._tell = tell
        self._may_write = may_write
        self._syncs = GroupSync(directory)
        self._runs: dict[tuple[str, str], ServedRun] = {}
        self._looked_at: dict[ServedRun, float] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="asynctrack-merge")
        self._file_threads = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="asynctrack-files")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"<ServedRuns of {self._directory}, {len(self._runs)} runs>"

    async def place_of(self, name: PartName, sign: Sign, journal: bytes) -> Place:
        """Return up to where a host's journal is merged, and safe."""
        return await self._run(name.project, name.run).place_of(sign, journal)

    async def take(self, name: PartName, post: BatchPost) -> None:
        """Merge what a host has sent; returns when it is safe."""
        await self._run(name.project, name.run).take(post)

    async def with_files(self, name: PartName, asked: FileAccess, act: Callable[[ReceivedFiles], T]) -> T:
        """Do something with the files of a run; see `ServedRun.with_files`."""
        return await self._run(name.project, name.run).with_files(asked, act, self._file_threads)

    async def resume(self, mine: Callable[[str], bool] | None = None) -> None:
        """Open the runs that go on: their hosts may be lost by now. Remove what is left of others.

        Args:
            mine: says by its id whether a run is one of this collector's; None where all are.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, received_files.clean, self._directory, mine)
        for project, run in await loop.run_in_executor(self._threads, list, _going_on(self._directory)):
            if mine is None or mine(run):
                with contextlib.suppress(Exception):  # what is wrong with one is told by its trouble
                    await self._run(project, run).look()

    def is_busy(self, mine: Callable[[str], bool]) -> bool:
        """Return whether any of some runs is open."""
        return any(mine(key[1]) and not run.is_at_rest for key, run in self._runs.items())

    async def let_go(self, mine: Callable[[str], bool]) -> None:
        """Close some runs, which another collector merges from now on; nothing is written to them any more where that may not be."""
        found = {key: run for key, run in self._runs.items() if mine(key[1])}
        await asyncio.gather(*(run.close() for run in found.values()), return_exceptions=True)
        for key, run in found.items():
            self._runs.pop(key, None)
            self._looked_at.pop(run, None)

    async def watch(self) -> None:
        """Look at each run now and then, until cancelled."""
        looks: set[asyncio.Task[None]] = set()
        period = min(_LOOK_S, max(_TICK_S, self._limits.lost_after_s / 4))
        while True:
            now = time.monotonic()
            for key, run in list(self._runs.items()):
                if run.is_at_rest:
                    del self._runs[key]
                    self._looked_at.pop(run, None)
                elif now - self._looked_at.setdefault(run, now) >= period:
                    self._looked_at[run] = now
                    looks.add(look := asyncio.create_task(self._look(run)))
                    look.add_done_callback(looks.discard)
            await asyncio.sleep(_TICK_S)

    async def close(self) -> None:
        """Sync all, and close; nothing is taken from now on."""
        self._closing = True
        await asyncio.gather(*(run.close() for run in self._runs.values()), return_exceptions=True)
        self._threads.shutdown(wait=False)
        self._file_threads.shutdown(wait=False)
        self._syncs.close()

    async def _look(self, run: ServedRun) -> None:
        with contextlib.suppress(Exception):  # what is wrong with it is told by its trouble
            await run.look()

    def _run(self, project: str, run: str) -> ServedRun:
        if self._closing:
            raise Refused("not_now", "the collector ends; try again")
        found = self._runs.get((project, run))
        if found is None:
            if len(self._runs) >= self._limits.open_runs:
                raise Refused("not_now", f"the collector writes {self._limits.open_runs} runs at once, and no more")
            self._loop = asyncio.get_running_loop()
            merger = GuardedMerger(
                self._directory / project / run,
                self._limits,
                self._backends,
                may_write=None if self._may_write is None else partial(self._may_write, run),
            )
            found = self._runs[project, run] = ServedRun(merger, self._threads, self._on_news, self._syncs)
        return found

    def _on_news(self, run: GuardedMerger, news: RunNews) -> None:
        assert self._loop is not None
        change = RunChange(path=str(run.path), hosts=news.hosts, has_ended=news.has_ended, trouble=news.trouble)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, change)


def _going_on(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the merged runs that have not ended."""
    for path in directory.glob(f"*/*/{FILE_NAME}"):
        with contextlib.suppress(AsynctrackError, OSError):
            if manifests.load(path.parent).status == "running":
                yield path.parent.parent.name, path.parent.name
