"""How soon does the page show a curve, 200 runs, and 10,000 runs, and what does it cost: the browser, the server, and the loop that logs?

`asynctrack ui`, TensorBoard and Trackio show the same runs in the same Chromium, one after the other. "First" is from the request of the page to the first
picture on the screen that has a curve; nothing is in any cache. TensorBoard and Trackio are left out where they are not installed, and of Trackio only the long run is taken.

Takes ten minutes, and 2 GB in TMPDIR. Needs Chromium, Playwright and NumPy. Wants two free cores.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import io
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import asynctrack
from bench import collection
from bench.harness import Bar, Cell, Report, Spread, Table, bar, main, say, spread
from bench.processes import cpu_s, main_thread_cpu_s, own_bytes
from bench.reading import numbers

CHROMIUM: Final = shutil.which("chromium")
SIZE: Final = {"width": 1400, "height": 1400}  # has five charts
OPTIONS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
LOOK_S: Final = 0.05
STUCK_S: Final = 0.3  # without another picture, one may have been left out
STILL: Final = 5  # pictures in a row that are the same: a page is done
REST_S: Final = 8.0  # in which a page has done all that it does
LIMIT_S: Final = 120.0
RUNS: Final = 200
MANY_RUNS: Final = 10_000
LIVE_RECORDS_S: Final = 10_000
LIVE_S: Final = 30
SETTLED_S: Final = 5  # after which a page does no more than it does later
LOOP_RECORDS: Final = 300_000
PIXEL_TRIES: Final = 7
# Differences between the channels of a pixel that is a colour, and so many of them are a curve.
_COLOURFUL: Final = 25
_CURVE_PIXELS: Final = 100


Box = dict[str, float]


class Look(NamedTuple):
    """What it took to show something.

    Attributes:
        first_s: until the first curve.
        all_s: until all of them, None where there is one.
        heap_mb: of the page's JavaScript.
        busy_s: processor time of the page's main thread.
        server_mb: memory of the server that it shares with nobody.
        server_cpu_s: processor time of the server, from its start.
    """

    first_s: float
    all_s: float | None
    heap_mb: float
    busy_s: float
    server_mb: float
    server_cpu_s: float


class Board(NamedTuple):
    """A server of a page.

    Attributes:
        name: of the board.
        command: that starts it, without the port.
        address: for a browser; `None` where the server prints it.
        chart: the selector of an element with a chart.
        view: the end of the address that shows what is asked for.
    """

    name: str
    command: list[str]
    chart: str
    view: str
    ports: Callable[[int], list[str]]
    address: str | None = None


def measure(quick: bool, rounds: float) -> Report:
    if CHROMIUM is None or find_spec("playwright") is None:
        sys.exit("python -m bench.ui needs Chromium from the system, and Playwright: pip install --group test-page")
    part, times = (10, 1) if quick else (1, int(rounds))
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder, sync_playwright() as play:
        os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        browser = play.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS])
        bench = _Bench(Path(folder), browser, part)
        tables, bars = [], []
        for take in (bench.long_runs, bench.many_curves, bench.many_runs, bench.live, bench.loop):
            table, more = take(times)
            tables.append(table)
            bars += more
        browser.close()
    return Report(tables, bars, NOTES)


NOTES: Final = [
    "first: the page is asked for, the server is up and has looked at nothing; asynctrack's cache is emptied each time. "
    "TensorBoard has read its files as far as it does before it answers.",
    "heap: JavaScript's, after all is shown; server: memory that it shares with nobody, and its processor time since its start.",
    "all: until all charts are as they stay; busy: processor time of the page's main thread, in a visit of its own in which no pictures are taken.",
    "log() to pixel: a value is logged to a run that had been silent; until the chart on the screen is another picture.",
    "the journal is in the page cache.",
]


class _Bench:
    """The parts of the benchmark, each with its table and its bars."""

    def __init__(self, folder: Path, browser: Any, part: int) -> None:
        self._folder = folder
        self._browser = browser
        self._part = part

    def long_runs(self, rounds: int) -> tuple[Table, list[Bar]]:
        """The first curve of a long run, on each board."""
        rows: list[dict[str, Cell | Spread]] = []
        bars = []
        for count, width, limit_s in ((1_000_000, 5, 1.5), (5_000_000, 4, 3.0)):
            count //= self._part
            say(f"making a run of {count:,} x {width}")
            run = _log_run(self._folder / f"long{width}", "run", count, width)
            boards = [_ours(run.parents[1], "#/run/bench/run")]
            if width == 5:
                boards += self._peers(run)
            for board in boards:
                looks = [self._look(board, 1) for _ in range(rounds)]
                rows.append({"run": f"{count:,} x {width}", "board": board.name, **_figures(looks)})
                if board.name == "asynctrack ui":
                    first_s = spread(look.first_s for look in looks).median
                    bars.append(bar(f"first curve of {count:,} x {width}, from nothing", limit_s, first_s, "s"))
        return Table("the first curve of a long run", rows), bars

    def many_curves(self, rounds: int) -> tuple[Table, list[Bar]]:
        """Five charts of many runs, on the page that compares them."""
        count = RUNS // self._part
        say(f"making {count} runs of 1,000 x 5")
        names = [f"run{at:03}" for at in range(count)]
        for name in names:
            _log_run(self._folder / "sweep", name, 1000, 5)
        view = "#/compare/?" + "&".join(f"run=bench/{name}" for name in names) + f"&shown={count}"
        looks = [self._look(_ours(self._folder / "sweep", view), 5) for _ in range(rounds)]
        figures = {
            name: spread(getattr(look, name) for look in looks).median
            for name in ("first_s", "all_s", "heap_mb", "busy_s")
        }
        limits = {"first_s": 1.5, "all_s": 3.0, "heap_mb": 30.0, "busy_s": 1.0}
        words = {"first_s": "first", "all_s": "all", "heap_mb": "heap", "busy_s": "main thread"}
        bars = [
            bar(f"{count} runs x 5 charts: {words[name]}", limit, figures[name], "MB" if name == "heap_mb" else "s")
            for name, limit in limits.items()
        ]
        return Table(
            f"five charts of {count} runs of 1,000 records", [{"board": "asynctrack ui", **_figures(looks)}]
        ), bars

    def many_runs(self, rounds: int) -> tuple[Table, list[Bar]]:
        """The table of very many runs."""
        count = MANY_RUNS // self._part
        say(f"making {count:,} runs")
        runs = collection.make_runs(self._folder / "many", count)
        rows: list[dict[str, Cell | Spread]] = []
        found: dict[str, list[float]] = {"first time": [], "second time": []}
        for number in range(rounds):
            shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
            for when, seconds in found.items():
                say(f"round {number + 1} of {rounds}: the table, {when}")
                with _serving(_ours(runs, "#/")) as (address, _), self._page() as page:
                    began = time.perf_counter()
                    page.goto(address)
                    page.wait_for_selector(f"table[aria-rowcount='{count + 1}']", timeout=1e3 * LIMIT_S)
                    seconds.append(time.perf_counter() - began)
        rows += [{"when": when, "s": spread(seconds)} for when, seconds in found.items()]
        second = spread(found["second time"]).median
        return Table(f"the table of {count:,} runs", rows), [
            bar(f"{count:,} runs in the table, the second time", 2.0, second, "s")
        ]

    def live(self, rounds: int) -> tuple[Table, list[Bar]]:
        """A run that goes on: how soon a value is seen, and what its server takes."""
        pixel_s: list[float] = []
        cpu: list[float] = []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: a live run")
            pixel_s += self._to_pixel(self._folder / f"pixel{number}")
            cpu.append(self._live_cpu(self._folder / f"live{number}"))
        rows: list[dict[str, Cell | Spread]] = [
            {"what": "log() to pixel, s", "seen": spread(pixel_s)},
            {"what": f"server, % of a core, at {LIVE_RECORDS_S:,} records/s", "seen": spread(cpu)},
        ]
        bars = [
            bar("log() to pixel", 1.5, spread(pixel_s).median, "s"),
            bar(f"server at {LIVE_RECORDS_S:,} records/s", 1.0, spread(cpu).median, "% of a core"),
        ]
        return Table("a live run", rows), bars

    def loop(self, rounds: int) -> tuple[Table, list[Bar]]:
        """`log()` with the page open, and without, in turn."""
        found: dict[str, list[float]] = {"no page": [], "the page is open": []}
        for number in range(2 * rounds):
            for what, taken in found.items():
                say(f"round {number + 1} of {2 * rounds}: log(), {what}")
                taken.append(self._loop_ns(self._folder / f"loop{number}{what[:2]}", is_open=what != "no page"))
        rows: list[dict[str, Cell | Spread]] = [
            {"what": what, "log() ns, median": spread(taken)} for what, taken in found.items()
        ]
        ratio = spread(found["the page is open"]).median / spread(found["no page"]).median
        return Table("log() while the page is open", rows), [
            bar("log() with the page open, against without", 1.1, ratio, "x")
        ]

    def _look(self, board: Board, charts: int) -> Look:
        say(f"{board.name}: {board.view[:30] or 'its page'}")
        return self._watched(board, charts)._replace(**self._costs(board, charts))

    def _watched(self, board: Board, charts: int) -> Look:
        """Look at a page as it comes: the browser sends each picture that it shows, with its time."""
        with self._from_nothing(board) as (address, _, page):
            pictures = _Pictures(page)
            began = time.time()
            page.goto(address, wait_until="commit")
            boxes = _until_there(page, board.chart, charts)
            while not all(_has_curve(pictures.last, box) for box in boxes):
                assert time.time() - began < LIMIT_S, f"no curve in {LIMIT_S} s"
                page.wait_for_timeout(1e3 * LOOK_S)
                if time.time() > pictures.last_at + STUCK_S:
                    pictures.renew()
                boxes = _until_there(page, board.chart, charts)
            first = min(pictures.first_with_curve(box) for box in boxes)
            same = 0
            while same < STILL:
                before = pictures.seen(boxes)
                page.wait_for_timeout(1e3 * STUCK_S)
                pictures.renew()
                page.wait_for_timeout(1e3 * LOOK_S)
                same = same + 1 if pictures.seen(boxes) == before else 0
            return Look(first - began, pictures.done_at(boxes) - began if charts > 1 else None, *[math.nan] * 4)

    def _costs(self, board: Board, charts: int) -> dict[str, float]:
        """Return what the same page costs where nobody looks at it: pictures and questions take time of the main thread."""
        with self._from_nothing(board) as (address, server, page):
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            page.goto(address, wait_until="commit")
            time.sleep(REST_S)
            _until_there(page, board.chart, charts)
            metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
            return {
                "heap_mb": metrics["JSHeapUsedSize"] / 1e6,
                "busy_s": self._main_thread_s(),
                "server_mb": own_bytes(server) / 1e6,
                "server_cpu_s": cpu_s(server),
            }

    def _main_thread_s(self) -> float:
        """Return the processor time of the page's main thread: how long its tasks took says more of what else runs on two cores."""
        processes = self._browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        return max(main_thread_cpu_s(one["id"]) for one in processes if one["type"] == "renderer")

    @contextlib.contextmanager
    def _from_nothing(self, board: Board) -> Iterator[tuple[str, int, Any]]:
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
        with _serving(board) as (address, server), self._page() as page:
            yield address, server, page

    def _to_pixel(self, directory: Path) -> list[float]:
        with (
            _logging(_TALKER, directory) as talker,
            _serving(_ours(directory, "#/run/bench/run")) as (address, _),
            self._page() as page,
        ):
            assert talker.stdin is not None and talker.stdout is not None
            page.goto(address)
            _until_drawn(page, _CHART)
            taken = []
            for at in range(PIXEL_TRIES):
                time.sleep(1.3)  # nothing that was logged before is still on its way
                chart = page.locator(_CHART).first
                before = chart.screenshot()
                talker.stdin.write(f"{at}\n")
                talker.stdin.flush()
                logged = float(talker.stdout.readline())
                while chart.screenshot() == before:
                    assert time.time() - logged < LIMIT_S
                taken.append(time.time() - logged)
            return taken

    def _live_cpu(self, directory: Path) -> float:
        command = [
            sys.executable,
            "-m",
            "bench.paced",
            str(directory),
            str(LIVE_RECORDS_S),
            str(LIVE_S + 3 * SETTLED_S),
        ]
        logger = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert logger.stdout is not None
            run = Path(logger.stdout.readline().strip())
            with _serving(_ours(directory, f"#/run/bench/{run.name}")) as (address, server), self._page() as page:
                page.goto(address)
                _until_drawn(page, _CHART)
                time.sleep(SETTLED_S)
                before, began = cpu_s(server), time.perf_counter()
                time.sleep(LIVE_S)
                return 100 * (cpu_s(server) - before) / (time.perf_counter() - began)
        finally:
            logger.send_signal(signal.SIGINT)
            logger.communicate(timeout=60)

    def _loop_ns(self, directory: Path, *, is_open: bool) -> float:
        with contextlib.ExitStack() as opened:
            talker = opened.enter_context(_logging(_TALKER, directory))
            assert talker.stdin is not None and talker.stdout is not None
            if is_open:
                address, _ = opened.enter_context(_serving(_ours(directory, "#/run/bench/run")))
                page = opened.enter_context(self._page())
                page.goto(address)
                _until_drawn(page, _CHART)
            talker.stdin.write(f"time {LOOP_RECORDS // self._part}\n")
            talker.stdin.flush()
            return float(talker.stdout.readline())

    def _peers(self, run: Path) -> Iterator[Board]:
        """The other boards, filled with the run."""
        directory = self._folder / "peers"
        if find_spec("tensorboard") is not None:
            say("filling TensorBoard")
            _sync(run, "tensorboard")
            logs = str(run)
            yield Board(
                "TensorBoard", [sys.executable, "-m", "tensorboard.main", "--logdir", logs, "--load_fast", "auto"],
                "line-chart canvas", "/", lambda port: ["--port", str(port)], "http://localhost:{port}/",
            )  # fmt: skip
        if find_spec("trackio") is not None:
            say("filling Trackio")
            os.environ["TRACKIO_DIR"] = str(directory / "trackio")
            _sync(run, "trackio")
            yield Board(
                "Trackio", [sys.executable, "-c", _TRACKIO], "canvas.marks", "/", lambda port: [str(port)],
                "http://127.0.0.1:{port}/",
            )  # fmt: skip

    @contextlib.contextmanager
    def _page(self) -> Iterator[Any]:
        context = self._browser.new_context(viewport=SIZE)
        try:
            page = context.new_page()
            page.set_default_timeout(1e3 * LIMIT_S)
            yield page
        finally:
            context.close()


