"""App: answers the requests of the page, as `docs/reference/ui_api.md` describes them, with Starlette. Runs in the server of the page."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asynctrack.client import run_state
from asynctrack.curves.run_curves import RunCurves
from asynctrack.errors import AsynctrackError, InvalidExpression
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.records.media_types import unicode
from asynctrack.ui.csv_stream import csv_of
from asynctrack.ui.curve_answers import CurveAnswers, CurveWindow
from asynctrack.ui.file_threads import FileThreads, NoAnswer
from asynctrack.ui.guard import Access, App, Guard
from asynctrack.ui.live import LiveRuns
from asynctrack.ui.media_items import file_of, headers_of, items_of
from asynctrack.ui.page_files import PageFiles
from asynctrack.ui.plain_json import encode
from asynctrack.ui.queries import BadQuery, Query, query_of
from asynctrack.ui.run_books import OpenBooks
from asynctrack.ui.run_document import run_document
from asynctrack.ui.run_list import ListedRun, RunList, rows_as_json
from asynctrack.ui.run_questions import compared, selected
from asynctrack.ui.run_shelf import RunShelf
from asynctrack.ui.run_texts import diff_of, end_of_log

Answer = Callable[[Query], Awaitable[Response]]

_METHODS: Final = ["GET", "POST"]
_BYTES: Final = "application/octet-stream"
_BUCKETS: Final = 300
_SPARKLINE_BUCKETS: Final = 40
# A look at a run that is younger counts for its document, too.
_RECENT_S: Final = 2.5
# Media of one answer, and the bytes of a log.
_ITEMS: Final = 20
_MOST_ITEMS: Final = 200
_FIRST_MOST: Final = 1 << 40
_LOG_BYTES: Final = 64 << 10
_MOST_LOG_BYTES: Final = 4 << 20
# Of a stream of events: no proxy may hold it back.
_STREAM: Final = {"x-accel-buffering": "no"}


class PageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the page's server is started with.

    Attributes:
        places: directories of projects, of one project, or of a run.
        version: of asynctrack.
        cache: whether what was read of runs is kept in the user's cache, and found there.
    """

    places: tuple[Path, ...]
    version: str
    cache: bool = True


