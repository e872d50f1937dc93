"""Trackio: every record is one row, in order, whatever its server does. The tests that are marked slow need Trackio itself:

pip install --group test-servers && pytest -m slow tests/test_trackio.py
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import raw_server
from fake_servers import TrackioApp
from raw_server import Answer, Behaviour, RawServer, no_server, says
from support import manifest, the_worker, wait_until

import asynctrack
from asynctrack import ActionRequired, Trackio
from asynctrack.backends.base import Batch, Context, Update
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Record, from_json
from asynctrack.testing import BackendContract

TOKEN = "sesame-4711"
# A batch as large as this backend's, in records of one short number.
BATCH = 5000


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", TOKEN)


def trackio(server: RawServer, **settings: Any) -> Trackio:
    return Trackio(server_url=server.url, request_timeout_s=settings.pop("request_timeout_s", 0.5), **settings)


def rows_of(run: asynctrack.Run, app: TrackioApp) -> list[Any]:
    """The values of `i` that the server has, in its order."""
    return [row["metrics"]["i"] for row in app.rows.get(run.id, [])]


def assert_whole(run: asynctrack.Run, app: TrackioApp, count: int) -> None:
    """The server has each record once and in order, and the statistics say so."""
    assert rows_of(run, app) == list(range(count))
    assert all(app.came[row["log_id"]] >= 1 for row in app.rows[run.id])
    stats = run.stats().backends["trackio"]
    assert (stats.delivered, stats.rejected, stats.behind, stats.skipped) == (count, 0, 0, {})


@pytest.mark.system
def test_records_are_rows(own_host: Path, runs: Path) -> None:
    app = TrackioApp(TOKEN)
    with RawServer(app) as server:
        run = asynctrack.init(
            "p", name="first", dir=runs, config={"lr": 0.1, "net": {"sizes": [1, 2]}}, backends=[trackio(server)]
        )
        run.log({"loss": 0.5, "grads": {"norm": 1}, "phase": "train", "ok": True, "none": None, "ids": [1, 2]}, step=7)
        run.log({"loss": math.nan, "up": math.inf, "down": -math.inf, "step": 3, "__x": 4}, step=7)
        run.log({"weights": {}}, step=8)
        run.log({"large": 1 << 70, "larger": 10**400}, step=-1)
        run.log({"far": 1}, step=(1 << 64) - 1)
        stats = run.finish()
    first, second, third = app.rows[run.id]
    assert (first["project"], first["run"], first["step"]) == ("p", "first", 7)
    assert first["metrics"] == {"loss": 0.5, "grads/norm": 1, "phase": "train", "ok": 1, "none": None, "ids": [1, 2]}
    assert second["metrics"] == {"loss": "NaN", "up": "Infinity", "down": "-Infinity", "__step": 3, "____x": 4}
    assert third["metrics"] == {"large": float(1 << 70)}
    assert [row["log_id"].split(":")[0::2] for row in app.rows[run.id]] == [[run.id, "0"], [run.id, "1"], [run.id, "3"]]
    assert stats.backends["trackio"].delivered == 3
    assert stats.backends["trackio"].skipped == {"nothing that Trackio can hold": 1, "a step beyond 63 bits": 1}
    assert app.configs[run.id].items() >= {"lr": 0.1, "net/sizes": [1, 2]}.items()


def test_config_and_summary_are_as_they_were_set_last(own_host: Path, runs: Path) -> None:
    app = TrackioApp(TOKEN)
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, config={"lr": 0.1, "_odd": math.nan}, backends=[trackio(server)])
        run.log({"i": 0})
        run.flush(until="delivered")
        assert app.configs[run.id].items() >= {"lr": 0.1, "__odd": "NaN"}.items()
        run.config["lr"] = 0.2
        run.summary["best"] = {"i": 1 << 80}
        run.config["net"] = {"size": 1, "act": {"name": "relu"}}
        run.flush(until="delivered")  # there is no new row to carry it
        assert app.configs[run.id].items() >= {"lr": 0.2, "summary/best/i": float(1 << 80), "__odd": "NaN"}.items()
        del run.config["_odd"], run.config["net"]["act"], run.summary["best"]
        run.flush(until="delivered")
        shown = {name: value for name, value in app.configs[run.id].items() if name != "_Created"}
        assert shown == {"lr": 0.2, "net/size": 1}
        run.finish()
    assert_whole(run, app, 1)


@pytest.mark.system
def test_a_run_goes_on_with_its_config_after_its_worker_was_killed(own_host: Path, runs: Path) -> None:
    app = TrackioApp(TOKEN)
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, config={"lr": 0.1}, backends=[trackio(server)])
        run.config["lr"] = 0.2
        run.log({"i": 0})
        run.flush(until="delivered")
        os.kill(the_worker(own_host), signal.SIGKILL)
        app.configs.clear()
        run.log({"i": 1})
        run.finish()
    assert app.configs[run.id]["lr"] == 0.2
    assert_whole(run, app, 2)


AMBIGUOUS = [
    raw_server.processes_and_resets,
    raw_server.processes_and_is_silent,
    raw_server.cuts_the_body,
    raw_server.processes_and_closes,
]


@pytest.mark.system
@pytest.mark.parametrize(
    "behaviour", [*AMBIGUOUS, raw_server.reads_and_is_silent, says(503, retry_after="1")], ids=lambda b: b.__name__
)
def test_what_may_have_arrived_is_sent_again_and_there_once(
    behaviour: Behaviour, shared_host: Path, runs: Path
) -> None:
    app = TrackioApp(TOKEN)
    with RawServer(app, [behaviour]) as server:
        run = asynctrack.init("p", dir=runs, backends=[trackio(server)])
        for i in range(100):
            run.log({"i": i})
        run.finish()
    assert_whole(run, app, 100)
    repeated = behaviour in AMBIGUOUS
    assert all(app.came[row["log_id"]] == 1 + repeated for row in app.rows[run.id])
    assert run.stats().backends["trackio"].retries == 1


BAD = [
    *AMBIGUOUS,
    raw_server.silent,
    raw_server.reads_and_is_silent,
    raw_server.resets_before_reading,
    raw_server.resets_after_the_head,
    raw_server.closes_before_answering,
    raw_server.half_closes,
    raw_server.garbage_status,
    raw_server.cuts_the_headers,
    raw_server.cuts_a_chunk,
    raw_server.drips_headers_for_ever,
    raw_server.continues_for_ever,
    raw_server.huge,
    raw_server.answers_twice,
    raw_server.answers_too_early,
    says(200, b"<html>sign in</html>"),
    says(429, retry_after="1"),
    says(503, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"),
    says(502, b"<html>"),
    says(413),
]
WELL = [raw_server.well, raw_server.chunked, raw_server.continues_first, raw_server.keeps_the_connection]


def storm(seed: int, rounds: int) -> list[Behaviour]:
    """Each of `rounds` bad ones once or twice, then a good one."""
    chance = random.Random(seed)
    script = []
    for behaviour in chance.sample(BAD, rounds):
        script += [behaviour] * chance.choice([1, 1, 2]) + [chance.choice(WELL)]
    return script


def weather(script: list[Behaviour], runs: Path) -> None:
    app = TrackioApp(TOKEN)
    with RawServer(app, script) as server:
        run = asynctrack.init(
            "p", dir=runs, finish_timeout_s=50, when_full="block", backends=["jsonl", trackio(server)]
        )
        count = 0
        while server.script:
            for i in range(count, count + 200):
                assert run.log({"i": i})
            count += 200
            run.flush(until="delivered", timeout_s=50)
        run.finish()
    assert_whole(run, app, count)


@pytest.mark.system
@pytest.mark.parametrize("seed", range(1))
def test_everything_arrives_once_and_in_order_through_a_storm(seed: int, shared_host: Path, runs: Path) -> None:
    weather(storm(seed, 3), runs)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 104))
def test_everything_arrives_once_and_in_order_through_a_long_storm(seed: int, shared_host: Path, runs: Path) -> None:
    weather(storm(seed, len(BAD)), runs)


@pytest.mark.system
@pytest.mark.parametrize("kind", ["dead", "wedged", "dripping"])
def test_a_server_that_is_gone_holds_nobody(kind: str, own_host: Path, runs: Path) -> None:
    bad = {"wedged": raw_server.silent, "dripping": raw_server.drips_headers_for_ever}
    with contextlib.ExitStack() as stack:
        if kind == "dead":
            backend = Trackio(server_url=stack.enter_context(no_server()))
        else:
            server = stack.enter_context(RawServer(script=[bad[kind]] * 100))
            backend = Trackio(server_url=server.url, request_timeout_s=60)
        limits = {"finish_timeout_s": 0.5, "after_exit_max_s": 0.5}
        run = asynctrack.init("p", dir=runs, backends=["jsonl", backend], **limits)
        slowest = 0.0
        for i in range(1000):
            before = time.perf_counter()
            assert run.log({"i": i})
            slowest = max(slowest, time.perf_counter() - before)
        before = time.monotonic()
        wait_until(lambda: run.stats().backends["jsonl"].delivered == 1000, "the other backend has everything")
        stats = run.finish()
        assert time.monotonic() - before < 15
    assert slowest < 0.5
    assert stats.backends["jsonl"].behind == 0
    assert stats.backends["trackio"].behind == 1000


@pytest.mark.system
def test_what_is_behind_after_an_outage_arrives(own_host: Path, runs: Path) -> None:
    app = TrackioApp(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    run = asynctrack.init("p", dir=runs, backends=[Trackio(server_url=f"http://127.0.0.1:{port}")])
    for i in range(3 * BATCH):
        run.log({"i": i})
    wait_until(lambda: run.stats().backends["trackio"].retries >= 2, "it was tried")
    assert "cannot be reached" in str(run.stats().backends["trackio"].last_error)
    with RawServer(app, port=port):
        run.finish()
    assert_whole(run, app, 3 * BATCH)
    assert run.stats().backends["trackio"].last_error is None


def test_a_batch_that_is_too_large_is_split(own_host: Path, runs: Path) -> None:
    app = TrackioApp(TOKEN)

    def proxy(request: raw_server.Request) -> raw_server.Answer:
        return app(request) if len(request.body) < 20_000 else raw_server.Answer(413)

    with RawServer(proxy) as server:
        run = asynctrack.init("p", dir=runs, backends=[trackio(server)])
        for i in range(500):
            run.log({"i": i})
        run.log({"i": 500, "text": "x" * 30_000})
        stats = run.finish().backends["trackio"]
    assert rows_of(run, app) == list(range(500))
    assert (stats.delivered, stats.rejected, stats.behind) == (500, 1, 0)
    (line,) = (run.path / "dead_letters.jsonl").read_text().splitlines()
    assert json.loads(line)["number"] == 500
    assert "413" in json.loads(line)["reason"]


@pytest.mark.system
def test_a_wrong_token_pauses_and_says_what_to_do(own_host: Path, runs: Path) -> None:
    with RawServer(TrackioApp("another")) as server:
        run = asynctrack.init("p", dir=runs, after_exit_max_s=0.5, backends=["jsonl", trackio(server)])
        run.log({"i": 0})
        wait_until(lambda: run.stats().backends["trackio"].paused, "it pauses")
        stats = run.finish().backends["trackio"]
    assert stats.paused
    assert stats.behind == 1
    assert "set TRACKIO_WRITE_TOKEN in the environment" in str(stats.last_error)
    for path in run.path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "settings",
    [
        {"server_url": f"http://127.0.0.1:1?write_token={TOKEN}"},
        {"server_url": f"http://user:{TOKEN}@127.0.0.1:1"},
        {"server_url": ""},
        {"server_url": "ftp://127.0.0.1"},
        {"write_token": TOKEN},
        {"project": " "},
        {"project": 5},
        {"request_timeout_s": 0},
        {"request_timeout_s": "5"},
        {"max_records_s": 0},
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings) as raised:
        Trackio(**settings)
    assert next(iter(settings)) in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_where_it_runs_and_what_it_reaches() -> None:
    local, remote = Trackio(), Trackio(server_url="http://127.0.0.1:1")
    assert (execution_of(local), local.remote) == ("process", False)
    assert (execution_of(remote), remote.remote) == ("worker", True)
    assert remote.external_targets() == ["http://127.0.0.1:1"]
    settings = stored(remote, "id", "trackio")
    assert from_stored(settings) == remote
    with pytest.raises(asynctrack.errors.BackendUnavailable, match="--trust"):
        from_stored(settings, trusted=False)
    with pytest.raises(asynctrack.errors.BackendUnavailable, match="--trust"):
        from_stored(stored(local, "id", "trackio"), trusted=False)


def test_offline_it_waits_for_sync(own_host: Path, runs: Path) -> None:
    with RawServer(TrackioApp(TOKEN)) as server:
        run = asynctrack.init("p", dir=runs, mode="offline", backends=["jsonl", trackio(server)])
        run.log({"i": 0})
        run.finish()
        assert server.connections == 0
    assert manifest(run.path)["status"] == "finished"


def test_without_its_library_it_waits_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setitem(sys.modules, "trackio.sqlite_storage", None)
    with pytest.raises(ActionRequired, match=r"pip install 'asynctrack\[trackio\]'"):
        Trackio().open(Context(run_id="r", name="r", project="p", directory=tmp_path, config={}))


@pytest.mark.system
class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "text", "nan", "inf", "list"})
    rejects: ClassVar = {"poison": 1}

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        self.app = TrackioApp(TOKEN)
        with RawServer(lambda request: Answer(422) if b"poison" in request.body else self.app(request)) as self.raw:
            yield

    def make_backend(self, run: Path) -> Trackio:
        return Trackio(server_url=self.raw.url)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for row in self.app.rows.get(run.name, []):
            for key, value in row["metrics"].items():
                yield row["step"], key, from_json(value)


# With Trackio itself.

needs_trackio = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None, reason="trackio is not installed: pip install --group test-servers"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Trackio keeps its projects."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "trackio"


@pytest.fixture
def real_server(home: Path) -> Iterator[str]:
    """The address of a Trackio server."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "trackio.cli", "show", "--host", "127.0.0.1"],
        env={**os.environ, "GRADIO_SERVER_PORT": str(port), "BROWSER": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _listens(port), "Trackio's server answers", deadline_s=90)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def in_database(home: Path, run: asynctrack.Run) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a run in Trackio's own file: steps and metrics, in its order."""
    with contextlib.closing(sqlite3.connect(home / "p.db")) as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id", (run.id,)).fetchall()
    return [(step, json.loads(metrics)) for step, metrics in rows]


