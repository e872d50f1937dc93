"""What a run says to who sits in front of it: in a terminal, a file, a log, a notebook, and where nobody listens."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ended, manifest, start, the_worker, wait_until
from test_notebook import Notebook

import asynctrack
from asynctrack import Batch, Console, Context, Record, Update
from asynctrack._system.printable import printable
from asynctrack.backends.base import ActionRequired, Backend
from asynctrack.backends.caller_display import GONE, CallerDisplay, Display, Link, Stream, open_display
from asynctrack.backends.console.choice import DOWNSAMPLED, NOTHING, RecordFilter
from asynctrack.backends.console.text import Lines
from asynctrack.backends.metric_selection import MetricSelection
from asynctrack.errors import InvalidSettings
from asynctrack.journal.cursor import load_cursor
from asynctrack.records.codec import Array
from asynctrack.testing import BackendContract

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.mark.system
class TestContract(BackendContract):
    keeps = frozenset({"float", "int", "nan", "inf", "big"})

    def make_backend(self, run: Path) -> Backend:
        run.parent.mkdir(parents=True, exist_ok=True)
        out = open(run.with_suffix(".out"), "a+")  # noqa: SIM115  # until the contract has read it
        opened.append(out)
        return Console(every_s=0, display=open_display(Stream(out)))

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for line in run.with_suffix(".out").read_text().splitlines():
            step, *cells = line.split(" | ")
            if step.startswith("step="):
                for cell in cells:
                    key, _, value = cell.rpartition("=")
                    yield (
                        int(step.removeprefix("step=")),
                        key,
                        int(value) if value.strip(" -").isdigit() else float(value),
                    )

    def same(self, given: Any, found: Any) -> bool:
        if isinstance(given, float) and math.isfinite(given):
            return math.isclose(given, found, rel_tol=1e-3, abs_tol=5e-5)
        return super().same(given, found)

    def test_run_goes_on_after_its_end(self, tmp_path: Path) -> None:
        with self._run(tmp_path) as run:
            expected = self._log(run, range(20))
            run.end("crashed")
            self._deliver(run)
            run.start()
            run.backend = self.make_backend(run.path)  # who resumes it has a display of its own
            expected += self._log(run, range(20, 40))
            run.end()
            self._deliver(run)
            self._assert_shows(run, expected, once=True)


opened: list[io.TextIOWrapper] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


# What the lines are


def record(step: int, data: dict[str, Any]) -> Record:
    return Record(step, step, 1_700_000_000_000_000_000 + step * 1_000_000, data)


class Kept(Display):
    """Keeps what is shown, or does not take it."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.broken = ""

    def show(self, items: list[Any]) -> None:
        if self.broken:
            raise OSError(self.broken)
        self.items += items


def shown(tmp_path: Path, batches: list[Batch], config: dict[str, Any] | None = None, **settings: Any) -> list[Any]:
    """What a run says from its beginning to its end."""
    kept = Kept()
    sink: Any = Console(**settings, display=CallerDisplay(kept).name).open(context(tmp_path, config))
    for batch in batches:
        sink.write(batch)
    sink.close("finished")
    return kept.items


def context(run: Path, config: dict[str, Any] | None = None, state: dict[str, Any] | None = None) -> Context:
    return Context(run_id="id", name="first", project="berlin52", directory=run, config=config or {}, state=state)


def of(*datas: dict[str, Any]) -> Batch:
    return Batch([record(step, data) for step, data in enumerate(datas)], [])


def test_lines_are_aligned_and_begin_and_end_with_config_and_summary(tmp_path: Path) -> None:
    best = Update("summary", 0, {"best": {"loss": 0.25}})
    batch = of({"loss": 12.5, "n": 10, "who": "rank zero"}, {"loss": 0.25, "n": 9, "who": "me", "lr": 3e-5})
    assert shown(tmp_path, [Batch(batch.records, [best])], {"lr": 3e-4, "model": {"kind": "mlp"}}, every_s=0) == [
        "=== berlin52/first | lr=0.0003 | model/kind=mlp",
        "step=   0 | loss=12.5000 | n=10 | who=rank zero",
        "step=   1 | loss= 0.2500 | n= 9 | who=me        | lr=3e-05",
        "=== finished | best/loss=0.25",
    ]


