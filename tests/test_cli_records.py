"""`asynctrack show`, `tail` and `wait` on real runs; the curves and tables beneath them."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Logger, answer, asynctrack_, line_of, make_runs, on_terminal, plain, running, said_here
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import manifest, stopped, the_worker, wait_until, workers

import asynctrack
from asynctrack import cli
from asynctrack.cli import output
from asynctrack.cli.curves import read_curves
from asynctrack.cli.follow import Follower
from asynctrack.client.run_state import activity_of
from asynctrack.journal.backwards import backwards
from asynctrack.journal.reader import Reader
from asynctrack.journal.writer import Writer
from asynctrack.reading.reader import RunReader
from asynctrack.records.column_types import as_float
from asynctrack.testing import JournaledRun


@pytest.fixture(scope="module")
def kept(shared_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that have ended; see `make_runs`."""
    return make_runs(tmp_path_factory.mktemp("kept") / "runs")


@pytest.fixture
def logger(own_host: Path, runs: Path) -> Iterator[Logger]:
    logger = Logger(runs)
    yield logger
    logger.end()


# show


@pytest.mark.system
def test_show_tells_all_of_a_run(kept: Path) -> None:
    shown = answer("show", kept / "p" / "finished-1")
    assert shown["config"] == {"lr": 3e-4, "model": {"depth": 1}, "bad": "Infinity"}
    assert shown["summary"] == {"best": 0.25}
    assert (shown["status"], shown["callers"], shown["worker"]) == ("finished", [], False)
    stats = shown["stats"]
    assert stats == {"offered": 2020, "accepted": 2020, "journaled": 2020, "queued": 0, "dropped": {}}
    jsonl = shown["backends"]["jsonl"]
    assert (jsonl["delivered"], jsonl["behind"], jsonl["rejected"], jsonl["closed"]) == (2020, 0, 0, True)
    assert jsonl["records_per_s"] > 0
    loss = shown["metrics"]["loss"]
    assert (loss["count"], loss["min"], loss["last"], loss["max"]) == (2000, 1 / 2000, 1 / 2000, 1)
    assert loss["course"] == sorted(loss["course"], reverse=True)
    assert shown["metrics"].keys() == {"loss", "train/acc", "val/acc", "huge"}
    assert shown["damage"] == []


def test_show_is_text_for_people(kept: Path) -> None:
    text = asynctrack_("show", kept / "p" / "finished-1").stdout
    for wanted in ("p/finished-1  näme-1  finished", "model/depth  1", "best  0.25", "2,020     2,020      2,020"):
        assert wanted in text, text
    assert re.search(r"loss +█[▁▂▃▄▅▆▇█]{40,} +0.0005 +0.0005 +1 +2,000$", text, re.M)
    assert re.search(r"jsonl +2,020 +0 +0 +0 +\S+/s  has all$", text, re.M)


def test_show_says_that_a_backend_of_an_offline_run_waits_for_sync(own_host: Path, tmp_path: Path) -> None:
    server = asynctrack.MLflow(tracking_uri="http://127.0.0.1:9")
    with asynctrack.init("p", dir=tmp_path, mode="offline", backends=["jsonl", server]) as run:
        run.log({"i": 1})
    wait_until(lambda: not activity_of(run.path).is_active, "its worker lets go of it")
    text = said_here("show", run.path).stdout
    assert re.search(r"mlflow +0 +1 +0 +0 +-  waits for `asynctrack sync`$", text, re.M), text
    assert re.search(r"jsonl +1 .* has all$", text, re.M), text


@pytest.mark.system
def test_show_says_when_a_backend_of_a_live_run_is_tried_again(own_host: Path, tmp_path: Path) -> None:
    server = asynctrack.MLflow(tracking_uri="http://127.0.0.1:9")
    limits = {"finish_timeout_s": 0.1, "after_exit_max_s": 0.1}
    with asynctrack.init("p", dir=tmp_path, backends=["jsonl", server], settings=limits) as run:
        run.log({"i": 1})
        again = re.compile(r"mlflow +0 +1 +0 +0 +-  failed \d times?, again in \d+ m?s$", re.M)
        wait_until(lambda: again.search(said_here("show", run.path).stdout), "it has failed")


def test_show_of_a_failed_run_tells_the_error_and_no_control_character(kept: Path) -> None:
    text = said_here("show", kept / "p" / "failed").stdout
    assert r"ValueError: [red]no[/red]\n\x1b[31mgood" in text
    assert "\x1b" not in text
    assert re.search(r"loss +x +NaN +NaN +NaN +1$", text, re.M)


