"""MLflow: every number is a metric, once and in order, of one MLflow run, whatever its server does. The tests that are marked slow need MLflow itself:

pip install --group test-servers && pytest -m slow tests/test_mlflow.py
"""

from __future__ import annotations

import base64
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

import msgspec
import pytest
import raw_server
from fake_servers import MLflowApp
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import Answer, Behaviour, RawServer, Request, no_server, says
from support import manifest, the_worker, wait_until

import asynctrack
from asynctrack import ActionRequired, MLflow
from asynctrack.backends.base import Context
from asynctrack.backends.mlflow.items import as_number, chunks, clean_name
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.records.codec import from_json
from asynctrack.testing import BackendContract

TOKEN = "sesame-4711"
LARGEST = 1.7976931348623157e308
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def mlflow(server: RawServer, **settings: Any) -> MLflow:
    return MLflow(tracking_uri=server.url, request_timeout_s=settings.pop("request_timeout_s", 0.5), **settings)


def an_app() -> MLflowApp:
    return MLflowApp(f"Bearer {TOKEN}")


def metrics(app: MLflowApp) -> list[tuple[str, int, Any]]:
    """Key, step and value of the one run's metrics, in the server's order."""
    return [(key, step, value) for key, _, step, value in app.the_run()["metrics"]]


def assert_whole(run: asynctrack.Run, app: MLflowApp, count: int, *, status: str = "FINISHED") -> None:
    """One run with each record once and in order, ended, and the statistics say so."""
    assert metrics(app) == [("i", step, float(step)) for step in range(count)]
    assert app.the_run()["info"]["status"] == status
    stats = run.stats().backends["mlflow"]
    assert (stats.delivered, stats.rejected, stats.behind, stats.skipped) == (count, 0, 0, {})


@pytest.mark.system
def test_numbers_are_metrics(own_host: Path, runs: Path) -> None:
    app = an_app()
    with RawServer(app) as server:
        run = asynctrack.init("p", name="first", dir=runs, backends=[mlflow(server, tags={"team": "a", "odd@": "b"})])
        run.log({"loss": 0.5, "grads": {"norm": 1}, "ok": True, "phase": "train", "ids": [1]}, step=7)
        run.log({"nan": math.nan, "up": math.inf, "down": -math.inf, "large": 1 << 70}, step=-7)
        run.log({"phase": "train"}, step=8)
        run.log({"larger": 10**400}, step=9)
        run.log({"far": 1}, step=1 << 63)
        run.log({"near": 1}, step=(1 << 63) - 1)
        stats = run.finish().backends["mlflow"]
    assert metrics(app) == [
        ("loss", 7, 0.5),
        ("grads/norm", 7, 1.0),
        ("ok", 7, 1.0),
        ("nan", -7, "NaN"),
        ("up", -7, LARGEST),
        ("down", -7, -LARGEST),
        ("large", -7, float(1 << 70)),
        ("near", (1 << 63) - 1, 1.0),
    ]
    logged_ms = [record.time_ns // 1_000_000 for record in asynctrack.open_run(run.path).records()]
    assert app.the_run()["metrics"][0][1] == logged_ms[0]
    assert (stats.delivered, stats.skipped) == (3, {"no number": 2, "a step beyond 63 bits": 1})
    info, tags = app.the_run()["info"], app.the_run()["tags"]
    assert app.experiments == {"p": info["experiment_id"]}
    assert (info["run_name"], info["status"], info["end_time"]) == ("first", "FINISHED", logged_ms[-1])
    assert tags.items() >= {"team": "a", "odd_": "b", "asynctrack.run_id": run.id}.items()


@pytest.mark.system
def test_config_is_params_and_what_changes_is_tags(own_host: Path, runs: Path) -> None:
    app = an_app()
    config = {
        "lr": 0.1,
        "net": {"sizes": [1, 2], "bias": True},
        "none": None,
        "text": "a\0b",
        "odd@": math.inf,
        "long": "x" * 7000,
    }
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, config=config, backends=[mlflow(server)])
        run.log({"i": 0.0}, step=0)
        run.flush(until="delivered")
        found = dict(app.the_run()["params"])
        assert len(found.pop("long")) == 6000
        assert found == {
            "lr": "0.1",
            "net/sizes": "[1, 2]",
            "net/bias": "True",
            "none": "None",
            "text": "a\\0b",
            "odd_": "inf",
        }
        run.config["lr"] = 0.2
        run.config["new"] = "late"
        run.flush(until="delivered")
        assert app.the_run()["tags"]["config/lr"] == "0.2"
        run.config["lr"] = 0.1
        run.summary.update({"best": 0.5, "note": "fine", "worst": 2})
        run.flush(until="delivered")
        del run.summary["worst"], run.config["new"]
        run.config["net"].pop("bias")
        run.config["net"]["sizes"].append(3)
        run.finish()
    assert app.the_run()["params"].items() >= {"lr": "0.1", "new": "late"}.items()
    assert app.the_run()["tags"].items() >= {"config/lr": "0.1", "summary/note": "fine"}.items()
    removed = {name: text for name, text in app.the_run()["tags"].items() if text == "(removed)"}
    assert removed.keys() == {"summary/worst", "config/new", "config/net/bias"}  # params and metrics cannot go
    assert app.the_run()["tags"]["config/net/sizes"] == "[1, 2, 3]"
    assert metrics(app) == [("i", 0, 0.0), ("summary/best", 0, 0.5), ("summary/worst", 0, 2.0)]


