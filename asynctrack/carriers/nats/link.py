"""NATS link: a connection to a NATS server, for hosts and collectors. Runs in an asyncio loop.

| What happens | Raised |
| --- | --- |
| no server answers, or it stops | `Retry` |
| the servers do not know who asks, or do not let it do this; a certificate that is not trusted; no library, no JetStream | `ActionRequired` |
| JetStream says no | `JetStreamError`, whose `meaning` says what to do |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from asynctrack._system.wording import see
from asynctrack.backends.base import ActionRequired, Retry, Unreachable
from asynctrack.backends.endpoint import Credentials
from asynctrack.backends.http import is_distrust
from asynctrack.backends.nats_address import servers_in
from asynctrack.carriers.nats.errors import Denied, JetStreamError, NobodyThere, TookTooLong, TooLong, import_nats
from asynctrack.carriers.nats.identity import CA_VARIABLE, read_identity, trusted

# Of one server: a healthy one answers far sooner. Arbitrary.
_CONNECT_S: Final = 5.0
# Of one request to JetStream: a leader that has to be elected anew takes some seconds.
ANSWER_S: Final = 10.0
# It is asked again after so long.
_TRY_S: Final = 2.0
# The server is asked so often whether it lives; two that it does not answer end the connection.
_PING_S: Final = 10
_CLOSE_S: Final = 1.0
_MOST_LINE: Final = 600
_DENIED: Final = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
# What servers say of somebody whom they do not know, or not any more.
_IDENTITY_WORDS: Final = ("authorization violation", "authentication", "account expired", "credential", "nkeys:")


class NATSLink:
    """A connection. Used from one loop.

    Args:
        url: of the servers; `address_problems` has found none in it.
        name: by which the servers' own tools show this connection.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._credentials = Credentials()
        self._client: Any = None
        self._denied: dict[str, str] = {}
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<NATSLink to {self._url}>"

    @property
    def client(self) -> Any:
        """Return the connection as nats-py has it.

        Raises:
            Retry: there is none.
        """
        if not self.is_open:
            raise Unreachable(self.describe("has closed the connection"))
        return self._client

    @property
    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return self._client is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Return how many bytes the server takes in a message, headers included."""
        return int(self.client.max_payload)

    @property
    def is_clustered(self) -> bool:
        """Return whether the server is one of a cluster."""
        return bool(self.client._server_info.get("cluster"))

    async def open(self) -> None:
        """Connect to one of the servers, in any order. A connection that breaks ends."""
        await self.close()
        self._denied.clear()
        how, self._credentials = read_identity()
        servers = servers_in(self._url)
        random.shuffle(servers)
        failures: list[Exception] = []
        for server in servers:
            try:
                self._client = await self._connect(server, how)
                return
            except Exception as error:  # of one server: another may be well
                failures.append(error)
        self._fail(next(filter(_is_persons, failures), failures[0]))

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # it may be broken
                await asyncio.wait_for(client.close(), _CLOSE_S)

    async def ask(
        self, subject: str, data: bytes = b"", headers: Mapping[str, str] | None = None, *, timeout_s: float = ANSWER_S
    ) -> Any:
        """Send a request; returns the message that answers it.

        Args:
            subject: of the request.
            data: what it holds.
            headers: that it has.
            timeout_s: how long to wait.

        Raises:
            NobodyThere: no one listens to this subject.
            TookTooLong: no answer has come.
            ActionRequired: this user may not send that, or hear the answer.
        """
        nats = import_nats()
        sent = asyncio.ensure_future(
            self.client.request(subject, data, timeout=timeout_s, headers=dict(headers or {}) or None)
        )
        try:
            await self._unless_broken(sent, subject)
            return sent.result()
        except nats.errors.NoRespondersError as error:
            raise NobodyThere(self.describe(f"knows nobody who answers {subject}")) from error
        except (nats.errors.TimeoutError, TimeoutError) as error:
            self._check_denied(subject)
            raise TookTooLong(self.describe(f"has not answered {subject} within {timeout_s:g} s")) from error
        except (nats.errors.Error, OSError) as error:
            self._fail(error)
        finally:
            sent.cancel()

    async def api(
        self, verb: str, what: Mapping[str, Any] | None = None, *, timeout_s: float = ANSWER_S
    ) -> dict[str, Any]:
        """Ask JetStream, again and again where it says nothing. So what is asked must be such that it may be done twice.

        Args:
            verb: what stands behind `$JS.API.`, such as `STREAM.INFO.NAME`.
            what: the request.
            timeout_s: how long to wait.

        Raises:
            JetStreamError: it has said no.
        """
        body = b"" if what is None else msgspec.json.encode(what)
        until = time.monotonic() + timeout_s
        while True:
            try:
                answer = await self.ask(f"$JS.API.{verb}", body, timeout_s=_TRY_S)
                return self.answer_in(answer.data)
            except NobodyThere as error:
                raise self._no_jetstream() from error
            except TookTooLong:  # a cluster without a leader does not answer, and forgets what it was asked
                if time.monotonic() >= until:
                    raise

    def answer_in(self, data: bytes) -> dict[str, Any]:
        """Return what JetStream has answered.

        Raises:
            JetStreamError: it has said no.
        """
        try:
            found = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Retry(self.describe(f"answered with something else than JSON: {data[:80]!r}")) from error
        said = found.get("error")
        if isinstance(said, dict):
            raise JetStreamError(
                int(said.get("code") or 0), int(said.get("err_code") or 0), self.hide(str(said.get("description", "")))
            )
        return found

    def hide(self, text: str) -> str:
        """Return a text with every secret masked."""
        return self._credentials.hide(text)

    def describe(self, what: str) -> str:
        """Build a message about the servers, with secrets masked."""
        return self.hide(f"NATS at {self._url} {what}")[:_MOST_LINE]

    def _no_jetstream(self) -> ActionRequired | Retry:
        """Return what it means that nobody answers for JetStream."""
        if self.client._server_info.get("jetstream"):  # a cluster without a leader
            return NobodyThere(self.describe("has JetStream, which does not answer now"))
        return ActionRequired(
            self.describe(
                "has no JetStream for this account; start it with `nats-server --jetstream`, or turn it on in its configuration"
            )
        )

    async def _connect(self, server: str, how: Mapping[str, Any]) -> Any:
        nats = import_nats()
        client = nats.aio.client.Client()

        seen: list[Exception] = []

        async def on_error(error: Exception) -> None:
            self._note_denial(str(error))
            seen[:] = [error]

        async def on_end() -> None:
            self._news.set()

        needs_tls = server.startswith("tls:")
        options = {
            key: _only_by_tls(client, needs_tls, value) if callable(value) else value for key, value in how.items()
        }
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    servers=[server],
                    name=self._name,
                    error_cb=on_error,
                    disconnected_cb=on_end,
                    closed_cb=on_end,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.2,
                    dont_randomize=True,
                    connect_timeout=_CONNECT_S,
                    ping_interval=_PING_S,
                    tls=trusted(needed=needs_tls),
                    **options,
                )
            if needs_tls:  # records are secret, too
                _check_tls(client)
        except BaseException as error:
            with contextlib.suppress(Exception):  # it was never there
                await asyncio.wait_for(client.close(), _CLOSE_S)
            if isinstance(error, nats.errors.NoServersError) and seen:
                raise seen[0] from error
            raise
        return client

    # What goes wrong

    def _note_denial(self, said: str) -> None:
        """Note what the server says beside its answers: that something is not allowed."""
        found = _DENIED.search(said)
        if found is not None:
            self._denied[found[2].lower()] = found[1].lower()
            self._news.set()

    def _check_denied(self, subject: str) -> None:
        for denied, how in self._denied.items():
            if denied == subject.lower() or (how == "subscription" and "_inbox" in denied):
                verb = "publish to" if how == "publish" else "subscribe to"
                raise Denied(
                    self.describe(
                        f"does not let this user {verb} {subject if how == 'publish' else '_INBOX.>'}; give it the permission"
                    ),
                    subject,
                )

    async def _unless_broken(self, sent: asyncio.Future[Any], subject: str) -> None:
        """Wait for a request, or until the server says that it is not allowed, or the connection ends."""
        while not sent.done():
            self._news.clear()
            self._check_denied(subject)
            if not self.is_open:
                raise Unreachable(self.describe("has ended the connection"))
            news = asyncio.ensure_future(self._news.wait())
            await asyncio.wait([sent, news], return_when=asyncio.FIRST_COMPLETED)
            news.cancel()

    def _fail(self, error: Exception) -> NoReturn:
        """Say that there is no connection, or none any more."""
        nats = import_nats()
        if isinstance(error, ActionRequired | Retry):
            raise error
        if _is_about_identity(error):
            who = f"set ASYNCTRACK_NATS_CREDS, or another variable, in the environment of this process{see('how_to/nats.md')}"
            raise ActionRequired(self.describe(f"does not let this user in: {error}; {who}")) from error
        if is_distrust(error):
            ask = f"is the address right, and its certificate one this machine knows, or that in {CA_VARIABLE}?"
            raise ActionRequired(self.describe(f"cannot be trusted: {error}; {ask}")) from error
        if isinstance(error, nats.errors.MaxPayloadError):
            raise TooLong(self.describe("takes no message of this size")) from error
        raise Unreachable(self.describe(f"cannot be reached: {error or type(error).__name__}")) from error


def _only_by_tls(client: Any, needs_tls: bool, value: Callable[[], Any]) -> Callable[[], Any]:
    """Return a secret that goes out only over TLS where that was asked for: nats-py takes a server without it, too."""

    def read() -> Any:
        if needs_tls:
            _check_tls(client)
        return value()

    return read


def _check_tls(client: Any) -> None:
    """See that a server has been asked by TLS.

    Raises:
        ActionRequired: it does not ask for it.
    """
    if not client._server_info.get("tls_required"):
        raise ActionRequired(
            "the NATS server does not ask for TLS, and the address says tls://; nothing secret was sent"
        )


def _is_about_identity(error: Exception) -> bool:
    nats = import_nats()
    kinds = (nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError)
    return isinstance(error, kinds) or any(word in str(error).lower() for word in _IDENTITY_WORDS)


def _is_persons(error: Exception) -> bool:
    """Return whether a person has to mend what is wrong; that is said rather than that another server is away."""
    return isinstance(error, ActionRequired) or is_distrust(error) or _is_about_identity(error)
