"""HTTP: send one request to a backend's server, and turn its answer into a signal for the delivery.

Runs in an asyncio loop.

| Answer | Raised |
| --- | --- |
| 2xx with a JSON object | nothing |
| no connection, a time-out, a broken or cut answer, something else than JSON, 1xx, 408, 425, 429, 499, 5xx | `Retry`, with the pause from `Retry-After` |
| 413 | `TooLarge` |
| 400, 422 | `Rejected` |
| a redirect, a certificate that cannot be trusted, a proxy that refuses, any other 4xx | `ActionRequired`: a person has to solve it |

Nothing is retried here: the delivery does that. Redirects are not followed: they would carry the key elsewhere. Every
request has a connection of its own. So bytes left over from an earlier answer are never taken for this one's, and a
server that closes idle connections causes no failure. Backends send about one request a second.

Credentials come from `endpoint.Credentials`; a key is in no message, `repr` or log.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from asynctrack._system.wording import in_figures
from asynctrack.backends.base import ActionRequired, Rejected, Retry, TooLarge
from asynctrack.backends.endpoint import Credentials

REQUEST_TIMEOUT_S: Final = 60.0
# Limits of one request. Arbitrary: a healthy server accepts a connection far sooner, and sends something at least this often.
_CONNECT_S: Final = 10.0
_SILENCE_S: Final = 30.0
# No backend expects a longer answer; decoding this much holds the loop for about 20 ms.
_MOST_ANSWER_BYTES: Final = 4 << 20
_MOST_ERROR_BYTES: Final = 64 << 10
# Characters that are kept of a server's own description of an error, and of the whole line about it.
_MOST_WORDS: Final = 300
_MOST_LINE: Final = 600

RETRIED: Final = frozenset({408, 425, 429, 499})


class Answer(NamedTuple):
    """A server's answer: its status, and the JSON object in it."""

    status: int
    data: dict[str, Any]


