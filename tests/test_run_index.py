"""What is kept of runs: it tells what their files do, as long as these are the same, and is made anew where they are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import wait_until, workers
from test_runs import make_run

import asynctrack
from asynctrack._system import user_cache
from asynctrack.collection.run_summary import RunSummary
from asynctrack.collection.selection import select
from asynctrack.journal.manifest import load, save
from asynctrack.testing import JournaledRun

MINUTE_S = 60


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "asynctrack"


def make_older(run: Path, seconds: float = MINUTE_S) -> Path:
    """Set all times of a run back: what was just changed is not kept."""
    then = time.time() - seconds
    for path in (*run.rglob("*"), run):
        os.utime(path, (then, then))
    return run


def old_run(path: Path, created_s: int = 0, **config: object) -> Path:
    return make_older(make_run(path, created_s, **config))


def summaries(directory: Path) -> list[RunSummary]:
    return [subject.summary for subject in select(directory)]


def harm_unseen(run: Path) -> None:
    """Write over a run's journal so that its size and times stay: only who reads it sees that."""
    for path in (run / "journal").iterdir():
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_run_that_has_ended_is_read_once(tmp_path: Path) -> None:
    runs = [old_run(tmp_path / "p" / f"r{at}", at, lr=0.5) for at in range(3)]
    before = summaries(tmp_path)
    assert [summary.id for summary in before] == ["r2", "r1", "r0"]
    stats = [subject.metrics for subject in select(tmp_path)]
    for run in runs:
        harm_unseen(run)
    assert summaries(tmp_path) == before
    assert [subject.metrics for subject in select(tmp_path)] == stats
    assert summaries(tmp_path / "p") == before  # also from another directory
    assert [subject.path for subject in select(tmp_path, where="min(loss) < 0.4 and lr == 0.5")] == runs[::-1]
    user_cache.clear()
    assert {summary.status for summary in summaries(tmp_path)} == {"damaged"}


def change_config(run: Path) -> None:
    manifest = load(run)
    manifest.config["lr"] = 7
    save(run, manifest)


def log_more(run: Path) -> None:
    with open(run / "journal" / "000001.atj", "ab") as file:
        file.write(b"\0" * 100)


def edit_in_place(run: Path) -> None:
    text = (run / "run.json").read_text().replace('"lr": 0.5', '"lr": 0.25')
    (run / "run.json").write_text(text)


def make_again(run: Path) -> None:
    shutil.rmtree(run)
    old_run(run, lr=7)


def cut(run: Path) -> None:
    os.truncate(run / "journal" / "000001.atj", 100)


def remove_journal(run: Path) -> None:
    shutil.rmtree(run / "journal")


def set_behind(run: Path) -> None:
    (run / "cursors").mkdir()
    (run / "cursors" / "jsonl.json").write_text(json.dumps({"position": [1, 64, 0], "last_error": "no"}))


