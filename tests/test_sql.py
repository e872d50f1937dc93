"""SQL: every value is a row, once, in SQLite and in PostgreSQL, whatever is killed, stopped or removed meanwhile."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
from delivery_support import deliverers, kill, kill_workers
from postgres import PASSWORD, USER, PostgreSQL
from support import manifest, outcome, start, wait_until

import asynctrack
from asynctrack import SQL, ActionRequired
from asynctrack.backends import sql
from asynctrack.backends.base import Context
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.backends.sql import read_records
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.journal.cursor import Cursor
from asynctrack.records.codec import Record
from asynctrack.testing import BackendContract, JournaledRun, deliver

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install '.[test]'")

Ask = Callable[[str], list[tuple[Any, ...]]]


class Place:
    """A database: its address, and what an independent reader finds there."""

    def __init__(self, url: str, ask: Ask) -> None:
        self.url = url
        self.ask = ask

    def values(self, run: str, key: str) -> list[Any]:
        """The values of a key, in the order of their records."""
        query = f"""SELECT m.value FROM metrics m JOIN sources s ON s.id = m.source JOIN runs r ON r.id = s.run
                    WHERE r.run_id = '{run}' AND s.name = '' AND m.key = '{key}' ORDER BY m.ring, m.number"""
        return [float(value) for (value,) in self.ask(query)]


def ask_file(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def in_file(path: Path) -> Place:
    return Place(f"sqlite:///{path}", lambda query: ask_file(path, query))


@pytest.fixture
def file(tmp_path: Path) -> Place:
    return in_file(tmp_path / "all.db")


@pytest.fixture(autouse=True, scope="module")
def password() -> Iterator[None]:
    """In the environment of every worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        yield


@pytest.fixture
def server(postgresql: PostgreSQL) -> Place:
    """Tables of its own."""
    name = f"t{os.urandom(6).hex()}"
    url = postgresql.make_schema(name)
    return Place(url, lambda query: [tuple(row) for row in postgresql.query(name, query)])


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest) -> Place:
    """SQLite, then PostgreSQL."""
    found: Place = request.getfixturevalue(request.param)
    return found


def assert_whole(run: asynctrack.Run, place: Place, count: int) -> None:
    """Each value of `i` is there, once and in order, and the statistics say so."""
    assert place.values(run.id, "i") == list(range(count))
    stats = run.stats().backends["sql"]
    assert (stats.delivered, stats.rejected, stats.behind, stats.skipped) == (count, 0, 0, {})


def journaled(path: Path, count: int, *, first: int = 0) -> JournaledRun:
    run = JournaledRun(path)
    for i in range(first, first + count):
        run.log({"i": i}, i)
    run.journal()
    return run


STRANGE = {
    "loss": 0.5,
    "nan": math.nan,
    "up": math.inf,
    "down": -math.inf,
    "whole": 7,
    "large": 1 << 70,
    "larger": 10**400,
    "ok": True,
    "phase": 'tr"ain ✓',
    "nul": "a\0b",
    "none": None,
    "ids": [1, [2.5, "x"]],
    "empty": {},
    "train": {"loss": 0.25, "by": {"layer": 1}},
    "/odd": 1,
    "end/": 2,
    "": 3,
    "key " * 200: 4,
    "n\0l": 5,
}


