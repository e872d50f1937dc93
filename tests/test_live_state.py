"""A reader says what has become of a run as the commands do: "lost" where nobody is left who could end it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support import DEADLINE_S, manifest, start, the_worker, wait_until, workers

import asynctrack
from asynctrack import cli

pytestmark = pytest.mark.usefixtures("version")

OWNER = """
import sys, time, asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1])
run.log({"a": 1})
run.flush("journaled")
print(flush=True)
time.sleep(60)
"""


@pytest.mark.system
def test_run_whose_process_and_worker_are_dead_is_lost_until_another_worker_ends_it(
    own_host: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = start(OWNER, runs)
    owner.stdout.readline()  # type: ignore[union-attr]
    reader = asynctrack.open_run(runs / "p" / "run")
    assert reader.status == "running"
    the_worker(own_host)
    wait_until(lambda: any(manifest(reader.path)["position"]), "`run.json` tells of what is in the journal")
    for pid in (owner.pid, *workers(own_host)):
        os.kill(pid, signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: reader.status == "lost", "both are dead, and have let go of their locks")
    assert reader.manifest().status == "running"
    cli.main(["ls", "--json", str(runs)])
    assert [run["status"] for run in json.loads(capsys.readouterr().out)] == ["lost"]
    found = manifest(reader.path)
    (reader.path / "run.json").write_text(
        json.dumps({**found, "environment": {**found["environment"], "host": "another"}})
    )
    assert reader.status == "running"  # from here nobody can tell
    (reader.path / "run.json").write_text(json.dumps(found))
    asynctrack.init("q", dir=runs).finish()  # whose worker takes the queue of the other
    wait_until(lambda: reader.status == "crashed", "the worker has said how it ended")


@pytest.mark.system
def test_run_whose_process_dies_while_its_worker_starts_is_never_lost(own_host: Path, runs: Path) -> None:
    """The worker takes its lock some 20 ms after it was started; until then only the process itself tells of it."""
    script = OWNER.replace('run.flush("journaled")\n', "").replace('id="run"', "id=sys.argv[2]")
    for number in range(8):
        owner = start(script, runs, f"run{number}")
        owner.stdout.readline()  # type: ignore[union-attr]
        owner.kill()
        owner.communicate()
        reader, deadline = asynctrack.open_run(runs / "p" / f"run{number}"), time.monotonic() + DEADLINE_S
        while (status := reader.status) == "running":
            assert time.monotonic() < deadline
        assert status == "crashed"
