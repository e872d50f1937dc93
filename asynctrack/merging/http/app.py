"""App: answers the requests of hosts, as `carriers.wire` describes them, with Starlette."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Final
from urllib.parse import parse_qs

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from asynctrack.carriers import file_wire, wire
from asynctrack.carriers.file_wire import FileTarget
from asynctrack.carriers.wire import PartName, Refusal
from asynctrack.merging.http.tokens import TokenFile
from asynctrack.merging.http.wrong_tokens import WINDOW_S, WrongTokens
from asynctrack.merging.server import file_requests
from asynctrack.merging.server.guarded_merger import BatchPost, Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.refused import Refused, refusal_of
from asynctrack.merging.server.served_runs import ServedRuns

# For how long a body may come: this, and a second for each 16 KiB. Arbitrary: half a MiB has 92 s, as slow lines need.
_BODY_S: Final = 60.0
_BODY_BYTES_S: Final = 16 << 10
# When a host is to come again that was told to.
_AGAIN_S: Final = 1
# All that there are: each is answered in the same way.
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
# What a 64 bit number holds.
_LAST: Final = (1 << 63) - 1
_JSON: Final = "application/json"


class CollectorApp:
    """Answers requests.

    Args:
        runs: that are merged.
        limits: of the collector.
        tokens: who may write what; None where anybody may.
    """

    def __init__(self, runs: ServedRuns, limits: ServerLimits, tokens: TokenFile | None) -> None:
        self._runs = runs
        self._limits = limits
        self._tokens = tokens
        self._wrong = WrongTokens()
        self._in_flight = 0
        self.asgi = Starlette(routes=[Route("/{path:path}", self._answer, methods=_METHODS)])

    async def _answer(self, request: Request) -> Response:
        path = _raw_path(request)
        name = wire.name_in(path) if request.method in ("GET", "POST") else None
        files = file_wire.target_in(path)
        if files is not None and request.method == file_requests.METHODS[files.kind]:
            name = files.part
        if name is None:
            expected = f"expected GET or POST of /{wire.VERSION}/PROJECT/RUN/HOST"
            return _refuse(Refusal(error=f"there is no such path here: {expected}", code="no_such_path"))
        try:
            self._check_token(request, name.project)
            sign = _sign(request, name.host)
            if files is not None:
                return await self._take_files(request, files, sign)
            if request.method == "POST":
                return await self._take(request, name, sign)
            return await self._place(request, name, sign)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        except Exception as error:  # of one request: the others go on
            return _refuse(refusal_of(error, name))

    def _check_token(self, request: Request, project: str) -> None:
        if self._tokens is None:
            return
        address = request.client.host if request.client is not None else ""
        self._wrong.check(address)
        try:
            self._tokens.check(request.headers.get("authorization"), project)
        except Refused as error:
            if error.refusal.code == "wrong_token":
                self._wrong.note(address, right=False)
            raise
        self._wrong.note(address, right=True)

    async def _place(self, request: Request, name: PartName, sign: Sign) -> Response:
        journal = wire.journal_in(_query(request, wire.JOURNAL))
        if journal is None:
            raise Refused("garbage", f"expected ?{wire.JOURNAL}= with 32 hexadecimal digits")
        place = await self._runs.place_of(name, sign, journal)
        return Response(msgspec.json.encode(place), media_type=_JSON)

    async def _take(self, request: Request, name: PartName, sign: Sign) -> Response:
        after, upto = (wire.place_in(_query(request, which)) for which in (wire.AFTER, wire.UPTO))
        if after is None or upto is None:
            raise Refused("garbage", f"expected ?{wire.AFTER}= and {wire.UPTO}= with SEGMENT:OFFSET:MADE each")
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", wire.DEFLATE):
            raise Refused("garbage", f"expected Content-Encoding: {wire.DEFLATE}, or none; got {encoding!r:.40}")
        reserved = _Reserved(self)
        try:
            body = await self._read(request, reserved)
            await self._runs.take(name, BatchPost(sign, after, upto, body, encoding == wire.DEFLATE))
        finally:
            reserved.free()
        return Response(status_code=204)

    async def _take_files(self, request: Request, target: FileTarget, sign: Sign) -> Response:
        reserved = _Reserved(self)
        try:
            body = await self._read(request, reserved)
            answer = await file_requests.answer(self._runs, target, partial(_query, request), body, sign)
        finally:
            reserved.free()
        return Response(answer, media_type=_JSON) if answer else Response(status_code=204)

    async def _read(self, request: Request, reserved: _Reserved) -> bytes:
        """Return the body.

        Raises:
            Refused: it is too large or too slow, or too many are here already.
        """
        said = request.headers.get("content-length", "")
        self._check_size(int(said) if said.isdecimal() else 0)
        began_at, parts = asyncio.get_running_loop().time(), []
        try:
            async with asyncio.timeout_at(began_at + _BODY_S) as limit:
                async for part in request.stream():
                    parts.append(part)
                    self._check_size(reserved.size + len(part))
                    reserved.add(len(part))
                    limit.reschedule(began_at + _BODY_S + reserved.size / _BODY_BYTES_S)
        except TimeoutError:
            raise Refused("not_now", "the body of the request came too slowly") from None
        return b"".join(parts)

    def _check_size(self, size: int) -> None:
        if size > self._limits.message_bytes:
            raise Refused(
                "too_large",
                f"expected a message of at most {self._limits.message_bytes} bytes (--max-message of the collector)",
                limit="message",
            )

    def _reserve(self, size: int) -> None:
        if self._in_flight and self._in_flight + size > max(self._limits.in_flight_bytes, self._limits.message_bytes):
            raise Refused("not_now", "the collector has as much to write as it holds; try again")
        self._in_flight += size


class _Reserved:
    """The share of one request in what is in flight."""

    def __init__(self, app: CollectorApp) -> None:
        self.size = 0
        self._app = app

    def add(self, size: int) -> None:
        """Take more."""
        self._app._reserve(size)
        self.size += size

    def free(self) -> None:
        """Give it back."""
        self._app._in_flight -= self.size
        self.size = 0


def _raw_path(request: Request) -> str:
    raw = request.scope.get("raw_path") or b""
    return bytes(raw).partition(b"?")[0].decode("ascii", "replace")


def _query(request: Request, name: str) -> str:
    """Return what stands in the query under a name; empty where it is not there just once."""
    try:
        found = parse_qs(request.scope["query_string"].decode("ascii"), max_num_fields=8).get(name, [])
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""


def _sign(request: Request, host: str) -> Sign:
    """Return the sign of life that a request is. A page in a browser can set no such header for another's server."""
    sent_ns = _number(request, wire.TIME_HEADER)
    if sent_ns is None:
        raise Refused("garbage", f"expected the header {wire.TIME_HEADER} with nanoseconds since the epoch")
    return Sign(host, sent_ns, time.time_ns(), _number(request, wire.BEHIND_HEADER))


def _number(request: Request, header: str) -> int | None:
    """Return the number that a header has, at most what 64 bits hold; None where it has none."""
    said = request.headers.get(header, "")
    return min(int(said), _LAST) if said.isascii() and said.isdecimal() and len(said) < 20 else None


def _refuse(refusal: Refusal) -> Response:
    headers = {"Retry-After": str(_AGAIN_S)} if refusal.code in ("not_now", "disk_full") else {}
    if refusal.code == "too_many_tries":
        headers["Retry-After"] = str(round(WINDOW_S))
    if refusal.code in ("no_token", "wrong_token"):
        headers["WWW-Authenticate"] = wire.TOKEN_SCHEME
    return Response(
        msgspec.json.encode(refusal), status_code=wire.STATUS[refusal.code], headers=headers, media_type=_JSON
    )