class PageApp:
    """Answers requests.

    Args:
        settings: what it is started with.
    """

    def __init__(self, settings: PageSettings) -> None:
        self._version = settings.version
        self._threads = FileThreads()
        self._shelf = RunShelf(cache=settings.cache)
        self._books = OpenBooks()
        self._list = RunList()
        self._live = LiveRuns(settings.places, self._list, self._threads, cache=settings.cache)
        self._curves = CurveAnswers(self._shelf, self._threads)
        self._files = PageFiles()
        threading.Thread(target=self._files.prepare, name="asynctrack-ui-script", daemon=True).start()

    def guarded(self, access: Access) -> App:
        """Return the app behind its guard."""
        answers: dict[str, Answer] = {
            "runs": self._runs,
            "run": self._run,
            "curves": self._curves_of,
            "sparklines": self._sparklines,
            "groups": self._groups,
            "events": self._events,
            "select": self._select,
            "compare": self._compare,
            "metrics": self._metrics,
            "media": self._media,
            "media/file": self._media_file,
            "log": self._log,
            "diff": self._diff,
            "csv": self._csv,
        }
        routes = [Route(f"/api/{name}", _answering(answer), methods=_METHODS) for name, answer in answers.items()]
        app = Starlette(routes=[*routes, Route("/{path:path}", self._page, methods=_METHODS)])
        return Guard(app, access)

    def close(self) -> None:
        """End the streams of events: the server ends."""
        self._live.close()

    async def _page(self, request: Request) -> Response:
        if request.scope["path"].startswith("/api/"):
            return _error(404, f"there is no {request.scope['path']!r:.200} here")
        return self._files.answer(request)

    async def _runs(self, query: Query) -> Response:
        await self._live.refresh()
        version = query.number("since")
        changes = self._list.since(None if version is None else int(version))
        more = {
            "complete": self._live.is_complete,
            "problems": [unicode(one) for one in self._live.problems],
            "directory": unicode(self._live.directory),
            "asynctrack": self._version,
        }
        return Response(rows_as_json(changes, more), media_type="application/json")

    async def _run(self, query: Query) -> Response:
        run = await self._listed(query)

        def read() -> Response:
            subject = run.recent(run_state.other_workers, _RECENT_S)
            return _json(run_document(run, subject, self._shelf, self._books))

        return await self._of_run(run, read)

    async def _curves_of(self, query: Query) -> Response:
        runs = await self._all_listed(query)
        return await self._drawn(runs, _window(query, _BUCKETS, len(runs), query.keys()))

    async def _sparklines(self, query: Query) -> Response:
        runs = await self._all_listed(query)
        return await self._drawn(runs, _window(query, _SPARKLINE_BUCKETS, len(runs), query.texts("key")))

    async def _drawn(self, runs: list[ListedRun], window: CurveWindow) -> Response:
        """Answer with the blocks of runs as they are ready; with those of one run in one piece."""
        blocks = self._curves.curves(runs, window)
        if len(runs) > 1:
            return StreamingResponse(blocks, media_type=_BYTES)
        return Response(b"".join([block async for block in blocks]), media_type=_BYTES)

    async def _groups(self, query: Query) -> Response:
        runs = await self._all_listed(query)
        window = _window(query, _BUCKETS, len(runs), query.keys())
        return Response(await self._curves.groups(runs, window), media_type=_BYTES)

    async def _events(self, query: Query) -> Response:
        keys = {*query.texts("run")}
        if query.text("poll"):
            return _json(await self._live.told(keys))
        return StreamingResponse(self._live.news(keys), media_type="text/event-stream", headers=_STREAM)

    async def _select(self, query: Query) -> Response:
        await self._live.refresh()
        where, sort = query.expression("where"), query.expression("sort")
        runs = self._list.all()
        found = await self._threads.call("select", lambda: selected(runs, where, sort, self._curves_at))
        return _json(found)

    async def _compare(self, query: Query) -> Response:
        runs = [run for run in await self._all_listed(query) if run.look is not None]
        return _json(await self._threads.call("compare", lambda: compared(runs)))

    async def _metrics(self, query: Query) -> Response:
        runs = await self._all_listed(query)
        return _json({"runs": await self._curves.totals(runs)})

    async def _media(self, query: Query) -> Response:
        run, key = await self._listed(query), query.text("key")
        first, count = query.whole("from", 0, 0, _FIRST_MOST), query.whole("n", _ITEMS, 1, _MOST_ITEMS)
        return await self._of_run(
            run, lambda: _json(items_of(Path(run.path), self._shelf.found_in(run.path), key, first, count))
        )

    async def _media_file(self, query: Query) -> Response:
        run, digest, name = await self._listed(query), query.text("sha256"), query.text("name")
        scripts = bool(query.text("scripts")) and query.header("sec-fetch-dest") == "iframe"

        def read() -> Response:
            file = file_of(Path(run.path), self._shelf.found_in(run.path), digest, name)
            return Response(file.content, headers=headers_of(file, scripts), media_type=file.kind)

        return await self._of_run(run, read)

    async def _log(self, query: Query) -> Response:
        run, most = await self._listed(query), query.whole("bytes", _LOG_BYTES, 1, _MOST_LOG_BYTES)
        return await self._of_run(run, lambda: _text(end_of_log(Path(run.path), most)))

    async def _diff(self, query: Query) -> Response:
        run = await self._listed(query)
        return await self._of_run(run, lambda: _text(diff_of(Path(run.path)), "uncommitted.diff"))

    async def _csv(self, query: Query) -> Response:
        runs, keys, history = await self._all_listed(query), query.keys(), query.history()
        pieces = csv_of(runs, keys, history)
        return StreamingResponse(self._pieces(pieces), media_type="text/csv", headers=_saved_as("values.csv"))

    async def _pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what a generator makes on a thread."""
        lane = f"pieces {id(pieces)}"
        while (piece := await self._threads.call(lane, lambda: next(pieces, None))) is not None:
            yield piece

    async def _of_run(self, run: ListedRun, read: Callable[[], Response]) -> Response:
        """Answer with what is read of one run."""
        try:
            return await self._threads.call(run.path, read)
        except FileNotFoundError as error:
            return _error(404, _without(run, str(error)))

    def _curves_at(self, path: str) -> RunCurves:
        return self._shelf.curves_of(path)[0]

    async def _listed(self, query: Query) -> ListedRun:
        await self._find(query)
        return query.run(self._list)

    async def _all_listed(self, query: Query) -> list[ListedRun]:
        await self._find(query)
        return query.runs(self._list)

    async def _find(self, query: Query) -> None:
        """Wait until it is known which runs there are, where one that is asked for is not known: a disk may hang meanwhile."""
        for find in (self._live.find, self._live.refresh):  # it may have begun since
            if any(self._list.get(key) is None for key in query.texts("run")):
                await find()


def _window(query: Query, buckets: int, runs: int, keys: Sequence[str]) -> CurveWindow:
    """Return what is asked for of each run.

    Raises:
        BadQuery: there is no such window.
    """
    x0, x1 = query.number("x0"), query.number("x1")
    if x0 is not None and x1 is not None and x0 > x1:
        raise BadQuery(400, f"x0 must not be greater than x1; got {x0} and {x1}")
    return CurveWindow(
        keys=tuple(keys),
        x=query.text("x") or "step",
        x0=x0,
        x1=x1,
        buckets=query.buckets(buckets, runs, max(1, len(keys))),
        history=query.history(),
    )


def _answering(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers a request, whatever happens on the way."""

    async def respond(request: Request) -> Response:
        try:
            return await answer(await query_of(request))
        except BadQuery as error:
            return _error(error.status, error.error, **error.more)
        except InvalidExpression as error:
            return _error(400, str(error), at=error.position)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        except NoAnswer as error:
            return _error(503, str(error))
        except (AsynctrackError, OSError, *UNREADABLE) as error:  # of one run: the others go on
            return _error(500, str(error) or type(error).__name__)

    return respond


def _without(run: ListedRun, error: str) -> str:
    """Return an error without the place of the run, which is of no use to who reads it in a browser."""
    return error.replace(f"{run.path}/", "")


def _text(content: bytes, name: str = "") -> Response:
    return Response(content, headers=_saved_as(name) if name else None, media_type="text/plain; charset=utf-8")


def _saved_as(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


def _json(value: Any) -> Response:
    return Response(encode(value), media_type="application/json")


def _error(status: int, error: str, **more: Any) -> Response:
    return Response(encode({"error": unicode(error), **more}), status, media_type="application/json")