@pytest.mark.parametrize(
    "change",
    [change_config, edit_in_place, log_more, make_again, cut, remove_journal, set_behind],
    ids=lambda change: change.__name__,
)
def test_change_of_a_run_is_seen(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "p" / "r"
    with JournaledRun(path, config={"lr": 0.5}, backends={"jsonl": asynctrack.JSONLines()}) as run:
        run.log({"loss": 1.0}, 0)
        run.end()
    save(path, asynctrack.open_run(path).manifest())
    make_older(path)
    (before,) = summaries(tmp_path)
    assert summaries(tmp_path) == [before]
    change(path)
    (after,) = summaries(tmp_path)
    assert after != before
    user_cache.clear()
    assert summaries(tmp_path) == [after]
    make_older(path)
    (again,) = summaries(tmp_path)
    assert (again.status, again.config, again.behind) == (after.status, after.config, after.behind)


def put_another_over_it(run: Path) -> None:
    other = make_older(make_run(run.parent / ".other", lr=0.5))
    shutil.copytree(other, run, dirs_exist_ok=True)
    make_older(run)
    shutil.rmtree(other)


def lose_run_json(run: Path) -> None:
    (run / "run.json").unlink()
    make_older(run, 400 * 24 * 3600)


def lose_all(run: Path) -> None:
    (run / "run.json").unlink()
    shutil.rmtree(run / "journal")


@pytest.mark.parametrize("change", [put_another_over_it, lose_run_json, lose_all], ids=lambda change: change.__name__)
def test_order_is_that_of_the_runs_as_they_are_now(tmp_path: Path, change: Callable[[Path], None]) -> None:
    for at in range(3):
        old_run(tmp_path / "p" / f"r{at}", at)
    assert [summary.id for summary in summaries(tmp_path)] == ["r2", "r1", "r0"]
    change(tmp_path / "p" / "r2")
    with_index = summaries(tmp_path)
    user_cache.clear()
    assert (
        [summary.id for summary in with_index] == [summary.id for summary in summaries(tmp_path)] != ["r2", "r1", "r0"]
    )


def test_run_whose_journal_stands_in_stays_where_it_was_sorted(own_host: Path, tmp_path: Path) -> None:
    old_run(tmp_path / "p" / "other")
    asynctrack.init("p", id="r", dir=tmp_path, backends=[], environment=False, quiet=True).finish()
    wait_until(lambda: not workers(own_host), "the worker has left, which writes run.json")
    lose_run_json(tmp_path / "p" / "r")
    assert [[one.id for one in summaries(tmp_path)] for _ in range(3)] == [["other", "r"]] * 3


def test_rest_of_a_copy_is_seen_also_before_the_last_segment(tmp_path: Path) -> None:
    path = tmp_path / "p" / "r"
    with JournaledRun(path, segment_bytes=1 << 12) as run:
        for step in range(200):
            run.log({"loss": float(step), "note": "x" * 100}, step)
        run.end()
    manifest = asynctrack.open_run(path).manifest()
    save(path, manifest)
    first = path / "journal" / "000001.atj"
    content = first.read_bytes()
    os.truncate(first, len(content) // 2)
    make_older(path)
    (half,) = summaries(tmp_path)
    assert half.status == "damaged"
    assert summaries(tmp_path) == [half]
    first.write_bytes(content)
    (whole,) = summaries(tmp_path)
    assert whole.status == "finished"


def test_what_was_just_changed_is_not_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "p" / "r")
    before = summaries(tmp_path)
    assert before[0].status == "finished"
    harm_unseen(run)
    assert summaries(tmp_path)[0].status == "damaged"


def test_status_of_a_run_that_has_not_ended_is_asked_for_each_time(tmp_path: Path) -> None:
    path = tmp_path / "p" / "r"
    run = JournaledRun(path, environment={"host": os.uname().nodename})
    run.log({"loss": 1.0}, 0)
    run.journal()
    save(path, asynctrack.open_run(path).manifest())
    make_older(path)
    assert [summaries(tmp_path)[0].status for _ in range(2)] == ["lost", "lost"]
    run.end()
    run.close()
    assert summaries(tmp_path)[0].status == "finished"


def test_runs_that_are_gone_are_left_out(tmp_path: Path) -> None:
    runs = [old_run(tmp_path / "p" / f"r{at}", at) for at in range(3)]
    assert len(summaries(tmp_path)) == 3
    shutil.rmtree(runs[0])
    assert [summary.id for summary in summaries(tmp_path)] == ["r2", "r1"]
    for path in (runs[1] / "journal" / "000001.atj", runs[1] / "run.json"):
        path.unlink()
    (runs[1] / "journal").rmdir()
    summaries(tmp_path)
    assert [summary.id for summary in summaries(tmp_path)] == ["r2"]


def test_each_history_has_its_own_stats(tmp_path: Path) -> None:
    path = tmp_path / "p" / "r"
    with JournaledRun(path) as run:
        run.log({"loss": 9.0}, 0)
        run.start()
        run.log({"loss": 1.0}, 0)
        run.end()
    make_older(path)
    for _ in range(2):
        for history, count in (("last", 1), ("all", 2)):
            (subject,) = select(tmp_path, history=history)  # type: ignore[arg-type]
            assert subject.metrics["loss"].count == count


def test_values_of_all_kinds_come_back(tmp_path: Path) -> None:
    config = {"big": 2**80, "nan": float("inf"), "nested": {"a": [1, {"b": None}]}, "text": "\udcff", "bytes": b"1"}
    old_run(tmp_path / "p" / "r", **config)
    (before,) = summaries(tmp_path)
    assert before.config["big"] == 2**80
    assert summaries(tmp_path) == [before]


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x92\x01\x02", b"\x92\x80\x81\xa1r\xa4aaaa", bytes(range(255, 155, -1))]
)
def test_index_that_makes_no_sense_counts_as_none(tmp_path: Path, own_cache: Path, content: bytes) -> None:
    old_run(tmp_path / "p" / "r")
    before = summaries(tmp_path)
    key = f"{_format()} {os.path.realpath(tmp_path / 'p')}"
    assert user_cache.read("runs", key)
    user_cache.write("runs", key, content)
    assert summaries(tmp_path) == before


def _format() -> str:
    from asynctrack.collection import run_index

    return f"{run_index._FORMAT:08x}"


def test_cache_that_cannot_be_written_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_run(tmp_path / "p" / "r")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    assert [len(summaries(tmp_path)) for _ in range(2)] == [1, 1]


def test_only_the_newest_are_looked_at_where_only_these_are_asked_for(tmp_path: Path) -> None:
    runs = [old_run(tmp_path / "p" / f"r{at:02}", at) for at in range(30)]
    assert asynctrack.runs(tmp_path)[0].path == runs[-1]
    summaries(tmp_path)
    for run in runs[:-3]:
        shutil.rmtree(run / "journal")  # who looks at one sees that
    assert [run.id for run in asynctrack.runs(tmp_path)[:3]] == ["r29", "r28", "r27"]


@pytest.mark.system
def test_many_processes_list_runs_at_once(tmp_path: Path) -> None:
    for at in range(20):
        old_run(tmp_path / "runs" / "p" / f"r{at:02}", at)
    script = (
        "import sys; from pathlib import Path; from asynctrack.collection.selection import select; from asynctrack._system import user_cache\n"
        "for at in range(30):\n"
        "    found = [(subject.summary.id, subject.metrics['loss'].count) for subject in select(Path(sys.argv[1]))]\n"
        "    assert found == [(f'r{at:02}', 3) for at in reversed(range(20))], found\n"
        "    if at % 10 == int(sys.argv[2]): user_cache.clear()\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "runs", str(at)]) for at in range(3)]
    assert [process.wait(timeout=50) for process in started] == [0, 0, 0]
