"""HTTP: one request to a backend's server, and what its answer means to the delivery. Runs in an asyncio loop.

| What comes | What is raised |
| --- | --- |
| 2xx with a JSON object | nothing |
| no connection, a time-out, a broken or cut answer, something else than JSON, 1xx, 408, 425, 429, 499, 5xx | `Retry`, with `Retry-After` where it says when |
| 413 | `TooLarge` |
| 400, 422 | `Rejected` |
| a redirect, a certificate that cannot be trusted, a proxy that refuses, any other 4xx | `ActionRequired`: a person has to mend it |

There is no retry here: the delivery has the one there is. Redirects are not followed: they would carry the key elsewhere. Every
request has a connection of its own, so that what is left of an earlier answer is never taken for this one's, and a server that closes
idle connections fails nothing; backends send about one request a second.

Who we are there says `endpoint.Credentials`; a key is in no message, `repr` or log.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from asynctrack.backends.base import ActionRequired, Rejected, Retry, TooLarge
from asynctrack.backends.endpoint import Credentials

REQUEST_TIMEOUT_S: Final = 60.0
# Of one request. Arbitrary: a server that is well accepts a connection in far less, and says something at least this often.
_CONNECT_S: Final = 10.0
_SILENCE_S: Final = 30.0
# A longer answer is not one of ours; decoding one of this size holds the loop for about 20 ms.
_MOST_ANSWER_BYTES: Final = 4 << 20
_MOST_ERROR_BYTES: Final = 64 << 10
# Of what a server says about an error, and of a whole line about it, in characters.
_MOST_WORDS: Final = 300
_MOST_LINE: Final = 600

_RETRIED: Final = frozenset({408, 425, 429, 499})


class Answer(NamedTuple):
    """What a server said."""

    status: int
    data: dict[str, Any]


class HTTPClient:
    """A backend's server.

    Args:
        url: its address; `endpoint.url_problems` has found none.
        name: of the software, for messages.
        credentials: who we are there; what they hide is never repeated, whatever the server says.
        timeout_s: seconds a whole request may take, from the connection to the answer's last byte.
        mend: what a person can do about an answer, by its status.

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
        self._httpx = _import_httpx2()
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
            verify=self.url.startswith("https:"),  # reading the machine's certificates takes 20 ms
        )

    def __repr__(self) -> str:
        return f"<HTTPClient {self.url}>"

    async def get(self, path: str, query: Mapping[str, str], *, also: Collection[int] = ()) -> Answer:
        """Ask for something; as `post`."""
        return await self._ask("GET", path, also, params=dict(query))

    async def post(self, path: str, body: Any, *, also: Collection[int] = ()) -> Answer:
        """Send something that JSON can hold.

        Args:
            path: below the server's address.
            body: what to send.
            also: statuses whose answers are returned although they are errors.

        Raises:
            Retry, TooLarge, Rejected, ActionRequired: as the module says.
        """
        content = msgspec.json.encode(body)
        return await self._ask("POST", path, also, content=content, headers={"content-type": "application/json"})

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, also: Collection[int], **request: Any) -> Answer:
        httpx = self._httpx
        try:
            with anyio.fail_after(self._timeout_s):
                async with self._client.stream(method, f"{self.url}/{path}", **request) as response:
                    return await self._answer(response, also)
        except TimeoutError:
            raise Retry(self._describe(f"has not answered in {self._timeout_s:g} s")) from None
        except httpx.ProxyError as error:
            raise ActionRequired(
                self._describe(f"cannot be reached through the proxy: {error}; is HTTP_PROXY right?")
            ) from error
        except httpx.TimeoutException as error:
            raise Retry(self._describe(f"has not answered in time ({type(error).__name__})")) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            if _is_distrust(error):
                raise ActionRequired(
                    self._describe(
                        f"cannot be trusted: {error}; is the address right, and its certificate one this machine knows?"
                    )
                ) from error
            raise Retry(self._describe(f"cannot be reached: {error or type(error).__name__}")) from error

    async def _answer(self, response: Any, also: Collection[int]) -> Answer:
        """What the server says; raises what it means."""
        status: int = response.status_code
        if 200 <= status < 300 or status in also:
            return Answer(status, self._decode(await self._read(response)))
        words = await self._words(response)
        reason = self._describe(f"answered {status}{': ' if words else ''}{words}")
        if status == 413:
            raise TooLarge(reason)
        if status in (400, 422):
            raise Rejected(reason)
        if status in _RETRIED or status >= 500 or status < 200:
            headers = response.headers
            raise Retry(reason, retry_after(headers.get("retry-after"), headers.get("date"), time.time()))
        if status < 400:
            target = str(response.headers.get("location", "")).partition("?")[0]
            raise ActionRequired(
                self._describe(
                    f"answered {status}, a redirect to {target!r:.200}; give the address that answers itself"
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
        """What the server says about an error, in a line; nothing where that cannot be read."""
        content = bytearray()
        try:
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > _MOST_ERROR_BYTES:
                    break
        except self._httpx.TransportError:
            pass  # the status says enough
        return error_text(bytes(content))

    def _describe(self, what: str) -> str:
        """A line about this server, without what must never be repeated."""
        return self._credentials.hide(f"{self._name} at {self.url} {what}")[:_MOST_LINE]


def error_text(content: bytes) -> str:
    """What an answer says about an error: `error_code` and `message`, `error` or `detail`, else its text; one printable line."""
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
    """Seconds that a server asks for; None where it does not, or asks for something in the past or strange.

    Args:
        value: of `Retry-After`: seconds, or a date.
        date: of `Date`: the server's clock, where it has said that.
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


def _import_httpx2() -> Any:
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


def _is_distrust(error: BaseException | None) -> bool:
    """Whether TLS failed for good: not because the connection broke in the middle of it."""
    import ssl

    broken = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, broken):
            return True
        error = error.__cause__ or error.__context__
    return False
