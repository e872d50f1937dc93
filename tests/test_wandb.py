"""W&B: the real SDK and wandb-core against a server of our own. Every record is one row, in order, whatever dies or hangs in between."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import raw_server
from delivery_support import assert_balanced, command, deliverers, kill, kill_workers
from raw_server import says
from support import DEADLINE_S, manifest, wait_until, workers
from wandb_fixtures import server, surroundings
from wandb_server import KEY, StoredRun, WandbServer

import asynctrack
from asynctrack import ActionRequired, Batch, Context, Sink, Update, WandB
from asynctrack._system import descendants
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.backends.single_thread import SingleThread
from asynctrack.backends.wandb import core as wandb_core
from asynctrack.backends.wandb import sink as wandb_sink
from asynctrack.backends.wandb.aggregates import Aggregates
from asynctrack.backends.wandb.files import WandbFile, offline_files
from asynctrack.backends.wandb.rows import STEP, Rows, clean_name, is_too_large
from asynctrack.cli.sync_job import SyncJob
from asynctrack.errors import InvalidSettings, JournalCorrupt
from asynctrack.records.codec import Record, decode_record, encode_any
from asynctrack.testing import BackendContract, JournaledRun, deliver, deliver_in_process
from asynctrack.worker import delivery_supervisor
from asynctrack.worker.policy import Policy

__all__ = ["server", "surroundings"]  # fixtures

# The SDK's own pauses are for a network.
QUICK = {
    "x_file_stream_retry_wait_min_seconds": 1,
    "x_file_stream_retry_wait_max_seconds": 1,
    "x_file_stream_timeout_seconds": 2,
}


def wandb(server: WandbServer, **settings: Any) -> WandB:
    return WandB(base_url=server.url, **{"settings": QUICK, **settings})


def cores(shared: Path) -> list[int]:
    """Pids of the wandb-core processes of the delivery processes whose rings lie in `shared`."""
    mine = deliverers(shared)
    return [stray.pid for stray in descendants.found() if stray.starter in mine]


def lives(pid: int) -> bool:
    return bool(descendants.start_time(pid))


def assert_whole(stored: StoredRun, count: int, stats: asynctrack.BackendStats | None = None) -> None:
    """The server has each record once and in order; none came again as another."""
    assert [row["i"] for row in stored.rows()] == list(range(count))
    assert [row["_step"] for row in stored.rows()] == list(range(count))
    assert stored.changed == []
    if stats is not None:
        assert (stats.delivered, stats.rejected, stats.behind, stats.skipped) == (count, 0, 0, {})


@contextlib.contextmanager
def opened(backend: WandB, directory: Path, state: dict[str, Any] | None = None) -> Iterator[Sink]:
    """A sink in this process, for a run of the id "run"."""
    given = {"run_id": "run", "name": "run", "project": "p", "directory": directory, "config": {}}
    sink = backend.open(Context(**given, state=state))
    try:
        yield sink
    finally:
        sink.close("stopped")


def batch(*values: int) -> Batch:
    return Batch([Record(number=i, step=i, time_ns=time.time_ns(), data={"i": i}) for i in values], [])


def log(run: asynctrack.Run, values: range) -> None:
    for i in values:
        assert run.log({"i": i})


@pytest.mark.system
def test_records_are_rows(server: WandbServer, shared_host: Path, runs: Path) -> None:
    given = {"lr": 0.1, "net": {"sizes": [1, 2]}, "odd": math.nan}
    facts = {"tags": ["a", "b"], "notes": "words", "group": "g", "job_type": "train"}
    run = asynctrack.init("p", name="first", dir=runs, config=given, backends=["jsonl", wandb(server, **facts)])
    run.log({"loss": 0.5, "grads": {"norm": 1}, "phase": "train", "ok": True, "none": None, "ids": [1, 2]}, step=7)
    run.log({"loss": math.nan, "up": math.inf, "down": -math.inf, "_step": 3, "_odd": 4}, step=7)
    run.log({"weights": {}}, step=8)
    run.log({"large": 1 << 70, "larger": 10**400}, step=-1)
    run.config.update(lr=0.2, gone=1)
    run.config["net"]["sizes"].append(3)
    del run.config["gone"]  # W&B cannot forget it
    run.summary["best"] = {"at": 7}
    stats = run.finish()
    stored = server.runs[run.id]
    first, second, third = stored.rows()
    own = {"_step", "_runtime", "_timestamp", STEP}
    assert {key: value for key, value in first.items() if key not in own} == {
        "loss": 0.5,
        "grads/norm": 1,
        "phase": "train",
        "ok": True,
        "ids": [1, 2],
    }
    assert math.isnan(second["loss"])
    assert (second["up"], second["down"], second["__step"], second["_odd"]) == (math.inf, -math.inf, 3, 4)
    assert third["large"] == float(1 << 70)
    assert [row[STEP] for row in stored.rows()] == [7, 7, -1]
    assert abs(first["_timestamp"] - time.time()) < 60
    assert stored.values().items() >= {"lr": 0.2, "net": {"sizes": [1, 2, 3]}, "odd": "NaN", "gone": None}.items()
    assert stored.summary.items() >= {"best": {"at": 7}, "grads/norm": 1}.items()
    assert (stored.facts["displayName"], stored.facts["tags"], stored.facts["notes"]) == ("first", ["a", "b"], "words")
    assert (stored.facts["groupName"], stored.facts["jobType"]) == ("g", "train")
    assert (stored.project, stored.exit_code) == ("p", 0)
    assert {"2": "*", "5": 2} in [{key: rule[key] for key in rule if rule[key]} for rule in stored.rules()]
    backend_stats = stats.backends["wandb"]
    assert (backend_stats.delivered, backend_stats.skipped) == (3, {"nothing that W&B can hold": 1})


@pytest.mark.system
def test_resumed_run_goes_on_as_the_same_run(server: WandbServer, shared_host: Path, runs: Path) -> None:
    metrics = {"i": {"summary": "min,max"}, "val/*": {"summary": "last"}}
    backend = wandb(server, name="mine", metrics=metrics)
    for session, values in enumerate((range(50), range(50, 80))):
        run = asynctrack.init("p", id="night", dir=runs, resume="allow", backends=["jsonl", backend])
        log(run, values)
        run.summary[f"session {session}"] = True
        run.finish()
        server.runs["night"].facts["displayName"] = "given by a person"
    stored = server.runs["night"]
    assert_whole(stored, 80, run.stats().backends["wandb"])
    assert stored.facts["displayName"] == "given by a person"
    assert stored.summary["i"] == {"min": 0, "max": 79}
    assert stored.summary["session 0"] is stored.summary["session 1"] is True


@pytest.mark.system
def test_each_writer_has_a_run_in_one_group(server: WandbServer, tmp_path: Path) -> None:
    run = JournaledRun(tmp_path / "p" / "job", environment={"writer": "rank0", "rank": 0}, config={"lr": 0.1})
    writers = [run, run.join("rank1", 1), run.join("node:7")]
    for part in range(2):  # two deliveries, each of a process of its own
        for step in range(3 * part, 3 * part + 3):
            for writer in writers:
                writer.log({"i": step}, step)
                writer.journal()
        if part:
            run.update("config", {"lr": 0.2})
            run.end("failed")
        deliver(run.path, wandb(server, writers="split"), name="wandb")
    run.close()
    assert sorted(server.runs) == ["job", "job-node_7-ff123dfc", "job-rank1"]
    for each in server.runs.values():
        assert_whole(each, 6)
        assert each.facts["groupName"] == "job"
        assert each.values().items() >= {"lr": 0.2}.items()
        assert each.exit_code == 1
    assert {name: each.facts["displayName"] for name, each in server.runs.items()} == {
        "job": "job",
        "job-rank1": "job rank1",
        "job-node_7-ff123dfc": "job node:7",
    }


@pytest.mark.system
def test_library_cleans_up_silently_behind_a_wandb_core_that_was_killed(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects of the library are collected at any moment, also between the kill and the end of the connection."""
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with opened(wandb(server), tmp_path) as sink:
        sink.write(batch(0))
    wandb_core.start()
    (pid,) = descendants.own()
    service = importlib.import_module("wandb.sdk.wandb_setup").singleton().assert_service()
    settings = importlib.import_module("wandb.sdk.wandb_setup").singleton().settings
    apis = [importlib.import_module("wandb.apis.public.service_api").ServiceApi(settings) for _ in range(3)]
    for api in apis:
        api._get_api_session()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: service._client._mailbox._closed, "the library has noticed")
    del api
    apis.clear()
    gc.collect()
    wandb_core.kill()
    assert failed == []


