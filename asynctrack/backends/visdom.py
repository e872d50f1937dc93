"""Visdom: draw a line per key in the browser, by Visdom's HTTP API, without its library. Runs in the worker's loop.

A run has an environment of its own, `PROJECT_ID`. Visdom's own comparison of environments then draws the lines of
several runs into one window: the window has the key as its title, and each line has its run's name. Config and summary
are a text. A value that is not finite is a gap. Values other than numbers are left out, and a record without any number
is skipped. By default Visdom gets, of each second, the first, last, least and greatest value of each key.

Visdom appends every point it gets, also repeated ones. So its windows are asked for the number of their points whenever
that is in doubt. After a failed request, points that are there already are not sent again. After a crash, or a restart
of the server, a run whose windows have another number of points than expected is drawn again from its first record.
When the run has ended, its environment is saved on the server's disk.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from asynctrack.backends.base import (
    ActionRequired,
    Backend,
    Batch,
    Context,
    Execution,
    Outcome,
    Rejected,
    Resend,
    Retry,
    Sink,
    WriterSelection,
)
from asynctrack.backends.endpoint import timeout_problems, url_problems
from asynctrack.backends.http import REQUEST_TIMEOUT_S, HTTPClient
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import flatten, to_json
from asynctrack.records.plain import finite, numbers_in

# Visdom's own default.
_URL: Final = "http://127.0.0.1:8097"
# A window with more points is not asked for: the answer has all of them, about 32 bytes each.
_MOST_COUNTED: Final = 50_000
_LOGIN: Final = "a server that wants a login cannot be written to; start one without `-enable_login`"
_NO_NUMBER: Final = "no number"
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_.\- ]")

# Steps and values of a key; a value that is not finite is None.
_Line = tuple[list[int], list[float | None]]


class Visdom(Backend, frozen=True, kw_only=True, tag="visdom"):
    """Draws every number as a point of a line in Visdom.

    Attributes:
        server_url: address of a Visdom server, one without a login.
        env: the environment in Visdom. Default: one for the run.
        request_timeout_s: seconds that a request may take.
    """

    execution: ClassVar[Execution] = "worker"
    remote: ClassVar[bool] = True
    batch_bytes: ClassVar[int] = 32 * 1024  # Visdom takes about 60 us for a point
    batch_age_s: ClassVar[float] = 1.0
    needs: ClassVar[Mapping[str, str]] = {"httpx2": "asynctrack[visdom]"}

    server_url: str = _URL
    env: str | None = None
    request_timeout_s: float = REQUEST_TIMEOUT_S
    downsample_interval_s: float | None = 1.0
    writers: WriterSelection = "owner"

    def __post_init__(self) -> None:
        problems = url_problems("server_url", self.server_url)
        problems += timeout_problems("request_timeout_s", self.request_timeout_s)
        if self.env is not None and (not isinstance(self.env, str) or not self.env.strip()):
            problems.append(f"env must be the name of an environment in Visdom; got {self.env!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def external_targets(self) -> list[str]:
        """List the server's address."""
        return [self.server_url]

    def open(self, context: Context) -> Sink:
        """Open a client for the server.

        Raises:
            ActionRequired: httpx2 is missing.
        """
        server = _VisdomClient(
            self.server_url,
            name="Visdom",
            timeout_s=self.request_timeout_s,
            mend={401: _LOGIN, 403: "is it read-only?", 404: "is server_url right?"},
        )
        return _Windows(server, context, self.env or f"{context.project}_{context.run_id}")


class _VisdomClient(HTTPClient):
    """A client for a server some of whose answers are single words."""

    def _decode(self, content: bytes) -> dict[str, Any]:
        try:
            return super()._decode(content)
        except Retry:
            return {"word": content.decode("utf-8", "replace").strip('"')}


