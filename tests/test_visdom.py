"""Visdom: a line per key, each point once, whatever its server does. The tests that are marked slow need a Visdom server:

python3.12 -m venv V && V/bin/pip install visdom==0.3.0 && VISDOM_PYTHON=V/bin/python pytest -m slow tests/test_visdom.py
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import raw_server
from raw_server import Answer, Behaviour, RawServer, Request, says
from support import the_worker, wait_until

import asynctrack
from asynctrack import ActionRequired, Visdom
from asynctrack.backends.base import Context
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.testing import BackendContract, JournaledRun, deliver

Windows = dict[str, dict[str, Any]]


class VisdomApp:
    """What a Visdom server knows, as the real one of 0.3 was found to.

    Attributes:
        envs: windows by environment and name.
        saved: environments that were saved, each time.
        login: the status with which it turns everybody away; None for nobody.
    """

    def __init__(self) -> None:
        self.envs: dict[str, Windows] = {}
        self.saved: list[str] = []
        self.login: int | None = None

    def __call__(self, request: Request) -> Answer:
        if self.login is not None:
            return Answer(self.login)
        body = request.json()
        windows = self.envs.setdefault(body["eid"], {})
        endpoint = {
            "/events": self._events,
            "/update": self._update,
            "/win_exists": lambda body, windows: b"true" if body["win"] in windows else b"false",
            "/win_data": lambda body, windows: json.dumps(windows[body["win"]]).encode(),
            "/save": lambda body, windows: self.saved.extend(body["data"]) or json.dumps(body["data"]).encode(),
        }[request.path]
        return Answer(200, endpoint(body, windows))

    def _events(self, body: dict[str, Any], windows: Windows) -> bytes:
        (data,) = body["data"]
        content = data["content"] if data["type"] == "text" else {"data": [data], "layout": body["layout"]}
        windows[body["win"]] = {"title": body["opts"]["title"], "content": content, "type": data["type"]}
        return str(body["win"]).encode()

    def _update(self, body: dict[str, Any], windows: Windows) -> bytes:
        if body["win"] not in windows:
            return self._events({**body, "opts": {"title": ""}}, windows)
        (line,), (more,) = windows[body["win"]]["content"]["data"], body["data"]
        assert line["name"] == body["name"]
        line["x"] += more["x"]
        line["y"] += more["y"]
        return str(body["win"]).encode()


def visdom(server: RawServer, **settings: Any) -> Visdom:
    settings.setdefault("downsample_interval_s", None)
    return Visdom(server_url=server.url, request_timeout_s=settings.pop("request_timeout_s", 0.5), **settings)


def lines(windows: Windows) -> dict[str, tuple[list[int], list[float | None]]]:
    """Steps and values of each line by its window's title."""
    plots = [window for window in windows.values() if isinstance(window["content"], dict)]
    return {window["title"]: (line["x"], line["y"]) for window in plots for line in window["content"]["data"]}


def text(windows: Windows) -> str:
    (found,) = [window["content"] for window in windows.values() if isinstance(window["content"], str)]
    return str(found)


def assert_whole(run: asynctrack.Run, windows: Windows, count: int) -> None:
    """Each point is there, once and in order, and the statistics say so."""
    assert lines(windows) == {"i": (list(range(count)), list(range(count)))}
    stats = run.stats().backends["visdom"]
    assert (stats.delivered, stats.rejected, stats.behind, stats.skipped) == (count, 0, 0, {})


@pytest.mark.system
def test_numbers_are_lines_and_the_config_is_a_text(shared_host: Path, runs: Path) -> None:
    app = VisdomApp()
    with RawServer(app) as server:
        run = asynctrack.init("p", name="first", dir=runs, config={"lr": "<0.1>"}, backends=[visdom(server)])
        run.log({"loss": 0.5, "train": {"acc": 1}, "phase": "train", "ok": True}, step=7)
        run.log({"loss": math.nan, "up": math.inf, "large": 10**400}, step=7)
        run.log({"phase": "test"}, step=8)
        run.summary["best"] = 0.5
        stats = run.finish().backends["visdom"]
    assert (stats.delivered, stats.skipped) == (2, {"no number": 1})
    (env,) = app.envs
    assert (env, app.saved) == (f"p_{run.id}", [env])
    assert lines(app.envs[env]) == {
        "loss": ([7, 7], [0.5, None]),
        "train/acc": ([7], [1.0]),
        "ok": ([7], [1.0]),
        "up": ([7], [None]),
        "large": ([7], [None]),
    }
    assert "<td>lr</td><td>&lt;0.1&gt;</td>" in text(app.envs[env])
    assert "<td>summary/best</td><td>0.5</td>" in text(app.envs[env])
    (window,) = [window for window in app.envs[env].values() if window["title"] == "loss"]
    assert window["content"]["data"][0]["name"] == "first"