@pytest.mark.system
def test_of_several_writers_it_gets_the_rows_of_rank_0(server: WandbServer, tmp_path: Path) -> None:
    run = JournaledRun(tmp_path / "p" / "job", environment={"writer": "rank0", "rank": 0})
    for step in range(3):
        run.log({"i": step}, step)
    run.journal()
    other = run.join("rank1", 1)
    other.log({"i": 100})
    other.journal()
    run.end()
    cursor = deliver(run.path, wandb(server), name="wandb")
    run.close()
    (stored,) = server.runs.values()
    assert_whole(stored, 3)
    assert (cursor.delivered, cursor.skipped) == (3, {"of other writers": 1})


MILD = [[says(503)] * 2, [says(429, retry_after="1")], [raw_server.processes_and_resets]]
WILD = [
    [raw_server.processes_and_is_silent],
    [raw_server.cuts_the_body],
    [raw_server.resets_before_reading],
    [raw_server.garbage_status],
    [says(502, b"<html>"), raw_server.processes_and_closes],
]


@pytest.mark.parametrize(
    "faults",
    [pytest.param(MILD, marks=pytest.mark.system), pytest.param(WILD, marks=pytest.mark.slow)],
    ids=["mild", "wild"],
)
def test_everything_arrives_once_and_in_order_through_a_storm(
    faults: list[list[raw_server.Behaviour]], server: WandbServer, shared_host: Path, runs: Path
) -> None:
    run = asynctrack.init("p", dir=runs, finish_timeout_s=50, backends=["jsonl", wandb(server)])
    for number, fault in enumerate(faults):
        server.faults["file_stream"].extend(fault)
        log(run, range(100 * number, 100 * number + 100))
        run.flush("delivered", timeout_s=DEADLINE_S)
        assert not server.faults["file_stream"]
    stats = run.finish()
    assert_balanced(stats)
    assert_whole(server.runs[run.id], 100 * len(faults), stats.backends["wandb"])
    assert max(server.runs[run.id].came.values()) > 1  # what W&B had processed was sent again


