"""`asynctrack verify`, `export` and `rm` on real runs, whole, live, lost and damaged."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMMAND, Logger, answer, asynctrack_, make_runs, on_terminal, said_here
from support import kill_the_worker, left_in, lines, manifest, stopped, the_worker, wait_until, workers

import asynctrack
from asynctrack import cli
from asynctrack.cli.journal_check import Findings, JournalCheck


@pytest.fixture(scope="module")
def kept(shared_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that have ended; see `make_runs`."""
    return make_runs(tmp_path_factory.mktemp("kept") / "runs")


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """A copy of a run of three records that has crashed."""
    return Path(shutil.copytree(kept / "q" / "crashed", tmp_path / "runs" / "q" / "crashed"))


@pytest.fixture
def logger(own_host: Path, runs: Path) -> Iterator[Logger]:
    logger = Logger(runs)
    yield logger
    logger.end()


# verify


def audit(run: Path) -> Findings:
    return JournalCheck(run).take()


def problems(run: Path) -> list[tuple[str, int | None]]:
    return [(problem.file, problem.byte) for problem in audit(run).problems]


@pytest.mark.system
@pytest.mark.parametrize("name", ["p/finished-1", "p/failed", "q/crashed"])
def test_unharmed_runs_are_said_to_be(kept: Path, name: str) -> None:
    found = answer("verify", kept / name)
    count = len(lines(kept / name))
    assert found["intact"] is True
    assert (found["records"], found["missing"], found["unfinished_bytes"]) == (count, 0, 0)
    assert (found["backends"], found["problems"]) == ({"jsonl": count}, [])
    assert found["bytes"] == sum(path.stat().st_size for path in (kept / name / "journal").iterdir())
    assert f"{name}  intact" in asynctrack_("verify", kept / name).stdout


def test_runs_of_many_processes_and_sessions_are_unharmed(own_host: Path, runs: Path) -> None:
    for session in range(2):
        with asynctrack.init(
            "p", id="run", dir=runs, resume="allow", config={"nan": float("nan"), "s": session}
        ) as run:
            for i in range(300):
                run.log({"i": i})
            if (child := os.fork()) == 0:
                run.log({"child": 1})
                os._exit(0)
            os.waitpid(child, 0)
            run.checkpoint(session=session)
            run.summary["big"] = 10**30
        wait_until(lambda: not workers(own_host), "the worker has left")
    found = audit(run.path)
    assert (found.records, found.problems) == (602, [])


@pytest.mark.system
def test_dropped_records_are_counted_over_all_sessions_and_are_no_damage(own_host: Path, runs: Path) -> None:
    accepted = 0
    for drops in (True, True, False):
        with asynctrack.init("p", id="run", dir=runs, resume="allow", queue_bytes=4096) as run:
            run.flush("journaled")
            if drops:
                with stopped(the_worker(own_host)):
                    accepted += sum(run.log({"text": "x" * 100}) for _ in range(100))
        wait_until(lambda: not workers(own_host), "the worker has left")
    dropped = {"full": 200 - accepted}
    found = audit(run.path)
    assert (found.records, found.dropped, found.problems) == (accepted, dropped, [])
    assert manifest(run.path)["dropped"] == asynctrack.open_run(run.path).manifest().dropped == dropped
    assert f"{200 - accepted} dropped (full)" in said_here("verify", run.path).stdout


@pytest.mark.system
def test_a_live_run_is_unharmed_while_it_is_written(logger: Logger) -> None:
    for at in range(0, 800, 100):
        logger.tell(f"log {at} {at + 100}")
        found = answer("verify", logger.run)
        assert found["problems"] == []
    logger.end()
    assert answer("verify", logger.run)["records"] == 800