AMBIGUOUS = [
    raw_server.processes_and_resets,
    raw_server.processes_and_is_silent,
    raw_server.cuts_the_body,
    raw_server.processes_and_closes,
    raw_server.reads_and_is_silent,
    raw_server.resets_before_reading,
    says(503, retry_after="1"),
]


@pytest.mark.system
@pytest.mark.parametrize("behaviour", AMBIGUOUS, ids=lambda behaviour: behaviour.__name__)
def test_what_may_have_arrived_is_there_once(behaviour: Behaviour, shared_host: Path, runs: Path) -> None:
    app = VisdomApp()
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, backends=[visdom(server)])
        run.log({"i": 0})
        run.flush("delivered")
        server.script.extend([raw_server.well, behaviour])  # win_exists, then the update
        for i in range(1, 100):
            run.log({"i": i})
        run.finish()
    assert run.stats().backends["visdom"].retries == 1
    assert_whole(run, app.envs[f"p_{run.id}"], 100)


def test_a_batch_of_several_keys_that_fails_half_way_is_there_once(tmp_path: Path) -> None:
    app = VisdomApp()
    with RawServer(app) as server, JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        for i in range(20):
            run.log({"a": i, "b": -i}, i)
            if i == 9:
                run.journal()
                deliver(run.path, visdom(server))
                server.script.extend([raw_server.well] * 6 + [raw_server.processes_and_resets])
        run.end()
        deliver(run.path, visdom(server))
        assert not server.script
    assert lines(app.envs["p_r"]) == {
        "a": (list(range(20)), list(range(20))),
        "b": (list(range(20)), [-i for i in range(20)]),
    }


@pytest.mark.system
def test_a_killed_worker_is_followed_by_another(own_host: Path, runs: Path) -> None:
    app = VisdomApp()
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, config={"lr": 0.1}, backends=[visdom(server)])
        run.config.update(lr=0.2, gone=1)
        del run.config["gone"]
        for i in range(200):
            run.log({"i": i})
            if i == 100:
                run.flush("delivered")
                os.kill(the_worker(own_host), signal.SIGKILL)
        run.finish()
    assert_whole(run, app.envs[f"p_{run.id}"], 200)
    assert "<td>lr</td><td>0.2</td>" in text(app.envs[f"p_{run.id}"])
    assert "gone" not in text(app.envs[f"p_{run.id}"])


@pytest.mark.parametrize(
    ("when", "lost"),
    [
        ("while it is open", "all"),
        ("while it is open", "the window"),
        ("while it is not", "all"),
        ("while it is not", "the window"),
        ("while it is not", "points"),
        ("while it is not", "none, but repeats some"),
    ],
)
def test_what_visdom_has_lost_is_drawn_anew(when: str, lost: str, tmp_path: Path) -> None:
    app = VisdomApp()

    def lose() -> None:
        windows = app.envs["p_r"]
        name = next(name for name, window in windows.items() if window["title"] == "i")
        line = windows[name]["content"]["data"][0]
        if lost == "all":
            app.envs.clear()
        elif lost == "the window":
            del windows[name]
        elif lost == "points":
            del line["x"][5:]
        else:
            line["x"] += [1, 2, 3]

    with RawServer(app) as server, JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        for i in range(20):
            run.log({"i": i}, i)
            if i == 9:
                run.journal()
                if when == "while it is not":
                    deliver(run.path, visdom(server))
                    lose()
        run.end()
        if when == "while it is open":
            deliver_in_two(run, visdom(server), lose)
        assert deliver(run.path, visdom(server)).closed
    assert lines(app.envs["p_r"]) == {"i": (list(range(20)), list(range(20)))}


def deliver_in_two(run: JournaledRun, backend: Visdom, between: Any) -> None:
    """Give one sink two batches of ten."""
    import anyio

    from asynctrack.backends.base import Batch, Resend

    records = list(asynctrack.open_run(run.path).records())

    async def work() -> None:
        found = run.manifest
        sink: Any = backend.open(
            Context(run_id=found.id, name=found.name, project=found.project, directory=run.path, config={})
        )
        await sink.write(Batch(records[:10], []))
        between()
        with pytest.raises(Resend, match="has lost the window"):
            await sink.write(Batch(records[10:], []))
        await sink.close("stopped")

    anyio.run(work)


@pytest.mark.system
@pytest.mark.parametrize("status", [400, 401])
def test_a_server_that_wants_a_login_pauses_and_refuses_nothing(status: int, shared_host: Path, runs: Path) -> None:
    app = VisdomApp()
    app.login = status
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, after_exit_max_s=0.5, backends=["jsonl", visdom(server)])
        run.log({"i": 0})
        wait_until(lambda: run.stats().backends["visdom"].paused, "it pauses")
        stats = run.finish().backends["visdom"]
    assert (stats.behind, stats.rejected) == (1, 0)
    assert "-enable_login" in str(stats.last_error)