@pytest.mark.parametrize(
    "kind", [pytest.param("dead", marks=pytest.mark.slow), pytest.param("wedged", marks=pytest.mark.system)]
)
def test_a_server_that_is_gone_holds_nobody_and_gets_everything_when_it_is_back(
    kind: str, server: WandbServer, own_host: Path, runs: Path
) -> None:
    limits = {"finish_timeout_s": 0.5, "after_exit_max_s": 1.0}
    if kind == "dead":
        server.close()
    run = asynctrack.init("p", dir=runs, backends=["jsonl", wandb(server)], **limits)
    known = 100 if kind == "wedged" else 0
    log(run, range(known))
    if known:
        run.flush("delivered", timeout_s=DEADLINE_S)
        server.lasting = {"graphql": raw_server.reads_and_is_silent, "file_stream": raw_server.reads_and_is_silent}
    slowest = 0.0
    for i in range(known, 1000):
        before = time.perf_counter()
        assert run.log({"i": i})
        slowest = max(slowest, time.perf_counter() - before)
    wait_until(lambda: run.stats().backends["jsonl"].delivered == 1000, "the other backend has everything")
    left = cores(own_host)
    before = time.monotonic()
    stats = run.finish()
    assert time.monotonic() - before < 15
    assert slowest < 0.5
    assert (stats.backends["jsonl"].behind, stats.backends["wandb"].behind) == (0, 1000 - known)
    assert_balanced(stats)
    wait_until(lambda: not workers(own_host), "the worker has left it to sync")
    wait_until(lambda: not any(lives(pid) for pid in left), "and taken W&B's own processes along")
    server.lasting = {}
    with WandbServer(port=server.port) if kind == "dead" else server as back, SyncJob([run.path]) as work:
        wait_until(lambda: work.poll() and work.done, "everything is delivered")
        (progress,) = work.poll()
        assert progress.state == "done", progress
        assert_whole(back.runs[run.id], 1000, progress.stats.backends["wandb"])


