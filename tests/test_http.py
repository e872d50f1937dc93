"""HTTP: whatever a server does ends in the verdict that is right for it, in bounded time, and no key is ever repeated."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import raw_server
from raw_server import Answer, Behaviour, RawServer, no_server, says, says_bytes

from asynctrack.backends import http
from asynctrack.backends.base import ActionRequired, Rejected, Retry, Signal, TooLarge
from asynctrack.backends.endpoint import Credentials, read_secret, secret_problems, url_problems
from asynctrack.backends.http import HTTPClient, retry_after

SECRET = "sesame-4711"
# Far more than any request here may take, on any machine.
HANG_S = 20.0


def ask(url: str, *, timeout_s: float = HANG_S, body: Any = None, **options: Any) -> http.Answer:
    """One request, from a loop of its own."""

    async def go() -> http.Answer:
        credentials = Credentials.in_header("authorization", SECRET, "Bearer")
        server = HTTPClient(url, name="Test", credentials=credentials, timeout_s=timeout_s, mend={401: "set KEY"})
        try:
            return await server.post("path", {"a": 1} if body is None else body, **options)
        finally:
            await server.close()

    return asyncio.run(go())


def verdict(behaviour: Behaviour, *, timeout_s: float = HANG_S, body: Any = None) -> Signal:
    """What one request to a server that behaves so raises."""
    with RawServer(script=[behaviour]) as server, pytest.raises(Signal) as raised:
        ask(server.url, timeout_s=timeout_s, body=body)
    assert SECRET not in str(raised.value)
    assert len(str(raised.value)) < 1000
    return raised.value


@pytest.mark.parametrize(
    "behaviour",
    [
        raw_server.well,
        raw_server.chunked,
        raw_server.continues_first,
        raw_server.drips,
        raw_server.keeps_the_connection,
    ],
    ids=lambda behaviour: behaviour.__name__,
)
def test_a_proper_answer_is_taken_however_it_comes(behaviour: Behaviour) -> None:
    with RawServer(lambda request: Answer(200, {"got": request.json()}), [behaviour]) as server:
        assert ask(server.url) == (200, {"got": {"a": 1}})
        assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.system
@pytest.mark.parametrize(
    "behaviour",
    [
        raw_server.resets_before_reading,
        raw_server.resets_after_the_head,
        raw_server.processes_and_resets,
        raw_server.closes_before_answering,
        raw_server.half_closes,
        raw_server.garbage_status,
        raw_server.switches_protocols,
        raw_server.cuts_the_body,
        raw_server.cuts_the_headers,
        raw_server.cuts_a_chunk,
        raw_server.huge,
        raw_server.huge_headers,
        says_bytes(b""),
        says_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"),
        says_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
        says(200, b""),
        says(200, b"<html>sign in</html>"),
        says(200, b'{"data": '),
        says(200, b"[1]"),
        says(200, b"null"),
        says(200, b"\xff\xfe"),
        says(200, b"[" * 100_000),
        says(204),
        says(408),
        says(425),
        says(429),
        says(500, b"<html>oops</html>"),
        says(502),
        says(503, {"message": "busy"}),
        says(504),
    ],
    ids=lambda behaviour: behaviour.__name__,
)
def test_what_may_pass_is_tried_again(behaviour: Behaviour) -> None:
    error = verdict(behaviour)
    assert isinstance(error, Retry)
    assert error.after_s is None


@pytest.mark.system
@pytest.mark.parametrize(
    "behaviour",
    [
        raw_server.silent,
        raw_server.reads_and_is_silent,
        raw_server.processes_and_is_silent,
        raw_server.drips_headers_for_ever,
        raw_server.drips_a_body_for_ever,
        raw_server.continues_for_ever,
    ],
    ids=lambda behaviour: behaviour.__name__,
)
def test_a_server_that_never_gets_to_the_end_holds_nobody(behaviour: Behaviour) -> None:
    before = time.monotonic()
    assert isinstance(verdict(behaviour, timeout_s=0.4), Retry)
    assert time.monotonic() - before < HANG_S / 2


def test_nobody_at_the_address_is_tried_again() -> None:
    with no_server() as url, pytest.raises(Retry, match="cannot be reached"):
        ask(url)


@pytest.mark.parametrize("status", [400, 422])
def test_what_the_server_refuses_is_refused_with_its_words(status: int) -> None:
    error = verdict(says(status, {"error_code": "INVALID", "message": f"no\n such {SECRET}\x1b[31m field"}))
    assert isinstance(error, Rejected)
    assert error.which is None
    assert str(error).endswith(f"answered {status}: INVALID: no such ***[31m field")


def test_what_is_too_large_is_split() -> None:
    assert isinstance(verdict(says(413)), TooLarge)
    assert isinstance(verdict(raw_server.answers_too_early), TooLarge)
    large = {"a": "x" * (8 << 20)}
    assert isinstance(
        verdict(raw_server.answers_too_early, body=large), TooLarge | Retry
    )  # a RST may overtake the answer


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 407, 409, 410, 418, 451])
def test_what_a_person_has_to_mend_pauses(status: int) -> None:
    error = verdict(says(status, {"detail": "why"}))
    assert isinstance(error, ActionRequired)
    assert "why" in str(error)
    assert ("set KEY" in str(error)) == (status == 401)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with RawServer() as elsewhere:
        error = verdict(says(status, location=f"{elsewhere.url}/?code={SECRET}"))
        assert elsewhere.connections == 0
    assert isinstance(error, ActionRequired)
    assert elsewhere.url in str(error)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_says_when_to_come_again(status: int) -> None:
    error = verdict(says(status, retry_after="7"))
    assert isinstance(error, Retry)
    assert error.after_s == 7
    error = verdict(
        says(status, retry_after=formatdate(1_000_060, usegmt=True), date=formatdate(1_000_000, usegmt=True))
    )
    assert isinstance(error, Retry)
    assert error.after_s == 60


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", None, None),
        ("120", None, 120),
        (" 3 ", None, 3),
        ("-5", None, None),
        ("1e3", None, None),
        ("nan", None, None),
        ("٣", None, None),
        ("9" * 5000, None, 999_999_999_999),
        (formatdate(NOW + 30, usegmt=True), None, 30),
        (formatdate(NOW - 30, usegmt=True), None, None),
        (formatdate(NOW + 30, usegmt=True), formatdate(NOW + 3600, usegmt=True), None),
        (formatdate(NOW + 30, usegmt=True), formatdate(NOW - 3600, usegmt=True), 3630),
        (formatdate(NOW + 30, usegmt=True), "garbage", 30),
        ("Fri, 31 Feb 9999999999 99:99:99 GMT", None, None),
        ("soon", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, date: str | None, seconds: float | None) -> None:
    assert retry_after(value, date, NOW) == seconds


def test_an_answer_that_was_left_over_is_not_the_next_ones() -> None:
    async def go(url: str) -> None:
        server = HTTPClient(url, name="Test")
        with pytest.raises(Retry, match="503"):
            await server.post("first", {})
        assert (await server.post("second", {})).data == {"path": "/second"}
        await server.close()

    with RawServer(lambda request: Answer(200, {"path": request.path}), [raw_server.answers_twice]) as server:
        asyncio.run(go(server.url))


def test_a_status_that_is_asked_for_is_an_answer() -> None:
    with RawServer(script=[says(404, {"error_code": "NONE"}), says(404, b"<html>")]) as server:
        assert ask(server.url, also=(404,)) == (404, {"error_code": "NONE"})
        with pytest.raises(Retry, match="something else than a JSON object"):
            ask(server.url, also=(404,))


def test_a_cancelled_request_leaves_at_once() -> None:
    async def go(url: str) -> None:
        server = HTTPClient(url, name="Test")
        with anyio.move_on_after(0.1) as scope:
            await server.post("path", {})
        assert scope.cancelled_caught
        await server.close()

    with RawServer(script=[raw_server.reads_and_is_silent]) as server:
        asyncio.run(go(server.url))


def test_a_server_without_tls_behind_https_is_for_a_person() -> None:
    with RawServer(script=[_speaks_plainly]) as server, pytest.raises(ActionRequired, match="cannot be trusted"):
        ask(server.url.replace("http:", "https:"))


def _speaks_plainly(exchange: raw_server.Exchange) -> None:
    exchange.socket.recv(65536)
    exchange.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


def test_a_connection_that_breaks_during_the_handshake_is_tried_again() -> None:
    with RawServer(script=[_leaves_the_handshake]) as server, pytest.raises(Retry):
        ask(server.url.replace("http:", "https:"))


def _leaves_the_handshake(exchange: raw_server.Exchange) -> None:
    exchange.socket.recv(65536)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_nobody_signed_is_for_a_person(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(make, check=True, capture_output=True, timeout=30)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate, key)

    def well(exchange: raw_server.Exchange) -> None:
        with theirs.wrap_socket(exchange.socket, server_side=True) as exchange.socket:
            raw_server.well(exchange)

    with RawServer(script=[well, well]) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(ActionRequired, match="certificate"):
            ask(url)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificate))
            assert ask(url) == (200, {})


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5000",
        "https://tracking.example.org",
        "http://localhost:5000/prefix/",
        "http://[::1]:80",
        "https://a.b/c_d-e.f~g%20h",
    ],
)
def test_addresses(url: str) -> None:
    assert url_problems("server_url", url) == []


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@127.0.0.1:5000",
        f"http://{SECRET}@127.0.0.1",
        f"http://127.0.0.1/?write_token={SECRET}",
        f"http://127.0.0.1/#{SECRET}",
        f"ftp://{SECRET}@host",
        "ftp://host",
        "file:///etc/passwd",
        "sqlite:///f.db",
        "databricks",
        "http://",
        "http:///path",
        "http://host:99999",
        "http://host:0",
        "http://ho st",
        "http://host\r\nx: y",
        "http://host\n",
        "http://host\\evil",
        "",
        5,
        None,
        b"http://127.0.0.1",
    ],
)
def test_addresses_that_cannot_be_used(url: object) -> None:
    (problem,) = url_problems("server_url", url)
    assert problem.startswith("server_url must")
    assert SECRET not in problem


@pytest.mark.parametrize("reference", [SECRET, "env:", "env:a b", "env:1", "ENV:X", "", None, 5, "env:X\n"])
def test_a_key_is_not_taken_for_a_reference_nor_repeated(reference: object) -> None:
    (problem,) = secret_problems("token", reference)
    assert "env:NAME" in problem
    assert SECRET not in problem


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret_problems("token", "env:KEY_1") == []
    monkeypatch.delenv("KEY_1", raising=False)
    assert read_secret("env:KEY_1") is None
    monkeypatch.setenv("KEY_1", f" {SECRET}\n")
    assert read_secret("env:KEY_1") == SECRET
    for strange in (f"{SECRET}\nx: y", f"{SECRET}é", f"{SECRET}\x7f"):
        monkeypatch.setenv("KEY_1", strange)
        with pytest.raises(ActionRequired, match="KEY_1") as raised:
            read_secret("env:KEY_1")
        assert SECRET not in str(raised.value)


def test_a_password_may_have_any_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_1", " pass wörd\n")
    assert read_secret("env:KEY_1", for_header=False) == " pass wörd\n"
    monkeypatch.setenv("KEY_1", "")
    assert read_secret("env:KEY_1", for_header=False) is None


def test_credentials_hide_the_key_the_password_and_what_headers_have_of_them() -> None:
    key, user = Credentials.in_header("x-key", SECRET), Credentials.of_user("ann", SECRET)
    assert key.headers == {"x-key": SECRET}
    assert key.hide(f"no {SECRET}, no {SECRET}") == "no ***, no ***"
    assert user.hide(f"{SECRET} {user.headers['authorization']}") == "*** Basic ***"
    assert Credentials.in_header("x-key", None).headers == {}
    assert not any(SECRET in repr(one) for one in (key, user))


def test_no_key_is_in_a_repr_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    async def go(url: str) -> str:
        server = HTTPClient(url, name="Test", credentials=Credentials.in_header("x-key", SECRET))
        await server.post("path", {})
        await server.close()
        return repr(server)

    with RawServer() as raw, caplog.at_level(logging.DEBUG, logger="asynctrack"):
        assert asyncio.run(go(raw.url)) == f"<HTTPClient {raw.url}>"
    assert SECRET not in caplog.text


def test_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ActionRequired, match=r"pip install 'asynctrack\[http\]'"):
        HTTPClient("http://127.0.0.1", name="Test")


def test_many_at_once_share_nothing() -> None:
    """A hundred runs deliver from one loop."""

    async def one(url: str, number: int) -> int:
        server = HTTPClient(url, name="Test")
        answer = await server.post(str(number), {"number": number})
        await server.close()
        return int(answer.data["number"])

    async def go(url: str) -> list[int]:
        calls: list[Awaitable[int]] = [one(url, number) for number in range(50)]
        return await asyncio.gather(*calls)

    echo: Callable[[raw_server.Request], Answer] = lambda request: Answer(200, msgspec.json.decode(request.body))  # noqa: E731
    with RawServer(echo) as server:
        assert asyncio.run(go(server.url)) == list(range(50))
