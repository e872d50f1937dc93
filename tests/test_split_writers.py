"""`writers="split"`: a sink for each writer, behind one delivery."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from fake_servers import MLflowApp
from raw_server import RawServer

import asynctrack
from asynctrack.backends.base import Backend, Batch, Context, Outcome, Rejected, Resend, Retry, Sink, TooLarge, kind_of
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.testing import JournaledRun, deliver

# Of a test: called before each write with the writer and its steps.
before_write: list[Callable[[str, list[int]], None]] = []


class Folders(Backend, frozen=True, kw_only=True, tag="folders"):
    """Writes a line for each call into a file of each writer."""

    execution: ClassVar[Any] = "worker"
    can_split: ClassVar[bool] = True
    batch_records: ClassVar[int] = 6
    writers: Any = "split"

    def open(self, context: Context) -> Sink:
        return _Folder(context)


class _Folder(Sink):
    def __init__(self, context: Context) -> None:
        self._name = context.writer or "own"
        self._file = context.directory / f"{self._name}.calls"
        self._count = (context.state or {}).get("count", 0)
        self._say("open", context.state, context.config)

    def write(self, batch: Batch) -> dict[str, int]:
        steps = [record.step for record in batch.records]
        for call in before_write:
            call(self._name, steps)
        self._count += len(steps)
        self._say("write", steps, [[update.kind, update.data] for update in batch.updates])
        return {"odd": sum(step % 2 for step in steps)}

    def checkpoint(self) -> dict[str, Any]:
        return {"count": self._count}

    def close(self, outcome: Outcome) -> None:
        self._say("close", outcome)

    def _say(self, *what: Any) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(what) + "\n")


@pytest.fixture(autouse=True)
def _calm() -> Any:
    yield
    before_write.clear()


def calls(run: JournaledRun, writer: str, kind: str = "write") -> list[Any]:
    lines = (run.path / f"{writer}.calls").read_text().splitlines()
    return [line[1:] for line in map(json.loads, lines) if line[0] == kind]


def steps(run: JournaledRun, writer: str) -> list[int]:
    return [step for call in calls(run, writer) for step in call[0]]


def three_writers(path: Path, count: int = 8) -> tuple[JournaledRun, list[JournaledRun]]:
    run = JournaledRun(path, environment={"writer": "rank0", "rank": 0}, config={"lr": 0.1})
    return run, [run, run.join("rank1", 1), run.join("rank2", 2)]


def log(writers: list[JournaledRun], begin: int, end: int) -> None:
    for step in range(begin, end):
        for writer in writers:
            writer.log({"loss": step}, step)
            writer.journal()


def test_each_writer_has_a_sink_of_its_own(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 8)
    run.update("config", {"lr": 0.2})
    run.update("summary", {"best": 1})
    run.end()
    cursor = deliver(run.path, Folders(), name="f")
    assert [steps(run, name) for name in ("own", "rank1", "rank2")] == [list(range(8))] * 3
    assert (cursor.delivered, cursor.skipped, cursor.closed) == (12, {"odd": 12}, True)
    assert [update for call in calls(run, "own") for update in call[1]] == [
        ["config", {"lr": 0.2}],
        ["summary", {"best": 1}],
    ]
    assert [update for call in calls(run, "rank1") for update in call[1]] == [["config", {"lr": 0.2}]]
    assert calls(run, "rank2", "open") == [[None, {"lr": 0.1}]]
    assert all(calls(run, name, "close") == [["finished"]] for name in ("own", "rank1", "rank2"))
    run.close()


def test_each_sink_is_opened_again_with_its_own_state(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 4)
    deliver(run.path, Folders(), name="f")
    log(writers[:2], 4, 8)
    deliver(run.path, Folders(), name="f")
    assert calls(run, "own", "open")[-1][0] == calls(run, "rank1", "open")[-1][0] == {"count": 4}
    run.end()
    deliver(run.path, Folders(), name="f")
    assert calls(run, "rank2", "open") == [[None, {"lr": 0.1}], [{"count": 4}, {"lr": 0.1}]]
    assert calls(run, "rank2", "close") == [["stopped"], ["finished"]], "its run has an end, too"
    run.close()


def test_the_state_of_a_run_of_one_writer_is_that_of_its_sink(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1})
        run.journal()
        assert deliver(run.path, Folders(), name="f").state == {"count": 1}
        assert sorted(path.name for path in run.path.glob("*.calls")) == ["own.calls"]


def test_a_sink_that_fails_makes_no_other_repeat_its_part(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 8)
    run.end()
    tries: defaultdict[str, int] = defaultdict(int)

    def fail(name: str, its: list[int]) -> None:
        tries[name] += 1
        if name == "rank1" and tries[name] in (1, 2, 4):
            raise (Retry("not now", 0.001), TooLarge("in halves"))[tries[name] == 2]

    before_write.append(fail)
    cursor = deliver(run.path, Folders(), name="f")
    assert [steps(run, name) for name in ("own", "rank1", "rank2")] == [list(range(8))] * 3
    assert (cursor.delivered, cursor.skipped) == (12, {"odd": 12})
    run.close()


def test_a_delivery_that_ends_half_way_through_a_batch_saves_nothing_of_it(tmp_path: Path) -> None:
    """The state of a sink that has its part belongs to no place in the journal."""
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 2)
    run.end()

    def fail(name: str, its: list[int]) -> None:
        if name == "rank2":
            raise Retry("not now", 60.0)

    before_write.append(fail)
    with pytest.raises(TimeoutError):
        deliver(run.path, Folders(), name="f", timeout_s=0.5)
    saved = load_cursor(run.path, "f")
    assert saved.state is None and saved.delivered == 0
    before_write.clear()
    assert deliver(run.path, Folders(), name="f").delivered == 3
    assert calls(run, "own", "open")[-1][0] is None, "it is told of all records again, as after a kill"
    run.close()


def test_records_that_one_sink_rejects_are_those_of_its_writer(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 4)
    run.end()

    def refuse(name: str, its: list[int]) -> None:
        if name == "rank1" and 2 in its:
            raise Rejected("no twos", [its.index(2)])

    before_write.append(refuse)
    assert deliver(run.path, Folders(), name="f").rejected == 1
    (dead,) = (run.path / "dead_letters.jsonl").read_text().splitlines()
    assert json.loads(dead)["step"] == 2
    assert [steps(run, name) for name in ("own", "rank1", "rank2")] == [[0, 1, 2, 3], [0, 1, 3], [0, 1, 2, 3]]
    run.close()


def test_a_sink_that_asks_for_the_whole_run_finds_its_state_and_so_do_those_that_asked_before(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 4)
    run.end()
    asked: set[str] = set()

    def ask(name: str, its: list[int]) -> None:
        if name != "own" and its and its[-1] == 3 and name not in asked:
            asked.add(name)
            raise Resend("lost it", {"count": 100})

    before_write.append(ask)
    cursor = deliver(run.path, Folders(), name="f")
    assert asked == {"rank1", "rank2"}
    for name in asked:
        assert calls(run, name, "open")[-1][0] == {"count": 100}
    assert steps(run, "own")[-4:] == [0, 1, 2, 3]
    assert cursor.delivered + cursor.skipped["odd"] == 12
    run.close()


def test_labels_in_a_cursor_lead_nowhere(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1})
        run.end()
        (run.path / "cursors").mkdir()
        cursor = Cursor(state={"split": {"../../x": None, "": None, "rank1": None}})
        (run.path / "cursors" / "f.json").write_bytes(msgspec.json.encode(cursor))
        deliver(run.path, Folders(), name="f")
        assert sorted(path.name for path in tmp_path.rglob("*.calls")) == ["own.calls", "rank1.calls"]


def test_tensorboard_has_a_line_for_each_writer_and_one_session(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 3)
    run.end()
    deliver(run.path, asynctrack.TensorBoard(flush_s=0), name="tensorboard")
    shown = EventMultiplexer().AddRunsFromDirectory(str(run.path)).Reload()
    assert sorted(shown.Runs()) == ["tensorboard", "tensorboard/rank1", "tensorboard/rank2"]
    for name in shown.Runs():
        assert [(event.step, event.value) for event in shown.Scalars(name, "loss")] == [(0, 0), (1, 1), (2, 2)]
    sessions = [
        name
        for name in shown.Runs()
        if "_hparams_/session_start_info" in shown.PluginRunToTagToContent("hparams").get(name, {})
    ]
    assert sessions == ["tensorboard"]
    run.close()


def test_tensorboard_of_a_folder_for_many_runs(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 2)
    run.end()
    backend = asynctrack.TensorBoard(dir=str(tmp_path / "tb"), flush_s=0)
    deliver(run.path, backend, name="tensorboard")
    assert sorted(str(path.parent.relative_to(tmp_path)) for path in (tmp_path / "tb").rglob("events*")) == [
        "tb/p/r",
        "tb/p/r/rank1",
        "tb/p/r/rank2",
    ]
    run.close()


FILES = [
    asynctrack.JSONLines(writers="split"),
    asynctrack.CSV(writers="split"),
    asynctrack.JSON(writers="split"),
    asynctrack.Parquet(writers="split"),
]


@pytest.mark.parametrize("backend", FILES, ids=lambda backend: type(backend).__name__)
def test_files_of_each_writer_are_in_a_folder_of_its_own(tmp_path: Path, backend: Backend) -> None:
    name = kind_of(backend)
    if name == "parquet":
        pytest.importorskip("pyarrow")
    run, writers = three_writers(tmp_path / "p" / "r")
    for begin in (0, 4, 8):  # each delivery goes on where the one before has ended
        log(writers, begin, begin + 4)
        if begin == 8:
            run.end()
        cursor = deliver(run.path, backend, name=name)
    assert (cursor.delivered, cursor.skipped, cursor.closed) == (36, {}, True)
    for folder in (run.path, run.path / "writers" / "rank1", run.path / "writers" / "rank2"):
        assert losses(folder) == [*range(12)]
    assert sorted(path.name for path in (run.path / "writers").iterdir()) == ["rank1", "rank2"]
    run.close()


def losses(folder: Path) -> list[int]:
    """The losses in the one file that lies there, whichever format it has."""
    if (file := folder / "metrics.jsonl").exists():
        return [line["loss"] for line in map(json.loads, file.read_text().splitlines()) if "_writer" not in line]
    if (file := folder / "csv" / "metrics.csv").exists():
        return [int(row.split(",")[2]) for row in file.read_text().splitlines()[1:]]
    if (file := folder / "metrics.json").exists():
        return list(json.loads(file.read_text())["loss"])
    import pyarrow.parquet as pq

    return list(pq.read_table(folder / "parquet").column("loss").to_pylist())


@pytest.mark.parametrize("backend", [FILES[0], FILES[1]], ids=lambda backend: type(backend).__name__)
def test_without_the_journal_the_files_of_all_writers_are_read(tmp_path: Path, backend: Backend) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 3)
    run.end()
    run.close()
    deliver(run.path, backend, name=kind_of(backend))
    shutil.rmtree(run.path / "journal")
    found = list(asynctrack.open_run(run.path).records())
    assert [record.number for record in found] == list(range(9))
    for label in (None, "rank1", "rank2"):
        assert [record.data["loss"] for record in found if record.writer == label] == [0, 1, 2]


def test_a_writers_file_that_a_person_has_edited_is_built_anew_beside_it(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 4)
    deliver(run.path, FILES[0], name="jsonl")
    folder = run.path / "writers" / "rank1"
    (folder / "metrics.jsonl").write_text("mine\n")
    log(writers, 4, 8)
    run.end()
    deliver(run.path, FILES[0], name="jsonl")
    assert (folder / "metrics.jsonl").read_text() == "mine\n"
    assert [json.loads(line)["loss"] for line in (folder / "metrics-2.jsonl").read_text().splitlines()] == [*range(8)]
    for other in (run.path, run.path / "writers" / "rank2"):
        assert losses(other) == [*range(8)], "nothing is there twice"
    run.close()


def test_a_file_outside_of_the_run_has_folders_for_the_writers_beside_it(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 3)
    run.end()
    backend = asynctrack.JSON(writers="split", file=str(tmp_path / "logs" / "{id}.json"))
    deliver(run.path, backend, name="json")
    found = {
        str(path.relative_to(tmp_path)): json.loads(path.read_text())["loss"]
        for path in tmp_path.glob("logs/**/*.json")
    }
    assert found == {f"logs/{folder}r.json": [0, 1, 2] for folder in ("", "rank1/", "rank2/")}
    run.close()


@pytest.mark.parametrize("where", ["writers", "writers/rank1"])
def test_links_in_the_place_of_a_writers_folder_lead_nowhere(tmp_path: Path, where: str) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 1)
    run.end()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run.path / where).parent.mkdir(exist_ok=True)
    (run.path / where).symlink_to(elsewhere)
    with pytest.raises(TimeoutError):
        deliver(run.path, FILES[0], name="jsonl", timeout_s=0.5)
    assert "is a link" in str(load_cursor(run.path, "jsonl").last_error)
    assert not list(elsewhere.iterdir())
    run.close()


@pytest.mark.parametrize(
    "kind",
    [asynctrack.SQL, asynctrack.Console, asynctrack.Memory, asynctrack.YAML, asynctrack.Visdom, asynctrack.Trackio],
)
def test_backends_that_cannot_split_say_what_they_can(kind: type[Backend]) -> None:
    said = rf"writers of {kind.__name__} must be one of 'all', 'owner', 'prefix', 'mean'; got 'split'"
    with pytest.raises(asynctrack.errors.InvalidSettings, match=said):
        kind(writers="split")


def test_mlflow_has_a_run_for_each_writer_below_that_of_the_owner(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    app = MLflowApp()
    with RawServer(app) as server:
        backend = asynctrack.MLflow(tracking_uri=server.url, writers="split", tags={"team": "a"})
        log(writers[1:], 0, 3)  # the owner has nothing to say at first
        deliver(run.path, backend, name="mlflow")
        log(writers, 3, 6)
        run.update("config", {"lr": 0.2})
        run.update("summary", {"best": 1})
        run.end()
        deliver(run.path, backend, name="mlflow")
    by_name = {found["info"]["run_name"]: found for found in app.runs.values()}
    assert list(by_name) == ["r", "r rank1", "r rank2"] and len(app.runs) == 3
    owners = by_name["r"]
    assert owners["tags"]["asynctrack.run_id"] == "r" and "mlflow.parentRunId" not in owners["tags"]
    assert [row[2] for row in owners["metrics"] if row[0] == "loss"] == [3, 4, 5]
    for name in ("r rank1", "r rank2"):
        tags = by_name[name]["tags"]
        assert tags["mlflow.parentRunId"] == owners["info"]["run_id"]
        assert (tags["asynctrack.writer"], tags["team"]) == (name[2:], "a")
        assert [(key, step, value) for key, _, step, value in by_name[name]["metrics"]] == [
            ("loss", step, float(step)) for step in range(6)
        ]
        assert by_name[name]["params"] == {"lr": "0.1"}
        assert tags["config/lr"] == "0.2"
    assert {found["info"]["status"] for found in app.runs.values()} == {"FINISHED"}
    run.close()


def test_mlflow_finds_the_runs_of_the_writers_that_were_made_before_a_crash(tmp_path: Path) -> None:
    """A delivery that dies before its cursor is saved has made the runs already."""
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 3)
    run.end()
    app = MLflowApp()
    with RawServer(app) as server:
        for _ in range(2):
            deliver(run.path, asynctrack.MLflow(tracking_uri=server.url, writers="split"), name="mlflow")
            (run.path / "cursors" / "mlflow.json").unlink()
    assert len(app.runs) == 3
    assert all([row[2] for row in found["metrics"]] == [0, 1, 2] for found in app.runs.values())
    run.close()


def test_memory_says_who_has_logged_each_record(tmp_path: Path) -> None:
    run, writers = three_writers(tmp_path / "p" / "r")
    log(writers, 0, 2)
    run.end()
    memory = asynctrack.Memory()
    deliver(run.path, memory, name="memory")
    assert memory.record_writers == ["rank0", "rank1", "rank2"] * 2
    with JournaledRun(tmp_path / "p" / "single") as single:
        single.log({"loss": 1})
        single.end()
        deliver(single.path, memory, name="memory")
    assert (memory.records, memory.record_writers) == ([{"loss": 1}], [None])
    run.close()