def config_in_database(home: Path, run: asynctrack.Run) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(home / "p.db")) as database:
        ((config,),) = database.execute("SELECT config FROM configs WHERE run_id = ?", (run.id,)).fetchall()
    found: dict[str, Any] = json.loads(config)
    return found


def log_strange_things(run: asynctrack.Run) -> int:
    """What a row can hold at its limits; returns how many rows that makes."""
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    data = [
        {"f": 1e308, "i": (1 << 63) - 1, "big": -(1 << 70)},
        {"deep": deep},
        {"key " * 50: 1},
        {"": 1, "ü/ß": "\0 é 🎈"},
    ]
    for step, row in enumerate([*data, {"nan": math.nan, "up": math.inf}, {"step": 1, "_type": "trackio.trace"}]):
        run.log(row, step=-step)
    run.log({"far": 1}, step=1 << 63)
    return len(data) + 2


@pytest.mark.slow
@needs_trackio
@pytest.mark.timeout(240)
def test_the_real_server_has_each_record_once(real_server: str, home: Path, own_host: Path, runs: Path) -> None:
    run = asynctrack.init(
        "p", dir=runs, config={"lr": 0.1}, finish_timeout_s=60, backends=[Trackio(server_url=real_server)]
    )
    for i in range(3 * BATCH):
        run.log({"i": i}, step=i)
        if i == 2 * BATCH:
            os.kill(the_worker(own_host), signal.SIGKILL)
    run.flush(until="delivered", timeout_s=60)
    strange = log_strange_things(run)
    run.config["lr"] = 0.2
    stats = run.finish().backends["trackio"]
    rows = in_database(home, run)
    assert [metrics["i"] for _, metrics in rows[: 3 * BATCH]] == list(range(3 * BATCH))
    assert len(rows) == 3 * BATCH + strange == stats.delivered
    assert stats.skipped == {"a step beyond 63 bits": 1}
    assert config_in_database(home, run)["lr"] == 0.2