def test_tropts_lines_are_those_of_its_print_tracker(tmp_path: Path) -> None:
    summary = Update("summary", 0, {"best_loss": 0.5, "best_trigger_str": "x y"})
    batch = of({"loss": 0.25, "n": 3, "best_trigger_str": "it's"}, {"n": 4}, {"loss": 1, "best_trigger_str": None})
    config = {"lr": 0.1, "model": {"name": "m"}, "seen": [1, 2]}
    keys = ["loss", "best_trigger_str"]
    assert shown(tmp_path, [Batch(batch.records, [summary])], config, style="print", keys=keys) == [
        "=== Run config: {'lr': 0.1, 'model': {'name': 'm'}, 'seen': [1, 2]} ===",
        """step=   1 | loss=0.2500 | best_trigger_str="it's\"""",
        "step=   2",
        "step=   3 | loss=1 | best_trigger_str=None",
        "=== Run summary: best_loss=0.5000 | best_trigger_str='x y' ===",
    ]


def test_tropts_lines_count_on_after_a_kill(tmp_path: Path) -> None:
    kept = Kept()
    settings = Console(style="print", display=CallerDisplay(kept).name)
    first: Any = settings.open(context(tmp_path))
    first.write(of({"loss": 1.0}, {"loss": 2.0}))
    second: Any = settings.open(context(tmp_path, state=first.checkpoint()))
    first.close("stopped")
    second.write(of({"loss": 3.0}))
    second.close("finished")
    assert kept.items[-1] == "step=   3 | loss=3.0000"


@pytest.mark.parametrize(
    ("total", "config", "step"),
    [
        (None, {"num_steps": 250}, "step=  0/250"),
        (None, {"num_steps": "many"}, "step=   0"),
        (5000, {"num_steps": 250}, "step=   0/5000"),
        ("trainer/budget", {"trainer": {"budget": 70_000}}, "step=    0/70000"),
        ({"train": 10}, {}, "step=   0/10"),
        ({"val": 10}, {}, "step=   0"),
    ],
)
def test_lines_tell_how_many_steps_there_will_be(tmp_path: Path, total: Any, config: dict[str, Any], step: str) -> None:
    lines = shown(tmp_path, [of({"train/loss": 1.0})], config, total=total, every_s=0)
    assert lines[1].startswith(f"{step} | ".replace("  0/250", "   0/250")), lines[1]


def test_keys_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    batch = of({"train": {"loss": 1.0, "lr": 0.1}, "epoch": 3})
    assert shown(tmp_path, [batch], keys=["*/loss", "epoch"], every_s=0)[1] == "step=   0 | train/loss=1.0000 | epoch=3"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("a\x1b[2Jb\r\nc\x9b\u202e ü") == "a\\x1b[2Jb\\r\\nc\\x9b\\u202e ü"
    line = Lines().of(1, None, {"k\x1b]0;me\x07": "\x1b[31m", "ok": "größer"})
    assert not CONTROL.search(line) and line.endswith("ok=größer")


def test_what_would_fill_the_screen_is_cut() -> None:
    values = {"text": "ü" * 10_000, "list": [*range(100_000)], "nested": [[[[1]]]] * 20, "big": 2**200}
    _, text, items, nested, big = Lines().of(1, None, values).split(" | ")
    assert text == f"text={'ü' * 77}..." and items == "list=[0, 1, 2, 3, 4, 5, 6, 7, ...]"
    assert len(nested) < 100 and big == f"big={2**200}"
    assert Lines().of(1, None, {f"key-{at}": at for at in range(1000)}).endswith("key-39=39 | and 960 more")