@pytest.mark.system
def test_two_hundred_params_go_in_requests_that_mlflow_takes(own_host: Path, runs: Path) -> None:
    app = an_app()
    config = {f"p{n}": "é" * 7000 for n in range(250)}
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, config=config, queue_bytes=16 << 20, backends=[mlflow(server)])
        run.finish()
        assert max(len(request.body) for request in server.requests) < 1_000_000
    assert len(app.the_run()["params"]) == 250


@pytest.mark.system
@pytest.mark.parametrize(("end", "status"), [("finish", "FINISHED"), ("raise", "FAILED"), ("kill", "KILLED")])
def test_how_a_run_ended(end: str, status: str, own_host: Path, runs: Path) -> None:
    app = an_app()
    script = """
import asynctrack, os, signal, sys
with asynctrack.init("p", dir=sys.argv[1], backends=[asynctrack.MLflow(tracking_uri=sys.argv[2])]) as run:
    run.log({"i": 0.0}, step=0)
    if sys.argv[3] == "raise":
        raise ValueError("bad")
    if sys.argv[3] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""
    with RawServer(app) as server:
        subprocess.run([sys.executable, "-c", script, str(runs), server.url, end], capture_output=True, timeout=50)
        wait_until(lambda: app.runs and app.the_run()["info"]["status"] != "RUNNING", "the run has ended there")
    assert metrics(app) == [("i", 0, 0.0)]
    assert app.the_run()["info"]["status"] == status


@pytest.mark.system
@pytest.mark.parametrize(
    "endpoint", ["runs/create", "runs/log-batch", "runs/update", "experiments/create", "runs/search"]
)
@pytest.mark.parametrize(
    "behaviour", [raw_server.processes_and_resets, raw_server.processes_and_is_silent], ids=lambda b: b.__name__
)
def test_what_may_have_arrived_is_sent_again_and_there_once(
    endpoint: str, behaviour: Behaviour, shared_host: Path, runs: Path
) -> None:
    app = an_app()
    spoiled: list[str] = []

    def spoil(exchange: raw_server.Exchange) -> None:
        """The first request of this kind ends badly."""
        request = exchange.read()
        exchange.read = lambda: request  # type: ignore[method-assign]  # once is enough
        if request.path.endswith(endpoint) and not spoiled:
            spoiled.append(request.path)
            behaviour(exchange)
        else:
            raw_server.well(exchange)

    with RawServer(app, [spoil] * 30) as server:
        run = asynctrack.init("p", dir=runs, backends=[mlflow(server)])
        for i in range(50):
            run.log({"i": float(i)}, step=i)
        run.finish()
    assert spoiled
    assert_whole(run, app, 50)
    assert set(app.came.values()) == {2 if endpoint == "runs/log-batch" else 1}


@pytest.mark.system
@pytest.mark.parametrize("dies_after", ["runs/create", "runs/log-batch"])
def test_a_worker_that_dies_before_it_has_noted_its_run_finds_it_again(
    dies_after: str, own_host: Path, runs: Path
) -> None:
    app = an_app()
    died: list[str] = []

    def dying(request: Request) -> Answer:
        answer = app(request)
        if request.path.endswith(dies_after) and not died:
            died.append(request.path)
            os.kill(the_worker(own_host), signal.SIGKILL)
        return answer

    with RawServer(dying) as server:
        run = asynctrack.init("p", dir=runs, config={"lr": 0.1}, backends=[mlflow(server)])
        for i in range(50):
            run.log({"i": float(i)}, step=i)
        run.finish()
    assert died
    assert_whole(run, app, 50)
    assert app.the_run()["params"] == {"lr": "0.1"}


def test_an_experiment_that_another_makes_meanwhile_is_taken(own_host: Path, runs: Path) -> None:
    app = an_app()

    def race(request: Request) -> Answer:
        if request.path.endswith("experiments/create"):
            app.experiments["p"] = "another's"
        return app(request)

    with RawServer(race) as server:
        run = asynctrack.init("p", dir=runs, backends=[mlflow(server)])
        run.log({"i": 0.0}, step=0)
        run.finish()
    assert app.the_run()["info"]["experiment_id"] == "another's"
    assert_whole(run, app, 1)


def test_a_run_that_goes_on_is_the_same_run_there(own_host: Path, runs: Path) -> None:
    app = an_app()
    with RawServer(app) as server:
        run = asynctrack.init("p", id="a", dir=runs, config={"lr": 0.1, "k": 1}, backends=[mlflow(server)])
        run.log({"i": 0.0}, step=0)
        run.flush(until="delivered")
        run.config["k"] = 2
        run.finish()
        run = asynctrack.init("p", id="a", dir=runs, resume="must", config={"lr": 0.2}, backends=[mlflow(server)])
        run.log({"i": 1.0}, step=1)
        run.flush(until="delivered")
        assert app.the_run()["info"]["status"] == "RUNNING"
        run.finish()
    assert metrics(app) == [("i", 0, 0.0), ("i", 1, 1.0)]
    assert app.the_run()["info"]["status"] == "FINISHED"
    assert app.the_run()["params"] == {"lr": "0.1", "k": "1"}
    assert app.the_run()["tags"].items() >= {"config/lr": "0.2", "config/k": "2"}.items()


BAD = [
    raw_server.processes_and_resets,
    raw_server.processes_and_is_silent,
    raw_server.cuts_the_body,
    raw_server.silent,
    raw_server.resets_before_reading,
    raw_server.half_closes,
    raw_server.garbage_status,
    raw_server.cuts_a_chunk,
    raw_server.drips_a_body_for_ever,
    raw_server.huge,
    raw_server.answers_twice,
    says(200, b"<html>sign in</html>"),
    says(429, retry_after="1"),
    says(503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database is locked"}),
    says(400, {"error_code": "BAD_REQUEST", "message": "(sqlite3.InterfaceError)"}),
]
WELL = [raw_server.well, raw_server.chunked, raw_server.continues_first]


def weather(seed: int, rounds: int, runs: Path) -> None:
    """Bad ones between good ones, from the first request to the last."""
    chance, app = random.Random(seed), an_app()
    script = [
        behaviour
        for bad in chance.sample(BAD, rounds)
        for behaviour in (bad, *chance.choices(WELL, k=chance.randint(1, 3)))
    ]
    with RawServer(app, script) as server:
        run = asynctrack.init("p", dir=runs, finish_timeout_s=50, backends=[mlflow(server)])
        count = 0
        while server.script:
            for i in range(count, count + 100):
                assert run.log({"i": float(i)}, step=i)
            count += 100
            run.flush(until="delivered", timeout_s=50)
        run.finish()
    assert_whole(run, app, count)


@pytest.mark.system
@pytest.mark.parametrize("seed", range(1))
def test_everything_arrives_once_and_in_order_through_a_storm(seed: int, shared_host: Path, runs: Path) -> None:
    weather(seed, 3, runs)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 104))
def test_everything_arrives_once_and_in_order_through_a_long_storm(seed: int, shared_host: Path, runs: Path) -> None:
    weather(seed, len(BAD), runs)


@pytest.mark.system
def test_a_batch_that_failed_in_the_middle_goes_on_there(own_host: Path, runs: Path) -> None:
    app = an_app()
    with RawServer(app, [raw_server.well] * 6 + [raw_server.closes_before_answering]) as server:
        run = asynctrack.init("p", dir=runs, backends=[mlflow(server)])
        for step in range(400):
            run.log({f"k{n}": float(step) for n in range(10)}, step=step)
        run.finish()
    assert len(app.the_run()["metrics"]) == 4000
    assert set(app.came.values()) == {1}


@pytest.mark.system
@pytest.mark.parametrize("kind", ["dead", "wedged"])
def test_a_server_that_is_gone_holds_nobody(kind: str, own_host: Path, runs: Path) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "dead":
            url = stack.enter_context(no_server())
        else:
            url = stack.enter_context(RawServer(script=[raw_server.silent] * 100)).url
        limits = {"finish_timeout_s": 0.5, "after_exit_max_s": 0.5}
        run = asynctrack.init("p", dir=runs, backends=["jsonl", MLflow(tracking_uri=url)], **limits)
        slowest = 0.0
        for i in range(1000):
            before = time.perf_counter()
            assert run.log({"i": i})
            slowest = max(slowest, time.perf_counter() - before)
        wait_until(lambda: run.stats().backends["jsonl"].delivered == 1000, "the other backend has everything")
        before = time.monotonic()
        stats = run.finish()
        assert time.monotonic() - before < 10
    assert slowest < 0.5
    assert stats.backends["mlflow"].behind == 1000


@pytest.mark.system
def test_what_is_behind_after_an_outage_arrives(own_host: Path, runs: Path) -> None:
    app = an_app()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    run = asynctrack.init("p", dir=runs, backends=[MLflow(tracking_uri=f"http://127.0.0.1:{port}")])
    for i in range(5000):
        run.log({"i": float(i)}, step=i)
    wait_until(lambda: run.stats().backends["mlflow"].retries >= 2, "it was tried")
    with RawServer(app, port=port):
        run.finish()
    assert_whole(run, app, 5000)


def test_a_record_that_mlflow_refuses_is_kept_aside(own_host: Path, runs: Path) -> None:
    app = an_app()

    def picky(request: Request) -> Answer:
        if b'"value":66' in request.body:
            return Answer(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "not 66"})
        return app(request)

    with RawServer(picky) as server:
        run = asynctrack.init("p", dir=runs, backends=[mlflow(server)])
        for i in range(100):
            run.log({"i": float(i)}, step=i)
        stats = run.finish().backends["mlflow"]
    assert metrics(app) == [("i", i, float(i)) for i in range(100) if i != 66]
    assert (stats.delivered, stats.rejected) == (99, 1)
    assert "not 66" in json.loads((run.path / "dead_letters.jsonl").read_text())["reason"]


def test_a_param_that_mlflow_refuses_keeps_nothing_back(own_host: Path, runs: Path) -> None:
    app = an_app()

    def picky(request: Request) -> Answer:
        if b"poison" in request.body:
            return Answer(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})
        return app(request)

    with RawServer(picky) as server:
        config = {"a": 1, "b": "poison", "c": 3}
        run = asynctrack.init("p", dir=runs, config=config, backends=[mlflow(server)])
        run.log({"i": 0.0}, step=0)
        run.summary["note"] = "poison"
        run.finish()
    assert app.the_run()["params"] == {"a": "1", "c": "3"}
    assert_whole(run, app, 1)


@pytest.mark.system
def test_a_deleted_run_or_experiment_pauses(own_host: Path, runs: Path) -> None:
    app = an_app()
    with RawServer(app) as server:
        run = asynctrack.init("p", dir=runs, after_exit_max_s=0.5, backends=[mlflow(server)])
        run.log({"i": 0.0}, step=0)
        run.flush(until="delivered")
        app.deleted.add(app.the_run()["info"]["run_id"])
        run.log({"i": 1.0}, step=1)
        wait_until(lambda: run.stats().backends["mlflow"].paused, "it pauses")
        stats = run.stats().backends["mlflow"]
        assert (stats.paused, stats.rejected, stats.behind) == (True, 0, 1)
        assert "is deleted; restore it" in str(stats.last_error)
        app.deleted.add(app.experiments["p"])
        other = asynctrack.init("p", dir=runs, after_exit_max_s=0.5, backends=[mlflow(server)])
        other.log({"i": 0.0})
        wait_until(lambda: other.stats().backends["mlflow"].paused, "it pauses")
        assert "experiment 'p' is deleted" in str(other.finish().backends["mlflow"].last_error)
        run.finish()


@pytest.mark.system
@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_keeps_the_run_from_being_made_is_for_a_person(status: int, own_host: Path, runs: Path) -> None:
    with RawServer(lambda _: Answer(status, {"message": "why"})) as server:
        run = asynctrack.init("p", dir=runs, after_exit_max_s=0.5, backends=[mlflow(server)])
        for _ in range(3):
            run.log({"i": 0.0})
        wait_until(lambda: run.stats().backends["mlflow"].paused, "it pauses")
        stats = run.finish().backends["mlflow"]
    assert (stats.paused, stats.rejected, stats.behind) == (True, 0, 3)
    assert ("MLFLOW_TRACKING_TOKEN" in str(stats.last_error)) == (status in (401, 403))
    for path in run.path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


def test_user_and_password_come_before_the_token(own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret: 1")
    app = MLflowApp(f"Basic {base64.b64encode(b'me:secret: 1').decode()}")
    with RawServer(app) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server.url}/")
        run = asynctrack.init("p", dir=runs, backends=["mlflow"])
        run.log({"i": 0.0}, step=0)
        run.finish()
        assert manifest(run.path)["backends"]["mlflow"]["tracking_uri"] == f"{server.url}/"
    assert_whole(run, app, 1)


@pytest.mark.parametrize(
    "chosen",
    [
        {"tracking_uri": f"http://me:{TOKEN}@127.0.0.1"},
        {"tracking_uri": "sqlite:///mlflow.db"},
        {"tracking_uri": "databricks"},
        {"experiment": ""},
        {"run_name": 5},
        {"tags": {"a": 1}},
        {"tags": ["a"]},
        {"token": TOKEN},
        {"request_timeout_s": -1},
        {"downsample_interval_s": -1},
    ],
)
def test_settings_that_cannot_be_used(chosen: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings) as raised:
        MLflow(**chosen)
    assert next(iter(chosen)) in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_an_address_is_needed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match="MLFLOW_TRACKING_URI"):
        asynctrack.init("p", dir=runs, backends=["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{TOKEN}@127.0.0.1")
    with pytest.raises(InvalidSettings, match="MLFLOW_TRACKING_URI") as raised:
        asynctrack.init("p", dir=runs, backends=["mlflow"])
    assert TOKEN not in str(raised.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ActionRequired, match="MLFLOW_TRACKING_URI"):
        MLflow().open(Context(run_id="r", name="r", project="p", directory=runs, config={}))


def test_where_it_runs_and_what_it_reaches() -> None:
    backend = MLflow(tracking_uri="http://127.0.0.1:1", tags={"a": "b"})
    assert (execution_of(backend), backend.remote, backend.external_targets()) == (
        "worker",
        True,
        ["http://127.0.0.1:1"],
    )
    kept = stored(backend, "id", "mlflow")
    assert from_stored(kept) == backend
    with pytest.raises(BackendUnavailable, match="--trust"):
        from_stored(kept, trusted=False)


@pytest.mark.system
@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_name_becomes_one_that_mlflow_takes(key: str) -> None:
    from fake_servers import _name_problem

    name = clean_name(key)
    assert _name_problem(name) is None
    assert clean_name(name) == name
    if _name_problem(key) is None and not key.endswith("\n"):
        assert name == key


def test_long_names_stay_apart() -> None:
    assert clean_name("k" * 300) != clean_name("k" * 301)


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none(), st.lists(st.integers())))
def test_numbers_are_what_protobuf_reads(value: Any) -> None:
    number = as_number(value)
    if isinstance(number, str):
        assert number in ("NaN", "Infinity", "-Infinity")
    elif number is None:
        assert not isinstance(value, float | bool)
    else:
        assert number == float(value)


@given(st.lists(st.integers(1, 5000), max_size=400))
def test_chunks_are_within_the_limits(sizes: list[int]) -> None:
    items = [msgspec.Raw(b"x" * size * 100) for size in sizes]
    found = list(chunks(items, 100))
    assert [item for chunk in found for item in chunk] == items
    assert all(
        0 < len(chunk) <= 100 and sum(len(memoryview(item)) + 1 for item in chunk) <= 1_000_000 for chunk in found
    )


class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "nan", "inf"})
    rejects: ClassVar = {"poison": 66.0}

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        self.app = an_app()
        with RawServer(self._answer) as self.raw:
            yield

    def _answer(self, request: Request) -> Answer:
        if b"poison" in request.body:
            return Answer(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})
        return self.app(request)

    def make_backend(self, run: Path) -> MLflow:
        return MLflow(tracking_uri=self.raw.url)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        found = [there for there in self.app.runs.values() if there["tags"]["asynctrack.run_id"] == run.name]
        assert len(found) <= 1
        for key, _, step, value in found[0]["metrics"] if found else []:
            if not key.startswith("summary/"):
                yield step, key, from_json(value)

    def same(self, given: Any, found: Any) -> bool:
        if isinstance(given, float) and math.isinf(given):
            return bool(found == math.copysign(LARGEST, given))
        return super().same(given, found)


# With MLflow itself.

needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed: pip install --group test-servers"
)


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an MLflow server, and its database."""
    home = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/f.db", "--artifacts-destination", str(home / "artifacts")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _answers(port), "MLflow's server answers", deadline_s=150)
        yield f"http://127.0.0.1:{port}", home / "f.db"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        return b" 200 " in connection.recv(100)
    return False