def test_a_lost_run_is_unharmed_and_what_it_had_begun_to_write_is_no_damage(logger: Logger, own_host: Path) -> None:
    logger.log(0, 5)
    kill_the_worker(own_host)
    logger.end("die")
    (segment,) = (logger.run / "journal").iterdir()
    content = segment.read_bytes()
    segment.write_bytes(content + content[64:164])  # as a batch that was torn
    found = audit(logger.run)
    assert (found.records, found.unfinished_bytes, found.problems) == (5, 100, [])
    segment.write_bytes(content + b"x" * 100)
    assert problems(logger.run) == [(f"journal/{segment.name}", len(content))]
    segment.write_bytes(content)
    asynctrack.init("live", id="run", dir=logger.run.parent.parent, resume="must").finish()


def test_every_flipped_byte_of_a_journal_is_found_where_it_is(run: Path) -> None:
    (segment,) = (run / "journal").iterdir()
    content = segment.read_bytes()
    for at in range(0, len(content), 7):
        segment.write_bytes(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :])
        found = audit(run).problems
        bytes_ = [problem.byte for problem in found if problem.file == f"journal/{segment.name}"]
        assert bytes_, at
        # The checksum of a block stands before it.
        assert min(byte for byte in bytes_ if byte is not None) <= at + 4
    segment.write_bytes(content)
    assert problems(run) == []


def test_every_cut_of_a_journal_is_found(run: Path) -> None:
    (segment,) = (run / "journal").iterdir()
    content = segment.read_bytes()
    for size in range(0, len(content), 11):
        segment.write_bytes(content[:size])
        assert problems(run), size


def test_what_is_missing_is_counted(kept: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(kept / "p" / "finished-1", tmp_path / "run"))
    (segment,) = (run / "journal").iterdir()
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.write_bytes(content)
    found = answer_of_damaged("verify", run)
    with pytest.warns(asynctrack.errors.DamagedJournal):
        readable = len(list(asynctrack.open_run(run).records()))
    assert found["records"] == readable
    assert found["records"] + found["missing"] <= 2020
    text = said_here("verify", run).stdout
    assert "damaged" in text
    assert "a block fails its checksum" in text


def answer_of_damaged(*arguments: object) -> Any:
    done = said_here(*arguments, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    return json.loads(done.stdout)


def change(path: Path, **content: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


@pytest.mark.system
@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("run.json", {"status": "finished"}, "has the status 'finished', and the journal has 'crashed'"),
        ("run.json", {"config": {"lr": 1}}, "has the config {'lr': 1}, and the journal has"),
        ("run.json", {"position": [1, 99_999_999, 0]}, "has read the journal up to byte 99999999 of 000001.atj"),
        ("run.json", {"created_at": 7}, "cannot be read"),
        ("cursors/jsonl.json", {"delivered": 2}, "counts 2 records up to"),
        ("cursors/jsonl.json", {"rejected": 1}, "counts 4 records up to"),
        ("cursors/jsonl.json", {"position": [1, 99_999_999, 0]}, "points past the journal's end"),
        ("cursors/jsonl.json", {"position": [1, 70, 0]}, "points into the middle of a batch"),
        ("cursors/jsonl.json", {"delivered": "no"}, "cannot be read"),
    ],
)
def test_what_does_not_agree_with_the_journal_is_named(
    run: Path, file: str, content: dict[str, Any], what: str
) -> None:
    change(run / file, **content)
    (problem,) = answer_of_damaged("verify", run)["problems"]
    assert (problem["file"], problem["byte"]) == (file, None)
    assert what in problem["what"]


def test_missing_files_are_named(run: Path) -> None:
    (run / "run.json").unlink()
    assert problems(run) == [("run.json", None)]
    (segment,) = (run / "journal").iterdir()
    segment.rename(segment.with_name("000003.atj"))
    assert ("journal/000001.atj", 0) in problems(run)


# export


@pytest.mark.system
def test_exported_lines_are_those_of_metrics_jsonl(kept: Path) -> None:
    for name in ("p/finished-1", "p/failed", "q/crashed"):
        done = subprocess.run([*COMMAND, "export", kept / name, "--format", "jsonl"], capture_output=True, timeout=50)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (kept / name / "metrics.jsonl").read_bytes()