_CHART: Final = ".panel .plot canvas"
_TRACKIO: Final = "import sys, trackio; trackio.show(host='127.0.0.1', server_port=int(sys.argv[1]), open_browser=False, block_thread=True)"
# Logs what it is told to: a value for each line, or so many in a row, and says when, or how long each took.
_TALKER: Final = """
import sys, time, asynctrack
run = asynctrack.init("bench", id="run", dir=sys.argv[1], queue_bytes=64 << 20)
step = 0
for step in range(20):
    run.log({"loss": float(step)}, step=step)
run.flush("journaled")
print("ready", flush=True)
for line in sys.stdin:
    word, *count = line.split()
    if word == "time":
        taken = []
        for step in range(step + 1, step + 1 + int(count[0])):
            before = time.perf_counter_ns()
            run.log({"loss": 0.5, "accuracy": 0.25}, step=step)
            taken.append(time.perf_counter_ns() - before)
            if step % 1000 == 0:
                time.sleep(0.01)
        print(sorted(taken)[len(taken) // 2], flush=True)
    else:
        step += 1
        run.log({"loss": 50.0 * (1 + int(word) % 2)}, step=step)
        print(time.time(), flush=True)
run.finish()
"""


def _log_run(directory: Path, id: str, count: int, width: int) -> Path:
    """Log a run; return its directory."""
    with asynctrack.init(
        "bench",
        id=id,
        dir=directory,
        backends=(),
        when_full="block",
        max_block_s=60,
        finish_timeout_s=600,
        environment=False,
    ) as run:
        for step in range(count):
            run.log(numbers(step, width), step=step)
    return run.path


