"""A process that becomes another user, or sees another file system, while it logs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import wait_until, workers

from asynctrack import open_run
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import fresh_ring_path, make_host_directory, remove_host

SCRIPT = """
import asynctrack, os, sys
run = asynctrack.init("p", id="a", dir=sys.argv[1])
for i in range(50):
    assert run.log({"i": i})
run.flush()
%s
for i in range(50, 100):
    assert run.log({"i": i})
for stats in (run.stats(), run.flush(), run.finish()):
    assert (stats.accepted, stats.journaled + stats.queued, stats.dropped) == (100, 100, {}), stats
    assert not stats.backends["jsonl"].known, stats
assert stats.journaled == 100
"""
CHANGES = {
    "chroot": "os.chdir(sys.argv[2]); os.chroot('.')",
    "setuid": "os.setuid(65534)",
    "both": "os.chdir(sys.argv[2]); os.chroot('.'); os.setuid(65534)",
    "moved": "os.rename(sys.argv[1], sys.argv[1] + '-moved')",
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, marks=mark)
        for mark, changes in ((pytest.mark.system, ["chroot", "setuid"]), (pytest.mark.slow, ["both", "moved"]))
        for change in changes
    ],
)
def test_statistics_are_right_or_said_to_be_unknown_for_who_sees_the_run_no_more(
    change: str, own_host: Path, runs: Path, tmp_path: Path
) -> None:
    if os.geteuid() and change != "moved":
        pytest.skip("only root may do that")
    (tmp_path / "empty").mkdir()
    runs.mkdir(mode=0o700)
    command = [sys.executable, "-c", SCRIPT % CHANGES[change], str(runs), str(tmp_path / "empty")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("the statistics cannot be read", done.stderr)) == 1
    if change != "moved":
        wait_until(lambda: not workers(own_host), "the worker has left")
        assert [record.data["i"] for record in open_run(runs / "p" / "a").records()] == list(range(100))
        assert open_run(runs / "p" / "a").status == "finished"


@pytest.mark.system
def test_queue_that_no_worker_has_looked_at_has_no_time_of_a_look(own_host: Path, runs: Path) -> None:
    host = make_host_directory(str(own_host))
    ring = Ring.create(fresh_ring_path(host), 1 << 16, {"run": str(runs / "p" / "a")})
    command = [sys.executable, "-m", "asynctrack", "workers"]
    script = "import asynctrack.worker.listing as c; print([q.looked_at_s for w in c.list_workers() for q in w.queues])"
    try:
        seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    finally:
        ring.unlink()
        ring.close()
        remove_host(host)
    assert seen.stdout == "[None]\n", seen.stderr
    assert "ago" not in said.stdout