@pytest.mark.system
def test_wandb_core_that_is_killed_is_followed_by_another(server: WandbServer, own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, backends=["jsonl", wandb(server)])
    for number in range(2):
        log(run, range(100 * number, 100 * number + 100))
        run.flush("journaled")
        wait_until(lambda: cores(own_host), "there is a wandb-core")
        for pid in cores(own_host):
            kill(pid)
        run.flush("delivered", timeout_s=DEADLINE_S)
    # It is the same process. What it starts looks like it until it has become another program.
    wait_until(lambda: len(deliverers(own_host)) == 1, "one process delivers")
    assert not any(KEY.encode() in command(pid) for pid in [*workers(own_host), *cores(own_host)])
    stats = run.finish()
    assert_whole(server.runs[run.id], 200, stats.backends["wandb"])
    for path in run.path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.system
def test_worker_that_is_killed_takes_all_with_it_and_is_followed_by_another(
    server: WandbServer, own_host: Path, runs: Path
) -> None:
    run = asynctrack.init("p", dir=runs, backends=["jsonl", wandb(server)])
    log(run, range(100))
    run.flush("delivered", timeout_s=DEADLINE_S)
    left = cores(own_host)
    log(run, range(100, 200))
    for pid in left:
        os.kill(pid, signal.SIGSTOP)  # it cannot notice that it is alone
    kill_workers(own_host)
    log(run, range(200, 300))
    stats = run.finish()
    assert_whole(server.runs[run.id], 300, stats.backends["wandb"])
    assert left
    assert not any(lives(pid) for pid in left)


def assert_survives_kills(server: WandbServer, runs: Path, kills: int, seed: int) -> None:
    """A journaled run is delivered while its delivery process is killed again and again."""
    chance, records = random.Random(seed), 30 * kills
    with JournaledRun(runs / "p" / "killed", backends={"wandb": wandb(server)}) as run:
        for i in range(records):
            run.log({"i": i}, step=-i)
        run.update("summary", {"best": 0.5})
        run.end()
    killed, next_at = 0, 0.0

    def poll(process: Any, cursor: Any) -> None:
        nonlocal killed, next_at
        if process.group is None:
            next_at = time.monotonic() + chance.uniform(0.3, 2.0)
        elif killed < kills and time.monotonic() > next_at:
            os.killpg(process.group, signal.SIGKILL)
            killed, next_at = killed + 1, math.inf

    slow = msgspec.structs.replace(wandb(server), max_records_s=60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery_supervisor, "back_off", lambda failures: 0.0)
        cursor = deliver_in_process(run.path, slow, name="wandb", poll=poll, timeout_s=30.0 + 5.0 * kills)
    assert killed == kills
    assert (cursor.delivered, cursor.rejected, cursor.skipped) == (records, 0, {})
    assert_whole(server.runs["killed"], records)
    assert [row[STEP] for row in server.runs["killed"].rows()] == [-i for i in range(records)]
    assert server.runs["killed"].summary["best"] == 0.5


@pytest.mark.system
def test_process_that_is_killed_at_random_moments_repeats_and_loses_nothing(server: WandbServer, runs: Path) -> None:
    assert_survives_kills(server, runs, kills=5, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_process_that_is_killed_fifty_times_repeats_and_loses_nothing(server: WandbServer, runs: Path) -> None:
    assert_survives_kills(server, runs, kills=50, seed=2)


@pytest.mark.system
def test_run_that_was_offline_is_sent_by_sync(server: WandbServer, shared_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, mode="offline", backends=["jsonl", wandb(server)])
    log(run, range(100))
    run.finish()
    assert server.connections == 0
    with SyncJob([run.path], Policy(offline_too=True)) as work:
        wait_until(lambda: work.poll() and work.done, "everything is delivered")
        (progress,) = work.poll()
    assert_whole(server.runs[run.id], 100, progress.stats.backends["wandb"])


def wandb_command(directory: Path, *arguments: str | Path) -> bytes:
    """What a command of wandb's own says; it leaves logs in the directory."""
    command = [sys.executable, "-m", "wandb", *map(str, arguments)]
    return subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, check=True, timeout=DEADLINE_S).stdout


def inspect(file: Path) -> list[dict[str, Any]]:
    """The records of a file, as wandb's own reader finds them."""
    return [json.loads(line) for line in wandb_command(file.parent, "leet", "inspect", "--json", file).splitlines()]


