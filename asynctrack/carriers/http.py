"""HTTP: the carrier to a collector's server, `asynctrack serve`. Runs on a host, in its delivery process.

| Answer | Raised |
| --- | --- |
| 412 | `PartIncomplete` |
| 409 | `PartRefused` |
| 413 that a smaller message mends | `TooLarge` |
| 413 for a file | `FileTooLarge` |
| no connection, or one that breaks; 502, 503, 504 of something else than a collector | `Unreachable`, a `Retry` |
| a time-out, a broken answer, something else than a collector's, 408, 425, 429, 499, 5xx | `Retry`, with the pause from `Retry-After` |
| a certificate that cannot be trusted, a redirect, all else | `ActionRequired`: a person has to mend it |

The token comes from the environment or a file, anew after each error, so that what a person mends there counts. It is in no message, `repr` or log.
One connection is kept. A server closes one that is idle, perhaps just as it is used: then the request is sent once more, on a new one. It may have come
through the first time, and what comes twice the merger knows by its position.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from asynctrack.backends.base import ActionRequired, Retry, TooLarge, Unreachable
from asynctrack.backends.endpoint import Credentials
from asynctrack.backends.http import RETRIED, error_text, import_httpx2, is_distrust, retry_after
from asynctrack.carriers import wire
from asynctrack.carriers.base import FileTooLarge, SlowCollector
from asynctrack.carriers.cutter import bytes_behind
from asynctrack.carriers.message import Place
from asynctrack.errors import PartIncomplete, PartRefused

TOKEN_VARIABLE: Final = "ASYNCTRACK_COLLECT_TOKEN"
TOKEN_FILE_VARIABLE: Final = "ASYNCTRACK_COLLECT_TOKEN_FILE"
CA_VARIABLE: Final = "ASYNCTRACK_COLLECT_CA"

# Limits of one request. Arbitrary: a healthy server accepts a connection far sooner, and sends something at least this often.
_CONNECT_S: Final = 10.0
_SILENCE_S: Final = 30.0
# A message that has not gone out by then is cut smaller.
_SEND_S: Final = 40.0
# A connection that was idle for so long is not used again: uvicorn closes its own after 5 s.
_KEEP_S: Final = 4.0
_PIECE_BYTES: Final = 64 * 1024
_MOST_ANSWER_BYTES: Final = 64 * 1024
_MOST_LINE: Final = 600

# What a proxy says in place of a collector that is away.
_NOBODY_BEHIND: Final = (502, 503, 504)

_MEND: Final = {
    401: f"set {TOKEN_VARIABLE}, or {TOKEN_FILE_VARIABLE} with the path of a file that has the token, in the environment of the process that opens the run",
    403: f"the token in {TOKEN_VARIABLE} or {TOKEN_FILE_VARIABLE} is one for other projects",
    404: "is that the address of `asynctrack serve`, and is that as new as this asynctrack?",
}


class HTTPCarrier:
    """The way from one host's journal to a collector's server.

    Args:
        url: its address; `endpoint.url_problems` has found none.
        name: of the host's part.
        journal: the directory of its journal, of which the server is told how much is still to come; None where it is not.
    """

    def __init__(self, url: str, name: wire.PartName, journal: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._name = name
        self._directory = journal
        self._credentials = Credentials()
        self._client: Any = None
        self._journal = b""
        self._is_kept = False  # whether the connection has served a request

    def __repr__(self) -> str:
        return f"<HTTPCarrier of {self._name.host} to {self._url}>"

    @property
    def merges(self) -> bool:
        """Return True: the server answers when it has merged a message."""
        return True

    @property
    def asks_again(self) -> bool:
        """Return False: a server says with each answer what it wants."""
        return False

    def locate(self, journal: bytes) -> Place:
        """Ask the server, on a new connection."""
        self.close()
        self._journal = journal
        body = self._ask("GET", {wire.JOURNAL: journal.hex()})
        try:
            return msgspec.json.decode(body, type=Place)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Retry(self._describe(f"answered with something else than a place: {body[:80]!r}")) from error

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        """Send a message, deflated where that gains something."""
        deflated = wire.deflated(message)
        headers = {} if deflated is None else {"content-encoding": wire.DEFLATE}
        if self._directory is not None:
            headers[wire.BEHIND_HEADER] = str(bytes_behind(self._directory, upto))
        places = {wire.AFTER: wire.place_text(after), wire.UPTO: wire.place_text(upto)}
        self._ask("POST", places, message if deflated is None else deflated, headers)

    def ask_of_files(self, method: str, below: str, query: Mapping[str, str], body: bytes) -> bytes:
        """Send a request about files, see `carriers.file_wire`; returns what the answer holds. Raises what `send` raises, or `FileTooLarge`.

        Args:
            method: of the request.
            below: what the path has behind that of the host's part.
            query: what stands behind the `?`, without the journal.
            body: of the request.
        """
        return self._ask(method, {wire.JOURNAL: self._journal.hex(), **query}, body, below=below)

    def close(self) -> None:
        """Close the connection."""
        client, self._client, self._is_kept = self._client, None, False
        if client is not None:
            client.close()

    def _connect(self) -> None:
        httpx = import_httpx2()
        self._credentials = Credentials.in_header("authorization", _token(), wire.TOKEN_SCHEME)
        self._client = httpx.Client(
            headers={**self._credentials.headers, "accept-encoding": "identity", "accept": "application/json"},
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_S),
            follow_redirects=False,
            verify=_trusted() if self._url.startswith("https:") else False,
        )

    def _ask(
        self,
        method: str,
        query: Mapping[str, str],
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        below: str = "",
    ) -> bytes:
        """Send a request; returns what the answer holds. What raises closes the connection."""
        try:
            return self._ask_kept(method, below, query, body, headers or {})
        except BaseException:
            self.close()
            raise

    def _ask_kept(
        self, method: str, below: str, query: Mapping[str, str], body: bytes, headers: Mapping[str, str]
    ) -> bytes:
        """Send a request, once more where a kept connection turns out to be closed."""
        httpx = import_httpx2()
        if self._client is None:
            self._connect()
        url, kept = self._url + wire.path_of(self._name) + below, self._is_kept
        while True:
            request: dict[str, Any] = {"params": dict(query), "headers": {**headers, **_now()}}
            if method != "GET":
                request["headers"]["content-length"] = str(len(body))
                request["content"] = _pieces(body, time.monotonic() + _SEND_S)
            try:
                with self._client.stream(method, url, **request) as response:
                    answer = self._read(response)
                self._is_kept = True
                return answer
            except (httpx.RemoteProtocolError, httpx.NetworkError) as error:
                if not kept or isinstance(error, httpx.ConnectError):
                    self._fail(error)
                kept = False
            except (httpx.TransportError, httpx.DecodingError, TimeoutError) as error:
                self._fail(error)

    def _read(self, response: Any) -> bytes:
        """Return what an answer holds, or raise what its status means."""
        status: int = response.status_code
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > _MOST_ANSWER_BYTES:
                break
        if 200 <= status < 300:
            return bytes(content)
        refusal = wire.refusal_in(bytes(content))
        words = error_text(bytes(content)) if refusal is None else refusal.error
        reason = self._describe(f"answered {status}{': ' if words else ''}{words}")
        if refusal is not None and refusal.code == "incomplete":
            raise PartIncomplete(self._run, self._name.host, refusal.error, refusal.ring, refusal.seen)
        if refusal is not None and refusal.code == "refused":
            raise PartRefused(self._run, self._name.host, refusal.error)
        if refusal is not None and refusal.limit == "file":
            raise FileTooLarge(reason)
        if status == 413 and (refusal is None or refusal.limit not in ("run", "hosts")):
            raise TooLarge(reason)
        if status in RETRIED or status >= 500 or status < 200:
            found = response.headers
            is_away = refusal is None and status in _NOBODY_BEHIND
            pause_s = retry_after(found.get("retry-after"), found.get("date"), time.time())
            raise (Unreachable if is_away else Retry)(reason, pause_s)
        if status < 400:
            target = str(response.headers.get("location", "")).partition("?")[0]
            raise ActionRequired(self._describe(f"answered {status}, a redirect to {target!r:.200}; set that address"))
        raise ActionRequired(f"{reason}; {_MEND[status]}" if status in _MEND else reason)

    @property
    def _run(self) -> str:
        return f"{self._name.project}/{self._name.run}"

    def _fail(self, error: Exception) -> NoReturn:
        """Say that a request did not come through."""
        httpx = import_httpx2()
        if isinstance(error, httpx.ProxyError):
            raise ActionRequired(
                self._describe(f"cannot be reached through the proxy: {error}; is HTTP_PROXY right?")
            ) from error
        if is_distrust(error):
            ask = f"is the address right, and its certificate one this machine knows, or that in {CA_VARIABLE}?"
            raise ActionRequired(self._describe(f"cannot be trusted: {error}; {ask}")) from error
        if isinstance(error, httpx.ConnectTimeout):
            raise Unreachable(self._describe("cannot be reached: no connection in time")) from error
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            raise SlowCollector(self._describe(f"has not answered in time ({type(error).__name__})")) from error
        is_mute = isinstance(error, httpx.RemoteProtocolError) and not self._is_kept and self._url.startswith("http:")
        ask = " Is it one for https?" if is_mute else ""  # which hangs up without a word
        raise Unreachable(self._describe(f"cannot be reached: {error or type(error).__name__}{ask}")) from error

    def _describe(self, what: str) -> str:
        """Build a message about the server, with the token masked."""
        return self._credentials.hide(f"the collector at {self._url} {what}")[:_MOST_LINE]


def _token() -> str | None:
    """Read the token; None where there is none.

    Raises:
        ActionRequired: it cannot be read, or be one.
    """
    name, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
    if not token and (path := os.environ.get(TOKEN_FILE_VARIABLE, "")):
        name = f"the file in {TOKEN_FILE_VARIABLE}"
        try:
            with open(path, encoding="utf-8") as file:
                token = file.read(_PIECE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ActionRequired(f"{name} cannot be read: {error}") from error
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise ActionRequired(f"{name} cannot be a token: it has characters that no header can hold; set it again")
    return token or None


def _trusted() -> Any:
    """Return whom to trust: those of the machine, or of a file.

    Raises:
        ActionRequired: the file cannot be read.
    """
    path = os.environ.get(CA_VARIABLE, "")
    if not path:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ActionRequired(f"{path}, which {CA_VARIABLE} names, has no certificates: {error}") from error


def _now() -> dict[str, str]:
    return {wire.TIME_HEADER: str(time.time_ns())}


def _pieces(body: bytes, deadline: float) -> Iterator[bytes]:
    """Yield a body in pieces; a server that takes each of them slowly is not waited for.

    Raises:
        TimeoutError: it has taken too long.
    """
    for at in range(0, len(body), _PIECE_BYTES):
        if time.monotonic() > deadline:
            raise TimeoutError
        yield body[at : at + _PIECE_BYTES]