# Which records are shown


def test_of_each_scope_the_last_is_shown_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    choice = RecordFilter(MetricSelection(None), None, 0.5)
    first, skipped = choice.take(of({"train/loss": 1.0}, {"train/loss": 2.0}, {"val/loss": 3.0}).records)
    assert [(one.scope, one.record.step) for one in first] == [("train", 1), ("val", 2)]
    assert skipped == {DOWNSAMPLED: 1}
    now += 0.4
    assert choice.take([record(9, {"train/loss": 3.0})]) == ([], {DOWNSAMPLED: 1})
    assert [one.record.step for one in choice.rest()] == [9]
    now += 0.2
    second, skipped = choice.take([record(10, {"val/loss": 3.0})])
    assert [one.record.step for one in second] == [9, 10]
    assert skipped == {}  # the one that had waited was counted when it came
    assert choice.rest() == []


def test_of_each_scope_those_so_many_steps_apart_are_shown() -> None:
    choice = RecordFilter(MetricSelection(None), 10, 0.0)
    steps = [3, 5, 12, 13, 14, 40, 0, 23]
    records = [record(step, {scope: {"loss": 1.0}}) for step in steps for scope in ("train", "val")]
    chosen, skipped = choice.take(records)
    assert [one.record.step for one in chosen if one.scope == "val"] == [3, 13, 40, 0, 23]
    assert skipped == {DOWNSAMPLED: 6}


def test_what_cannot_be_shown_is_skipped() -> None:
    datas = [{"loss": 1.0}, {"weights": Array("f4", (1,), b"\0\0\0\0")}, {}, {"loss": 2.0, "weights": None}]
    chosen, skipped = RecordFilter(MetricSelection(["loss"]), None, 0.0).take(of(*datas).records)
    assert [one.record.step for one in chosen] == [0, 3]
    assert skipped == {NOTHING: 2}


def test_a_run_that_makes_up_scopes_is_shown_in_bounded_lines() -> None:
    choice = RecordFilter(MetricSelection(None), None, 1e-9)
    chosen, _ = choice.take(record(step, {f"scope-{step}/loss": 1.0}) for step in range(5000))
    assert 50 < len(chosen) < 200


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"style": "table"}, "style"),
        ({"keys": "loss"}, "keys"),
        ({"keys": []}, "keys"),
        ({"every": 0}, "every"),
        ({"every": True}, "every"),
        ({"every_s": -1.0}, "every_s"),
        ({"every_s": math.nan}, "every_s"),
        ({"total": 0}, "total"),
        ({"total": {"train": None}}, "total"),
        ({"stream": "stdin"}, "stream"),
        ({"logger": None}, "logger"),
        ({"level": "LOUD"}, "level"),
    ],
)
def test_bad_settings_are_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSettings, match=f"  - {field} must be"):
        Console(**given)


# The display


def test_display_that_cannot_show_pauses_and_gets_the_same_again(tmp_path: Path) -> None:
    kept = Kept()
    sink: Any = Console(every_s=0, display=CallerDisplay(kept).name).open(context(tmp_path))
    batch = of({"loss": 1.0}, {"loss": 2.0})
    kept.broken = "the printer is on fire"
    for _ in range(2):
        with pytest.raises(ActionRequired, match="the printer is on fire"):
            sink.write(batch)
    kept.broken = ""
    assert sink.write(batch) == {}
    sink.close("stopped")
    assert [item[:12] for item in kept.items] == ["=== berlin52", "step=   0 | ", "step=   1 | "]


def test_nobody_is_there_to_show_anything_to(tmp_path: Path) -> None:
    for display in ("", "asynctrack-display-0123", "/run/elsewhere"):
        sink: Any = Console(every_s=0, display=display).open(context(tmp_path))
        assert sink.write(of({"loss": 1.0})) == {GONE: 1}
        sink.close("finished")