class HTTPClient:
    """A client for a backend's server.

    Args:
        url: its address; `endpoint.url_problems` has found none.
        name: of the software, for messages.
        credentials: sent with every request; no message repeats their secrets.
        timeout_s: seconds a whole request may take, from the connection to the answer's last byte.
        mend: advice for a person, by an answer's status.

    Raises:
        ActionRequired: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        credentials: Credentials | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        mend: Mapping[int, str] | None = None,
    ) -> None:
        self.url: str = url.rstrip("/")
        self._name = name
        self._credentials = credentials or Credentials()
        self._timeout_s = timeout_s
        self._mend = mend or {}
        self._httpx = import_httpx2()
        self._client = self._httpx.AsyncClient(
            headers={
                **self._credentials.headers,
                "connection": "close",
                "accept-encoding": "identity",
                "accept": "application/json",
            },
            timeout=self._httpx.Timeout(min(_SILENCE_S, timeout_s), connect=min(_CONNECT_S, timeout_s)),
            limits=self._httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            verify=self.url.startswith(
                "https:"
            ),  # plain HTTP skips reading the machine's certificates, which takes 20 ms
        )

    def __repr__(self) -> str:
        return f"<HTTPClient {self.url}>"

    async def get(self, path: str, query: Mapping[str, str], *, also: Collection[int] = ()) -> Answer:
        """Send a GET request.

        Args:
            path: below the server's address.
            query: names to values.
            also: statuses whose answers are returned although they are errors.

        Raises:
            Retry, TooLarge, Rejected, ActionRequired: see the table at the top of this module.
        """
        return await self._ask("GET", path, also, params=dict(query))

    async def post(self, path: str, body: Any, *, also: Collection[int] = ()) -> Answer:
        """Send a POST request with JSON.

        Args:
            path: below the server's address.
            body: anything that JSON can hold.
            also: statuses whose answers are returned although they are errors.

        Raises:
            Retry, TooLarge, Rejected, ActionRequired: see the table at the top of this module.
        """
        content = msgspec.json.encode(body)
        return await self._ask("POST", path, also, content=content, headers={"content-type": "application/json"})

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, also: Collection[int], **request: Any) -> Answer:
        httpx = self._httpx
        try:
            with anyio.fail_after(self._timeout_s):
                async with self._client.stream(method, f"{self.url}/{path}", **request) as response:
                    return await self._answer(response, also)
        except TimeoutError:
            raise Retry(self._describe(f"has not answered in {in_figures(self._timeout_s)} s")) from None
        except httpx.ProxyError as error:
            raise ActionRequired(
                self._describe(f"cannot be reached through the proxy: {error}; is HTTP_PROXY right?")
            ) from error
        except httpx.TimeoutException as error:
            raise Retry(self._describe(f"has not answered in time ({type(error).__name__})")) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            if is_distrust(error):
                raise ActionRequired(
                    self._describe(
                        f"cannot be trusted: {error}; is the address right, and its certificate one this machine knows?"
                    )
                ) from error
            raise Retry(self._describe(f"cannot be reached: {error or type(error).__name__}")) from error

    async def _answer(self, response: Any, also: Collection[int]) -> Answer:
        """Read the answer, or raise the signal that its status calls for."""
        status: int = response.status_code
        if 200 <= status < 300 or status in also:
            return Answer(status, self._decode(await self._read(response)))
        words = await self._words(response)
        reason = self._describe(f"answered {status}{': ' if words else ''}{words}")
        if status == 413:
            raise TooLarge(reason)
        if status in (400, 422):
            raise Rejected(reason)
        if status in RETRIED or status >= 500 or status < 200:
            headers = response.headers
            raise Retry(reason, retry_after(headers.get("retry-after"), headers.get("date"), time.time()))
        if status < 400:
            target = str(response.headers.get("location", "")).partition("?")[0]
            raise ActionRequired(
                self._describe(
                    f"answered {status}, a redirect to {target!r:.200}; set the address to one that does not redirect"
                )
            )
        raise ActionRequired(f"{reason}; {self._mend[status]}" if status in self._mend else reason)

    async def _read(self, response: Any) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > _MOST_ANSWER_BYTES:
                raise Retry(self._describe(f"answered with more than {_MOST_ANSWER_BYTES} bytes"))
        return bytes(content)

    def _decode(self, content: bytes) -> dict[str, Any]:
        try:
            return msgspec.json.decode(content, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise Retry(self._describe(f"answered with something else than a JSON object: {content[:80]!r}")) from error

    async def _words(self, response: Any) -> str:
        """Read the server's own description of an error, in one line; nothing where that cannot be read."""
        content = bytearray()
        try:
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > _MOST_ERROR_BYTES:
                    break
        except self._httpx.TransportError:
            pass  # the status alone is enough
        return error_text(bytes(content))

    def _describe(self, what: str) -> str:
        """Build a message about this server, with secrets masked."""
        return self._credentials.hide(f"{self._name} at {self.url} {what}")[:_MOST_LINE]


def error_text(content: bytes) -> str:
    """Extract the error's description from an answer, as one printable line.

    It is `error_code` with `message`, `error` or `detail`; without any of these it is the answer's text.
    """
    text: Any = content.decode("utf-8", "replace")
    try:
        data = msgspec.json.decode(content)
        if isinstance(data, dict):
            text = next((data[key] for key in ("message", "error", "detail") if data.get(key)), text)
            text = f"{data['error_code']}: {text}" if data.get("error_code") else text
    except (msgspec.DecodeError, RecursionError):
        pass
    line = " ".join(str(text).split())
    return "".join(char for char in line if char.isprintable())[:_MOST_WORDS]


def retry_after(value: str | None, date: str | None, now: float) -> float | None:
    """Return the seconds that a server asks to wait; None where it names none, or an invalid or past moment.

    Args:
        value: of `Retry-After`: seconds, or a date.
        date: of `Date`: the server's clock, where it has sent that.
        now: seconds since the epoch by our clock, where it has not.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        until, since = _epoch(text), _epoch(date or "")
        if until is None:
            return None
        seconds = until - (now if since is None else since)
    return seconds if seconds > 0 else None


def import_httpx2() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise ActionRequired(
            f"it needs httpx2, which is not installed here: pip install 'asynctrack[http]' ({error})"
        ) from error
    return httpx2


def _epoch(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None


def is_distrust(error: BaseException | None) -> bool:
    """Return whether TLS failed for good, and not because the connection broke in the middle of it."""
    import ssl

    broken = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, broken):
            return True
        error = error.__cause__ or error.__context__
    return False
