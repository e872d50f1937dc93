"""Runs of earlier versions, as they were left: each later version reads them, recovers what is behind, goes on from them, and refuses those of a newer one.

They lie below `fixtures/`, a folder for each version that wrote something new; `fixtures/make.py` says how they were made.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import said_here
from fake_servers import MLflowApp, TrackioApp
from fixtures.make import MORE, RUNS, STEPS, TOKENS, described_run
from raw_server import RawServer
from support import lines, values
from test_tensorboard import points
from test_visdom import VisdomApp
from wandb_server import KEY, StoredRun, WandbServer

import asynctrack
from asynctrack.errors import UnsupportedVersion

VERSIONS = sorted((Path(__file__).parent / "fixtures").glob("v*"))
ALL = [(version, run.stem) for version in VERSIONS for run in sorted((version / "expected").iterdir())]
# What `verify` finds damage in. The torn end of a run that was killed is none: it was never acknowledged.
DAMAGED = {"flipped", "cut", "journalless"}

# A format that no version has, and what is said of it.
FAR = 1000
REFUSED = re.compile(rf"has format version {FAR}, and this asynctrack reads up to \d+; install a newer asynctrack")
# What does not count on from the records before: they are of several processes, or were put there without one.
CONTINUED = {"backends", "servers", "torn", "forked"}

each_run = pytest.mark.parametrize(("version", "name"), ALL, ids=[f"{version.name}-{name}" for version, name in ALL])
each_version = pytest.mark.parametrize("version", VERSIONS, ids=[version.name for version in VERSIONS])

pytestmark = [
    pytest.mark.usefixtures("own_host", "own_state"),
    pytest.mark.filterwarnings("ignore::asynctrack.errors.DamagedJournal"),
]


def copied(version: Path, tmp_path: Path, **urls: tuple[str, str]) -> Path:
    """The project of a version's runs, moved to where a test may write; addresses in their settings are replaced by others."""
    project = tmp_path / "runs" / "p"
    shutil.copytree(version / "runs", tmp_path / "runs", symlinks=True)
    for path in (*project.glob("*/run.json"), *project.glob("*/cursors/*.json")):
        text = path.read_text().replace(f'"{RUNS}/', f'"{tmp_path}/runs/')
        for old, new in urls.values():
            text = text.replace(f'"{old}"', f'"{new}"')
        path.write_text(text)
    for link in project.glob("*/hydra"):
        link.unlink()
        link.symlink_to(tmp_path / "runs" / "outputs" / "job")
    return project


def expected(version: Path, name: str) -> dict[str, Any]:
    """What the version that wrote a run read of it."""
    found: dict[str, Any] = json.loads((version / "expected" / f"{name}.json").read_text())
    return found