class _Windows(Sink):
    """Draws the windows of a run: one per key, and one for its config and summary."""

    def __init__(self, server: HTTPClient, context: Context, env: str) -> None:
        state = context.state or {}
        self._server = server
        self._run_id = context.run_id
        self._name = context.name
        self._env = _STRANGE.sub("-", env)
        self._points: dict[str, int] = state.get("points", {})
        self._texts: dict[str, dict[str, Any]] = state.get("texts") or {"config": dict(context.config), "summary": {}}
        # Points by key that Visdom has beyond those: from a batch that failed in the middle and comes again.
        self._unconfirmed_points: dict[str, int] = {}
        self._needs_resync = self._reopened = bool(self._points)
        self._texts_shown = False

    async def write(self, batch: Batch) -> dict[str, int]:
        lines, skipped = _lines(batch)
        for update in batch.updates:
            update._replace(data=to_json(update.data)).change(self._texts.setdefault(update.kind, {}))
        await self._check_window()
        if batch.updates or not self._texts_shown:
            await self._show_texts()
        self._needs_resync = True
        for key, line in lines.items():
            await self._draw(key, line)
        self._needs_resync = False
        for key, (steps, _) in lines.items():
            self._points[key] = self._points.get(key, 0) + len(steps)
            self._unconfirmed_points[key] = max(0, self._unconfirmed_points.get(key, 0) - len(steps))
        return skipped

    async def checkpoint(self) -> dict[str, Any]:
        return {"points": dict(self._points), "texts": self._texts}

    async def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            await self._check_window()
            if not self._texts_shown:
                await self._show_texts()
            await self._post("save", {"data": [self._env]})
        await self._server.close()

    async def _check_window(self) -> None:
        """Check that Visdom still has the points that it had.

        Raises:
            Resend: it has fewer, or after a crash another number.
        """
        for key in list(self._points) if self._needs_resync else list(self._points)[:1]:
            if (await self._post("win_exists", {"win": self._window(key)})).get("word") != "true":
                raise Resend(f"Visdom has lost the window of {key!r}")
            if self._needs_resync:
                self._unconfirmed_points[key] = await self._count(key) - self._points[key]
                if self._unconfirmed_points[key] < 0 or (self._unconfirmed_points[key] and self._reopened):
                    raise Resend(
                        f"Visdom has {self._unconfirmed_points[key]:+d} points of {key!r} compared with those sent"
                    )
        self._needs_resync = self._reopened = False

    async def _count(self, key: str) -> int:
        """Ask Visdom for the number of points of a key.

        Raises:
            Resend: they are too many to ask for, or something else has changed the window.
        """
        if self._points[key] > _MOST_COUNTED:
            raise Resend(f"{key!r} has {self._points[key]} points, too many to ask Visdom for")
        window = await self._post("win_data", {"win": self._window(key)})
        try:
            return sum(len(line["x"]) for line in window["content"]["data"])
        except (KeyError, TypeError) as error:
            raise Resend(f"the window of {key!r} was changed by another program") from error

    async def _draw(self, key: str, line: _Line) -> None:
        """Add points to a line, except for those that it has already."""
        there = self._unconfirmed_points.get(key, 0)
        steps, values = line[0][there:], line[1][there:]
        window = self._window(key)
        trace = {"type": "scatter", "mode": "lines", "name": self._name, "x": steps, "y": values}
        if key not in self._points:  # makes the window, or replaces an old one
            layout = {"title": {"text": key}, "xaxis": {"title": {"text": "step"}}}
            await self._change_window(
                "events", {"win": window, "data": [trace], "layout": layout, "opts": {"title": key}}
            )
        elif steps:
            more = {"data": [trace], "name": self._name, "append": True, "layout": {}, "opts": {}}
            await self._change_window("update", {"win": window, **more})

    async def _show_texts(self) -> None:
        """Show config and summary."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(to_json(value)))}</td></tr>"
            for kind, values in self._texts.items()
            for name, value in flatten(values, "summary/" if kind == "summary" else "")
        )
        data = [{"type": "text", "content": f"<table>{rows}</table>"}]
        title = {"title": f"{self._name}: config and summary"}
        await self._change_window("events", {"win": self._window(None), "data": data, "layout": {}, "opts": title})
        self._texts_shown = True

    async def _change_window(self, path: str, content: dict[str, Any]) -> None:
        """Change a window; Visdom answers with the window's name."""
        answer = await self._post(path, content)
        if answer.get("word") != content["win"]:
            said = f"{self._server.url} answered {str(answer)[:80]!r} to /{path}"
            raise Resend(said) if path == "update" else Retry(f"{said}, as Visdom does not")

    async def _post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        try:
            return (await self._server.post(path, {"eid": self._env, **content})).data
        except Rejected as no:  # Visdom answers 400 where a login is missing, and to no request of ours otherwise
            raise ActionRequired(f"{no}; {_LOGIN}") from no

    def _window(self, key: str | None) -> str:
        """Return the name of a key's window; without a key, of the window for config and summary."""
        whose = self._run_id if key is None else f"{self._run_id}/{key}"
        return f"window_{hashlib.sha1(whose.encode(), usedforsecurity=False).hexdigest()[:16]}"


def _lines(batch: Batch) -> tuple[dict[str, _Line], dict[str, int]]:
    """Collect the points of a batch by key, and count the records that have none."""
    lines: dict[str, _Line] = {}
    without = 0
    for record in batch.records:
        numbers = numbers_in(record.data)
        without += not numbers
        for key, value in numbers:
            steps, values = lines.setdefault(key, ([], []))
            steps.append(record.step)
            values.append(finite(value))
    return lines, {_NO_NUMBER: without} if without else {}