@pytest.mark.slow
@needs_trackio
@pytest.mark.timeout(240)
def test_the_library_has_each_record_once(home: Path, own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, config={"lr": 0.1}, finish_timeout_s=90, backends=["trackio"])
    for i in range(2 * BATCH):
        run.log({"i": i}, step=i)
    run.flush(until="delivered", timeout_s=90)
    strange = log_strange_things(run)
    run.config["lr"] = 0.2
    stats = run.finish().backends["trackio"]
    rows = in_database(home, run)
    assert [metrics["i"] for _, metrics in rows[: 2 * BATCH]] == list(range(2 * BATCH))
    assert len(rows) == 2 * BATCH + strange == stats.delivered
    assert config_in_database(home, run)["lr"] == 0.2


@pytest.mark.slow
@needs_trackio
def test_a_batch_given_twice_is_there_once(home: Path, tmp_path: Path) -> None:
    context = Context(run_id="r", name="r", project="p", directory=tmp_path, config={"a": 1})
    batch = Batch(
        [Record(n, n, 1_700_000_000_000_000_000 + n, {"i": n}, 7) for n in range(10)], [Update("config", 1, {"a": 2})]
    )
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from asynctrack.backends.trackio import Trackio
from asynctrack.backends.base import *
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Record, from_json
from asynctrack.testing import BackendContract
from pathlib import PosixPath
context, batch = {context!r}, {batch!r}
for _ in range(2):
    sink = Trackio().open(context)
    sink.write(batch), sink.write(batch), sink.write(Batch([], []))