@pytest.mark.system
def test_a_run_is_rows_that_come_out_again_as_they_went_in(shared_host: Path, runs: Path, place: Place) -> None:
    config = {"lr": 0.1, "net": {"sizes": [1, 2]}, "odd": math.nan}
    backend = SQL(url=place.url, tags=["baseline", "odd"])
    run = asynctrack.init("p", name="first", dir=runs, config=config, backends=[backend])
    run.log(STRANGE, step=-5)
    run.log({}, step=1)
    run.log({"far": 1}, step=1 << 63)
    run.log({"loss": 0.25}, step=(1 << 63) - 1)
    run.config["lr"] = 0.2
    run.config["gone"] = run.summary["gone"] = 1
    run.summary["best"] = 0.25
    del run.config["gone"], run.summary["gone"]
    stats = run.finish().backends["sql"]
    assert (stats.delivered, stats.skipped) == (2, {"no values": 1, "a step beyond 63 bits": 1})
    first, last = read_records(place.url, run.id)
    names = {key.replace("\0", "\\0"): value for key, value in STRANGE.items() if len(key) < 400 and key != "train"}
    assert first.step == -5
    assert math.isnan(first.data.pop("nan"))
    del names["nan"]
    ((long, four),) = [(key, value) for key, value in first.data.items() if len(key) > 300]
    assert (len(long), four) == (400, 4)
    assert first.data == {**names, "train/loss": 0.25, "train/by/layer": 1, long: 4}
    assert [type(first.data[key]) for key in ("whole", "ok", "large", "loss")] == [int, bool, int, float]
    assert (last.step, last.data, last.number) == ((1 << 63) - 1, {"loss": 0.25}, 3)
    ((name, status, found, summary),) = place.ask("SELECT name, status, config, summary FROM runs")
    assert (name, status) == ("first", "finished")
    assert json.loads(found) == {**config, "lr": 0.2, "odd": "NaN"}
    assert json.loads(summary) == {"best": 0.25}
    assert place.ask("SELECT tag FROM tags ORDER BY tag") == [("baseline",), ("odd",)]
    assert {name for (name,) in place.ask("SELECT name FROM sources")} == {"", "train"}


@pytest.mark.system
def test_by_default_the_runs_of_a_project_share_a_database_in_its_directory(shared_host: Path, runs: Path) -> None:
    made = []
    for value in (1.0, 2.0):
        run = asynctrack.init("p", dir=runs, backends=["sql"])
        run.log({"train/loss": value}, step=3)
        run.finish()
        made.append(run.id)
    assert [read.data for one in made for read in read_records(f"sqlite:///{runs}/p/metrics.db", one)] == [
        {"train/loss": 1.0},
        {"train/loss": 2.0},
    ]


def test_what_the_documentation_asks_is_answered(place: Place, tmp_path: Path) -> None:
    shown = [query.strip() for query in re.findall(r"SELECT .*?;", str(sql.__doc__), re.S)]
    (run_id,) = {found for query in shown for found in re.findall(r"run_id = '([^']*)'", query)}
    with JournaledRun(tmp_path / "runs" / "p" / run_id, environment={"writer": "rank0"}) as run:
        for step in (2, 0, 1):
            run.log({"train": {"loss": step / 2}, "loss": 9.0}, step)
        run.end()
        deliver(run.path, SQL(url=place.url))
    last, curve, of_writers = (place.ask(query) for query in shown)
    assert [float(value) for (value,) in last] == [0.5]
    assert [(int(step), float(value)) for step, value in curve] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [(label, int(step)) for label, step, _ in of_writers] == [("rank0", 0), ("rank0", 1), ("rank0", 2)]


def test_pandas_reads_it(file: Place, tmp_path: Path) -> None:
    with journaled(tmp_path / "runs" / "p" / "r", 10) as run:
        deliver(run.path, SQL(url=file.url))
    with contextlib.closing(sqlite3.connect(tmp_path / "all.db")) as connection:
        frame = pandas.read_sql("SELECT step, key, value FROM metrics ORDER BY step", connection)
    assert list(frame["value"]) == [float(i) for i in range(10)]


@pytest.mark.system
def test_a_run_that_is_resumed_keeps_its_row(shared_host: Path, runs: Path, file: Place) -> None:
    for part in range(2):
        config = {"part": part, f"of {part}": 1}
        run = asynctrack.init("p", id="night", dir=runs, config=config, resume="allow", backends=[SQL(url=file.url)])
        for i in range(10 * part, 10 * part + 10):
            run.log({"i": i})
        run.summary["part"] = part
        run.finish()
    assert_whole(run, file, 20)
    assert [record.data["i"] for record in read_records(file.url, "night")] == list(range(20))
    ((status, shown, summary),) = file.ask("SELECT status, config, summary FROM runs")
    assert (status, json.loads(summary)) == ("finished", {"part": 1})
    assert json.loads(shown) == {"part": 1, "of 0": 1, "of 1": 1}


