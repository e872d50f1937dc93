"""Guard: lets in who knows the token, and no page of another site. Runs in the server of the page.

Each request is asked for three things before anything else of it counts. `Host` has to be a name of this server, else a site whose name leads here could
read runs (DNS rebinding). `Sec-Fetch-Site`, which browsers set and no page can, has to say that no other site asks. And the token has to be known: it comes in
the address that was printed, once, and is a cookie from there on; programs send it as `Authorization: Bearer`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from asynctrack.ui.plain_json import encode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
POLICY_HEADER: Final = b"content-security-policy"
# What every answer has, unless it has another of the same name.
_HEADERS: Final = {
    POLICY_HEADER: CONTENT_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_METHODS: Final = ("GET", "HEAD", "POST")
_API: Final = "/api/"
_TOKEN: Final = "token"
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")
_LOCAL: Final = frozenset({"localhost"})
_CLOSED: Final = "expected the token: open the address that was printed when the server started"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Says who may come in.

    Attributes:
        token: that is asked for.
        port: at which the server listens: a browser's cookies do not tell ports apart.
        hosts: names by which it may be asked beside those of loopback.
        any_address: whether it may be asked by any address, too; no site can have one as its name.
        secure: whether it is reached by TLS alone.
        once: opens the page once, as the token does: for an address that other users of the machine can see.
    """

    token: str
    port: int
    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    secure: bool = False
    once: str | None = None

    @property
    def cookie(self) -> str:
        """Return the name of the cookie."""
        return f"asynctrack_ui_{self.port}"

    def cookie_value(self) -> str:
        """Return what the cookie says: no token, so that it is of no use elsewhere."""
        return hmac.new(self.token.encode(), self.cookie.encode(), hashlib.sha256).hexdigest()

    def knows_host(self, said: str) -> bool:
        """Return whether a `Host` is this server; ports do not count."""
        found = _HOST.fullmatch(said.lower())
        if found is None:
            return False
        name = found[1].strip("[]").rstrip(".") if found[1] != "." else ""
        if name in _LOCAL or name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self.any_address

    def is_token(self, said: str) -> bool:
        """Return whether a text is the token, in a time that does not tell how much of it is right."""
        return is_same(said, self.token)

    def is_cookie(self, said: str) -> bool:
        """Return whether a text is the value of the cookie."""
        return is_same(said, self.cookie_value())


class Guard:
    """Stands before an app, and sees to the headers of its answers.

    Args:
        app: answers who was let in.
        access: who is.
    """

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access
        self._is_used = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        guarded = _with_headers(send)
        headers = _Headers(scope)
        if (refusal := self._refusal(scope, headers)) is not None:
            await _refuse(scope, guarded, *refusal)
        elif (said := _token_in(scope)) is not None:
            await self._open(scope, guarded, said)
        elif not self._is_known(headers):
            await _refuse(scope, guarded, 403, _CLOSED)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: _Headers) -> tuple[int, str] | None:
        hosts = headers.all(b"host")
        if len(hosts) != 1 or not self._access.knows_host(hosts[0]):
            said = ", ".join(hosts) or "none"
            return (
                421,
                f"this server is not {said!r:.200}: use the address that was printed, or start it with --allow-host",
            )
        if scope["method"] not in _METHODS or (scope["method"] == "POST" and not scope["path"].startswith(_API)):
            return 405, "this server only reads: expected GET, or POST of a query"
        if not _is_own(headers, hosts[0]):
            return 403, "another site asks for this: paste the address into the browser's address bar"
        return None

    async def _open(self, scope: Scope, send: Send, said: str) -> None:
        """Give a browser the cookie for the token in its address, and have it come again without that."""
        access = self._access
        if not (access.is_token(said) or self._is_once(said)):
            await _refuse(scope, send, 403, "this is not the token: open the address that was printed last")
            return
        pairs = [(name, value) for name, value in _pairs(scope) if name != _TOKEN]
        place = f"./{scope['path'].rpartition('/')[2]}" + (f"?{urlencode(pairs)}" if pairs else "")
        secure = "; Secure" if access.secure else ""
        cookie = f"{access.cookie}={access.cookie_value()}; Path=/; HttpOnly; SameSite=Strict{secure}"
        fields = [(b"location", place.encode("ascii", "ignore")), (b"set-cookie", cookie.encode())]
        await _answer(send, 303, fields, b"")

    def _is_once(self, said: str) -> bool:
        once = self._access.once
        is_right = once is not None and not self._is_used and is_same(said, once)
        self._is_used = self._is_used or is_right
        return is_right

    def _is_known(self, headers: _Headers) -> bool:
        scheme, _, token = headers.one(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and self._access.is_token(token.strip()):
            return True
        return any(self._access.is_cookie(value) for value in headers.cookies(self._access.cookie))


def is_same(said: str, secret: str) -> bool:
    """Compare a text with a secret, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(said.encode("utf-8", "surrogateescape"), secret.encode("utf-8", "surrogateescape"))


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._found: list[tuple[bytes, bytes]] = scope["headers"]

    def all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self._found if key == name]

    def one(self, name: bytes) -> str:
        return next(iter(self.all(name)), "")

    def cookies(self, name: str) -> list[str]:
        pairs = [pair.strip().partition("=") for value in self.all(b"cookie") for pair in value.split(";")]
        return [value for key, _, value in pairs if key == name]


def _is_own(headers: _Headers, host: str) -> bool:
    """Return whether no other site asks. A page of another port is another site, but a user may follow its link."""
    site = headers.one(b"sec-fetch-site").lower()
    if not site:  # no browser, or one that comes by plain HTTP from another machine
        origin = headers.one(b"origin").lower()
        return not origin or origin.partition("://")[2] == host.lower()
    is_link = headers.one(b"sec-fetch-mode") == "navigate" and headers.one(b"sec-fetch-dest") == "document"
    return site in ("same-origin", "none") or (site == "same-site" and is_link)


def _token_in(scope: Scope) -> str | None:
    """Return the token in a page's address; None where there is none."""
    if scope["path"].startswith(_API):
        return None
    return next((value for name, value in _pairs(scope) if name == _TOKEN), None)


def _pairs(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return []


def _with_headers(send: Send) -> Send:
    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            fields = list(message.get("headers", ()))
            there = {name.lower() for name, _ in fields}
            message["headers"] = fields + [pair for pair in _HEADERS.items() if pair[0] not in there]
        await send(message)

    return guarded


async def _refuse(scope: Scope, send: Send, status: int, error: str) -> None:
    is_page = not scope["path"].startswith(_API)
    body = f"asynctrack: {error}\n".encode("utf-8", "replace") if is_page else encode({"error": error})
    kind = b"text/plain; charset=utf-8" if is_page else b"application/json"
    fields = [(b"content-type", kind), *([(b"allow", b"GET, HEAD, POST")] if status == 405 else [])]
    await _answer(send, status, fields, b"" if scope["method"] == "HEAD" else body)


async def _answer(send: Send, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*fields, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
