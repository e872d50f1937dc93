"""What `asynctrack sync` says of what is missing: by name, with the way out, and with an exit code that is 0 only when nothing is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import left_in, lines, start, values, wait_until, workers
from test_sync import command, said

import asynctrack
from asynctrack.testing import Scripted, Trouble, taken

# A script of a user's with a backend of his own, which cannot write while a file says so.
MODULE = """
import os, pathlib
import asynctrack
from asynctrack.backends.base import Backend, Sink

class Mine(Backend, frozen=True, kw_only=True):
    target: str = "mine.txt"
    def open(self, context):
        return Lines(context.directory, self.target)

class Lines(Sink):
    def __init__(self, directory, target):
        self.directory, self.target = directory, target
    def write(self, batch):
        if (self.directory / "broken").exists():
            raise LookupError("it is broken")
        with open(self.directory / self.target, "a") as file:
            file.writelines(f"{record.data['i']}\\n" for record in batch.records)
"""
SCRIPT = """
import sys
from {module} import *

def main(runs):
    run = asynctrack.init("p", id="a", dir=runs, backends=["jsonl", Mine({settings})], finish_timeout_s=0.2)
    for i in range(10):
        run.log({{"i": i}})
    run.flush(timeout_s=20)
    (run.path / "broken").touch()
    for i in range(10, 20):
        run.log({{"i": i}})
    run.finish()

if __name__ == "__main__":
    main(sys.argv[1])
"""
RESUMED = """
import os, signal, sys
import asynctrack, asynctrack.client.host_worker
asynctrack.client.host_worker.HostWorker.start = lambda self: None  # its worker dies before it has taken anything
run = asynctrack.init("p", id="a", dir=sys.argv[1], resume="must")
assert all(run.log({"i": i}) for i in range(3, 103))
os.kill(os.getpid(), signal.SIGKILL)
"""


def train(folder: Path, *, in_script: bool, settings: str = "") -> Path:
    """Run the script in its folder; the run, whose backend has half of it."""
    folder.mkdir()
    if in_script:
        (folder / "train.py").write_text(MODULE + SCRIPT.format(module="asynctrack", settings=settings))
    else:
        (folder / "mine.py").write_text(MODULE)
        (folder / "train.py").write_text(SCRIPT.format(module="mine", settings=settings))
    subprocess.run([sys.executable, "train.py", folder / "runs"], cwd=folder, timeout=40, capture_output=True)
    run = folder / "runs" / "p" / "a"
    assert mine(run) == list(range(10))
    (run / "broken").unlink()
    return run


def mine(run: Path, file: str = "mine.txt") -> list[int]:
    return [int(line) for line in (run / file).read_text().split()]


def in_folder(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`asynctrack` as it is installed, which has the folder not among its import paths."""
    script = "import sys; from asynctrack.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=40,
    )