def test_display_ends_with_its_run() -> None:
    kept, threads = Kept(), threading.active_count()
    display = CallerDisplay(kept)
    for _ in range(3):  # a worker that has died, and its followers
        link = Link(display.name)
        assert link.show(["a"])
        link.close()
    last = Link(display.name)
    assert last.show(["z"], end=True)
    wait_until(lambda: threading.active_count() == threads, "it has ended")
    assert not last.show(["lost"]) and not Link(display.name).show(["lost"])
    assert kept.items == ["a", "a", "a", "z"]


# Real runs

RUN = """
import sys, time, asynctrack
settings = eval(sys.argv[2])
with asynctrack.init("p", id="run", dir=sys.argv[1], config={"steps": 400}, backends=["jsonl", asynctrack.Console(**settings)]) as run:
    train, val = run.scope("train"), run.scope("val")
    for step in range(400):
        train.log({"loss": 1 / (step + 1)}, step=step)
        if step % 100 == 99:
            val.log({"loss": 2 / (step + 1)}, step=step)
            run.flush("delivered")
"""


def in_terminal(script: str, *arguments: object) -> tuple[int, str]:
    """Run a script on a terminal; its exit status, and all that came there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    command = [sys.executable, "-c", script, *map(str, arguments)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 1 << 16):
            said += chunk
    os.close(ours)
    return child.wait(timeout=30), said.decode()


@pytest.mark.system
def test_lines_in_a_file_come_in_order_among_those_that_the_script_prints(
    own_host: Path, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "log"
    script = f"print('before')\n{RUN}\nprint('after')"
    with open(out, "w") as file:
        child = subprocess.run(
            [sys.executable, "-c", script, str(runs), "{'every': 100}"], stdout=file, stderr=subprocess.PIPE, timeout=30
        )
    assert child.returncode == 0 and not child.stderr
    text = out.read_text()
    assert not CONTROL.search(text)
    said = text.splitlines()
    assert said[:2] == ["before", "=== p/run | steps=400"]
    assert said[-2:] == ["=== finished", "after"]
    assert [line[:13] for line in said if "train" in line] == [f"step={step:>4}/400" for step in (0, 100, 200, 300)]
    assert sum("val/loss" in line for line in said) == 4


@pytest.mark.system
def test_terminal_shows_lines_without_control_characters(own_host: Path, runs: Path) -> None:
    status, said = in_terminal(RUN, runs, "{'every_s': 0}")
    assert status == 0
    lines = said.split("\r\n")
    assert lines[0] == "=== p/run | steps=400"
    assert len([line for line in lines if line.startswith("step=")]) == 404
    assert not CONTROL.search(said.replace("\r\n", "\n"))


@pytest.mark.system
def test_terminal_shows_a_bar_for_each_scope(own_host: Path, runs: Path) -> None:
    pytest.importorskip("tqdm", reason="bars are tqdm's")
    status, said = in_terminal(RUN, runs, "{'style': 'bars', 'every_s': 0.01}")
    assert status == 0
    assert said.count("\r") > 4
    *_, train, val, _ = re.split(r"[\r\n]+(?:\x1b\[A)*", said)
    assert train.startswith("train: 100%|") and "400/400" in train and "loss=0.0025" in train
    assert val.startswith("val: 100%|") and "400/400" in val and "loss=0.0050" in val


@pytest.mark.system
def test_bars_in_a_file_are_lines(own_host: Path, runs: Path) -> None:
    child = start(RUN, runs, "{'style': 'bars', 'every': 200}")
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0 and not out
    assert not CONTROL.search(err)
    assert err.splitlines()[1].startswith("step=   0/400 | train/loss=1.0000")


@pytest.mark.system
def test_terminal_without_tqdm_is_told_so_and_shows_lines(own_host: Path, runs: Path) -> None:
    status, said = in_terminal(
        f"import sys; sys.modules['tqdm'] = None\n{RUN}", runs, "{'style': 'bars', 'every': 200}"
    )
    assert status == 0
    assert said.startswith("asynctrack: bars need tqdm") and "asynctrack[console]" in said
    assert "\r\nstep=   0/400 | train/loss=1.0000\r\n" in said


ENDS = """
import sys, asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1], backends=[asynctrack.Console()])
for step in range(100):
    run.log({"loss": 1.0}, step=step)
