"""The page as a person has it: a real server, and Debian's Chromium, in which nothing may go wrong that the test does not expect."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from page import made_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium")
# What a step of a test may take, in ms: a busy machine takes many times what an idle one does, and the page then looks at a live run less often.
DEADLINE_MS = 20_000
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
]  # fmt: skip
# Each violation of the policy becomes a line of the console, which no test allows.
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


class Server:
    """`asynctrack ui` as a process of its own. Attributes: `address` as it was printed, with the token; `url` without; `process`."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "asynctrack", "ui", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, (
            line,
            self.process.stderr and self.process.stderr.read() if self.process.poll() is not None else "",
        )
        self.address = found[0]
        self.url = self.address.partition("?")[0]

    def end(self) -> str:
        """End it by Ctrl-C; what it said on stderr."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=10)[1]


@contextmanager
def serving(*arguments: object) -> Iterator[Server]:
    """A server for the time of a test."""
    server = Server(*arguments)
    try:
        yield server
    finally:
        said = server.end()
    assert said == ""


class Visitor:
    """A browser's window. Attributes: `page` of Playwright; `problems`: what no page may do or say: errors, refused requests, requests to elsewhere."""

    def __init__(self, context: BrowserContext) -> None:
        self.problems: list[str] = []
        context.add_init_script(REPORT_VIOLATIONS)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(DEADLINE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", lambda message: self._note(message))
        self.page.on("request", lambda request: self._check(request.url))
        self.page.on("response", lambda answer: self._check_answer(answer))

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:  # which a test does
            self.problems.append(f"{message.type}: {message.text}")

    def _check(self, url: str) -> None:
        if not re.match(r"http://127\.0\.0\.1:\d+/|data:|blob:|about:|file:", url):
            self.problems.append(f"request to {url}")

    def _check_answer(self, answer: Any) -> None:
        if answer.status >= 400:
            self.problems.append(f"{answer.status} of {answer.url}")

    def open(self, server: Server, fragment: str = "#/") -> Page:
        """Open the page as somebody does who has the printed address."""
        self.page.goto(server.address)
        self.page.goto(f"{server.url}{fragment}")
        return self.page


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, without a window. It ends before tests of other folders, since Playwright has a loop of its own, in which no other can run."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    playwright.expect.set_options(timeout=DEADLINE_MS)
    with playwright.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield running
        running.close()


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visitor]:
    """A visitor of a new profile, who has seen no problem in the end."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
    visitor = Visitor(context)
    yield visitor
    context.close()
    assert visitor.problems == []


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A visitor at a screen of 1400 by 900."""
    with visiting(browser) as visitor:
        yield visitor


@pytest.fixture(scope="session")
def runs_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind, which no test changes."""
    directory = tmp_path_factory.mktemp("runs")
    maker = subprocess.run([sys.executable, made_runs.__file__, directory], capture_output=True, text=True, timeout=120)
    assert maker.returncode == 0, maker.stderr
    return directory


@pytest.fixture(scope="session")
def server(runs_directory: Path) -> Iterator[Server]:
    """A server of these runs."""
    with serving(runs_directory) as server:
        yield server
