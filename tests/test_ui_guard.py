"""Nobody reads runs by the page's server who does not know its token, whatever a browser, a web site, another user or a run's directory does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector_server import CollectorProcess
from page_server import EventStream, PageAnswer, PageProcess, listing_of, made_runs, page_of, rows_of

import asynctrack
from asynctrack.ui.guard import Access

EVIL = "</script><script>alert(1)</script>"
SECRET = "a-secret-that-nobody-sees"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("guarded") / "runs"
    made_runs(
        directory, {"p/a": [{"loss": 1.0}, {"loss": 0.5}], f"p/{EVIL.replace('/', '_')}": [{EVIL: 1.0, "t": EVIL}]}
    )
    (directory.parent / "outside.txt").write_text(SECRET)
    return directory


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    environment = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "ASYNCTRACK_SOME_TOKEN": SECRET}
    with page_of(runs, environment=environment) as found:
        rows_of(found)
        yield found


def cookie_of(page: PageProcess) -> str:
    answer = page.ask(f"/?token={page.token}", known=False)
    assert answer.status == 303
    return answer.headers["set-cookie"].partition(";")[0]


# Who may ask


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "localhost@evil.example", "", "127.0.0.1:", "local host", "x" * 5000],
)  # fmt: skip
def test_name_of_another_site_is_refused(page: PageProcess, host: str) -> None:
    for target in ("/", "/api/runs", f"/?token={page.token}"):
        answer = page.send_raw(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {page.token}\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 421 ") and b"p/a" not in answer


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "127.0.0.9", "[::1]", "[::1]:80", "localhost."]
)
def test_own_names_are_known_whatever_the_port(page: PageProcess, host: str) -> None:
    assert page.ask("/api/runs", Host=host).status == 200


def test_request_without_a_host_is_refused(page: PageProcess) -> None:
    head = f"GET /api/runs HTTP/1.0\r\nAuthorization: Bearer {page.token}\r\n\r\n"
    assert page.send_raw(head.encode()).startswith(b"HTTP/1.1 421 ")
    two = f"GET /api/runs HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nAuthorization: Bearer {page.token}\r\n\r\n"
    assert re.match(rb"HTTP/1.1 4\d\d ", page.send_raw(two.encode()))


@pytest.mark.parametrize(
    "target", ["/", "/api/runs", "/api/run?run=p/a", "/api/events", "/vendor/preact.js", "/nothing"]
)
def test_nothing_is_told_without_the_token(page: PageProcess, target: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Cookie": f"asynctrack_ui_{page.port}=wrong"},
        {"Authorization": "Bearer "},
    ):
        answer = page.ask(target, known=False, **headers)
        assert answer.status == 403 and b"p/a" not in answer.body
    assert page.ask("/?token=wrong", known=False).status == 403
    assert page.ask(f"/api/runs?token={page.token}", known=False).status == 403


def test_token_in_the_address_becomes_a_cookie_and_leaves_it(page: PageProcess) -> None:
    answer = page.ask(f"/?token={page.token}&theme=dark", known=False)
    assert (answer.status, answer.headers["location"]) == (303, "./?theme=dark")
    name, *fields = answer.headers["set-cookie"].split("; ")
    assert set(fields) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert name.startswith(f"asynctrack_ui_{page.port}=") and page.token not in str(answer.headers)
    assert page.ask("/api/runs", known=False, Cookie=f"other=1; {name}; more=2").status == 200
    assert page.token not in page.lines[1] and page.lines[0].endswith(f"?token={page.token}")


def test_cookie_of_another_port_opens_nothing(page: PageProcess) -> None:
    value = Access(token=page.token, port=page.port + 1).cookie_value()
    assert page.ask("/api/runs", known=False, Cookie=f"asynctrack_ui_{page.port}={value}").status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_page_of_another_site_is_refused(page: PageProcess, site: str) -> None:
    cookie = cookie_of(page)
    for target, method in (("/api/runs", "GET"), ("/", "GET"), ("/api/curves", "POST"), ("/main.js", "GET")):
        answer = page.ask(target, method, known=False, Cookie=cookie, Sec_Fetch_Site=site, Sec_Fetch_Mode="cors")
        assert answer.status == 403 and b"another site" in answer.body
    assert page.ask("/api/runs", known=False, Cookie=cookie, Origin="http://evil.example").status == 403
    for own in (
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": f"http://127.0.0.1:{page.port}"},
    ):
        assert page.ask("/api/runs", known=False, Cookie=cookie, **own).status == 200


def test_link_of_another_port_leads_to_the_page_and_not_into_a_frame(page: PageProcess) -> None:
    link = {"Cookie": cookie_of(page), "Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"}
    assert page.ask("/", known=False, Sec_Fetch_Dest="document", **link).status != 403
    assert page.ask("/", known=False, Sec_Fetch_Dest="iframe", **link).status == 403
    foreign = link | {"Sec_Fetch_Site": "cross-site"}
    assert page.ask("/", known=False, Sec_Fetch_Dest="document", **foreign).status == 403


# What is answered


def answers_of(page: PageProcess) -> Iterator[PageAnswer]:
    for target in (
        "/",
        "/main.js",
        "/vendor/preact.js",
        "/nothing",
        "/api/runs",
        "/api/run?run=p/a",
        "/api/run?run=no",
        "/api/nothing",
    ):
        yield page.ask(target)
    yield page.ask("/", known=False)
    yield page.ask("/api/runs", Host="evil.example")
    yield page.ask("/api/runs", "DELETE")
    yield page.get("curves", run="p/a", key="loss")
    yield page.get("csv", run="p/a", key="loss")


def test_every_answer_has_the_headers_that_bind_browsers(page: PageProcess) -> None:
    for answer in answers_of(page):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
        assert (
            not {name for name in answer.headers if name.startswith("access-control")}
            | {"server"} & answer.headers.keys()
        )


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "POST"])
def test_server_only_reads(page: PageProcess, runs: Path, method: str) -> None:
    before = listing_of(runs)
    assert page.ask("/", method, b"x=1").status == 405
    if method != "POST":
        assert page.ask("/api/run?run=p/a", method, b"x=1").status == 405
    assert listing_of(runs) == before


@pytest.mark.parametrize(
    "run",
    ["../../etc", "../outside.txt", "/etc/passwd", "p/../../outside.txt", "p/a/../a", "p/a/", "P/A", "p\0a", "p/a\0", "~", ".", "", "%2e%2e%2f", "x" * 100_000, "p/a\r\nX: y", "\ud800"],
)  # fmt: skip
def test_run_is_found_by_its_key_and_no_other_way(page: PageProcess, run: str) -> None:
    run = run.encode("utf-8", "surrogatepass").decode("latin-1")
    for name in (
        "run",
        "curves",
        "media",
        "media/file",
        "log",
        "diff",
        "csv",
        "compare",
        "groups",
        "sparklines",
        "metrics",
    ):
        answer = page.post(name, run=run, key="loss", sha256="0" * 20)
        assert answer.status == 404, (name, answer)
        assert SECRET.encode() not in answer.body


@pytest.mark.parametrize(
    "value", ["../..", "../../outside.txt", "/etc/passwd", "..%2f..", "\0", "x" * 100_000, "a" * 20, EVIL]
)
def test_file_is_found_by_the_hash_of_a_record_and_no_other_way(page: PageProcess, value: str) -> None:
    for parameters in ({"sha256": value}, {"sha256": "0" * 20, "name": value}):
        answer = page.post("media/file", run="p/a", **parameters)
        assert answer.status == 404 and SECRET.encode() not in answer.body
    assert page.post("media", run="p/a", key=value).json() == {"items": [], "count": 0}


@pytest.mark.parametrize(
    "target",
    ["/../../outside.txt", "/..%2f..%2foutside.txt", "/vendor/../../server.py", "/%2e%2e/server.py", "//etc/passwd", "/page/index.html", "/vendor", "/vendor/", "/__init__.py", "/.git/config", "/main.js%00", "/" + "a" * 5000, "/\\..\\server.py"],
)  # fmt: skip
def test_only_files_of_the_page_are_served(page: PageProcess, target: str) -> None:
    answer = page.send_raw(
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {page.token}\r\n\r\n".encode()
    )
    assert re.match(rb"HTTP/1.1 4\d\d ", answer)
    assert b"import" not in answer and SECRET.encode() not in answer


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("curves", {"run": "p/a", "key": "loss", "buckets": 10**9}),
        ("curves", {"run": "p/a", "key": "loss", "buckets": "-1"}),
        ("curves", {"run": "p/a", "key": "loss", "buckets": "9" * 5000}),
        ("curves", {"run": "p/a", "key": [f"k{at}" for at in range(30_000)]}),
        ("curves", {"run": "p/a", "key": "loss", "x0": "nan"}),
        ("curves", {"run": "p/a", "key": "loss", "x0": "5", "x1": "1"}),
        ("curves", {"run": "p/a", "key": "loss", "history": "some"}),
        ("curves", {"run": "p/a"}),
        ("groups", {"run": "p/a"}),
        ("media", {"run": "p/a", "key": "loss", "n": 10**6}),
        ("media", {"run": "p/a", "key": "loss", "from": "-5"}),
        ("log", {"run": "p/a", "bytes": 10**12}),
        ("runs", {"since": "soon"}),
        ("select", {"where": "(" * 10_000}),
        ("select", {"sort": EVIL}),
        ("curves", {f"p{at}": 1 for at in range(60_000)}),
        ("curves", {"run": "p/a", "key": "x" * (5 << 20)}),
    ],
)  # fmt: skip
def test_too_much_or_nonsense_is_said_and_harms_nobody(
    page: PageProcess, name: str, parameters: dict[str, Any]
) -> None:
    answer = page.post(name, **parameters)
    assert answer.status == 400 and answer.error
    assert page.get("run", run="p/a").status == 200


def test_body_that_is_no_form_is_refused(page: PageProcess) -> None:
    assert page.ask("/api/curves", "POST", b"{}", Content_Type="application/json").status == 400
    assert page.ask("/api/curves", "POST", b"run=p/a&key=loss", Content_Type="text/plain").status == 400


def test_names_come_as_they_are_and_as_nothing_but_data(page: PageProcess) -> None:
    key = next(key for key in rows_of(page) if "alert" in key)
    answer = page.get("run", run=key)
    assert answer.headers["content-type"] == "application/json"
    assert [metric["key"] for metric in answer.json()["metrics"]] == [EVIL]
    (block,) = page.blocks("curves", run=key, key=EVIL)
    assert block.header["key"] == EVIL and block.columns["mean"] == [1.0]
    found = page.get("csv", run=key, key=[EVIL, "=1+1"])
    assert found.headers["content-type"].startswith("text/csv") and b",'=1+1\r\n" in found.body


def test_no_secret_of_the_server_is_told(page: PageProcess) -> None:
    for answer in answers_of(page):
        assert SECRET.encode() not in answer.body and page.token.encode() not in answer.body


# Directories of others


def test_links_in_a_run_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text(SECRET)
    made_runs(tmp_path / "runs", {"p/a": [{"loss": 1.0}]})
    run = tmp_path / "runs" / "p" / "a"
    (run / "worker.log").symlink_to(outside)
    (run / "uncommitted.diff").symlink_to(outside)
    (run / "environment.json").symlink_to(outside)
    (run / "media").symlink_to(tmp_path)
    with page_of(tmp_path / "runs") as page:
        rows_of(page)
        found = page.get("run", run="p/a")
        assert found.status == 200 and not found.json()["has_log"] and not found.json()["diff"]
        answers = [
            found,
            page.get("log", run="p/a"),
            page.get("diff", run="p/a"),
            page.get("csv", run="p/a", key="loss"),
        ]
        assert all(SECRET.encode() not in answer.body for answer in answers)
        assert [answer.status for answer in answers[1:3]] == [500, 500]
        (run / "worker.log").unlink()
        os.mkfifo(run / "worker.log")
        assert page.get("log", run="p/a").status == 500


def test_files_that_were_logged_are_harmless_and_their_names_lead_nowhere(tmp_path: Path, own_host: Path) -> None:
    (tmp_path / "outside.txt").write_text(SECRET)
    picture = f'<svg xmlns="http://www.w3.org/2000/svg"><script>{EVIL}</script></svg>'
    (tmp_path / "drawn.svg").write_text(picture)
    (tmp_path / "model.html").write_text("<script>alert(1)</script>")
    with asynctrack.init("p", id="a", dir=tmp_path / "runs") as run:
        run.log({"drawn": asynctrack.Image(tmp_path / "drawn.svg")})
        run.log({"model": asynctrack.Artifact("model", "weights", path=tmp_path / "model.html")})
    with page_of(tmp_path / "runs") as page:
        rows_of(page)
        (drawn,) = page.get("media", run="p/a", key="drawn").json()["items"]
        file = page.get("media/file", run="p/a", sha256=drawn["sha256"])
        assert (file.headers["content-type"], file.body) == ("image/svg+xml", picture.encode())
        assert file.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        (model,) = page.get("media", run="p/a", key="model").json()["items"]
        assert model["files"] == [{"name": "model.html", "size": 25}]
        file = page.get("media/file", run="p/a", sha256=model["sha256"], name="model.html")
        assert file.headers["content-type"] == "application/octet-stream"
        assert file.headers["content-disposition"] == 'attachment; filename="model.html"'
        for name in (
            "../../../../../outside.txt",
            "/etc/passwd",
            "",
            ".",
            "model.html/../model.html",
            str(tmp_path / "outside.txt"),
        ):
            answer = page.get("media/file", run="p/a", sha256=model["sha256"], name=name)
            assert answer.status == 404 and SECRET.encode() not in answer.body


def test_runs_are_shown_where_nothing_may_be_written(tmp_path: Path) -> None:
    made_runs(tmp_path / "runs", {"p/a": [{"loss": 1.0}] * 3})
    folders = [path for path in [tmp_path / "runs", *(tmp_path / "runs").rglob("*")] if path.is_dir()]
    before = listing_of(tmp_path / "runs")
    for folder in folders:
        folder.chmod(0o555)
    try:
        with page_of(tmp_path / "runs", "--no-cache", environment={"XDG_CACHE_HOME": "/proc/nowhere"}) as page:
            assert rows_of(page)["p/a"]["records"] == 3
            assert page.get("run", run="p/a").status == 200
            assert len(page.blocks("curves", run="p/a", key="loss")) == 1
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert listing_of(tmp_path / "runs") == before


def test_no_cache_keeps_nothing(tmp_path: Path) -> None:
    made_runs(tmp_path / "runs", {"p/a": [{"loss": 1.0}] * 3})
    os.utime(tmp_path / "runs" / "p" / "a", (1, 1))
    with page_of(tmp_path / "runs", "--no-cache", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")}) as page:
        rows_of(page)
        page.get("select", where="max(loss) > 0")
    assert not (tmp_path / "cache").exists()


# Starting and ending


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_at_once_while_pages_listen(runs: Path, number: signal.Signals) -> None:
    with page_of(runs) as page:
        streams = [EventStream(page), EventStream(page, run="p/a")]
        for stream in streams:
            stream.next("runs")
        began = time.monotonic()
        assert page.end(number) == 0
        assert time.monotonic() - began < 1.5
        for stream in streams:
            stream.wait_for_end()
            stream.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_token_that_was_set(tmp_path: Path, host: str) -> None:
    done = said("--host", host, "--port", "0", at=tmp_path)
    assert done.returncode == 2 and "--token env:NAME" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("token", "value", "says"), [("secret", "x" * 20, "env:NAME"), ("env:T", "short", "16"), ("env:NO", "x" * 20, "16")]
)
def test_token_comes_from_the_environment_and_cannot_be_guessed(
    tmp_path: Path, token: str, value: str, says: str
) -> None:
    done = said("--token", token, "--port", "0", at=tmp_path, T=value)
    assert done.returncode == 2 and says in done.stderr and value not in done.stderr


def test_token_that_was_set_opens_the_page_and_is_not_printed(runs: Path) -> None:
    token = "a-token-of-many-signs"
    with page_of(runs, "--host", "0.0.0.0", "--token", "env:PAGE_TOKEN", environment={"PAGE_TOKEN": token}) as page:
        assert token not in "".join(page.lines) and "PAGE_TOKEN" in page.lines[1]
        page.token = token
        assert page.ask("/api/runs").status == 200
        assert page.ask("/api/runs", Host="10.1.2.3").status == 200
        assert page.ask("/api/runs", Host=f"{os.uname().nodename}:99").status == 200
        assert page.ask("/api/runs", Host="evil.example").status == 421


@pytest.mark.system
def test_further_names_are_let_in_by_an_option(runs: Path) -> None:
    with page_of(runs, "--allow-host", "Proxy.Example") as page:
        assert page.ask("/api/runs", Host="proxy.example:443").status == 200
        assert page.ask("/api/runs", Host="evil.example").status == 421
        assert page.ask("/api/runs", Host="10.1.2.3").status == 421


@pytest.mark.system
@pytest.mark.parametrize("name", ["Proxy.Example:8443", "[fd00::1]:80", "fd00::1"])
def test_further_name_may_have_a_port(runs: Path, name: str) -> None:
    host = "proxy.example" if "." in name else "[fd00::1]"
    with page_of(runs, "--allow-host", name) as page:
        assert page.ask("/api/runs", Host=host).status == 200


@pytest.mark.parametrize(
    ("option", "value"), [("--allow-host", "https://a.example/"), ("--allow-host", "*"), ("--port", "65536")]
)
def test_option_that_means_nothing_is_refused(tmp_path: Path, option: str, value: str) -> None:
    done = said(option, value, at=tmp_path)
    assert done.returncode == 2 and value in done.stderr and "Traceback" not in done.stderr


@pytest.mark.system
def test_port_that_is_taken_gives_way_to_another(runs: Path) -> None:
    with page_of(runs) as first:
        second = PageProcess("ui", runs, "--port", str(first.port))
        second.end()
        assert second.port != first.port
        assert any(f"port {first.port} is taken: this is another" in line for line in second.lines)
    first_page = PageProcess("ui", runs)
    second_page = PageProcess("ui", runs)
    try:
        assert first_page.port != second_page.port
        assert any("is taken" in line for line in second_page.lines)
    finally:
        first_page.end()
        second_page.end()


@pytest.mark.system
def test_session_over_ssh_is_told_how_to_forward_the_port(runs: Path) -> None:
    with page_of(runs, environment={"SSH_CONNECTION": "10.0.0.1 5000 10.0.0.2 2222"}) as page:
        assert any(f"ssh -N -p 2222 -L {page.port}:127.0.0.1:{page.port} 10.0.0.2" in line for line in page.lines)
    with page_of(runs, environment={"SSH_CONNECTION": "10.0.0.1 5000 $(reboot) 22"}) as page:
        assert not any("ssh" in line for line in page.lines)


@pytest.mark.system
def test_browser_gets_an_address_that_opens_the_page_once(runs: Path, tmp_path: Path) -> None:
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/seen.new && mv {tmp_path}/seen.new {tmp_path}/seen\n')
    script.chmod(0o755)
    with page_of(runs, "--open", environment={"BROWSER": str(script)}) as page:
        deadline = time.monotonic() + 20
        while not (tmp_path / "seen").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        url = (tmp_path / "seen").read_text().strip()
        assert page.token not in url
        target = url[url.index("/?") :]
        assert [page.ask(target, known=False).status for _ in range(2)] == [303, 403]


def said(*words: str, at: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asynctrack", "ui", *words],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=at,
        env={**os.environ, **environment},
    )


# On a collector's port


@pytest.mark.system
def test_collector_shows_its_runs_at_its_port(tmp_path: Path) -> None:
    made_runs(tmp_path / "runs", {"p/a": [{"loss": 1.0}]})
    collector = CollectorProcess(tmp_path / "runs", "--ui")
    try:
        url = collector.wait_for("page")["url"]
        page = object.__new__(PageProcess)
        page.lines, page.port, page.token = [url], collector.port, url.partition("token=")[2]
        assert page.ask("/api/runs", known=False).status == 403
        assert page.ask("/api/runs", Host="evil.example").status == 421
        assert "p/a" in rows_of(page)
        hosts = page.ask("/v1/p/a/host?journal=" + "0" * 32, Host="collector.example", known=False)
        assert "record" not in hosts.body.decode() and hosts.headers.get("content-security-policy") is None
        assert json.loads(hosts.body)
        stream = EventStream(page)
        stream.next("runs")
        began = time.monotonic()
        assert collector.stop() == 0
        assert time.monotonic() - began < 5
        stream.close()
    finally:
        if collector.process.poll() is None:
            collector.kill()