@pytest.mark.system
@pytest.mark.parametrize("in_script", [True, False], ids=["script", "module"])
def test_own_backend_that_is_behind_is_named_and_delivered_by_its_class(
    own_host: Path, tmp_path: Path, in_script: bool
) -> None:
    run = train(tmp_path / "code", in_script=in_script)
    path = "train.Mine" if in_script else "mine.Mine"
    told = in_folder(tmp_path, "sync", run)
    assert told.returncode == 1, told.stdout
    assert "p/a: Mine: 10 records are missing" in told.stdout
    assert f"cd {tmp_path / 'code'} && asynctrack sync {run} --to {path}" in told.stdout.replace("\n", "")
    done = in_folder(tmp_path / "code", "sync", run, "--to", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mine(run) == list(range(20))  # from where it was
    again = in_folder(tmp_path, "sync", run)
    assert (again.returncode, "1 run is complete" in again.stdout) == (0, True), again.stdout


@pytest.mark.system
def test_own_backend_is_delivered_by_itself_where_it_can_be_imported(
    own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path / "code", in_script=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    report = said("sync", run)
    assert [(done["state"], done["missing"]) for done in report["runs"]] == [("done", {})]
    assert mine(run) == list(range(20))


@pytest.mark.system
def test_own_backend_with_settings_is_delivered_with_those_that_are_given(
    own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path / "code", in_script=False, settings="target='mine.txt', max_records_s=1e6")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    report = said("sync", run, code=1)
    assert "with settings of its own" in report["runs"][0]["missing"]["Mine"]
    assert "1000000" not in (run / "run.json").read_text()  # they may be anything, a key too
    said("sync", run, "--to", "mine.Mine", "max_records_s=1e5")
    assert mine(run) == list(range(20))


@pytest.mark.system
def test_library_that_one_more_backend_lacks_is_named_once_for_all_runs(own_host: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with asynctrack.init("p", dir=tmp_path / "runs") as run:
            run.log({"i": 1})
    needs = '    needs = {"no_such_library": "asynctrack[no_such_extra]"}\n'
    (tmp_path / "mine.py").write_text(MODULE.replace('    target: str = "mine.txt"\n', needs))
    told = in_folder(tmp_path, "sync", tmp_path / "runs", "--to", "mine.Mine")
    assert (told.returncode, told.stdout) == (1, "")
    expected = "backend 'mine.Mine' cannot be opened: it needs no_such_library, which is not installed: pip install 'asynctrack[no_such_extra]'"
    assert told.stderr == f"asynctrack: {expected}\n"


@pytest.mark.system
def test_code_of_a_caller_that_somebody_else_names_is_not_run(
    own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path / "code", in_script=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user's"))
    assert "sync --trust" in said("sync", run, code=1)["runs"][0]["missing"]["Mine"]
    assert mine(run) == list(range(10))


KILLED = """
import os, signal, sys
from mine import *
run = asynctrack.init("p", id="a", dir=sys.argv[1], backends=["jsonl", Mine(target="mine.txt")])
for i in range(10):
    run.log({"i": i})
run.flush(timeout_s=20)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.system
def test_own_backend_of_a_killed_run_that_has_every_record_is_missing_nothing_and_can_be_closed(
    own_host: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    closes = """
    def close(self, outcome):
        if outcome != "stopped":
            (self.directory / "closed").write_text(outcome)
"""
    (folder / "mine.py").write_text(MODULE + closes)
    subprocess.run([sys.executable, "-c", KILLED, folder / "runs"], cwd=folder, timeout=40)
    run = folder / "runs" / "p" / "a"
    wait_until(lambda: not workers(own_host), "the worker has left")
    told = in_folder(tmp_path, "sync", run)
    assert (told.returncode, "1 run is complete" in told.stdout) == (0, True), told.stdout
    assert "behind" not in in_folder(tmp_path, "ls", folder / "runs").stdout
    assert in_folder(folder, "sync", run, "--to", "mine.Mine").returncode == 0
    assert (mine(run), (run / "closed").read_text()) == (
        list(range(10)),
        "crashed",
    )  # the original's end, nothing twice


def left_behind(runs: Path, *troubles: Trouble, id: str = "a", **settings: Any) -> Path:
    """A run whose worker has given up on a backend."""
    with asynctrack.init(
        "p", id=id, dir=runs, backends=["jsonl", Scripted(troubles=troubles, **settings)], after_exit_max_s=0.0,
        finish_timeout_s=0.2,
    ) as run:  # fmt: skip
        for i in range(3):
            run.log({"i": i})
    return run.path


@pytest.mark.system
def test_what_only_a_person_can_mend_ends_sync_at_once(own_host: Path, runs: Path) -> None:
    run = left_behind(runs, Trouble(does="pause", times=None, until="mended"))
    wait_until(lambda: not workers(own_host), "the worker has left")
    began = time.monotonic()
    told = command("sync", run, "--patience-s", 60)
    assert time.monotonic() - began < 20
    assert told.returncode == 1
    assert "p/a: Scripted: 3 records are missing" in told.stdout
    assert "fix that, and sync again" in told.stdout
    (run / "mended").touch()
    assert command("sync", run).returncode == 0
    assert len(taken(run)) == 3


@pytest.mark.system
def test_backend_that_waits_for_a_person_does_not_hold_up_one_more(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", id="a", dir=runs) as run:
        run.log({"i": 1})
    (run.path / "metrics.csv").mkdir()
    began = time.monotonic()
    told = command(
        "sync", run.path, "--to", "asynctrack.testing.scripted.Scripted", 'troubles=[{"does": "pause", "times": null}]'
    )
    assert time.monotonic() - began < 20
    assert (told.returncode, "1 record is missing" in told.stdout) == (1, True), told.stdout


@pytest.mark.system
def test_dead_server_has_a_bounded_patience_and_is_named(own_host: Path, runs: Path) -> None:
    run = left_behind(runs, Trouble(does="fail", times=None))
    wait_until(lambda: not workers(own_host), "the worker has left")
    began = time.monotonic()
    told = command("sync", run, "--patience-s", 1)
    assert time.monotonic() - began < 20
    assert told.returncode == 1
    assert "ConnectionRefusedError" in told.stdout and "--patience-s" in told.stdout


@pytest.mark.system
def test_servers_that_are_away_keep_no_other_run_from_its_turn(own_host: Path, runs: Path) -> None:
    for number in range(10):
        left_behind(runs, Trouble(does="fail", times=None, until="mended"), id=f"z{number}")  # the newest come first
    wait_until(lambda: not workers(own_host), "the worker has left")
    healthy = runs / "p" / "z0"
    (healthy / "mended").touch()
    report = said("sync", runs, "--patience-s", 4, code=1)
    states = {Path(done["path"]).name: done["state"] for done in report["runs"]}
    assert states == {"z0": "done"} | {f"z{number}": "behind" for number in range(1, 10)}
    assert len(taken(healthy)) == 3


@pytest.mark.system
@pytest.mark.parametrize("name_it", ["run", "directory", "nothing"])
def test_queue_of_a_finished_run_that_went_on_is_recovered(own_host: Path, runs: Path, name_it: str) -> None:
    with asynctrack.init("p", id="a", dir=runs) as run:
        for i in range(3):
            run.log({"i": i})
    wait_until(lambda: not workers(own_host), "the worker has left")
    start(RESUMED, runs).communicate()
    arguments = {"run": [run.path], "directory": [runs], "nothing": []}[name_it]
    report = said("sync", *arguments)
    assert [done["stats"]["journaled"] for done in report["runs"]] == [103]
    assert values(run.path, "i") == [line["i"] for line in lines(run.path)] == list(range(103))
    assert not left_in(own_host)


@pytest.mark.system
@pytest.mark.parametrize("damage", ["none", "run.json", "journal"])
def test_queue_is_recovered_whatever_state_the_directory_is_in(own_host: Path, runs: Path, damage: str) -> None:
    with asynctrack.init("p", id="a", dir=runs) as run:
        for i in range(3):
            run.log({"i": i})
    wait_until(lambda: not workers(own_host), "the worker has left")
    start(RESUMED, runs).communicate()
    if damage == "run.json":
        (run.path / "run.json").write_text("{")
    elif damage == "journal":
        next((run.path / "journal").glob("*")).write_bytes(b"")
    command("sync", run.path)
    assert values(run.path, "i")[-100:] == list(range(3, 103))
    assert not left_in(own_host)


@pytest.mark.system
@pytest.mark.parametrize("name_it", ["run", "directory", "nothing"])
def test_queue_whose_directory_has_gone_is_told(own_host: Path, runs: Path, name_it: str) -> None:
    with asynctrack.init("p", id="a", dir=runs) as run:
        run.log({"i": 0})
    wait_until(lambda: not workers(own_host), "the worker has left")
    start(RESUMED, runs).communicate()
    moved = run.path.with_name("moved")
    run.path.rename(moved)
    arguments = {"run": [run.path], "directory": [runs], "nothing": []}[name_it]
    told = command("sync", *arguments)
    assert told.returncode == 1
    assert f"{run.path} does not exist any more" in told.stderr
    moved.rename(run.path)
    assert command("sync", *arguments).returncode == 0
    assert values(run.path, "i")[1:] == list(range(3, 103))


@pytest.mark.system
def test_backend_from_elsewhere_that_does_not_have_all_is_not_complete(
    own_host: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = left_behind(runs, Trouble(does="pause", times=None))
    wait_until(lambda: not workers(own_host), "the worker has left")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user's"))
    report = said("sync", run, code=1)
    assert "--trust" in report["runs"][0]["missing"]["Scripted"]


@pytest.mark.system
def test_ls_marks_what_is_behind_and_says_why(own_host: Path, runs: Path) -> None:
    left_behind(runs, Trouble(does="pause", times=None))
    asynctrack.init("p", id="whole", dir=runs).finish()
    wait_until(lambda: not workers(own_host), "the worker has left")
    told = command("ls", runs)
    rows = {line.split()[0]: line for line in told.stdout.splitlines() if line.startswith("p/")}
    assert "finished !" in rows["p/a"] and "!" not in rows["p/whole"], told.stdout
    (hint,) = [line for line in told.stdout.splitlines() if line.startswith("! behind: p/a: ")]
    assert "Scripted" in hint and "`asynctrack sync`" in hint