"""


@pytest.mark.system
def test_script_that_just_ends_shows_its_last_line(own_host: Path, runs: Path) -> None:
    child = start(ENDS, runs)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")
    assert out.splitlines()[-2:] == ["step=  99 | loss=1.0000", "=== finished"]


def test_log_records_reach_the_users_handlers(own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level("INFO", logger="training"),
        asynctrack.init("p", dir=runs, backends=[Console(style="log", logger="training", every_s=0)]) as run,
    ):
        run.log({"loss": 0.5}, step=7)
    found = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "training"]
    assert found == [("INFO", f"=== p/{run.id}"), ("INFO", "step=   7 | loss=0.5000"), ("INFO", "=== finished")]


def test_captured_output_is_the_test_runners(own_host: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with asynctrack.init("p", dir=runs, backends=[Console(every_s=0)]) as run:
        run.log({"loss": 0.5}, step=7)
    assert "step=   7 | loss=0.5000\n" in capsys.readouterr().out


@pytest.mark.system
def test_output_that_a_script_redirects_for_a_while_is_left_alone(own_host: Path, runs: Path, capsys: Any) -> None:
    taken = io.StringIO()
    with asynctrack.init("p", dir=runs, backends=[Console(every_s=0)]) as run, contextlib.redirect_stdout(taken):
        run.log({"loss": 0.5})
        run.flush("delivered")
    assert taken.getvalue() == ""
    assert "loss=0.5000" in capsys.readouterr().out


@pytest.mark.system
def test_fast_loop_is_shown_at_a_humane_rate(own_host: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with asynctrack.init("p", dir=runs, backends=[Console(every_s=0.2)]) as run:
        for step in range(20_000):
            run.log({"loss": 1.0}, step=step)
    took = time.monotonic() - began
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step=")]
    assert said[-1].startswith("step=19999")
    assert len(said) <= took / 0.2 + 2
    backend_stats = run.finish().backends["console"]
    assert backend_stats.delivered + backend_stats.skipped[DOWNSAMPLED] == 20_000


BROKEN = f"""
import json, os, sys
{{breaks}}
{RUN}
backend_stats = run.finish().backends["console"]
sys.stderr.write("\\n" + json.dumps([backend_stats.behind, backend_stats.paused, backend_stats.last_error]))
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        ("ours, theirs = os.pipe(); os.dup2(theirs, 1); os.close(theirs); os.close(ours)", "Broken pipe"),
        ("sys.stdout.close()", "closed file"),
        ("sys.stdout = None", "no such stream"),
        ("os.close(1)", None),  # where it was lies the null device by then
    ],
)
def test_stream_that_is_closed_pauses_and_the_run_ends_well(
    rough_host: Path, runs: Path, breaks: str, reason: str | None
) -> None:
    script = BROKEN.replace("{breaks}", breaks).replace('run.flush("delivered")', "pass")
    child = start(script, runs, "{}", PYTHONUNBUFFERED="")
    out, err = child.communicate(timeout=40)
    assert child.returncode == 0 and out == "", err
    behind, paused, said = json.loads(err.splitlines()[-1])
    assert reason in said and paused if reason else (behind, paused, said) == (0, False, None)
    assert manifest(runs / "p" / "run")["status"] == "finished"