def test_a_new_run_of_an_old_id_is_another(shared_host: Path, runs: Path, file: Place) -> None:
    for value in range(2):
        run = asynctrack.init("p", id="night", dir=runs, backends=[SQL(url=file.url)])
        run.log({"i": value})
        run.finish()
        shutil.rmtree(run.path)
    assert len(file.ask("SELECT id FROM runs WHERE run_id = 'night'")) == 2
    assert [record.data for record in read_records(file.url, "night")] == [{"i": 1}]


CHILD = """
import sys, asynctrack
dir, url, name = sys.argv[1:]
run = asynctrack.init("p", id=name, dir=dir, when_full="block", backends=[asynctrack.SQL(url=url)])
for i in range(3000):
    assert run.log({"i": i})
    if i == 1000:
        run.flush("delivered")
print(run.finish().backends["sql"].behind)
"""


@pytest.mark.system
def test_several_runs_write_at_once(shm: Path, runs: Path, place: Place) -> None:
    names = [f"run-{number}" for number in range(3)]
    children = [start(CHILD, runs, place.url, name, ASYNCTRACK_IDLE_EXIT_S="0.05") for name in names]
    assert [outcome(child) for child in children] == [0, 0, 0]
    for name in names:
        assert place.values(name, "i") == list(range(3000))
    assert place.ask("SELECT DISTINCT status FROM runs") == [("finished",)]


