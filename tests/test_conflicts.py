"""What two writers of a run set to different values is said once, and so is which of them have failed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import manifest, run_child, start, wait_until

import asynctrack

pytestmark = pytest.mark.usefixtures("version")

SETS = """
import sys, asynctrack
run = asynctrack.attach(sys.argv[1], writer="other")
run.config["lr"] = 0.2
run.config["same"] = [1, 2]
run.summary["best"] = float("nan")
run.summary["worst"] = 2
run.log_artifact(asynctrack.__file__, "code")  # each process keeps its own
run.finish()
"""


def test_name_that_two_writers_set_differently_is_said_once(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = asynctrack.init("p", dir=runs, writer="first")
    run.config.update(lr=0.1, same=[1, 2], mine=1)
    run.summary.update(best=float("nan"), worst=1)
    run.log_artifact(__file__, "code")
    run.flush("journaled")
    run_child(SETS, run.path)
    run.config["mine"] = 2
    run.finish()
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert said.count("asynctrack:") == 1, said
    assert (
        "config['lr'] was set to different values by first and other, summary['worst'] was set to different values by first and other; the last counts"
        in said
    )
    found = manifest(run.path)
    assert (found["config"]["lr"], found["summary"]["worst"]) == (0.2, 2)
    assert [(one["what"], one["key"], one["writers"]) for one in found["conflicts"]] == [
        ("config", "lr", ["first", "other"]),
        ("summary", "worst", ["first", "other"]),
    ]
    assert (run.path / "worker.log").read_text().count("was set to different values") == 2


def test_what_init_was_given_as_config_counts_as_set(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = asynctrack.init("p", dir=runs, writer="first", config={"lr": 0.1, "same": [1, 2]})
    run.flush("journaled")
    run_child(SETS, run.path)
    run.finish()
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert said.count("config['lr'] was set to different values by first and other") == 1
    assert [(one["key"], one["writers"]) for one in manifest(run.path)["conflicts"]] == [("lr", ["first", "other"])]


def test_config_of_an_earlier_session_is_replaced_without_a_word(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asynctrack.init("p", id="r", dir=runs, config={"lr": 0.1}).finish()
    run = asynctrack.init("p", id="r", dir=runs, resume="must", writer="first")
    run_child(SETS, run.path)
    run.finish()
    assert (run.config["lr"], manifest(run.path)["config"]["lr"]) == (0.1, 0.2)
    assert manifest(run.path).get("conflicts", []) == []


@pytest.mark.system
def test_finish_names_the_processes_that_have_failed(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = """
import sys, asynctrack
run = asynctrack.attach(sys.argv[1], writer=sys.argv[2])
run.log({"a": 1})
run.flush("journaled")
print(flush=True)
sys.stdin.readline()
raise ValueError("no data")
"""
    run = asynctrack.init("p", dir=runs)
    failing, killed, ended = (start(script, run.path, name) for name in ("failing", "killed", "ended"))
    for child in (failing, killed, ended):
        child.stdout.readline()  # type: ignore[union-attr]
    os.kill(killed.pid, signal.SIGKILL)
    ended.terminate()  # as a pool does
    for child in (failing, killed, ended):
        child.communicate("\n")
    wait_until(
        lambda: {one.status for one in run.writers.values()} >= {"failed", "crashed", "terminated"}, "it is known"
    )
    run.finish()
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert said.count("asynctrack:") == 1, said
    assert "2 other processes that write to it have not ended well: " in said
    assert f"failing (process {failing.pid}) failed (ValueError: no data)" in said
    assert f"killed (process {killed.pid}) crashed (killed by SIGKILL)" in said