def synced(run: Path, *options: object, code: int = 0) -> Any:
    """What `sync` says it did for a run."""
    done = said_here("sync", run, *options, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    (report,) = json.loads(done.stdout)["runs"]
    return report


def test_there_are_runs_of_each_kind() -> None:
    wanted = "backends batches crashed cut failed flipped forked journalless killed offline refused resumed servers torn values"
    assert [name for version, name in ALL if version.name == "v1"] == wanted.split()


def test_no_run_tells_of_the_machine_it_was_made_on() -> None:
    for version in VERSIONS:
        for path in version.rglob("*.json*"):
            text = path.read_text()
            assert not [word for word in ("/home/", "/root", "/tmp/", "/opt/") if word in text], path
        hosts = {json.loads(path.read_text())["environment"].get("host") for path in version.glob("runs/p/*/run.json")}
        assert hosts == {"host"}


@each_run
def test_old_run_reads_as_it_did(version: Path, name: str, tmp_path: Path) -> None:
    assert described_run(copied(version, tmp_path) / name) == expected(version, name)


@each_run
def test_verify_finds_damage_where_it_is(version: Path, name: str, tmp_path: Path) -> None:
    run = copied(version, tmp_path) / name
    done = said_here("verify", run, "--json")
    found = json.loads(done.stdout)
    assert (found["intact"], done.returncode) == ((name not in DAMAGED), int(name in DAMAGED))
    if name not in DAMAGED:
        assert (found["records"], found["missing"]) == (len(expected(version, name)["records"]), 0)
    assert (found["unfinished_bytes"] > 0) == (name in ("torn", "cut"))
    if name == "flipped":
        assert found["missing"] == 1


@each_run
def test_old_run_is_shown(version: Path, name: str, tmp_path: Path) -> None:
    run, told = copied(version, tmp_path) / name, expected(version, name)
    done = said_here("show", run, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["id"] == name
    numbers = [data["i"] for _, data in told["last"] if "i" in data]
    if numbers:
        assert (shown["metrics"]["i"]["count"], shown["metrics"]["i"]["last"]) == (len(numbers), numbers[-1])


@each_run
def test_old_run_is_exported(version: Path, name: str, tmp_path: Path) -> None:
    run, told = copied(version, tmp_path) / name, expected(version, name)["records"]
    done = said_here("export", run, "--format", "jsonl", "--history", "all")
    assert done.returncode == int(name in DAMAGED - {"cut"}), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if name == "journalless":  # only Python reads what is left
        assert "the run's end is missing" in done.stderr
        return
    assert [line["_step"] for line in found] == [step for step, _, _ in told]
    assert [line["i"] for line in found if "i" in line] == [data["i"] for _, _, data in told if "i" in data]
    rows = list(csv.DictReader(io.StringIO(said_here("export", run, "--format", "csv", "--history", "all").stdout)))
    assert [int(row["_step"]) for row in rows] == [step for step, _, _ in told]
    for form in ("jsonl", "csv"):
        text = said_here("export", run, "--format", form).stdout
        last = map(json.loads, text.splitlines()) if form == "jsonl" else csv.DictReader(io.StringIO(text))
        assert [int(row["_step"]) for row in last] == [step for step, _ in expected(version, name)["last"]]


@each_version
def test_old_runs_are_listed(version: Path, tmp_path: Path) -> None:
    done = said_here("ls", copied(version, tmp_path).parent, "--json")
    found = {run["id"]: run for run in json.loads(done.stdout)}
    assert done.returncode == 0
    assert sorted(found) == [name for of, name in ALL if of == version]
    assert {name for name, run in found.items() if run["status"] == "damaged"} == DAMAGED - {"cut"}
    assert found["refused"]["behind"].keys() == {"Scripted-2", "Scripted-3"}


@each_version
def test_old_media_are_files_again(version: Path, tmp_path: Path) -> None:
    run = copied(version, tmp_path) / "values"
    shutil.rmtree(run / "media")
    media = {
        key: value
        for record in asynctrack.open_run(run).records()
        for key, value in record.data.items()
        if isinstance(value, asynctrack.Media) and value.content is not None and value.path is not None
    }
    assert media.keys() == {"image", "table", "frame", "html", "long"}
    told = {key: value for _, _, data in expected(version, "values")["records"] for key, value in data.items()}
    assert {key: value.read().hex() for key, value in media.items()} == {
        key: told[key]["fields"]["content"] for key in media
    }


@pytest.mark.system
@each_version
def test_backends_that_have_a_part_get_the_rest_once(version: Path, tmp_path: Path) -> None:
    project = copied(version, tmp_path)
    run = project / "backends"
    assert len(lines(run)) == STEPS
    report = synced(run, "--trust")
    assert (report["state"], report["missing"]) == ("done", {})
    wanted = list(range(MORE))
    assert values(run, "i") == [line["i"] for line in lines(run)] == wanted
    assert [int(row["i"]) for row in in_csv(run, "metrics")] == wanted
    assert len(in_csv(run, "train")) == MORE
    assert in_parquet(run) == wanted
    with contextlib.closing(sqlite3.connect(project / "metrics.db")) as database:
        rows = database.execute("SELECT step, value FROM metrics WHERE key = 'i' ORDER BY step").fetchall()
    assert [(step, float(value)) for step, value in rows] == [(step, float(step)) for step in wanted]
    assert points(run / "tensorboard", "i") == [(step, float(step)) for step in wanted]
    assert "best: 0.5" in "".join(path.read_text() for path in run.glob("*.yaml"))
    assert numbers_in_json(run) == wanted
    said = Counter((run / "diary.txt").read_text().splitlines())
    metrics = {line: count for line, count in said.items() if "'i'" in line}
    assert [int(line.split()[0]) for line in metrics] == wanted
    assert set(metrics.values()) == {1}
    assert (run / "hydra" / "train.log").read_text() == "a line\n"
    assert (run / "plots" / "metrics.png").stat().st_size
    assert (run / "plots" / "metrics.html").stat().st_size
    assert said_here("verify", run).returncode == 0
    assert json.loads(said_here("sync", run, "--trust", "--json").stdout) == {
        "complete": 1,
        "unreadable": [],
        "runs": [],
    }


def in_csv(run: Path, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((run / "csv" / f"{table}.csv").read_text())))


def in_parquet(run: Path) -> list[int]:
    import pyarrow.parquet

    return [
        row
        for part in sorted(run.glob("parquet/*.parquet"))
        for row in pyarrow.parquet.read_table(part)["i"].to_pylist()
    ]


def numbers_in_json(run: Path) -> Any:
    found = json.loads((run / "metrics.json").read_text())
    return found["i"]


@pytest.mark.system
@each_version
def test_settings_that_lead_elsewhere_are_not_followed_without_trust(version: Path, tmp_path: Path) -> None:
    run = copied(version, tmp_path) / "backends"
    report = synced(run, code=1)
    assert report["missing"].keys() == {"Diary", "hydra_link", "sql"}
    assert len((run / "diary.txt").read_text().splitlines()) < MORE
    assert [line["i"] for line in lines(run)] == list(range(MORE))


@pytest.mark.parametrize("name", ["crashed", "torn"])
@each_version
def test_run_of_which_nobody_said_how_it_ended_is_recovered(version: Path, name: str, tmp_path: Path) -> None:
    run, wanted = copied(version, tmp_path) / name, [data["i"] for _, _, data in expected(version, name)["records"]]
    report = synced(run)
    assert (report["state"], report["status"], report["missing"]) == ("done", "crashed", {})
    assert values(run, "i") == [line["i"] for line in lines(run)] == wanted
    assert [int(row["i"]) for row in in_csv(run, "metrics")] == wanted
    assert asynctrack.open_run(run).status == "crashed"
    assert said_here("verify", run).returncode == 0


@each_version
def test_what_a_backend_refused_stays_refused_and_the_others_go_on(version: Path, tmp_path: Path) -> None:
    run = copied(version, tmp_path) / "refused"
    before = kept(run)
    assert [line["step"] for line in before] == [2]
    report = synced(run, "--trust", "--patience-s", "0.3", code=1)
    assert report["missing"].keys() == {"Scripted-2", "Scripted-3"}
    assert "renew it" in report["missing"]["Scripted-2"]
    (run / "mended").touch()
    report = synced(run, "--trust")
    assert report["missing"] == {}
    for file in ("paused.jsonl", "failing.jsonl"):
        taken = [record.step for record in asynctrack.testing.taken(run, file)]
        assert taken == list(range(STEPS))
    assert kept(run) == before
    assert said_here("verify", run).returncode == 0


def kept(run: Path) -> list[dict[str, Any]]:
    """What the run's directory has of records that backends refused, whatever the file is called."""
    files = [path for name in ("refused.jsonl", "dead_letters.jsonl") if (path := run / name).exists()]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@each_version
def test_offline_run_comes_to_its_server(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKENS["MLFLOW_TRACKING_TOKEN"])
    app = MLflowApp()
    with RawServer(app) as server:
        run = copied(version, tmp_path, mlflow=("http://127.0.0.1:9/", server.url)) / "offline"
        report = synced(run, "--trust")
    assert (report["state"], report["missing"]) == ("done", {})
    assert [(step, value) for _, _, step, value in app.the_run()["metrics"]] == [(i, float(i)) for i in range(STEPS)]
    assert set(app.came.values()) == {1}
    assert len(lines(run)) == STEPS


@pytest.mark.system
@each_version
def test_servers_that_have_a_part_get_the_rest_once(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, token in {
        **TOKENS,
        "WANDB_API_KEY": KEY,
        "HOME": str(tmp_path),
        "WANDB_ERROR_REPORTING": "false",
    }.items():
        monkeypatch.setenv(name, token)
    given = json.loads((version / "servers.json").read_text())
    mlflow, trackio, visdom = mlflow_with(given["mlflow"]), trackio_with(given["trackio"]), VisdomApp()
    visdom.envs = given["visdom"]
    with RawServer(mlflow) as one, RawServer(trackio) as two, RawServer(visdom) as three, WandbServer() as four:
        four.runs = {name: wandb_run(facts) for name, facts in given["wandb"].items()}
        servers = {"mlflow": one, "trackio": two, "visdom": three, "wandb": four}
        urls = {name: (given["urls"][name], server.url) for name, server in servers.items()}
        run = copied(version, tmp_path, **urls) / "servers"
        report = synced(run, "--trust", "--force", "--patience-s", "30")
    assert (report["state"], report["missing"]) == ("done", {})
    wanted = list(range(MORE))
    assert [step for key, _, step, _ in mlflow.the_run()["metrics"] if key == "i"] == wanted
    assert mlflow.the_run()["info"]["status"] == "FINISHED"
    assert [row["metrics"]["i"] for row in trackio.rows["servers"]] == wanted
    (windows,) = visdom.envs.values()
    assert [window["content"]["data"][0]["x"] for window in windows.values() if window["title"] == "i"] == [wanted]
    (stored,) = four.runs.values()
    assert [row["i"] for row in stored.rows()] == wanted
    assert stored.changed == []


def mlflow_with(given: dict[str, Any]) -> MLflowApp:
    """A server that has what it was given before."""
    app = MLflowApp(f"Bearer {TOKENS['MLFLOW_TRACKING_TOKEN']}")
    app.experiments, app.runs = given["experiments"], given["runs"]
    for run_id, run in app.runs.items():
        run["metrics"] = [tuple(metric) for metric in run["metrics"]]
        app.came.update((run_id, *metric) for metric in run["metrics"])
    return app


def trackio_with(given: dict[str, Any]) -> TrackioApp:
    app = TrackioApp(TOKENS["TRACKIO_WRITE_TOKEN"])
    app.rows = given["rows"]
    app.came.update(given["came"])
    return app


def wandb_run(given: dict[str, Any]) -> StoredRun:
    run = StoredRun(given["entity"], given["project"], given["name"])
    run.lines = {int(number): line for number, line in given["lines"].items()}
    run.came = Counter({int(number): count for number, count in given["came"].items()})
    run.facts, run.config, run.summary, run.upserts = (given[key] for key in ("facts", "config", "summary", "upserts"))
    return run


@each_run
def test_old_run_goes_on(version: Path, name: str, tmp_path: Path) -> None:
    project, told = copied(version, tmp_path), expected(version, name)
    before = told["records"] if (project / name / "journal").is_dir() else []
    with asynctrack.init("p", id=name, dir=project.parent, backends=["jsonl"], resume="allow") as run:
        assert run.path == project / name
        assert run.config.items() >= {key: value for key, value in told["config"].items() if key == "lr"}.items()
        if name == "resumed":
            assert run.last_checkpoint() == {"epoch": 1, "step": 3}
        run.log({"more": 1})
    reader = asynctrack.open_run(run.path)
    found = list(reader.records())
    assert [(record.step, record.time_ns) for record in found[:-1]] == [(step, time_ns) for step, time_ns, _ in before]
    assert found[-1].data == {"more": 1}
    if name not in CONTINUED and name not in DAMAGED:
        assert found[-1].step == len(before)
    assert reader.status == "finished"
    told_before = [line for line in lines(run.path) if "more" not in line]
    assert [line for line in lines(run.path) if "more" in line] == lines(run.path)[-1:]
    if name not in DAMAGED:
        assert [line["_step"] for line in told_before] == [record.step for record in found[:-1]]


def newer_manifest(run: Path) -> None:
    """A `run.json` of a format to come."""
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "version": FAR, "novelty": {}}))