def _ours(directory: Path, view: str) -> Board:
    return Board(
        "asynctrack ui",
        [sys.executable, "-m", "asynctrack", "ui", str(directory)],
        _CHART,
        view,
        lambda port: ["--port", str(port)],
    )


def _sync(run: Path, kind: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "asynctrack", "sync", str(run), "--to", kind], check=True, stdout=subprocess.DEVNULL
    )


@contextlib.contextmanager
def _serving(board: Board) -> Iterator[tuple[str, int]]:
    """Start a server; yield the address to open, and its process."""
    port = _free_port()
    process = subprocess.Popen(
        [*board.command, *board.ports(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        if board.address is not None:
            _until_answers(port)
            yield board.address.format(port=port), process.pid
        else:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, "the server printed no address"
            yield found[0] + board.view, process.pid
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@contextlib.contextmanager
def _logging(script: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _until_answers(port: int) -> None:
    began = time.perf_counter()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.perf_counter() - began < LIMIT_S
        time.sleep(LOOK_S)


class _Pictures:
    """The pictures that the browser shows of a page, from now on.

    Args:
        page: the page.
    """

    def __init__(self, page: Any) -> None:
        self._found: list[tuple[float, str]] = []
        self._session = page.context.new_cdp_session(page)
        self._session.on("Page.screencastFrame", self._take)
        self.renew()

    def renew(self) -> None:
        """Ask for a picture: the browser leaves one out while those before it are on their way, also where none follows."""
        self._session.send("Page.stopScreencast")
        self._session.send("Page.startScreencast", {"format": "png"})

    @property
    def last(self) -> str | None:
        """Return the last picture."""
        return self._found[-1][1] if self._found else None

    @property
    def last_at(self) -> float:
        """Return when that was."""
        return self._found[-1][0] if self._found else math.inf

    def seen(self, boxes: list[Box]) -> list[Any]:
        """Return what the last picture has in boxes."""
        return [_within(self._found[-1][1], box) for box in boxes]

    def done_at(self, boxes: list[Box]) -> float:
        """Return when boxes were first seen as they are in the last picture, and have stayed so."""
        last = self.seen(boxes)
        done = self.last_at
        for at, picture in reversed(self._found):
            if [_within(picture, box) for box in boxes] != last:
                break
            done = at
        return done

    def first_with_curve(self, box: Box) -> float:
        """Return when a curve was first seen in a box; one that has come stays."""
        return self._found[bisect.bisect_left(self._found, True, key=lambda one: _has_curve(one[1], box))][0]

    def _take(self, event: dict[str, Any]) -> None:
        self._found.append((event["metadata"]["timestamp"], event["data"]))
        self._session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})


def _until_there(page: Any, chart: str, count: int) -> list[Box]:
    """Wait until the page has so many charts; return their boxes."""
    elements = page.locator(chart)
    elements.nth(count - 1).wait_for(timeout=1e3 * LIMIT_S)
    return [elements.nth(at).bounding_box() for at in range(count)]


def _until_drawn(page: Any, chart: str) -> None:
    """Wait until the first chart has a curve."""
    began = time.perf_counter()
    _until_there(page, chart, 1)
    element = page.locator(chart).first
    while not _has_curve(element.screenshot(), None):
        assert time.perf_counter() - began < LIMIT_S, f"no curve in {LIMIT_S} s"
        time.sleep(LOOK_S)


def _has_curve(picture: str | bytes | None, box: Box | None) -> bool:
    """Return whether a box of a picture has as many pixels of a colour as a curve."""
    if picture is None:
        return False
    import numpy

    pixels = numpy.asarray(_within(picture, box)).astype(int)
    return int((pixels.max(axis=2) - pixels.min(axis=2) > _COLOURFUL).sum()) >= _CURVE_PIXELS


def _within(picture: str | bytes, box: Box | None) -> Any:
    """Return a picture, or a box of it."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture) if isinstance(picture, str) else picture)).convert("RGB")
    if box is None:
        return image
    left, top = box["x"], box["y"]
    return image.crop((int(left), int(top), int(left + box["width"]), int(top + box["height"])))


def _figures(looks: list[Look]) -> dict[str, Cell | Spread]:
    figures: dict[str, Cell | Spread] = {"first s": spread(look.first_s for look in looks)}
    if looks[0].all_s is not None:
        figures["all s"] = spread(look.all_s or 0.0 for look in looks)
    return {
        **figures,
        "heap MB": spread(look.heap_mb for look in looks),
        "busy s": spread(look.busy_s for look in looks),
        "server MB": spread(look.server_mb for look in looks),
        "server CPU s": spread(look.server_cpu_s for look in looks),
    }


if __name__ == "__main__":
    main(__doc__, measure, rounds=3)