@pytest.mark.system
def test_show_chooses_metrics_and_says_how_many_more(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({f"m{i}": i for i in range(30)})
    assert "and 10 more: --keys '*' shows them" in said_here("show", run.path).stdout
    assert len(answer("show", run.path)["metrics"]) == 30
    text = said_here("show", run.path, "--keys", "m1?,m3").stdout
    assert re.findall(r"^  (m\d+) ", text, re.M) == ["m3", *(f"m1{i}" for i in range(10))]
    assert said_here("show", run.path, "--keys", "*").stdout.count("\n  m") == 30


def test_statistics_of_a_live_run_balance(logger: Logger, own_host: Path) -> None:
    logger.log(0, 10)
    with stopped(the_worker(own_host)):
        logger.tell("log 10 25")
        shown = wait_until(
            lambda: (found := answer("show", logger.run))["stats"]["queued"] == 15 and found, "the rest is queued"
        )
        stats = shown["stats"]
        assert stats == {"offered": 25, "accepted": 25, "journaled": 10, "queued": 15, "dropped": {}}
        assert shown["status"] == "running"
        assert shown["callers"] == [logger.process.pid]
        assert f"process {logger.process.pid}, which has it open" in said_here("show", logger.run).stdout


def test_a_backend_in_trouble_is_shown(kept: Path, tmp_path: Path) -> None:
    run = shutil.copytree(kept / "q" / "crashed", tmp_path / "crashed")
    cursor = run / "cursors" / "jsonl.json"
    trouble = {"retries": 7, "last_error": "OSError: no", "next_try_at": "2999-01-01T00:00:00+00:00", "closed": False}
    cursor.write_text(json.dumps(json.loads(cursor.read_text()) | trouble | {"delivered": 1, "skipped": {"thin": 1}}))
    assert answer("show", run)["backends"]["jsonl"].items() >= {**trouble, "behind": 1, "skipped": {"thin": 1}}.items()
    text = said_here("show", run).stdout
    assert re.search(r"jsonl +1 +1 +1 +0 .*  failed 7 times, waits for `asynctrack sync`$", text, re.M)
    assert "jsonl: OSError: no" in text
    assert "jsonl skipped: thin=1" in text


@pytest.mark.system
@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["ls", "show", "tail"])
def test_nothing_is_wider_than_the_terminal(kept: Path, command: str, columns: int) -> None:
    code, text = on_terminal(columns, command, kept if command == "ls" else kept / "p" / "finished-1")
    assert code == 0
    assert "\x1b[" in text
    assert [line for line in plain(text).splitlines() if output.width_of(line) > columns] == []


@pytest.mark.system
def test_no_color_is_respected_and_pipes_get_none(kept: Path) -> None:
    assert "\x1b[" not in on_terminal(80, "show", kept / "p" / "finished-1", NO_COLOR="1")[1]
    assert "\x1b[" not in asynctrack_("show", kept / "p" / "finished-1", FORCE_COLOR="1").stdout


def test_a_stream_that_cannot_print_blocks_gets_others(kept: Path) -> None:
    text = asynctrack_("show", kept / "p" / "finished-1", PYTHONIOENCODING="ascii").stdout
    assert text.isascii()
    assert r"n\xe4me-1" in text
    assert re.search(r"loss +#[_.:=+*#-]{40,} ", text)