def newer_journal(run: Path) -> None:
    """A segment of a format to come: its header says so."""
    segment = run / "journal" / "000001.atj"
    content = segment.read_bytes()
    header = bytearray(content[:64])
    header[8:12] = struct.pack("<I", FAR)
    header[60:64] = struct.pack("<I", zlib.crc32(header[:60], zlib.crc32(header[16:32])))
    segment.write_bytes(bytes(header) + content[64:])


def snapshot(run: Path) -> dict[str, bytes]:
    """All that lies in a run's directory, but who holds it."""
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".log"))]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.name != "lock"}


def of_newer(run: Path) -> Iterator[str]:
    """What each reader says of a run."""
    with pytest.raises(UnsupportedVersion) as refusal:
        list(asynctrack.open_run(run).records())
    yield str(refusal.value)
    with pytest.raises(UnsupportedVersion) as refusal:
        asynctrack.init("p", id=run.name, dir=run.parent.parent, resume="allow")
    yield str(refusal.value)
    for command in ("show", "verify", "sync", "tail", "wait", "wait --until i<0"):
        word, *options = command.split()
        done = said_here(word, run, *options)
        assert done.returncode, command
        yield done.stderr + done.stdout
    for form in ("jsonl", "csv"):
        done = said_here("export", run, "--format", form)
        assert (bool(done.returncode), done.stdout) == (True, "")
        yield done.stderr
    (listed,) = [
        found for found in json.loads(said_here("ls", run.parent.parent, "--json").stdout) if found["id"] == run.name
    ]
    assert listed["status"] == "unreadable"
    yield listed["problem"]


@pytest.mark.parametrize("newer", [newer_manifest, newer_journal])
@each_version
def test_run_of_a_newer_format_is_refused_by_a_sentence_and_left_alone(
    version: Path, newer: Callable[[Path], None], tmp_path: Path
) -> None:
    run = copied(version, tmp_path) / "batches"
    newer(run)
    before = snapshot(run)
    for said in of_newer(run):
        text = " ".join(said.split())
        assert REFUSED.search(text), said
        assert "Traceback" not in text
    assert snapshot(run) == before


@each_version
def test_run_of_a_newer_format_can_be_removed(version: Path, tmp_path: Path) -> None:
    run = copied(version, tmp_path) / "batches"
    newer_manifest(run)
    done = said_here("rm", run, "--yes")
    assert done.returncode == 0, done.stderr
    assert not run.exists()
