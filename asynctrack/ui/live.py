"""Live: keeps the list of runs up to date while a page listens, and tells it what has changed. Runs in the server of the page, on its loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from asynctrack._system.wording import counted
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.ui.file_threads import FileThreads, NoAnswer
from asynctrack.ui.listed_place import LIVE_S, ListedPlace
from asynctrack.ui.plain_json import encode
from asynctrack.ui.run_list import RunList

# The list is brought up to date so often while somebody listens.
_TICK_S: Final = 1.0
# For how long an answer waits for runs that are looked at: a page shows what there is, and gets the rest.
_WAIT_S: Final = 0.8
# Runs are looked at for so long at a time, so that answers come between.
_LOOK_S: Final = 0.25
# For how long the first request waits until it is known which runs there are.
_FIRST_S: Final = 5.0
# A stream in which nothing happens says so, else proxies close it.
_HEARTBEAT_S: Final = 15.0


class RunEvent(NamedTuple):
    """Tells of a run that a page looks at."""

    run: str
    records: int
    step: int | None
    status: str

    def as_json(self) -> dict[str, Any]:
        """Return it for the page."""
        return self._asdict()


class LiveRuns:
    """Brings the list up to date: for a request, and once a second as long as somebody listens.

    Args:
        places: where the runs are.
        listing: of the runs.
        threads: for all that touches files.
    """

    def __init__(self, places: Sequence[Path], listing: RunList, threads: FileThreads, *, cache: bool = True) -> None:
        self.listing: RunList = listing
        self._threads = threads
        self._places = [_WatchedPlace(ListedPlace(place, listing, cache=cache)) for place in places]
        self._listeners: dict[object, tuple[set[str], asyncio.Event]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Return whether each run has been looked at once."""
        return all(one.place.is_complete for one in self._places)

    @property
    def problems(self) -> list[str]:
        """Return what is wrong with the places, in sentences."""
        told = [(one.place.directory, one.problem) for one in self._places if one.problem]
        private = [(one.place.directory, one.place.unreadable) for one in self._places if one.place.unreadable]
        closed = [
            (place, f"{counted(count, 'run')} that you may not read: ask who ran them") for place, count in private
        ]
        return [f"{place}: {problem}" for place, problem in (*told, *closed)]

    @property
    def directory(self) -> str:
        """Return where the runs are, for people."""
        return ", ".join(str(one.place.directory) for one in self._places)

    async def refresh(self) -> None:
        """Bring the list up to date, unless that was just done; wait for it a little."""
        tasks = [task for one in self._places if (task := self._begun(one)) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_WAIT_S)

    async def find(self) -> None:
        """Wait until it is known which runs there are."""
        missing = [one for one in self._places if not one.is_found.is_set()]
        for one in missing:
            self._begun(one)
        if missing:
            waits = [asyncio.ensure_future(one.is_found.wait()) for one in missing]
            try:
                await asyncio.wait(waits, timeout=_FIRST_S)
            finally:
                for wait in waits:
                    wait.cancel()

    async def news(self, keys: set[str]) -> AsyncIterator[bytes]:
        """Yield what a stream of events says, until nobody listens or the server ends.

        Args:
            keys: of the runs that a page looks at.
        """
        me, woken = object(), asyncio.Event()
        self._listeners[me] = (keys, woken)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick())
        try:
            version, told = 0, dict[str, RunEvent]()
            while not self._closed.is_set():
                said = []
                if self.listing.version != version:
                    version = self.listing.version
                    said.append(_event("runs", {"version": version}))
                for news in self._news_of(keys):
                    if told.get(news.run) != news:
                        told[news.run] = news
                        said.append(_event("run", news.as_json()))
                if said:
                    yield b"".join(said)
                if not await _is_set(woken, _HEARTBEAT_S):
                    yield b": still here\n\n"
                woken.clear()
        finally:
            del self._listeners[me]
            if not self._listeners and self._ticker is not None:
                self._ticker.cancel()
                self._ticker = None

    async def told(self, keys: set[str]) -> dict[str, Any]:
        """Return what a stream would say at its beginning."""
        await self.refresh()
        news = [one.as_json() for one in self._news_of(keys)]
        return {"version": self.listing.version, "runs": news}

    def close(self) -> None:
        """End all streams."""
        self._closed.set()
        self._wake()

    def _news_of(self, keys: set[str]) -> list[RunEvent]:
        runs = [run for key in sorted(keys) if (run := self.listing.get(key)) is not None]
        found = [(run.key, run.summary) for run in runs]
        return [RunEvent(key, one.records, one.step, one.status) for key, one in found if one is not None]

    async def _tick(self) -> None:
        while True:
            for one in self._places:
                if one.place.is_due():
                    self._begun(one)
            await asyncio.sleep(_TICK_S)

    def _begun(self, one: _WatchedPlace) -> asyncio.Task[None] | None:
        """Begin to bring a place up to date, unless that is done already, or was just now."""
        if one.task is None or one.task.done():
            if time.monotonic() < one.done_at + LIVE_S:
                return None
            one.task = asyncio.create_task(self._bring(one))
        return one.task

    async def _bring(self, one: _WatchedPlace) -> None:
        lane = f"list {one.place.directory}"
        try:
            if not one.is_found.is_set():
                await self._threads.call(lane, one.place.find)
                one.is_found.set()
            find, done = True, False
            while not (done or self._closed.is_set()):
                done = await self._threads.call(lane, partial(_looked, one.place, self._watched(), find=find))
                find = False
                self._wake()
            one.problem = None
        except (
            NoAnswer,
            AsynctrackError,
            OSError,
            *UNREADABLE,
        ) as error:  # the other places go on, and this one is tried again
            one.problem = str(error)
        finally:
            one.done_at = time.monotonic()

    def _watched(self) -> set[str]:
        keys = set[str]().union(*(keys for keys, _ in list(self._listeners.values())))
        return {run.path for key in keys if (run := self.listing.get(key)) is not None}

    def _wake(self) -> None:
        for _, woken in self._listeners.values():
            woken.set()


class _WatchedPlace:
    """A place, and how it stands."""

    def __init__(self, place: ListedPlace) -> None:
        self.place = place
        self.task: asyncio.Task[None] | None = None
        self.is_found = asyncio.Event()
        self.done_at = float("-inf")
        self.problem: str | None = None


def _looked(place: ListedPlace, watched: set[str], *, find: bool) -> bool:
    if find:
        place.find()
    return place.look(_LOOK_S, watched)


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(data))