@pytest.mark.system
def test_csv_has_every_column_and_value(own_host: Path, runs: Path) -> None:
    values = [
        {"loss": 0.1, "text": 'a "b", c\r\nd', "flag": True},
        {"nested": {"x": 1, "list": [1, float("nan")]}, "loss": float("inf")},
        {"loss": None, "big": 2**70, "_step": 9, "text": "NaN"},
        {},
    ]
    with asynctrack.init("p", dir=runs) as run:
        for step, data in enumerate(values):
            run.log(data, step=step)
    done = subprocess.run([*COMMAND, "export", run.path, "--format", "csv"], capture_output=True, timeout=50)
    assert done.stdout.count(b"\r\n") == 6  # a line each, and one in a value
    title, *rows = csv.reader(io.StringIO(done.stdout.decode(), newline=""))
    assert title == ["_step", "_timestamp", "loss", "text", "flag", "nested/x", "nested/list", "big", "__step"]
    assert [[cell for cell, name in zip(row, title, strict=True) if name != "_timestamp"] for row in rows] == [
        ["0", "0.1", 'a "b", c\r\nd', "true", "", "", "", ""],
        ["1", "Infinity", "", "", "1", '[1,"NaN"]', "", ""],
        ["2", "", "NaN", "", "", "", str(2**70), "9"],
        ["3", "", "", "", "", "", "", ""],
    ]


@pytest.mark.system
def test_chosen_keys_are_exported_alone(kept: Path) -> None:
    done = asynctrack_("export", kept / "p" / "finished-1", "--format", "csv", "--keys", "val/*")
    title, *rows = csv.reader(io.StringIO(done.stdout))
    assert title == ["_step", "_timestamp", "val/acc"]
    assert [row[0] for row in rows] == [str(step) for step in range(0, 2000, 100)]
    done = said_here("export", kept / "p" / "finished-1", "--format", "jsonl", "--keys", "val/acc,phase")
    assert json.loads(done.stdout.splitlines()[1]).keys() == {"_step", "_timestamp", "val/acc"}


@pytest.mark.system
def test_export_to_a_file_replaces_none_by_accident(kept: Path, tmp_path: Path) -> None:
    run, file = kept / "p" / "finished-1", tmp_path / "out.jsonl"
    said = answer("export", run, "--format", "jsonl", "--output", file)
    assert said == {
        "path": str(file), "format": "jsonl", "runs": [str(run)], "records": 2020, "bytes": file.stat().st_size, "damage": [],
        "history": "last", "left_out": {"rows": 0, "values": 0}, "formulas": 0,
    }  # fmt: skip
    assert file.read_bytes() == (run / "metrics.jsonl").read_bytes()
    file.write_text("mine")
    for output, why in (
        (file, "--force replaces it"),
        (tmp_path, "is not one"),
        (tmp_path / "no/x", "existing folder"),
    ):
        done = said_here("export", run, "--format", "csv", "--output", output)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr
    assert file.read_text() == "mine"
    assert said_here("export", run, "--format", "csv", "--output", file, "--force").returncode == 0
    assert file.read_text().startswith("_step,_timestamp,loss")
    assert said_here("export", run, "--format", "csv", "--json").returncode == 2
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_export_that_fails_leaves_nothing(kept: Path, tmp_path: Path) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [*COMMAND, "export", kept / "p" / "finished-1", "--format", "csv", "--output", tmp_path / "out.csv"]
    done = subprocess.run(command, preexec_fn=little_room, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert done.stderr.startswith("asynctrack: [Errno 27] File too large")
    assert os.listdir(tmp_path) == []


def test_export_leaves_out_what_is_damaged_and_says_so(run: Path) -> None:
    (segment,) = (run / "journal").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(b"\xa1i") + 2] ^= 1
    segment.write_bytes(content)
    (run / "run.json").write_text("{")  # not needed for it
    done = said_here("export", run, "--format", "jsonl")
    assert done.returncode == 1
    assert "left out: " in done.stderr
    assert "a block fails its checksum" in done.stderr


# rm