@pytest.mark.system
def test_offline_files_hold_every_row_once_also_after_kills(
    server: WandbServer, own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asynctrack.init("p", dir=runs, config={"lr": 0.1}, backends=["jsonl", WandB(mode="offline")])
    for number in range(3):
        log(run, range(100 * number, 100 * number + 100))
        if number < 2:
            run.flush("delivered", timeout_s=DEADLINE_S)
            for pid in (*cores(own_host), *deliverers(own_host)) if number else cores(own_host):
                kill(pid)
    stats = run.finish()
    assert (stats.backends["wandb"].delivered, stats.backends["wandb"].behind) == (300, 0)
    files = offline_files(run.path, run.id)
    assert len(files) == 3
    assert [WandbFile(file).rows() for file in files] == [100, 100, 100]
    assert sum(record["type"] == "history" for record in inspect(files[1])) == 100
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    wandb_command(run.path, "sync", *[file.parent for file in files])
    assert_whole(server.runs[run.id], 300)
    assert server.runs[run.id].values()["lr"] == 0.1


@pytest.mark.system
def test_without_a_key_it_pauses_and_the_run_goes_on(
    server: WandbServer, own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    run = asynctrack.init("p", dir=runs, after_exit_max_s=0.5, backends=["jsonl", wandb(server)])
    log(run, range(10))
    wait_until(lambda: run.stats().backends["wandb"].paused, "it pauses")
    log(run, range(10, 20))
    stats = run.finish()
    backend_stats = stats.backends["wandb"]
    assert (backend_stats.paused, backend_stats.behind, stats.backends["jsonl"].behind) == (True, 20, 0)
    assert "run `wandb login`, or set WANDB_API_KEY in the environment" in str(backend_stats.last_error)


@pytest.mark.system
@pytest.mark.parametrize("key", ["short", "x" * 40])
def test_with_a_wrong_key_it_pauses_and_goes_on_when_there_is_the_right_one(
    key: str, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    with (
        pytest.raises(ActionRequired, match=r"run `wandb login`, or set WANDB_API_KEY in the environment$") as raised,
        opened(wandb(server), tmp_path),
    ):
        pass
    assert key not in str(raised.value)
    host = server.url.removeprefix("http://")
    (tmp_path / ".netrc").write_text(f"machine {host}\nlogin user\npassword {KEY}\n")
    monkeypatch.delenv("WANDB_API_KEY")
    with opened(wandb(server), tmp_path) as sink:
        sink.write(batch(0))
        sink.checkpoint()
        sink.close("finished")
    assert_whole(server.runs["run"], 1)


@pytest.mark.system
def test_a_user_who_may_not_write_there_is_told(server: WandbServer, tmp_path: Path) -> None:
    server.lasting["UpsertBucket"] = says(403, {"errors": [{"message": "permission denied"}]})
    with pytest.raises(ActionRequired, match="entity and project"), opened(wandb(server, entity="others"), tmp_path):
        pass


@pytest.mark.slow
def test_statistics_of_the_process_that_logs(server: WandbServer, shared_host: Path, runs: Path) -> None:
    sampling = {**QUICK, "x_stats_sampling_interval": 0.5}
    run = asynctrack.init("p", dir=runs, backends=[wandb(server, system_stats=True, settings=sampling)])
    log(run, range(10))
    run.flush("delivered", timeout_s=DEADLINE_S)
    wait_until(lambda: server.runs[run.id].events, "there are statistics")
    run.finish()
    (pid, _) = manifest(run.path)["backends"]["wandb"]["watched"]
    assert pid == os.getpid()
    assert "system.proc.memory.rssMB" in json.loads(server.runs[run.id].events[0])


@pytest.mark.system
@pytest.mark.parametrize("resume", ["allow", "never"])
def test_run_of_the_same_id_that_is_another_ones_is_added_to_or_left_alone(
    resume: str, server: WandbServer, tmp_path: Path
) -> None:
    with opened(wandb(server), tmp_path / "first") as sink:
        sink.write(batch(*range(20)))
        sink.checkpoint()
        sink.close("finished")
    refused = pytest.raises(ActionRequired, match="W&B has a run 'run' of 20 rows; give another with id=")
    with (
        contextlib.nullcontext() if resume == "allow" else refused,
        opened(wandb(server, resume=resume), tmp_path / "second") as sink,
    ):
        sink.write(batch(*range(20, 40)))
        assert sink.checkpoint().items() >= {"rows": 20, "before": 20}.items()
    assert_whole(server.runs["run"], 20 if resume == "never" else 40)


@pytest.mark.system
def test_what_was_said_of_the_run_is_said_again_where_it_may_not_have_arrived(
    server: WandbServer, tmp_path: Path
) -> None:
    def told(kind: Any, **data: Any) -> Update:
        return Update(kind, time.time_ns(), data)

    with opened(wandb(server), tmp_path) as sink:
        sink.write(Batch(batch(0).records, [told("config", lr=0.2), told("summary", best=0.5, i=7, loss=1)]))
        sink.write(batch(1))
        state = sink.checkpoint()
        wandb_core.kill()
        server.runs["run"].summary.clear()
    with opened(wandb(server), tmp_path, json.loads(json.dumps(state))) as sink:
        sink.write(Batch([], [told("summary", loss=2)]))
        sink.close("failed")
    assert_whole(server.runs["run"], 2)
    assert server.runs["run"].summary.items() >= {"best": 0.5, "loss": 2}.items()
    assert "i" not in server.runs["run"].summary  # a later row had another, which this server has forgotten
    assert server.runs["run"].exit_code == 1


@pytest.mark.system
def test_wandb_core_that_has_given_up_is_replaced(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sink, "_STUCK_S", 0.5)
    server.faults["file_stream"].extend([says(400)] * 2)
    with opened(wandb(server), tmp_path) as sink:
        sink.write(batch(*range(50)))
        sink.checkpoint()
        sink.close("finished")
    assert_whole(server.runs["run"], 50)


@pytest.mark.system
def test_row_that_is_there_already_is_not_sent_again(server: WandbServer, tmp_path: Path) -> None:
    with opened(wandb(server), tmp_path) as sink:
        sink.write(batch(*range(30)))
        sink.checkpoint()  # and the process dies before this is kept
    with opened(wandb(server), tmp_path) as sink:
        sink.write(batch(*range(40)))
        assert sink.checkpoint()["rows"] == 40
        sink.close("finished")
    assert_whole(server.runs["run"], 40)
    assert set(server.runs["run"].came.values()) == {1}
    assert server.runs["run"].summary["i"] == 39


def test_definition_that_wandb_does_not_take_holds_up_nobody(server: WandbServer, tmp_path: Path) -> None:
    metrics = {"a*b": {"summary": "min"}, "loss": {"goal": "minimize", "summary": "min", "step_metric": "epoch"}}
    with opened(wandb(server, metrics=metrics), tmp_path) as sink:
        sink.write(batch(0))
        sink.close("finished")
    assert_whole(server.runs["run"], 1)


def test_run_that_is_not_at_wandb_is_not_resumed(server: WandbServer, tmp_path: Path) -> None:
    with pytest.raises(ActionRequired, match="existing run"), opened(wandb(server, resume="must"), tmp_path):
        pass


@pytest.mark.system
def test_run_that_a_person_deleted_is_sent_again(server: WandbServer, tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for i in range(20):
            run.log({"i": i})
        run.journal()
        deliver(run.path, wandb(server))
        server.runs.clear()
        run.log({"i": 20})
        run.end()
        deliver(run.path, wandb(server))
    assert_whole(server.runs["run"], 21)


def test_without_its_library_it_waits_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ActionRequired, match=r"pip install 'asynctrack\[wandb\]'"):
        WandB().open(Context(run_id="r", name="r", project="p", directory=tmp_path, config={}))


def test_disabled_it_shows_nothing(tmp_path: Path) -> None:
    sink = WandB(mode="disabled").open(Context(run_id="r", name="r", project="p", directory=tmp_path, config={}))
    record = Record(number=0, step=0, time_ns=0, data={"i": 0})
    assert sink.write(Batch([record, record], [])) == {"W&B is disabled": 2}
    assert sink.write(Batch([], [])) == {}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "shared"}, "mode"),
        ({"resume": "auto"}, "resume"),
        ({"project": " "}, "project"),
        ({"id": "a/b"}, "id"),
        ({"tags": "abc"}, "tags"),
        ({"tags": ["x" * 65]}, "tags"),
        ({"base_url": f"https://user:{KEY}@api.wandb.ai"}, "base_url"),
        ({"settings": {"api_key": KEY}}, "api_key, which may hold a key"),
        ({"settings": {"run_id": "a"}}, "run_id"),
        ({"settings": ["console"]}, "settings"),
        ({"metrics": {"loss": {"summary": "best"}}}, "metrics"),
        ({"max_records_s": 0}, "max_records_s"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSettings, match=told) as raised:
        WandB(**settings)
    assert KEY not in str(raised.value)


def test_where_it_runs_and_what_it_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = WandB(tags=["a"], settings={"x_stats_sampling_interval": 1})
    assert (execution_of(backend), backend.remote) == ("process", True)
    assert backend.external_targets() == ["https://api.wandb.ai"]
    assert from_stored(stored(backend, "id", "wandb")) == backend
    with pytest.raises(asynctrack.errors.BackendUnavailable, match="--trust"):
        from_stored(stored(backend, "id", "wandb"), trusted=False)
    assert not WandB(mode="offline").remote
    environment = {"PROJECT": "q", "ENTITY": "e", "BASE_URL": "http://127.0.0.1:1", "MODE": "offline"}
    for name, value in environment.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    prepared = WandB().prepare()
    assert isinstance(prepared, WandB)
    assert (prepared.project, prepared.entity, prepared.base_url, prepared.mode) == tuple(environment.values())
    given = WandB(project="mine", mode="disabled").prepare()
    assert isinstance(given, WandB)
    assert (given.project, given.mode) == ("mine", "disabled")


def test_names_that_are_taken_get_an_underscore() -> None:
    names = ["loss", "_step", "__step", "_mine", "_timestamp", STEP, "", "step"]
    cleaned = [clean_name(name) for name in names]
    assert cleaned == ["loss", "__step", "___step", "_mine", "__timestamp", f"_{STEP}", "_", "step"]
    assert len(set(cleaned)) == len(names)


def test_row_that_would_be_left_out_is_known() -> None:
    assert not is_too_large({"text": "x" * 10_000_000})
    assert is_too_large({"text": "x" * 11_000_000})
    assert is_too_large({"text": "\n" * 9_000_000})
    assert not is_too_large({"list": [0.5] * 100_000})


def test_aggregates_are_of_all_rows() -> None:
    asked = {"loss": ["min", "max"], "val/*": ["first", "last", "mean"], "none": ["none"]}
    before = Aggregates(asked)
    for value in (3.0, math.nan, 1.0):
        before.add({"loss": value, "val/a": value, "none": value, "text": "x"})
    assert before.fresh() == {
        "loss": {"min": 1.0, "max": 3.0},
        "val/a": {"first": 3.0, "last": 1.0, "mean": 2.0},
    }
    assert before.fresh() == {}
    after = Aggregates(asked, json.loads(json.dumps(before.state)))
    after.add({"loss": 2, "val/a": 4})
    assert after.fresh() == {"loss": {"min": 1.0, "max": 3.0}, "val/a": {"first": 3.0, "last": 4, "mean": 8 / 3}}


def test_array_is_a_histogram_of_its_finite_values() -> None:
    numpy = pytest.importorskip("numpy")

    def shown(value: Any) -> Any:
        return Rows().of(decode_record(encode_any({"h": value}, 0)[0], 0))

    found = shown(numpy.array([0.0, 1.0, 1.0, numpy.nan, numpy.inf]))["h"]
    assert (sum(found.histogram), found.histogram[-1], found.bins[0], found.bins[-1]) == (3, 2, 0.0, 1.0)
    assert shown(numpy.array([numpy.nan, numpy.inf])) is None
    assert sum(shown(numpy.full((2, 3), 7))["h"].histogram) == 6
    assert sum(shown(numpy.array([-1e308, 1e308]))["h"].histogram) == 2


@pytest.mark.system
def test_file_that_is_torn_anywhere_has_the_rows_before_that(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "torn") as run:
        for i in range(700):  # more than two blocks
            run.log({"i": i, "text": "x" * 100})
        run.end()
    deliver(run.path, WandB(mode="offline"))
    (file,) = offline_files(run.path, "torn")
    whole, torn = file.read_bytes(), tmp_path / "torn.wandb"
    assert len(whole) > 2 << 15
    assert WandbFile(file).rows() == 700
    counts = []
    for size in sorted({*range(0, len(whole), 4999), *range((1 << 15) - 20, (1 << 15) + 20, 3), len(whole)}):
        torn.write_bytes(whole[:size])
        counts.append(WandbFile(torn).rows())
    assert counts == sorted(counts)
    growing = WandbFile(torn)
    torn.write_bytes(b"")
    for at in range(0, len(whole), 10_007):
        with open(torn, "ab") as out:
            out.write(whole[at : at + 10_007])
        assert growing.rows() == WandbFile(torn).rows()
    assert growing.rows() == 700
    cut = whole[: len(whole) // 2]
    torn.write_bytes(cut)
    assert sum(record["type"] == "history" for record in inspect(torn)) == WandbFile(torn).rows()
    torn.write_bytes(b"{}" + whole)
    with pytest.raises(JournalCorrupt):
        WandbFile(torn).rows()


def test_what_the_library_does_to_its_process_is_undone(server: WandbServer, tmp_path: Path) -> None:
    before = sys.excepthook, sys.exit, os.environ.get("ASYNCTRACK_STARTED_BY")
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.log({"i": 0})
        run.end()
    deliver(run.path, wandb(server))
    assert (sys.excepthook, sys.exit, os.environ.get("ASYNCTRACK_STARTED_BY")) == before


def test_calls_are_made_on_one_thread_which_ends_with_its_owner() -> None:
    thread = SingleThread("one")
    found = {thread.call(threading.current_thread) for _ in range(10)}
    (worker,) = found
    assert worker is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)
    del thread
    gc.collect()
    worker.join(DEADLINE_S)
    assert not worker.is_alive()


def slowly(
    test: Callable[[Any, Path], None], mark: pytest.MarkDecorator = pytest.mark.slow
) -> Callable[[Any, Path], None]:
    """A test of the contract that is not run by default."""

    @mark
    @pytest.mark.timeout(300)
    @functools.wraps(test)
    def run(self: Any, tmp_path: Path) -> None:
        test(self, tmp_path)

    return run


class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "text", "nan", "inf", "list"})
    rejects: ClassVar = {"text": "x" * 11_000_000}
    records = 30

    @pytest.fixture(autouse=True)
    def served(self, server: WandbServer) -> None:
        self.server = server

    def make_backend(self, run: Path) -> WandB:
        return wandb(self.server)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        stored = self.server.runs.get(run.name)
        for row in stored.rows() if stored else ():
            for key, value in row.items():
                if key not in ("_step", "_runtime", "_timestamp", STEP):
                    yield row[STEP], key, value

    # Each opens a run at W&B again and again, or waits for it, a second at a time.
    test_killed_at_any_moment_it_goes_on_without_loss = slowly(
        BackendContract.test_killed_at_any_moment_it_goes_on_without_loss
    )
    test_killed_again_and_again_it_goes_on_without_loss = slowly(
        BackendContract.test_killed_again_and_again_it_goes_on_without_loss
    )
    test_killed_with_two_writers_it_goes_on_without_loss = slowly(
        BackendContract.test_killed_with_two_writers_it_goes_on_without_loss, pytest.mark.system
    )
    test_killed_after_a_failure_it_goes_on_without_loss = slowly(
        BackendContract.test_killed_after_a_failure_it_goes_on_without_loss
    )
    test_process_that_is_killed_is_followed_by_another = slowly(
        BackendContract.test_process_that_is_killed_is_followed_by_another
    )
    test_delivery_that_is_stopped_half_way_through_a_batch_goes_on_where_it_was = slowly(
        BackendContract.test_delivery_that_is_stopped_half_way_through_a_batch_goes_on_where_it_was
    )
    test_runs_side_by_side_keep_apart = slowly(BackendContract.test_runs_side_by_side_keep_apart)
    test_run_goes_on_after_its_end = slowly(BackendContract.test_run_goes_on_after_its_end)
    test_steps_repeat_and_come_in_any_order = slowly(BackendContract.test_steps_repeat_and_come_in_any_order)
    # Each starts W&B's own processes several times.
    test_delivery_that_is_stopped_goes_on_where_it_was = slowly(
        BackendContract.test_delivery_that_is_stopped_goes_on_where_it_was, pytest.mark.system
    )
    test_two_writers_show_as_the_setting_says = slowly(
        BackendContract.test_two_writers_show_as_the_setting_says, pytest.mark.system
    )
    test_what_it_rejects_is_kept_with_the_reason_and_the_others_come = slowly(
        BackendContract.test_what_it_rejects_is_kept_with_the_reason_and_the_others_come, pytest.mark.system
    )