def test_what_is_no_visdom_is_not_taken_for_one(tmp_path: Path) -> None:
    with (
        RawServer(lambda request: Answer(200, b"<html>sign in</html>")) as server,
        JournaledRun(tmp_path / "runs" / "p" / "r") as run,
    ):
        run.log({"i": 0})
        run.end()
        with pytest.raises(TimeoutError):
            deliver(run.path, visdom(server), timeout_s=0.5)
    cursor = json.loads((run.path / "cursors" / "backend.json").read_text())
    assert cursor["delivered"] == 0
    assert "as Visdom does not" in cursor["last_error"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server_url", "http://user:sesame@127.0.0.1:1"),
        ("server_url", "127.0.0.1:8097"),
        ("env", " "),
        ("env", 5),
        ("request_timeout_s", 0),
        ("downsample_interval_s", -1),
    ],
)
def test_settings_that_cannot_be_used(field: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=field) as raised:
        Visdom(**{field: value})
    assert "sesame" not in str(raised.value)


def test_where_it_runs_and_what_it_reaches() -> None:
    backend = Visdom(server_url="http://127.0.0.1:1", env="mine")
    assert (execution_of(backend), backend.remote, backend.downsample_interval_s) == ("worker", True, 1.0)
    assert backend.external_targets() == ["http://127.0.0.1:1"]
    settings = stored(backend, "id", "visdom")
    assert from_stored(settings) == backend
    with pytest.raises(BackendUnavailable, match="--trust"):
        from_stored(settings, trusted=False)


def test_without_its_library_it_waits_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ActionRequired, match="pip install"):
        Visdom().open(Context(run_id="r", name="r", project="p", directory=tmp_path, config={}))


@pytest.mark.system
class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "nan"})

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        self.app = VisdomApp()
        with RawServer(self.app) as self.raw:
            yield

    def make_backend(self, run: Path) -> Visdom:
        return Visdom(server_url=self.raw.url, downsample_interval_s=None)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for key, points in lines(self.app.envs.get(f"kit_{run.name}", {})).items():
            yield from ((step, key, math.nan if value is None else value) for step, value in zip(*points, strict=True))


# With a Visdom server.

PYTHON = os.environ.get("VISDOM_PYTHON", sys.executable)
SERVE = "import sys; from visdom.server.run_server import main; main()"


@pytest.fixture(scope="module")
def envs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps environments."""
    return tmp_path_factory.mktemp("envs")


@pytest.fixture(scope="module")
def real_server(envs: Path) -> Iterator[str]:
    """The address of a Visdom server."""
    if subprocess.run([PYTHON, "-c", "import visdom.server.run_server"], capture_output=True).returncode:
        pytest.skip("no Python with visdom: set VISDOM_PYTHON")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    command = [PYTHON, "-c", SERVE, "-port", str(port), "-bind_local", "-env_path", str(envs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: _listens(port), "Visdom's server answers", deadline_s=90)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def windows_of(url: str, env: str) -> Windows:
    """What Visdom itself says that it has."""
    body = json.dumps({"eid": env, "win": None}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/win_data", body), timeout=30) as answer:
        found: Windows = json.loads(answer.read())
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_real_server_has_each_point_once(real_server: str, envs: Path, own_host: Path, runs: Path) -> None:
    backend = Visdom(server_url=real_server, downsample_interval_s=None)
    run = asynctrack.init("p", dir=runs, config={"lr": 0.1}, finish_timeout_s=90, backends=[backend])
    for i in range(3000):
        run.log({"i": i}, step=i)
        if i in (1000, 2000):
            run.flush(until="delivered", timeout_s=60)
            os.kill(the_worker(own_host), signal.SIGKILL)
    run.log({"odd": math.nan, "up": math.inf, "": 1}, step=3000)
    run.summary["best"] = 2999
    stats = run.finish().backends["visdom"]
    assert (stats.delivered, stats.behind) == (3001, 0)
    found = windows_of(real_server, f"p_{run.id}")
    assert lines(found)["i"] == (list(range(3000)), list(range(3000)))
    assert lines(found)["odd"] == ([3000], [None])
    assert "summary/best" in text(found)
    assert (envs / f"p_{run.id}.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestContractOfTheRealServer(BackendContract):
    exactly_once = True
    keeps = TestContract.keeps

    @pytest.fixture(autouse=True)
    def server(self, real_server: str, tmp_path: Path) -> None:
        self.url, self.prefix = real_server, tmp_path.name

    def make_backend(self, run: Path) -> Visdom:
        return Visdom(server_url=self.url, env=f"{self.prefix}_{run.name}", downsample_interval_s=None)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for key, points in lines(windows_of(self.url, f"{self.prefix}_{run.name}")).items():
            yield from ((step, key, math.nan if value is None else value) for step, value in zip(*points, strict=True))