FULL = """
import json, os, sys, time, asynctrack
ours, theirs = os.pipe()
os.dup2(theirs, 1)
run = asynctrack.init("p", id="run", dir=sys.argv[1], finish_timeout_s=0.5, backends=["jsonl", asynctrack.Console(every_s=0)])
longest = 0.0
for step in range(20_000):  # far more than the pipe holds, and nobody reads
    began = time.perf_counter()
    assert run.log({"loss": 1.0})
    longest = max(longest, time.perf_counter() - began)
began = time.monotonic()
run.finish()
sys.stderr.write(json.dumps([longest, time.monotonic() - began]))
"""


@pytest.mark.system
def test_terminal_that_is_held_holds_nothing_else(own_host: Path, runs: Path) -> None:
    child = start(FULL, runs)
    _, err = child.communicate(timeout=40)
    assert child.returncode == 0
    longest, finish_s = json.loads(err[err.rindex("[") :])
    assert longest < 2 and finish_s < 15
    wait_until(lambda: load_cursor(runs / "p" / "run", "jsonl").delivered == 20_000, "the other backend has all")


@pytest.mark.system
def test_killed_worker_is_followed_by_one_that_shows_the_rest(own_host: Path, runs: Path, capsys: Any) -> None:
    with asynctrack.init("p", dir=runs, backends=["jsonl", Console(every_s=0)]) as run:
        for step in range(50):
            run.log({"loss": 1.0}, step=step)
        run.flush("delivered")
        os.kill(the_worker(own_host), signal.SIGKILL)
        for step in range(50, 100):
            run.log({"loss": 1.0}, step=step)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step=")]
    steps = [int(line[5:9]) for line in said]
    assert list(dict.fromkeys(steps)) == list(range(100))


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_resumed_run_shows_what_is_new(own_host: Path, runs: Path, capsys: Any, worker: Any) -> None:
    for session in range(2):
        with asynctrack.init(
            "p", id="run", dir=runs, resume="allow", worker=worker, backends=["jsonl", Console(every_s=0)]
        ) as run:
            run.log({"session": session})
    first, second = (["=== p/run", f"step=   {session} | session={session}", "=== finished"] for session in range(2))
    assert capsys.readouterr().out.splitlines() == first + second


KILLED = """
import os, signal, sys, asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1], backends=["jsonl", asynctrack.Console(every_s=0)])
for step in range(200):
    run.log({"loss": 1.0}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.system
def test_killed_process_leaves_nothing_that_waits_for_it(own_host: Path, runs: Path) -> None:
    child = start(KILLED, runs)
    child.communicate(timeout=30)
    path = runs / "p" / "run"
    wait_until(lambda: ended(path) and load_cursor(path, "console").closed, "all is delivered")
    cursor = load_cursor(path, "console")
    assert cursor.delivered + cursor.skipped.get(GONE, 0) == 200 and cursor.skipped[GONE] > 0


FORKS = """
import os, sys, asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1], backends=["jsonl", asynctrack.Console(every_s=0)])
run.log({"parent": 1})
run.flush("delivered")
if not os.fork():
    run.log({"child": 1})
    os._exit(0)
os.wait()
run.log({"parent": 2})
run.finish()
"""


@pytest.mark.system
def test_forked_childs_records_are_shown_by_its_parent(own_host: Path, runs: Path) -> None:
    child = start(FORKS, runs)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    cells = [line.split(" | ")[1] for line in out.splitlines() if line.startswith("step=")]
    assert sorted(cells) == ["child=1", "parent=1", "parent=2"]


CELL = """
import asynctrack
with asynctrack.init("p", dir={runs!r}, backends=[asynctrack.Console(every_s=0)]) as run:
    run.log({{"loss": 0.5}}, step=7)
"""


@pytest.mark.system
def test_notebook_shows_lines_below_the_cell_that_opened_the_run(
    own_host: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    notebook = Notebook()
    try:
        said = notebook.run(CELL.format(runs=str(runs)))
    finally:
        notebook.close()
    title, line, end = said.splitlines()
    assert title.startswith("=== p/") and line == "step=   7 | loss=0.5000" and end == "=== finished"
