"""The supervisor: a delivery process may hang, crash, or be killed at any moment, and so may the worker; nothing is lost or left behind."""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from delivery_support import (
    assert_balanced,
    cursor,
    deliverers,
    kill,
    kill_workers,
    processes,
    rough_shared_memory,
    steps,
)
from support import left_in, lines, manifest, values, wait_until, workers

import asynctrack
from asynctrack import Run
from asynctrack.cli.sync_job import SyncJob
from asynctrack.testing import JournaledRun, ScriptedInProcess, Trouble, calls
from asynctrack.worker import delivery_supervisor, supervision_rules
from asynctrack.worker.delivery_supervisor import SupervisedProcess

pytestmark = pytest.mark.usefixtures("own_state")

RECORDS = 200


class Faulty(ScriptedInProcess, frozen=True, kw_only=True):
    """Each kind has a process of its own, so the faults of the others are not its own."""

    batch_records = 25
    once: bool = True
    stall_timeout_s: float = 0.7


class Hangs(Faulty, frozen=True, kw_only=True):
    file: str = "hang"


class Holds(Faulty, frozen=True, kw_only=True):
    file: str = "hold"


class Exits(Faulty, frozen=True, kw_only=True):
    file: str = "exit"


class Crashes(Faulty, frozen=True, kw_only=True):
    file: str = "crash"


class Aborts(Faulty, frozen=True, kw_only=True):
    file: str = "abort"


class IsKilled(Faulty, frozen=True, kw_only=True):
    file: str = "kill"


FAULTY: list[type[Faulty]] = [Hangs, Holds, Exits, Crashes, Aborts, IsKilled]