def select(database: Path, what: str, run: asynctrack.Run) -> list[Any]:
    """Rows of MLflow's own tables that belong to a run."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = "SELECT run_uuid FROM tags WHERE key = 'asynctrack.run_id' AND value = ?"
        return connection.execute(f"{what} WHERE run_uuid IN ({found})", (run.id,)).fetchall()


@pytest.mark.slow
@needs_mlflow
@pytest.mark.timeout(300)
def test_the_real_server_has_each_number_once(real_server: tuple[str, Path], own_host: Path, runs: Path) -> None:
    url, database = real_server
    options: dict[str, Any] = {"finish_timeout_s": 100, "backends": [MLflow(tracking_uri=url)]}
    config = {"lr": 0.1, "net": {"sizes": [1, 2]}, "odd@": "é" * 7000, "text": "a\0b"}
    run = asynctrack.init("real", dir=runs, config=config, **options)
    for i in range(5000):
        run.log({"i": float(i)}, step=i)
        if i == 2000:
            run.flush(until="delivered", timeout_s=60)
        if i == 4000:
            os.kill(the_worker(own_host), signal.SIGKILL)
    run.config["lr"] = 0.2
    run.summary.update({"best": 1, "note": "fine"})
    run.finish()
    assert sorted(select(database, "SELECT key, step, value FROM metrics", run)) == sorted(
        [*(("i", i, float(i)) for i in range(5000)), ("summary/best", 0, 1.0)]
    )
    params = dict(select(database, "SELECT key, value FROM params", run))
    assert params.items() >= {"net/sizes": "[1, 2]", "odd_": "é" * 6000, "text": "a\\0b"}.items()
    tags = dict(select(database, "SELECT key, value FROM tags", run))
    assert tags["summary/note"] == "fine"
    assert params["lr"] == "0.2" or (params["lr"] == "0.1" and tags["config/lr"] == "0.2")
    ((status, end_time),) = select(database, "SELECT status, end_time FROM runs", run)
    assert status == "FINISHED"
    assert abs(end_time / 1000 - time.time()) < 300


@pytest.mark.slow
@needs_mlflow
@pytest.mark.timeout(300)
def test_the_real_server_drops_nothing_that_we_send(real_server: tuple[str, Path], own_host: Path, runs: Path) -> None:
    """It answers 200 to what it cannot parse, so every kind of value is looked for in its database."""
    url, database = real_server
    run = asynctrack.init("real", dir=runs, finish_timeout_s=100, backends=[MLflow(tracking_uri=url)])
    data = {
        "nan": math.nan,
        "up": math.inf,
        "down": -math.inf,
        "tiny": 5e-324,
        "large": 1 << 70,
        "true": True,
        "minus": -0.0,
    }
    data |= {
        "1e308": 1e308,
        "ü/ß 🎈:x": 1,
        "..": 2,
        "/": 3,
        "": 4,
        "a//b": 5,
        "k" * 300: 6,
        "k" * 301: 7,
        "line\n": 8,
        "%s'\"": 9,
    }
    run.log(data, step=(1 << 63) - 1)
    run.log(data, step=-(1 << 63) + 1)
    stats = run.finish().backends["mlflow"]
    assert (stats.delivered, stats.rejected) == (2, 0)
    rows = select(database, "SELECT key, step, value, is_nan FROM metrics", run)
    assert len(rows) == 2 * len(data)
    found = {key: value for key, step, value, _ in rows if step > 0}
    assert found.items() >= {"up": LARGEST, "down": -LARGEST, "tiny": 5e-324, "true": 1.0, "_/_": 3.0}.items()
    assert [key for key, _, _, is_nan in rows if is_nan] == ["nan", "nan"]


@pytest.mark.slow
@needs_mlflow
@pytest.mark.timeout(300)
def test_a_resend_changes_nothing_in_the_real_server(real_server: tuple[str, Path], own_host: Path, runs: Path) -> None:
    url, database = real_server
    run = asynctrack.init("real", dir=runs, finish_timeout_s=100, backends=[MLflow(tracking_uri=url)])
    for i in range(1500):
        run.log({"i": float(i), "nan": math.nan}, step=i)
    run.finish()
    before = select(database, "SELECT * FROM metrics", run)
    assert len(before) == 3000
    (run.path / "cursors" / "mlflow.json").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "asynctrack", "sync", str(run.path)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run.path / "cursors" / "mlflow.json").read_text())["delivered"] == 1500
    assert sorted(select(database, "SELECT * FROM metrics", run)) == sorted(before)


@pytest.mark.slow
@needs_mlflow
@pytest.mark.timeout(600)
class TestContractOfTheServer(TestContract):
    rejects = None
    records = 40

    @pytest.fixture(autouse=True)
    def server(self, real_server: tuple[str, Path], tmp_path: Path) -> None:
        self.url, self.database = real_server
        self.experiment = f"{tmp_path.name}-{os.urandom(4).hex()}"

    def make_backend(self, run: Path) -> MLflow:
        return MLflow(tracking_uri=self.url, experiment=self.experiment)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        query = """
            SELECT metrics.step, metrics.key, metrics.value, metrics.is_nan FROM metrics
            JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id) JOIN tags USING (run_uuid)
            WHERE experiments.name = ? AND tags.key = 'asynctrack.run_id' AND tags.value = ? ORDER BY metrics.rowid
        """
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(query, (self.experiment, run.name)).fetchall()
        return (
            (step, key, math.nan if nan else value) for step, key, value, nan in rows if not key.startswith("summary/")
        )