def test_without_rich_there_is_plain_text(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('rich')")
    code, text = on_terminal(80, "ls", kept, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert code == 0
    assert "p/finished-1" in text
    assert "\x1b[" not in text


# tail


@pytest.mark.system
@pytest.mark.parametrize("count", [0, 1, 10, 2019, 2020, 5000])
def test_tail_prints_the_last_records_as_metrics_jsonl_has_them(kept: Path, count: int) -> None:
    run = kept / "p" / "finished-1"
    done = said_here("tail", run, "-n", count, "--json")
    assert done.stdout.splitlines() == (run / "metrics.jsonl").read_text().splitlines()[max(0, 2020 - count) :]


def test_tail_prints_lines_for_people(kept: Path) -> None:
    first, second = asynctrack_("tail", kept / "p" / "finished-1", "-n", 2).stdout.splitlines()
    assert re.fullmatch(r"    1998  \d\d:\d\d:\d\d\.\d{3}  loss=0\.00050025  train/acc=0\.999  phase=fit", first)
    assert second.startswith("    1999  ")


def test_tail_chooses_keys_and_looks_back_for_them(kept: Path) -> None:
    done = said_here("tail", kept / "p" / "finished-1", "-n", 3, "--keys", "val/*", "--json")
    wanted = [{"_step": step, "val/acc": step / 2000} for step in (1700, 1800, 1900)]
    assert [{**json.loads(line), "_timestamp": 0} for line in done.stdout.splitlines()] == [
        {**line, "_timestamp": 0} for line in wanted
    ]


def next_number(follower: subprocess.Popen[str]) -> int:
    return int(json.loads(line_of(follower))["i"])


@pytest.mark.system
def test_tail_follows_until_the_run_ends(logger: Logger) -> None:
    logger.log(0, 5)
    with running("tail", "-f", "-n", "2", "--json", logger.run) as follower:
        seen = [next_number(follower), next_number(follower)]
        for at in (5, 6):  # each comes before the next is logged
            logger.tell(f"log {at} {at + 1}")
            seen.append(next_number(follower))
        logger.tell("log 7 3000")
        logger.end()
        out, _ = follower.communicate(timeout=50)
        seen += [json.loads(line)["i"] for line in out.splitlines()]
        assert seen == list(range(3, 3000))
        assert follower.returncode == 0


@pytest.mark.system
def test_tail_follows_into_a_resumed_run(logger: Logger, own_host: Path, runs: Path) -> None:
    """Through another session, another worker and another segment."""
    logger.log(0, 3)
    with running("tail", "-f", "--json", logger.run) as follower:
        assert [next_number(follower) for _ in range(3)] == [0, 1, 2]
        with stopped(follower.pid):
            logger.end("die")
            wait_until(lambda: not workers(own_host), "the worker has left")
            resumed = Logger(runs)
            resumed.log(3, 6)
        assert [next_number(follower) for _ in range(3)] == [3, 4, 5]
        resumed.log(6, 8)
        assert [next_number(follower) for _ in range(2)] == [6, 7]
        resumed.end()
        assert follower.communicate(timeout=50)[0] == ""
        assert follower.returncode == 0


@pytest.mark.system
def test_run_json_of_an_earlier_session_does_not_end_a_follower(logger: Logger, own_host: Path, runs: Path) -> None:
    """A worker that has just started has journaled a resumed run for a moment before it has saved `run.json`."""
    logger.log(0, 3)
    logger.end("die")
    wait_until(lambda: not workers(own_host), "the worker has left")
    of_earlier_session = (logger.run / "run.json").read_bytes()
    resumed = Logger(runs)
    resumed.log(3, 6)
    wait_until(lambda: manifest(resumed.run)["status"] == "running", "the worker has saved it")
    (resumed.run / "run.json").write_bytes(of_earlier_session)
    with contextlib.closing(Follower(resumed.run)) as follower:
        looks = (batch for batch in follower.batches() if batch is None)
        assert len(list(itertools.islice(looks, 6))) == 6
    resumed.end()


def test_tail_of_an_ended_run_does_not_wait(kept: Path) -> None:
    assert said_here("tail", "-f", kept / "q" / "crashed").returncode == 0


# wait


@pytest.mark.parametrize(
    ("run", "until", "code", "step"),
    [
        ("p/finished-1", "loss <= 0.01", 0, 99),
        ("p/finished-1", "loss < 0.01 and train/acc >= 0.5", 0, 1000),
        ("p/finished-1", "step >= 1234 and (loss > 1 or train/acc > 0)", 0, 1234),
        ("p/finished-1", "loss < 0 or nothing > 1", 1, None),
        ("p/finished-1", "loss < 0.001 and val/acc > 0", 1, None),  # never in one record
        ("p/finished-1", "phase == 1", 1, None),
        ("p/finished-1", "status == finished", 0, 1999),
        ("p/finished-1", "status != finished and step < 0", 1, None),
        ("p/failed", "loss != 0", 0, 7),
        ("p/failed", "loss == nan", 1, None),
        ("p/failed", "loss < inf", 1, None),
    ],
)
def test_wait_knows_what_was_logged_before(
    kept: Path, run: str, until: str, code: int, step: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["wait", str(kept / run), "--until", until, "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["fulfilled"] == (code == 0)
    assert (said["record"] and said["record"]["_step"]) == step


@pytest.mark.parametrize(
    ("until", "told"),
    [
        ("los < -1", "no record has `los`; did you mean `loss`?"),
        ("nothing-like-it < 1 or lsos < 0", "no record has `lsos` or `nothing-like-it`; did you mean `loss`?"),
        ("nothing-like-it < 1", "no record has `nothing-like-it`; there are huge, loss, phase, "),
        ("loss < -1", None),
        ("loss < -1 or step < 0 or status == failed", None),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wait_names_the_metric_that_no_record_has(
    kept: Path, until: str, told: str | None, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["wait", str(kept / "p/finished-1"), "--until", until, *["--json"] * as_json]) == 1
    said = capsys.readouterr().err
    assert told is None or told in said
    assert ("no record has" in said) == (told is not None)


@pytest.mark.system
def test_wait_says_while_it_waits_that_no_record_has_the_metric(logger: Logger) -> None:
    logger.log(0, 3)
    with running("wait", logger.run, "--until", "hlaf > 9") as waiting:
        assert waiting.stderr is not None
        assert (
            waiting.stderr.readline()
            == "asynctrack: still waiting, but so far no record has `hlaf`; did you mean `half`?\n"
        )
        logger.log(3, 9)
        logger.end()
        assert waiting.communicate(timeout=50)[1].count("did you mean `half`?") == 1


@pytest.mark.parametrize(("run", "code"), [("p/finished-1", 0), ("p/failed", 1), ("q/crashed", 1)])
def test_wait_for_the_end_says_whether_it_finished(kept: Path, run: str, code: int) -> None:
    done = asynctrack_("wait", kept / run)
    assert (done.returncode, done.stdout) == (code, f"{run.split('/')[-1].split('-')[0]}\n")


@pytest.mark.system
def test_wait_waits(logger: Logger) -> None:
    logger.log(0, 3)
    for until in (["--until", "half == 2.5"], []):
        done = said_here("wait", logger.run, *until, "--timeout-s", "0.2")
        assert done.returncode == 124
        assert "timed out" in done.stderr
    logger.log(3, 5)
    assert said_here("wait", logger.run, "--until", "i == 4", "--timeout-s", "0").returncode == 0
    with (
        running("wait", logger.run, "--until", "half == 2.5") as waiting,
        running("wait", logger.run, "--timeout-s", "40") as to_end,
        running("wait", logger.run, "--until", "i > 9") as never,
    ):
        logger.log(5, 8)
        assert "i=5  half=2.5" in waiting.communicate(timeout=50)[0]
        assert waiting.returncode == 0
        assert to_end.poll() is None
        logger.end()
        assert to_end.communicate(timeout=50)[0] == "finished\n"
        assert to_end.returncode == 0
        assert "no record met 'i > 9'" in never.communicate(timeout=50)[1]
        assert never.returncode == 1


@pytest.mark.system
@pytest.mark.parametrize("status", ["failed", "crashed"])
def test_wait_for_a_status(logger: Logger, status: str) -> None:
    logger.log(0, 3)
    with running("wait", logger.run, "--until", f"status == {status}") as waiting:
        logger.end("fail" if status == "failed" else "die")
        assert waiting.wait(timeout=50) == 0


def test_a_condition_that_cannot_be_read_is_shown_with_a_mark(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wait", "latest", "--until", "(loss < 1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "at character 10 expected ')', got the end" in said[0]
    assert said[1:] == ["  (loss < 1", "           ^"]


# Curves, tables, numbers


@settings(max_examples=60, deadline=None)
@example([1.0, math.inf], 5)
@example([2**53 + 1], 1)
@given(st.lists(st.floats() | st.integers(), min_size=1, max_size=300), st.integers(1, 60))
def test_course_has_the_extremes_and_at_most_as_many_values_as_there_is_room_for(
    values: list[float], most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, JournaledRun(Path(folder, "p", "r")) as run:
        for step, value in enumerate(values):
            run.log({"x": value}, step)
        run.end()
        found = read_curves(RunReader(run.path)).curves
        curve, course = found.by_key["x"], found.courses(["x"], most)["x"]
    kept = [value if -(2**63) <= value < 2**63 else as_float(value) for value in values]
    finite = [value for value in kept if value - value == 0]
    assert curve.count == len(values)
    assert repr(curve.last) == repr(kept[-1])
    assert (curve.low, curve.high) == (min(finite), max(finite)) if finite else math.isnan(curve.low + curve.high)
    assert 0 < len(course) <= most
    if len(values) <= most:
        assert all(math.isnan(shown) or shown == as_float(value) for shown, value in zip(course, kept, strict=True))
    if len(finite) == len(values) and most > 1:
        assert {float(min(finite)), float(max(finite))} & {*course}
    assert any(map(math.isnan, course)) == (len(finite) < len(values))
    assert len(output.spark(course)) == len(course)


def test_spike_is_seen_in_a_course(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(20_000):
            run.log({"loss": 50.0 if step == 7_654 else 1 / (step + 1)}, step)
        run.end()
    course = read_curves(RunReader(run.path)).curves.courses(["loss"], 48)["loss"]
    assert len(course) == 48 and max(course) == 50


def test_a_run_that_makes_up_names_is_shown_by_the_first_of_them(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(10_010):
            run.log({f"name{step}": step}, step)
        run.end()
    curves = read_curves(RunReader(run.path)).curves
    assert len(curves.by_key) == 10_000 and curves.is_full


def test_a_narrow_table_cuts_cells_and_then_leaves_out_columns() -> None:
    columns = [
        output.TableColumn("name"),
        output.TableColumn("count", right=True, rank=1),
        output.TableColumn("words", cut=True, rank=2),
    ]
    rows = [["a", "1", "中文 " * 10], ["long", "22", output.Styled("x\x1b[0m")]]
    printed = {}
    for width in (None, 40, 26, 12):
        screen = output.Output(out := io.TextIOWrapper(buffer := io.BytesIO(), encoding="utf-8"))
        screen.width = width
        screen.table(columns, rows)
        out.flush()
        printed[width] = buffer.getvalue().decode().splitlines()
    assert printed[None][1] == "a         1  " + ("中文 " * 10).rstrip()
    assert printed[40][1].endswith("…")
    assert all(output.width_of(line) <= width for width, text in printed.items() if width for line in text)
    assert printed[26][2] == r"long     22  x\x1b[0m"
    assert printed[12] == ["name  count", "a         1", "long     22"]


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (output.short_count(0), "0"),
        (output.short_count(9_999), "9,999"),
        (output.short_count(12_345), "12.3k"),
        (output.short_count(1_234_567), "1.23M"),
        (output.short_count(0.25), "0.25"),
        (output.size(999), "999 B"),
        (output.size(1_500_000), "1.50 MB"),
        (output.duration(0.081), "0.081 s"),
        (output.duration(90), "90 s"),
        (output.duration(3600), "60 min"),
        (output.duration(86400 * 3), "3 d"),
        (output.number(0.1 + 0.2), "0.3"),
        (output.number(24470.0), "24470"),
        (output.number(1234567.8), "1234568"),
        (output.number(1.5e-8), "1.500e-08"),
        (output.number(math.nan), "NaN"),
        (output.number(-math.inf), "-inf"),
        (output.number(10**400), "huge"),
        (output.spark([0, 1, 2, 3, 4, 5, 6, 7]), output.BLOCKS),
        (output.spark([1, math.nan, 1]), "▁x▁"),
        (output.spark([-1.7e308, 1.7e308]), "▁█"),
        (output.brief([1, math.nan]), '[1,"NaN"]'),
        (output.brief(asynctrack.Array("f4", (2, 3), bytes(24))), "f4[2x3]"),
        (output.brief("a\nb"), r"a\nb"),
    ],
)
def test_numbers_are_short(made: str, wanted: str) -> None:
    assert made == wanted


# The journal from its end


def frames(ring: int, numbers: range) -> bytes:
    payloads = [b"%d/%d" % (ring, number) * (number % 40) for number in numbers]
    return b"".join(
        (len(payload).to_bytes(8, "little") + number.to_bytes(8, "little") + payload).ljust(
            (len(payload) + 23) & -8, b"\0"
        )
        for number, payload in zip(numbers, payloads, strict=True)
    )


@pytest.mark.parametrize("segment_bytes", [200, 5_000, 1 << 20])
def test_a_journal_read_backwards_is_the_same(tmp_path: Path, segment_bytes: int) -> None:
    writer = Writer(tmp_path, segment_bytes=segment_bytes)
    ends, counts = {1: 0, 2: 0}, {1: 0, 2: 0}
    for at in range(60):
        ring = 1 + at % 3 // 2
        numbers = range(counts[ring], counts[ring] + 1 + at * 7 % 50)
        batch = frames(ring, numbers)
        writer.append(ring, ends[ring], ends[ring] + len(batch), counts[ring], batch)
        ends[ring], counts[ring] = ends[ring] + len(batch), numbers.stop
    writer.close()
    forwards = [(batch.segment, batch.offset, bytes(batch.data)) for batch in Reader(tmp_path)]
    assert [(batch.segment, batch.offset, bytes(batch.data)) for batch in backwards(tmp_path)] == forwards[::-1]
    last = max(tmp_path.iterdir())
    os.truncate(last, last.stat().st_size - 3)  # a torn batch is not there
    assert [batch.offset for batch in itertools.islice(backwards(tmp_path), 3)] == [
        offset for _, offset, _ in forwards[-2:-5:-1]
    ]