@pytest.mark.system
@pytest.mark.parametrize(
    ("victims", "place"), [("the delivery", "server"), ("both", "file")], indirect=["place"], ids=lambda of: of
)
def test_killed_at_random_moments_each_row_is_there_once(
    victims: str, rough_host: Path, runs: Path, place: Place
) -> None:
    storm(victims, rough_host, runs, place, count=4000, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("victims", ["the delivery", "the worker", "both"])
def test_killed_again_and_again_each_row_is_there_once(
    victims: str, rough_host: Path, runs: Path, place: Place
) -> None:
    storm(victims, rough_host, runs, place, count=40_000, kills=8)


def storm(victims: str, shared: Path, runs: Path, place: Place, *, count: int, kills: int) -> None:
    """Log while what delivers is killed; the seed makes a failure one that can be had again."""
    chance = random.Random(f"{victims} {count}")
    run = asynctrack.init("p", dir=runs, when_full="block", finish_timeout_s=50, backends=[SQL(url=place.url)])
    moments = sorted(chance.randrange(count) for _ in range(kills))
    for i in range(count):
        assert run.log({"i": i}, step=i)
        while moments and moments[0] == i:
            moments.pop(0)
            run.flush("journaled")  # there is a worker
            wait_until(lambda: deliverers(shared), "a process delivers", deadline_s=60)
            if len(moments) % 2:  # else it may be killed before it gets anywhere, and comes later each time
                wait_until(lambda: run.stats().backends["sql"].behind == 0, "it has everything", deadline_s=60)
            time.sleep(chance.random() * 0.5)  # it starts, opens, writes, commits, waits
            if victims != "the worker":
                for pid in deliverers(shared):
                    kill(pid)
            if victims != "the delivery":
                kill_workers(shared)
    run.finish()
    assert_whole(run, place, count)


@pytest.mark.system
def test_a_server_that_is_restarted_gets_the_rest(
    shared_host: Path, runs: Path, server: Place, postgresql: PostgreSQL
) -> None:
    run = asynctrack.init("p", dir=runs, backends=["jsonl", SQL(url=server.url)])
    for i in range(500):
        run.log({"i": i})
    run.flush("delivered")
    postgresql.stop(signal.SIGQUIT)
    for i in range(500, 1000):
        run.log({"i": i})
    wait_until(lambda: run.stats().backends["sql"].last_error, "it has noticed")
    stats = run.stats().backends
    assert not stats["sql"].paused
    assert "127.0.0.1" in str(stats["sql"].last_error)
    postgresql.start()
    run.finish()
    assert_whole(run, server, 1000)
    assert run.stats().backends["sql"].last_error is None


def paused_at(tmp_path: Path, backend: SQL, name: str = "r") -> str:
    """Why a delivery of ten records waits for a person."""
    path = tmp_path / "runs" / "p" / name
    with journaled(path, 10) as run, pytest.raises(ActionRequired) as raised:
        backend.open(context_of(run))
    return str(raised.value)


def context_of(run: JournaledRun, state: dict[str, Any] | None = None) -> Context:
    found = run.manifest
    return Context(
        run_id=found.id,
        name=found.name,
        project=found.project,
        directory=run.path,
        created_at=found.created_at,
        config={},
        state=state,
    )


def test_what_a_person_has_to_mend_at_the_server(
    tmp_path: Path, server: Place, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "createdb" in paused_at(tmp_path, SQL(url=postgresql.url("nowhere")), "a")
    monkeypatch.setenv("PGPASSWORD", "wrong-4711")
    said = paused_at(tmp_path, SQL(url=server.url), "b")
    assert "set PGPASSWORD in the environment" in said
    assert "wrong-4711" not in said
    monkeypatch.setenv("MINE", PASSWORD)
    with JournaledRun(tmp_path / "runs" / "p" / "c") as run:
        SQL(url=server.url, password="env:MINE").open(context_of(run)).close("stopped")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    server.ask("CREATE ROLE reader LOGIN PASSWORD 'sesame-0815'")
    assert "permission denied" in paused_at(tmp_path, SQL(url=postgresql.url(user="reader")), "d")
    assert "postgresql://nobody@" in paused_at(tmp_path, SQL(url=postgresql.url(user="nobody")), "e")


def test_what_a_person_has_to_mend_about_a_file(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough" * 100)
    assert "choose another file" in paused_at(tmp_path, SQL(url=f"sqlite:///{tmp_path}/text.db"), "a")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, start TEXT)")
    assert "another program's" in paused_at(tmp_path, SQL(url=f"sqlite:///{tmp_path}/other.db"), "c")
    assert "is there such a directory" in paused_at(tmp_path, SQL(url=f"sqlite:///{tmp_path}/no/such.db"), "b")


def test_another_writer_is_waited_for(tmp_path: Path, file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from asynctrack.backends.sql import database as sql_database

    monkeypatch.setattr(sql_database, "_BUSY_S", 0.05)
    with journaled(tmp_path / "runs" / "p" / "r", 10) as run:
        run.end()
        SQL(url=file.url).open(context_of(run)).close("stopped")
        with contextlib.closing(sqlite3.connect(tmp_path / "all.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(asynctrack.Retry, match="locked"):
                SQL(url=file.url).open(context_of(run))
        assert deliver(run.path, SQL(url=file.url)).delivered == 10
    assert file.values("r", "i") == list(range(10))


Loss = Callable[[Path], None]


def is_removed(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def loses_the_run(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("DELETE FROM runs")
        assert connection.execute("SELECT count(*) FROM metrics").fetchall() == [(0,)]


def loses_the_run_but_not_its_rows(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM runs")


def loses_its_tables(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("metrics", "rings", "sources", "tags", "runs"):
            connection.execute(f"DROP TABLE {table}")


LOSSES = [is_removed, loses_the_run, loses_the_run_but_not_its_rows, loses_its_tables]


@pytest.mark.system
@pytest.mark.parametrize(
    ("when", "loss"),
    [("open", is_removed), ("open", loses_the_run), *(("between", loss) for loss in LOSSES)],
    ids=lambda of: getattr(of, "__name__", of),
)
def test_a_database_that_loses_a_run_gets_all_of_it_again(
    loss: Loss, when: str, tmp_path: Path, file: Place, shared_host: Path, runs: Path
) -> None:
    if when == "between":
        with journaled(tmp_path / "runs" / "p" / "r", 10) as run:
            deliver(run.path, SQL(url=file.url))
            loss(tmp_path / "all.db")
            for i in range(10, 20):
                run.log({"i": i}, i)
            run.end()
            assert deliver(run.path, SQL(url=file.url)).delivered == 20
        assert file.values("r", "i") == list(range(20))
        return
    live = asynctrack.init("p", dir=runs, backends=[SQL(url=file.url)])
    for i in range(20):
        live.log({"i": i})
        if i == 9:
            live.flush("delivered")
            loss(tmp_path / "all.db")
    live.finish()
    assert_whole(live, file, 20)


def test_a_database_from_a_backup_gets_what_it_has_not(tmp_path: Path, file: Place) -> None:
    path = tmp_path / "all.db"
    with journaled(tmp_path / "runs" / "p" / "r", 10) as run:
        deliver(run.path, SQL(url=file.url))
        with contextlib.closing(sqlite3.connect(path)) as now, contextlib.closing(sqlite3.connect(f"{path}-b")) as kept:
            now.backup(kept)
        for i in range(10, 20):
            run.log({"i": i}, i)
        run.journal()
        deliver(run.path, SQL(url=file.url))
        for each in path.parent.glob("all.db-[ws]*"):
            each.unlink()
        os.replace(f"{path}-b", path)
        run.end()
        deliver(run.path, SQL(url=file.url))
    assert file.values("r", "i") == list(range(20))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", f"postgresql://{USER}:{PASSWORD}@127.0.0.1/metrics"),
        ("url", f"postgresql://{USER}@127.0.0.1/metrics?password={PASSWORD}"),
        ("url", f"postgresql://{USER}:{PASSWORD}@[127.0.0.1/metrics"),
        ("url", f"postgresql://{USER}:{PASSWORD}/x@127.0.0.1/metrics"),
        ("url", f"{USER}:{PASSWORD}@127.0.0.1/metrics"),
        ("url", "postgresql://127.0.0.1"),
        ("url", "mysql://127.0.0.1/metrics"),
        ("url", "metrics.db"),
        ("url", "sqlite://"),
        ("url", "sqlite:///"),
        ("url", "sqlite:///:memory:"),
        ("url", "sqlite:///a.db?mode=memory"),
        ("url", 5),
        ("password", PASSWORD),
        ("tags", "baseline"),
        ("tags", [1]),
        ("max_records_s", 0),
    ],
)
def test_settings_that_cannot_be_used(field: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=field) as raised:
        SQL(**{field: value})
    assert PASSWORD not in str(raised.value)


def test_where_it_runs_and_what_it_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    local, default, remote = SQL(url="sqlite:///a.db").prepare(), SQL().prepare(), SQL(url="postgresql://u@db/metrics")
    assert local.external_targets() == [f"sqlite:///{tmp_path}/a.db"]
    assert [execution_of(backend) for backend in (local, default, remote)] == ["process"] * 3
    assert [backend.remote for backend in (local, default, remote)] == [False, False, True]
    for backend in (local, default, remote):
        settings = stored(backend, "id", "sql")
        assert from_stored(settings) == backend
        with pytest.raises(BackendUnavailable, match="--trust"):
            from_stored(settings, trusted=False)


@pytest.mark.system
def test_nothing_that_is_stored_has_the_password(shared_host: Path, runs: Path, server: Place) -> None:
    run = asynctrack.init("p", dir=runs, backends=[SQL(url=server.url)])
    run.log({"i": 0})
    run.finish()
    assert manifest(run.path)["backends"]["sql"]["url"] == server.url
    for path in run.path.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("library", ["sqlalchemy", "psycopg"])
def test_without_its_library_it_waits_for_it(library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in [name for name in sys.modules if name.startswith("asynctrack.backends.sql.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    extra = {"sqlalchemy": "sql", "psycopg": "postgres"}[library]
    assert f"pip install 'asynctrack[{extra}]'" in paused_at(tmp_path, SQL(url="postgresql://u@127.0.0.1:1/metrics"))


def test_what_cannot_be_read(tmp_path: Path, file: Place) -> None:
    with pytest.raises(BackendUnavailable, match="there is no file"):
        next(read_records(file.url, "r"))
    with journaled(tmp_path / "runs" / "p" / "r", 1) as run:
        deliver(run.path, SQL(url=file.url))
    with pytest.raises(BackendUnavailable, match="has no run 'other'"):
        next(read_records(file.url, "other"))
    with pytest.raises(BackendUnavailable, match="has no run 'r'"):
        next(read_records(file.url, "r", project="q"))
    with pytest.raises(InvalidSettings, match="password"):
        next(read_records(file.url, "r", password=PASSWORD))
    assert [record.data for record in read_records(file.url, "r", project="p")] == [{"i": 0}]


def test_reading_keeps_no_writer_waiting(tmp_path: Path, file: Place) -> None:
    with journaled(tmp_path / "runs" / "p" / "r", 10) as run:
        deliver(run.path, SQL(url=file.url))
        reading: Iterator[Record] = read_records(file.url, "r")
        assert next(reading).data == {"i": 0}
        for i in range(10, 20):
            run.log({"i": i}, i)
        run.end()
        cursor: Cursor = deliver(run.path, SQL(url=file.url), timeout_s=5.0)
        assert cursor.closed
        assert [record.data["i"] for record in reading] == list(range(1, 10))


@pytest.mark.system
class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "text", "nan", "inf", "big", "list"})

    def make_backend(self, run: Path) -> SQL:
        return SQL()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for record in read_records(f"sqlite:///{run.parent}/metrics.db", run.name):
            yield from ((record.step, key, value) for key, value in record.data.items())


@pytest.mark.system
class TestContractOnPostgreSQL(BackendContract):
    exactly_once = True
    keeps = TestContract.keeps

    @pytest.fixture(autouse=True)
    def database(self, server: Place) -> None:
        self.server = server

    def make_backend(self, run: Path) -> SQL:
        return SQL(url=self.server.url)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for record in read_records(self.server.url, run.name):
            yield from ((record.step, key, value) for key, value in record.data.items())


@pytest.mark.system
def test_several_writers_have_a_label_for_each_queue(place: Place, tmp_path: Path) -> None:
    run = JournaledRun(tmp_path / "p" / "r", environment={"writer": "rank0", "rank": 0})
    writers = [run, run.join("rank1", 1), run.join("rank1", 1)]  # a rank that was started again
    for i in range(4):
        for writer in writers:
            writer.log({"i": i}, i)
            writer.journal()
        deliver(run.path, SQL(url=place.url), name="sql")
    run.end()
    deliver(run.path, SQL(url=place.url), name="sql")
    run.close()
    query = (
        "SELECT w.label, count(*) FROM metrics m JOIN writers w ON w.ring = m.ring GROUP BY w.label ORDER BY w.label"
    )
    assert [(label, int(count)) for label, count in place.ask(query)] == [("rank0", 4), ("rank1", 8)]
    assert len(place.ask("SELECT ring FROM writers")) == 3
    found = list(read_records(place.url, "r"))
    assert sorted({(record.ring, record.writer) for record in found}) == sorted(
        {(record.ring, record.writer) for record in asynctrack.open_run(run.path).records()}
    )


def test_a_run_of_one_writer_has_no_label(file: Place, tmp_path: Path) -> None:
    run = journaled(tmp_path / "p" / "r", 2)
    run.end()
    run.close()
    deliver(run.path, SQL(url=file.url), name="sql")
    assert file.ask("SELECT count(*) FROM writers") == [(0,)]


def test_a_database_of_an_earlier_version_is_read_and_written(file: Place, tmp_path: Path) -> None:
    run = journaled(tmp_path / "p" / "r", 2)
    deliver(run.path, SQL(url=file.url), name="sql")
    with contextlib.closing(sqlite3.connect(file.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("DROP TABLE writers")
    assert [record.writer for record in read_records(file.url, "r")] == [None, None]
    other = run.join("rank1", 1)
    other.log({"i": 2}, 2)
    other.journal()
    run.end()
    run.close()
    deliver(run.path, SQL(url=file.url), name="sql")
    assert [record.writer for record in read_records(file.url, "r")] == [None, None, "rank1"]
