"""A mistake in a user's own backend is shown with its traceback, left to its user after ten tries, and holds nobody up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import DEADLINE_S

import asynctrack
from asynctrack import Backend
from asynctrack._system import messages
from asynctrack.delivery.failures import Failures
from asynctrack.delivery.reports import Reports
from asynctrack.delivery.retry_policy import MOST_REPEATS, classify_error
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.layout import Position

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
run = asynctrack.init("p", id="a", dir=sys.argv[1], backends=["jsonl", Mine()], after_exit_max_s=0.5)
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
def test_error_that_comes_ten_times_the_same_way_is_left_to_a_person(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    failures, reports, decisions = Failures(), Reports(tmp_path, "mine", Backend()), []
    for number in range(1, MOST_REPEATS + 3):
        again = failed_at_once(type(error)(f"in record {number}"))
        failures = failures.add(again)
        decisions.append(classify_error(again, failures.count, failures.repeats))
        reports.fail(again, failures, decisions[-1])
    assert [decision.paused for decision in decisions] == [False] * (MOST_REPEATS - 1) + [True] * 3
    messages.leave(DEADLINE_S)  # where an earlier test of this process has opened a run, a thread says them
    said = [record.getMessage() for record in caplog.records]
    assert ["Traceback" in text for text in said] == [True, False]  # once is enough
    assert f"it has failed {MOST_REPEATS} times the same way" in said[1]


def test_error_that_a_backend_keeps_and_raises_again_is_the_same() -> None:
    failures, kept = Failures(), KeyError("x")
    for _ in range(MOST_REPEATS + 1):
        failures = failures.add(failed_at_once(kept))
    assert failures.repeats >= MOST_REPEATS


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "x"), TimeoutError("x"), asynctrack.Retry("x")])
def test_what_may_pass_is_tried_for_as_long_as_it_takes(error: Exception) -> None:
    failures = Failures()
    for _ in range(1, 100):
        failures = failures.add(failed_at_once(error))
        assert failures.trace is None
        assert not classify_error(error, failures.count, failures.repeats).paused


def test_another_error_in_between_counts_anew() -> None:
    failures = Failures()
    for _ in range(100):
        failures = failures.add(failed_at_once(KeyError("x"))).add(asynctrack.Retry("later"))
    assert (failures.count, failures.repeats) == (200, 0)


def test_request_for_the_whole_run_in_between_does_not_hide_a_mistake() -> None:
    failures = Failures()
    for _ in range(MOST_REPEATS):
        failures = failures.add(failed_at_once(KeyError("x"))).add_resend(Position())
    assert failures.repeats == MOST_REPEATS