def worker_log(run: Run) -> str:
    return (run.path / "worker.log").read_text()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a worker that is threads of ours are started again at once."""
    monkeypatch.setattr(delivery_supervisor, "back_off", lambda failures: 0.0)
    # Two seconds have four signs of life. With one second, a machine that did not let a process run for half of one had it killed for
    # silence, and what was said of that left unsaid why it was killed next.
    monkeypatch.setattr(supervision_rules, "LEAST_SILENCE_S", 2.0)


@pytest.mark.system
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("worker", "late", "kinds"),
    [("process", True, [Hangs, IsKilled]), ("thread", False, FAULTY)],
    ids=["between write and cursor", "before it has written, with a worker of threads"],
)
def test_process_that_fails_is_started_again_and_goes_on_from_its_cursor(
    worker: str, late: bool, kinds: list[type[Faulty]], own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backends = [
        kind(troubles=(Trouble(does=kind().file, step=RECORDS // 2, late=late),))  # type: ignore[arg-type]  # it is one
        for kind in kinds
    ]
    run = asynctrack.init("p", dir=runs, backends=["jsonl", *backends], worker=worker, finish_timeout_s=50)  # type: ignore[arg-type]
    for i in range(RECORDS):
        run.log({"i": i})
    stats = run.finish()
    assert_balanced(stats)
    told = worker_log(run) if worker == "process" else caplog.text
    for backend in backends:
        found = calls(run.path, backend.file)
        assert steps(run.path, file=backend.file) == list(range(RECORDS)), backend.file
        assert [call.did for call in found].count("trouble") == 1
        assert len({call.pid for call in found}) == 2
        assert found[-1].outcome == "finished"
        backend_stats = stats.backends[type(backend).__name__]
        assert (backend_stats.delivered, backend_stats.last_error) == (RECORDS, None)
        assert f"{type(backend).__name__} has" in told
    assert "s for its backend and is killed; it is started again from its cursors" in told
    assert Holds not in kinds or "has given no sign of life for" in told
    assert "has ended; it is started again from its cursors in" in told


@pytest.mark.system
@pytest.mark.usefixtures("soon")
def test_backend_that_can_tell_no_repeats_gets_every_record_at_least_once_in_order(own_host: Path, runs: Path) -> None:
    kills = tuple(Trouble(does="kill", step=step, late=late) for step, late in ((30, True), (31, False), (150, True)))
    with asynctrack.init("p", dir=runs, backends=[IsKilled(once=False, troubles=kills)], worker="thread") as run:
        for i in range(RECORDS):
            run.log({"i": i})
    assert run.finish().backends["IsKilled"].delivered == RECORDS
    given = steps(run.path, file="kill")
    assert list(dict.fromkeys(given)) == list(range(RECORDS))
    assert len(given) > RECORDS


class Noisy(Faulty, frozen=True, kw_only=True):
    file: str = "noisy"


@pytest.mark.system
def test_what_a_library_prints_is_no_sign_of_life_and_what_it_starts_dies_with_it(own_host: Path, runs: Path) -> None:
    seconds = random.uniform(5000, 9000)
    backend = Noisy(
        troubles=(
            Trouble(does="print", times=None),
            Trouble(does="spawn", seconds=seconds, step=50),
            Trouble(does="hang", step=100),
            Trouble(does="spawn", seconds=seconds, step=150),
        )
    )
    run = asynctrack.init("p", dir=runs, backends=[backend])
    for i in range(RECORDS):
        run.log({"i": i})
    wait_until(lambda: processes(str(seconds)), "it has started a process")
    (first,) = processes(str(seconds))
    stats = run.finish()
    assert stats.backends["Noisy"].delivered == RECORDS
    assert steps(run.path, file="noisy") == list(range(RECORDS))
    assert first not in processes(str(seconds))
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert not processes(str(seconds))
    assert "and no end" in worker_log(run)


class Slow(Faulty, frozen=True, kw_only=True):
    batch_records = 5
    file: str = "slow"
    write_s: float = 0.02


@pytest.mark.system
def test_delivery_process_of_a_killed_worker_ends_with_all_it_has_started_and_the_next_goes_on(
    own_host: Path, runs: Path
) -> None:
    seconds = random.uniform(5000, 9000)
    troubles = (Trouble(does="spawn", seconds=seconds, step=20), Trouble(does="hold", step=60))
    backend = Slow(stall_timeout_s=1000, troubles=troubles)
    run = asynctrack.init("p", dir=runs, backends=[backend])
    for i in range(RECORDS):
        run.log({"i": i})
    wait_until(lambda: any(call.trouble == 1 for call in calls(run.path, "slow")), "it delivers, and hangs")
    before = deliverers(own_host)
    kill_workers(own_host)
    wait_until(lambda: not set(before) & set(deliverers(own_host)), "its delivery process has ended", 10)
    wait_until(lambda: not processes(str(seconds)), "and what that had started", 10)
    run.log({"i": RECORDS})
    stats = run.finish()
    assert_balanced(stats)
    assert stats.backends["Slow"].delivered == RECORDS + 1
    assert steps(run.path, file="slow") == list(range(RECORDS + 1))


def kill_at_random(times: int, run: Run, shared: Path, chance: random.Random) -> int:
    """Kill the delivery process so many times, soon after it has begun to deliver; returns how much was logged meanwhile."""
    killed: set[int] = set()
    logged = 0
    while len(killed) < times:
        for _ in range(5):
            run.log({"i": logged})
            logged += 1
        time.sleep(0.005)
        for pid in {call.pid for call in calls(run.path, "slow")[-1:]} - killed:
            time.sleep(chance.random() * 0.1)
            kill(pid)
            killed.add(pid)
    return logged


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("kills", "once"),
    [
        pytest.param(10, True, marks=pytest.mark.system),
        pytest.param(100, False, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_delivery_process_killed_at_random_moments_loses_nothing(
    kills: int, once: bool, own_host: Path, runs: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    backends = ["jsonl", Slow(once=once, write_s=0.002)]
    run = asynctrack.init("p", dir=runs, backends=backends, worker="thread", finish_timeout_s=300)
    logged = kill_at_random(kills, run, own_host, random.Random(seed))
    stats = run.finish()
    assert_balanced(stats)
    assert stats.backends["Slow"].delivered == stats.backends["jsonl"].delivered == logged
    given = steps(run.path, file="slow")
    assert (given if once else list(dict.fromkeys(given))) == list(range(logged))
    assert len(lines(run.path)) == logged


@pytest.mark.system
def test_process_that_always_crashes_is_started_ever_more_seldom_and_told_once_a_minute(
    rough_host: Path, runs: Path
) -> None:
    backend = Exits(troubles=(Trouble(does="exit", on="open", times=None),))
    run = asynctrack.init("p", dir=runs, backends=["jsonl", backend], finish_timeout_s=0.5)
    for i in range(100):
        run.log({"i": i})
    wait_until(lambda: cursor(run.path, "Exits").retries > 1, "it has crashed twice")
    begin = time.monotonic()
    stats = run.finish()
    assert time.monotonic() - begin < 15
    assert_balanced(stats)
    assert (stats.backends["jsonl"].behind, stats.backends["Exits"].behind) == (0, 100)
    assert 2 <= len(calls(run.path, "exit")) <= 10
    assert worker_log(run).count("is started again from its cursors") == 1
    assert stats.backends["Exits"].last_error == "its process has ended"


def test_process_that_gets_on_is_started_again_soon_each_time(tmp_path: Path) -> None:
    process = SupervisedProcess("kind", str(tmp_path))
    for _ in range(20):
        process._fail("has ended")
    process.progressed()
    process._fail("has ended")
    assert (process.deaths.in_a_row, process.deaths.total) == (1, 21)


class Twin(Faulty, frozen=True, kw_only=True):
    batch_records = 20


@pytest.mark.system
def test_backends_of_a_kind_share_a_process_and_end_each_in_its_time(own_host: Path, runs: Path) -> None:
    backends = [Twin(file="quick"), Twin(file="slow", write_s=0.04)]
    runs_opened = [asynctrack.init("p", dir=runs, backends=backends) for _ in range(2)]
    for run in runs_opened:
        for i in range(RECORDS):
            run.log({"i": i})
    for run in runs_opened:
        stats = run.finish()
        assert_balanced(stats)
        assert [backend_stats.delivered for backend_stats in stats.backends.values()] == [RECORDS, RECORDS]
        for file in ("quick", "slow"):
            assert steps(run.path, file=file) == list(range(RECORDS))
            assert [call.outcome for call in calls(run.path, file) if call.did == "close"] == ["finished"]
    assert len({call.pid for run in runs_opened for call in calls(run.path, "slow")}) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
def test_run_that_hangs_costs_another_of_its_kind_a_restart_and_no_record(own_host: Path, runs: Path) -> None:
    hangs = Twin(file="ill", troubles=(Trouble(does="hang", step=40),))
    ill = asynctrack.init("p", dir=runs, backends=[hangs], worker="thread")
    well = asynctrack.init("p", dir=runs, backends=[Twin(file="well", write_s=0.15)], worker="thread")
    for run in (ill, well):
        for i in range(RECORDS):
            run.log({"i": i})
    for run, file in ((ill, "ill"), (well, "well")):
        assert run.finish().backends["Twin"].delivered == RECORDS
        assert steps(run.path, file=file) == list(range(RECORDS))


@pytest.mark.system
def test_run_that_goes_on_after_its_end_is_delivered_on(own_host: Path, runs: Path) -> None:
    backend = Twin(file="twin")
    for begin in (0, 100):
        with asynctrack.init("p", id="a", dir=runs, backends=[backend], resume="allow") as run:
            for i in range(begin, begin + 100):
                run.log({"i": i})
        assert run.finish().backends["Twin"].delivered == begin + 100
    assert steps(run.path, file="twin") == list(range(200))


HOMELESS = """
import asynctrack
from asynctrack.testing import ScriptedInProcess