from trackio.sqlite_storage import SQLiteStorage
logs = SQLiteStorage.get_logs("p", "r")
assert [log["i"] for log in logs] == list(range(10)), logs
assert logs[0]["timestamp"].startswith("2023-11-14T22:13:20"), logs[0]
assert SQLiteStorage.get_run_config("p", "r")["a"] == 2
try:
    Trackio(project="a_system").open(context)
except Paused as paused:
    assert "project=" in str(paused)
else:
    raise AssertionError("a name that Trackio does not take")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Trackio keeps its projects in this process: it reads that when it is imported, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        return Path(importlib.import_module("trackio.sqlite_storage").TRACKIO_DIR)


@pytest.mark.slow
@needs_trackio
@pytest.mark.timeout(600)
class TestContractOfTheLibrary(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "text", "nan", "inf", "list"})

    @pytest.fixture(autouse=True)
    def fresh(self, imported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("TRACKIO_DIR", str(imported))
        self.project = f"t{tmp_path.name}-{os.urandom(4).hex()}"

    def make_backend(self, run: Path) -> Trackio:
        return Trackio(project=self.project)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        database = Path(os.environ["TRACKIO_DIR"]) / f"{self.project}.db"
        if not database.exists():
            return
        with contextlib.closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id", (run.name,)
            ).fetchall()
        for step, metrics in rows:
            for key, value in json.loads(metrics).items():
                yield step, key, from_json(value)