@pytest.mark.system
def test_rm_removes_and_says_what_it_freed(run: Path) -> None:
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    other = shutil.copytree(run, run.with_name("other"))
    assert answer("rm", "crashed", run, "--dir", run.parent.parent, "--yes") == {
        "removed": [{"path": str(run), "bytes": size}],
        "errors": {},
    }
    assert os.listdir(run.parent) == ["other"]
    assert said_here("rm", other, "-y").stdout.startswith("removed q/other, ")
    assert os.listdir(run.parent) == []


@pytest.mark.system
def test_rm_asks_at_a_terminal_and_refuses_without_one(run: Path) -> None:
    done = subprocess.run([*COMMAND, "rm", run], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes removes without asking" in done.stderr
    for answers in ("\n", "n\n", "nope\n"):
        code, text = on_terminal(80, "rm", run, answers=answers)
        assert code == 1
        assert "remove this run for good? [y/N]" in text
        assert run.is_dir()
    code, text = on_terminal(80, "rm", run, answers="y\n")
    assert code == 0
    assert "removed q/crashed" in text
    assert not run.exists()


@pytest.mark.system
def test_rm_refuses_what_runs_and_then_removes_nothing(logger: Logger, run: Path) -> None:
    logger.log(0, 3)
    done = said_here("rm", run, logger.run, "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"live/run is running (process {logger.process.pid}); --force removes it anyway" in done.stderr
    refused = answer_of_refusal(run, logger.run)
    assert list(refused["errors"]) == [str(logger.run)]
    assert refused["removed"] == []
    assert run.is_dir()
    logger.end()
    assert asynctrack_("rm", run, logger.run, "--yes").returncode == 0


def answer_of_refusal(*runs: Path) -> Any:
    done = said_here("rm", *runs, "--yes", "--json")
    assert done.returncode == 1
    return json.loads(done.stdout)


def test_rm_with_force_removes_a_live_run_and_nothing_hangs(logger: Logger) -> None:
    logger.log(0, 3)
    assert said_here("rm", logger.run, "--yes", "--force").returncode == 0
    assert not logger.run.exists()
    logger.end()
    assert not logger.run.exists()


def test_rm_of_a_lost_run_takes_its_queue_along(logger: Logger, own_host: Path) -> None:
    logger.log(0, 3)
    kill_the_worker(own_host)
    logger.end("die")
    assert [name for name in left_in(own_host) if name.endswith(".ring")]
    assert said_here("rm", logger.run, "--yes").returncode == 0
    assert [name for name in left_in(own_host) if name.endswith(".ring")] == []
    for host in own_host.glob("asynctrack-*/*"):
        shutil.rmtree(host)  # what is empty goes a minute later
    (own_host / f"asynctrack-{os.geteuid()}").rmdir()


def test_rm_of_a_run_from_elsewhere_needs_force(run: Path) -> None:
    change(run / "run.json", status="running", environment={"host": "another"})
    (segment,) = (run / "journal").iterdir()
    os.truncate(segment, segment.stat().st_size - 1)
    assert "it was started on another" in said_here("rm", run, "--yes").stderr
    assert said_here("rm", run, "--yes", "--force").returncode == 0


def test_rm_follows_no_link(run: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (run / "media").symlink_to(precious)
    link = tmp_path / "link"
    link.symlink_to(run)
    assert "is a link to" in said_here("rm", link, "--yes").stderr
    assert run.is_dir()
    assert said_here("rm", run, "--yes").returncode == 0
    assert not run.exists()
    assert (precious / "file").read_text() == "mine"


@pytest.mark.parametrize("lookalike", ["journal/notes.txt", "run.json"])
def test_rm_removes_nothing_but_runs(tmp_path: Path, lookalike: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "project" / lookalike
    file.parent.mkdir(parents=True)
    file.write_text('{"mine": 1}')
    assert cli.main(["rm", str(tmp_path / "project"), "--yes", "--force"]) == 1
    assert "is not a run" in capsys.readouterr().err
    for wanted in ("", ".", "..", str(tmp_path), str(file)):
        assert cli.main(["rm", wanted, "--yes", "--force", "--dir", str(tmp_path / "none")]) == 2
    assert file.read_text() == '{"mine": 1}'