class Homeless(ScriptedInProcess, frozen=True, kw_only=True):
    pass
"""


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with a backend, which can be removed once it is imported here."""
    folder = tmp_path / "modules"
    folder.mkdir()
    file = folder / "homeless.py"
    file.write_text(HOMELESS)
    monkeypatch.syspath_prepend(folder)
    yield file
    sys.modules.pop("homeless", None)


@pytest.mark.system
def test_backend_that_cannot_be_imported_there_is_paused_and_says_so(
    homeless: Path, rough_host: Path, runs: Path
) -> None:
    backend = importlib.import_module("homeless").Homeless()
    homeless.unlink()
    run = asynctrack.init("p", dir=runs, backends=["jsonl", backend], finish_timeout_s=60)
    run.log({"i": 0})
    begin = time.monotonic()
    stats = run.finish()
    assert time.monotonic() - begin < 30
    assert_balanced(stats)
    assert stats.backends["jsonl"].delivered == 1
    assert "cannot be imported: No module named 'homeless'" in str(stats.backends["Homeless"].last_error)
    assert cursor(run.path, "Homeless").paused


@pytest.mark.system
def test_catching_up_imports_what_its_own_process_can(homeless: Path, own_host: Path, tmp_path: Path) -> None:
    backend = importlib.import_module("homeless").Homeless()
    with JournaledRun(tmp_path / "p" / "a", backends={"homeless": backend}) as run:
        run.log({"i": 0}, 0)
        run.end()
    with SyncJob([run.path]) as work:
        wait_until(lambda: work.poll()[0].state == "done", "all is delivered")
    assert steps(run.path) == [0]


@pytest.mark.system
def test_delivery_process_that_hangs_at_the_end_does_not_keep_the_worker(own_host: Path, runs: Path) -> None:
    backend = Hangs(stall_timeout_s=1000, troubles=(Trouble(does="hold", on="close", times=None),))
    run = asynctrack.init("p", dir=runs, backends=["jsonl", backend], finish_timeout_s=0.5, after_exit_max_s=0)
    run.log({"i": 0})
    run.finish()
    wait_until(lambda: not workers(own_host), "the worker and its processes have left")
    assert left_in(own_host) == []


@pytest.mark.slow
def test_worker_and_delivery_processes_killed_at_random_moments_lose_nothing(runs: Path) -> None:
    chance = random.Random(0)
    with rough_shared_memory() as shared:
        run = asynctrack.init("p", dir=runs, backends=["jsonl", Slow(write_s=0.002)], finish_timeout_s=100)
        logged = 0
        for _ in range(40):
            for _ in range(100):
                run.log({"i": logged})
                logged += 1
            time.sleep(chance.random() * 0.3)
            for pid in workers(shared):
                if chance.random() < 0.4:
                    kill(pid)
        stats = run.finish()
        assert stats.dropped == {}
        assert steps(run.path, file="slow") == values(run.path, "i") == list(range(logged))
        assert manifest(run.path)["status"] == "finished"
