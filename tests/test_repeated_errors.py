"""A mistake in a user's own backend is shown with its traceback, left to its user after ten tries, and holds nobody up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import asynctrack
from asynctrack.delivery.repeated_errors import RepeatedErrors
from asynctrack.delivery.retry_policy import MOST_REPEATS, classify_error
from asynctrack.journal.cursor import load_cursor

MODULE = """
import asynctrack
from asynctrack.backends.base import Backend, Sink

class Mine(Backend, frozen=True, kw_only=True, tag="mine"):
    execution = {execution!r}
    def open(self, context):
        return Wrong()

class Wrong(Sink):
    def write(self, batch):
        for record in batch.records:
            self.take(record.data)
    def take(self, data):
        return data["there is no such key"]
"""
SCRIPT = """
import sys, time
import asynctrack
from mine import Mine
began = time.monotonic()
run = asynctrack.init("p", id="a", dir=sys.argv[1], backends=["jsonl", Mine()], after_exit_max_s=5.0)
for i in range(10):
    run.log({"i": i})
run.finish()
print(time.monotonic() - began)
"""


def train(folder: Path, execution: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(MODULE.format(execution=execution))
    (folder / "train.py").write_text(SCRIPT)
    return subprocess.run([sys.executable, "train.py", "runs"], cwd=folder, timeout=50, capture_output=True, text=True)


@pytest.mark.system
@pytest.mark.parametrize("execution", ["caller", "worker", "process"])
def test_mistake_in_a_users_backend_holds_nobody_up_and_shows_its_traceback(
    own_host: Path, tmp_path: Path, execution: str
) -> None:
    done = train(tmp_path, execution)
    assert done.returncode == 0
    assert float(done.stdout) < 15, done.stderr
    run = tmp_path / "runs" / "p" / "a"
    said = done.stderr if execution == "caller" else (run / "worker.log").read_text()
    assert said.count("Traceback") == 1, said
    assert 'return data["there is no such key"]' in said and "KeyError" in said
    assert "10 records are not yet at mine" in done.stderr
    cursor = load_cursor(run, "mine")
    assert cursor.paused
    assert cursor.last_error is not None and "(mine.py, line 15)" in cursor.last_error
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 10


def failed_at_once(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("x"), RuntimeError("x"), ValueError("x")], ids=lambda error: type(error).__name__
)
def test_error_that_comes_ten_times_the_same_way_is_left_to_a_person(error: Exception) -> None:
    repeats, verdicts, traces = RepeatedErrors(), [], []
    for number in range(1, MOST_REPEATS + 3):
        again = failed_at_once(type(error)(f"in record {number}"))
        traces.append(repeats.add(again))
        verdicts.append(classify_error(again, number, repeats.count).paused)
    assert traces[0] is not None and "Traceback" in traces[0]
    assert traces[1:] == [None] * (MOST_REPEATS + 1)  # once is enough
    assert verdicts == [False] * (MOST_REPEATS - 1) + [True] * 3


def test_error_that_a_backend_keeps_and_raises_again_is_the_same() -> None:
    repeats, kept = RepeatedErrors(), KeyError("x")
    for _ in range(MOST_REPEATS + 1):
        repeats.add(failed_at_once(kept))
    assert repeats.count >= MOST_REPEATS


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "x"), TimeoutError("x"), asynctrack.Retry("x")])
def test_what_may_pass_is_tried_for_as_long_as_it_takes(error: Exception) -> None:
    repeats = RepeatedErrors()
    for number in range(1, 100):
        assert repeats.add(failed_at_once(error)) is None
        assert not classify_error(error, number, repeats.count).paused


def test_success_in_between_counts_anew() -> None:
    repeats = RepeatedErrors()
    for _ in range(100):
        repeats.add(failed_at_once(KeyError("x")))
        repeats.forget()
    assert repeats.count == 0
